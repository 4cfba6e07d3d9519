//! `replay`: starts a replay on a running node, watches it, and prints the report.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::args::{self, Selection};
use super::client::Client;
use super::table::{columns, printable};
use super::{DIFFERENT, say};

/// How often a running replay is looked at.
const POLL: Duration = Duration::from_millis(200);
/// How many groups of differences are printed; `--json` has them all.
const MAX_GROUPS: usize = 20;

pub(super) async fn run(args: &args::Replay) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api)?;
    let started = client.post("/api/replays", &request(args)?).await?;
    let id = started["id"].as_str().context("the API gave no id")?.to_owned();
    let report = watch(&client, &id).await?;
    if args.api.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    let clean = count("different") + count("failed") == 0;
    Ok(if args.fail_on_difference && !clean { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS })
}

fn request(args: &args::Replay) -> anyhow::Result<Value> {
    let mut request = json!({ "target": args.target, "concurrency": args.concurrency });
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

fn print(report: &Value) {
    let text = |key: &str| printable(report[key].as_str().unwrap_or("-"));
    let count = |key: &str| report[key].as_u64().unwrap_or(0);
    say(&format!("replay {} against {}: {}", text("id"), text("target"), text("state")));
    say(&format!(
        "{} sent: {} same, {} different, {} failed, {} skipped",
        count("sent"), count("same"), count("different"), count("failed"), count("skipped"),
    ));
    let groups = report["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let differing: Vec<&Value> =
        groups.iter().filter(|g| g["differences"].as_array().is_some_and(|d| !d.is_empty())).collect();
    let mut rows = Vec::new();
    for group in differing.iter().take(MAX_GROUPS) {
        let endpoint = printable(group["endpoint"].as_str().unwrap_or("-"));
        for difference in group["differences"].as_array().into_iter().flatten() {
            rows.push(vec![
                format!("  {endpoint}"),
                printable(difference["path"].as_str().unwrap_or("-")),
                format!("{}x", difference["count"].as_u64().unwrap_or(0)),
                example(difference),
            ]);
        }
    }
    columns(&rows).iter().for_each(|line| say(line));
    if differing.len() > MAX_GROUPS {
        say(&format!("  … and {} endpoints more: --json has them", differing.len() - MAX_GROUPS));
    }
}

/// `recorded -> replayed` of the first example.
fn example(difference: &Value) -> String {
    let first = &difference["examples"][0];
    let side = |key: &str| match &first[key] {
        Value::String(text) => printable(text),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    };
    format!("{} -> {}", side("recorded"), side("replayed"))
}
