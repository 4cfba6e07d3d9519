//! `broker-mock [ADDRESS] [--app-id NAME] [--token-env VARIABLE]`: the plain broker as a process.
//!
//! The token comes from an environment variable, since arguments can be read by every user of a machine.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use broker_mock::{Broker, Config};

const USAGE: &str = "usage: broker-mock [ADDRESS] [--app-id NAME] [--token-env VARIABLE]
ADDRESS defaults to 127.0.0.1:1883; one that other machines can reach needs both options.";

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().skip(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut chain = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                chain.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            eprintln!("broker-mock: {chain}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let Some(config) = parse(args)? else {
        writeln!(std::io::stdout(), "{USAGE}")?;
        return Ok(());
    };
    let broker = Broker::bind(config).await?;
    writeln!(std::io::stdout(), "listening on {}", broker.local_addr())?;
    stopped().await?;
    broker.shutdown().await;
    Ok(())
}

/// `None` asks for the usage.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Config>, Box<dyn Error>> {
    let mut config = Config::default();
    while let Some(arg) = args.next() {
        let mut value = |name: &str| args.next().ok_or(format!("{name} needs a value\n{USAGE}"));
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--app-id" => config.app_id = Some(value("--app-id")?),
            "--token-env" => {
                let name = value("--token-env")?;
                let token = std::env::var(&name)
                    .map_err(|error| format!("environment variable {name}: {error}"))?;
                config.token = Some(token.into());
            }
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}\n{USAGE}").into());
            }
            address => {
                config.listen = address
                    .parse()
                    .map_err(|error| format!("address {address}: {error}"))?;
            }
        }
    }
    Ok(Some(config))
}

async fn stopped() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}
