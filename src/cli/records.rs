//! `records`, `show` and `status`.

use std::process::ExitCode;

use serde_json::Value;

use super::args::{Api, Records, Show};
use super::client::Client;
use super::table::{columns, printable};
use super::{say, say_json};

pub(super) async fn list(args: &Records) -> anyhow::Result<ExitCode> {
    let limit = args.limit.to_string();
    let mut parameters = args.selection.parameters();
    parameters.push(("limit", &limit));
    let page = Client::new(&args.api)?
        .get("/api/records", &parameters)
        .await?;
    if args.api.json {
        say_json(&page)?;
        return Ok(ExitCode::SUCCESS);
    }
    let records = page["records"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if records.is_empty() {
        say("no records");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        [
            "ID", "STARTED", "SERVICE", "METHOD", "STATUS", "MS", "TARGET",
        ]
        .map(String::from)
        .to_vec(),
    ];
    rows.extend(records.iter().map(row));
    columns(&rows).iter().for_each(|line| say(line));
    Ok(ExitCode::SUCCESS)
}

fn row(record: &Value) -> Vec<String> {
    let text = |key: &str| printable(record[key].as_str().unwrap_or("-"));
    let mut status = record["status"]
        .as_u64()
        .map_or_else(|| text("outcome"), |s| s.to_string());
    if let Some(lacking) = record["completeness"].as_str().filter(|c| *c != "complete") {
        status = format!("{status} {}", printable(lacking));
    }
    let millis = record["duration_us"].as_u64().unwrap_or(0) as f64 / 1000.0;
    let method = match text("method") {
        empty if empty.is_empty() => text("protocol"),
        method => method,
    };
    let cells = [text("id"), text("started"), text("service"), method, status];
    cells
        .into_iter()
        .chain([format!("{millis:.1}"), text("target")])
        .collect()
}

pub(super) async fn show(args: &Show) -> anyhow::Result<ExitCode> {
    let record = Client::new(&args.api)?
        .get(&format!("/api/records/{}", args.id), &[])
        .await?;
    say_json(&record)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(api: &Api) -> anyhow::Result<ExitCode> {
    let status = Client::new(api)?.get("/api/status", &[]).await?;
    say_json(&status)?;
    Ok(ExitCode::SUCCESS)
}
