//! `backup`.

use std::process::ExitCode;

use serde_json::Value;

use super::args::Api;
use super::client::Client;
use super::table::printable;
use super::{say, say_json};

pub(super) async fn make(api: &Api) -> anyhow::Result<ExitCode> {
    let made = Client::new(api)?.post("/api/backups", &Value::Null).await?;
    if api.json {
        say_json(&made)?;
    } else {
        say(&printable(made["path"].as_str().unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}
