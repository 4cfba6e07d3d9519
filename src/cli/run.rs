//! Running a node until it is told to stop.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Standalone;
use super::{huge_pages, open_files, say};
use crate::app::{self, App};
use crate::config::{self, Environment, Settings};
use crate::telemetry;

/// A configuration that cannot be used; ends with the exit code for wrong usage.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Misconfigured(#[from] config::Problems);

/// An argument that cannot be used; ends with the same exit code.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadArgument(String);

/// `qproxy`: what the file describes.
pub(super) async fn from_file(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let path = path.unwrap_or(Path::new(config::DEFAULT_PATH));
    let settings = config::usable(path, &Environment::of_process()).map_err(Misconfigured)?;
    serve(settings).await
}

/// `qproxy config check FILE`.
pub(super) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    let good = config::check(path, &environment).map_err(Misconfigured)?;
    let settings = config::usable(path, &environment).map_err(Misconfigured)?;
    app::check(&settings)?;
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
    let wrong = |why: &str| BadArgument(format!("{option} {text}: {why}"));
    let (host, port) = split.ok_or_else(|| wrong("HOST:PORT is wanted, such as 127.0.0.1:8080"))?;
    let port: u16 = port
        .parse()
        .map_err(|_| wrong(&format!("`{port}` is no port")))?;
    Ok(json!({ "host": host.trim_matches(['[', ']']), "port": port }))
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    start_logging("info")?;
    // Before anything is started, so that a signal during the start is not lost.
    let mut stop = Stop::watch()?;
    let app = tokio::select! {
        app = App::start(settings) => app?,
        // Nothing was captured yet: what the start holds is let go of.
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    for listening in app.listening() {
        say(&listening.to_string());
    }
    say("ready");
    stop.asked().await;
    tracing::info!("stopping; a second signal stops at once");
    Ok(stop.unless_asked_again(app.shutdown()).await)
}

/// Logs, by default from `level` on, and what is set once for the process: the TLS provider, the limit on open
/// files, and the size of pages.
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
    open_files::raise_limit();
    huge_pages::refuse();
    Ok(())
}

/// SIGINT and SIGTERM: the first asks for an end in order, the second for one at once.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Signals from now on are not lost.
    pub(super) fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("could not watch for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("could not watch for SIGTERM")?,
        })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs the end in order, which a further signal breaks off.
    pub(super) async fn unless_asked_again(&mut self, end: impl Future<Output = ()>) -> ExitCode {
        tokio::select! {
            () = end => ExitCode::SUCCESS,
            () = self.asked() => {
                tracing::warn!("stopped at once: what was in progress is cut off");
                ExitCode::FAILURE
            }
        }
    }
}
