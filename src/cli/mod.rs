//! The commands. Those that ask a running node go through its API, like any other client of it.

mod args;
mod client;
mod run;
mod open_files;
mod huge_pages;
mod demo;
mod shopping;
mod records;
mod backup;
mod replay;
mod table;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Command, ConfigCommand, KeyCommand};

/// The exit code where the command line or the configuration cannot be used.
const USAGE: u8 = 2;
/// The exit code where a replay found a difference and was asked to tell.
const DIFFERENT: u8 = 3;

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("could not start threads")),
    };
    let result = runtime.block_on(dispatch(args));
    // A blocking read of a slow disk must not hold up the end of the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result.unwrap_or_else(|error| fail(&error))
}

async fn dispatch(args: args::Args) -> anyhow::Result<ExitCode> {
    match args.command {
        None => run::from_file(args.config.as_deref()).await,
        Some(Command::Run) => run::from_file(args.config.as_deref()).await,
        Some(Command::Standalone(standalone)) => run::standalone(&standalone).await,
        Some(Command::Demo(demo)) => demo::run(&demo).await,
        Some(Command::Config(ConfigCommand::Check { file })) => run::check(&file),
        Some(Command::Key(KeyCommand::Generate)) => {
            say(&crate::app::new_key());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Records(records)) => records::list(&records).await,
        Some(Command::Show(show)) => records::show(&show).await,
        Some(Command::Status(api)) => records::status(&api).await,
        Some(Command::Backup(api)) => backup::make(&api).await,
        Some(Command::Replay(replay)) => replay::run(&replay).await,
    }
}

/// Prints the whole chain of an error, and what to do where that is known.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut message = format!("qproxy: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !message.ends_with(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    let start = error.downcast_ref::<crate::app::Error>();
    if let Some(advice) = start.and_then(crate::app::Error::advice) {
        message.push_str("; ");
        message.push_str(&advice);
    }
    let _ = writeln!(std::io::stderr(), "{message}");
    let misconfigured = start.is_some_and(crate::app::Error::is_misconfiguration);
    if misconfigured || error.is::<run::Misconfigured>() || error.is::<run::BadArgument>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// Prints `value` as JSON that is safe on a terminal: JSON has no duty to escape U+007F to U+009F, among
/// which are the beginnings of escape sequences.
fn say_json(value: &serde_json::Value) -> anyhow::Result<()> {
    say(&table::escape_controls(&serde_json::to_string_pretty(
        value,
    )?));
    Ok(())
}

/// Writes a line to standard output; a reader that went away (`| head`) is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
