//! `replay`: starts a replay on a running node, watches it, and prints the report.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::args::{self, Selection};
use super::client::Client;
use super::table::printable;
use super::{DIFFERENT, say, say_json};

/// How often a running replay is looked at.
const POLL: Duration = Duration::from_millis(200);

pub(super) async fn run(args: &args::Replay) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let started = client.post("/api/replays", &request(args)?).await?;
    let id = started["id"]
        .as_str()
        .context("the API gave no id")?
        .to_owned();
    let report = watch(&client, &id).await?;
    if args.api.json {
        say_json(&report)?;
    } else {
        print(&report);
    }
    let count = |name: &str| report["totals"][name].as_u64().unwrap_or(0);
    let clean = report["state"] == "finished" && count("different") + count("failed") == 0;
    Ok(if args.fail_on_difference && !clean {
        ExitCode::from(DIFFERENT)
    } else {
        ExitCode::SUCCESS
    })
}

fn request(args: &args::Replay) -> anyhow::Result<Value> {
    let mut request = json!({
        "target": args.target,
        "concurrency": args.concurrency,
        "keep_host": args.keep_host,
        "ignore_headers": args.ignore_header,
        "ignore_json": args.ignore_json,
        "ignore_bytes": args.ignore_bytes,
    });
    request["speed"] = match args.speed.as_str() {
        "max" => "max".into(),
        factor => match factor.parse::<f64>() {
            Ok(factor) => factor.into(),
            Err(_) => bail!("--speed {factor}: say `max` or a factor such as 0.5"),
        },
    };
    let Selection { start, end, .. } = &args.selection;
    for (key, value) in [("start", start), ("end", end)] {
        if let Some(value) = value {
            request[key] = value.as_str().into();
        }
    }
    let filter: Map<String, Value> = args
        .selection
        .parameters()
        .into_iter()
        .filter(|(name, _)| !matches!(*name, "start" | "end"))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    if !filter.is_empty() {
        request["filter"] = filter.into();
    }
    Ok(request)
}

/// Waits for the end; an interrupt cancels the replay on the node and ends with what is there.
async fn watch(client: &Client, id: &str) -> anyhow::Result<Value> {
    let path = format!("/api/replays/{id}");
    loop {
        let report = client.get(&path, &[]).await?;
        if report["state"] != "running" {
            return Ok(report);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = tokio::signal::ctrl_c() => client.delete(&path).await?,
        }
    }
}

/// The report as the node wrote it for terminals.
fn print(report: &Value) {
    let text = report["text"].as_str().unwrap_or("the node gave no report");
    text.lines().for_each(|line| say(&printable(line)));
}
