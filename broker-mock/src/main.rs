//! `broker-mock [ADDRESS] [OPTIONS]`: the plain broker as a process.
//!
//! The token comes from an environment variable, since arguments can be read by every user of a machine.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use broker_mock::{Broker, Config, Tls};

const USAGE: &str = "\
A small strict MQTT broker (versions 3.1.1 and 5). Everything is kept in memory.

usage: broker-mock [ADDRESS] [OPTIONS]

  ADDRESS               where to listen; default 127.0.0.1:1883, port 0 takes a free one. An address that
                        other machines can reach needs --app-id and --token-env
  --app-id NAME         the user name that clients must give
  --token-env VARIABLE  the environment variable with the password that clients must give
  --tls-cert FILE       TLS, with this certificate chain (PEM); connections from this machine may do without
  --tls-key FILE        its private key (PEM)
  -h, --help            this text";

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
    let (mut certificate, mut key) = (None, None);
    while let Some(arg) = args.next() {
        let mut value = |name: &str| args.next().ok_or(format!("{name} needs a value\n{USAGE}"));
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--app-id" => config.app_id = Some(value("--app-id")?),
            "--tls-cert" => certificate = Some(value("--tls-cert")?.into()),
            "--tls-key" => key = Some(value("--tls-key")?.into()),
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
    config.tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        (None, None) => None,
        _ => return Err("--tls-cert and --tls-key belong together".into()),
    };
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
