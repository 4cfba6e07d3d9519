//! Running a node until it is told to stop.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::Standalone;
use super::say;
use crate::app::App;
use crate::config::{self, Environment, Settings};
use crate::telemetry;

/// A configuration that cannot be used; ends with the exit code for wrong usage.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Misconfigured(#[from] config::Problems);

/// `qproxy`: what the file describes.
pub(super) async fn from_file(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let path = path.unwrap_or(Path::new(config::DEFAULT_PATH));
    let settings = config::load(path, &Environment::of_process()).map_err(Misconfigured)?;
    serve(settings).await
}

/// `qproxy config check FILE`.
pub(super) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let good = config::check(path, &Environment::of_process()).map_err(Misconfigured)?;
    say(&good);
    Ok(ExitCode::SUCCESS)
}

/// `qproxy standalone`.
pub(super) async fn standalone(args: &Standalone) -> anyhow::Result<ExitCode> {
    let mut http = address("--listen", &args.listen)?;
    http["downstream"] = args.upstream.as_str().into();
    let typed = json!({
        "mode": "Standalone",
        "http": http,
        "playback": { "http": address("--answer", &args.answer)? },
        "api": address("--api", &args.api)?,
        "broker": address("--broker", &args.broker)?,
        "store": { "path": args.data },
    });
    serve(settings(&typed)?).await
}

/// Settings from what a command puts together.
pub(super) fn settings(typed: &Value) -> anyhow::Result<Settings> {
    let parsed = config::parse(&typed.to_string(), &Environment::of_process());
    Ok(parsed.map_err(Misconfigured)?)
}

/// `HOST:PORT` as the configuration has it.
fn address(option: &str, text: &str) -> anyhow::Result<Value> {
    let split = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let (host, port) = split.with_context(|| format!("{option} {text}: HOST:PORT is wanted"))?;
    let port: u16 = port
        .parse()
        .with_context(|| format!("{option} {text}: `{port}` is no port"))?;
    Ok(json!({ "host": host.trim_matches(['[', ']']), "port": port }))
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    start_logging("info")?;
    // Before anything is started, so that a signal during the start is not lost.
    let stop = stop_signal()?;
    let app = App::start(settings).await?;
    for listening in app.listening() {
        say(&listening.to_string());
    }
    say("ready");
    stop.await;
    tracing::info!("stopping");
    app.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Logs, by default from `level` on, and the process-wide TLS provider.
pub(super) fn start_logging(level: &str) -> anyhow::Result<()> {
    let mut logs = telemetry::Config::from_env()?;
    if std::env::var_os("QPROXY_LOG")
        .or(std::env::var_os("RUST_LOG"))
        .is_none()
    {
        level.clone_into(&mut logs.filter);
    }
    telemetry::init(&logs)?;
    // An error says that there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(())
}

/// Resolves at SIGINT or SIGTERM.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("could not watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not watch for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
