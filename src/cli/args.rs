//! What can be typed.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};

/// Records HTTP and TCP traffic in one place and plays it back in another, over MQTT.
///
/// Without a command it runs the node that the configuration file describes.
#[derive(Debug, Parser)]
#[command(name = "qproxy", version, max_term_width = 100)]
pub(super) struct Args {
    /// The configuration file
    #[arg(long, short, env = "CONFIG_PATH", global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the node that the configuration file describes (also what happens without a command)
    Run,
    /// Record a service of yours on this machine: proxy, broker, store, player and API in one process
    Standalone(Standalone),
    /// Show it all with a sample shop: records some traffic and tells what to open and type next
    Demo(Demo),
    /// Look at a configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make keys for `encryption`
    #[command(subcommand)]
    Key(KeyCommand),
    /// List the records of a running node
    Records(Records),
    /// Show one record of a running node
    Show(Show),
    /// Show the status of a running node
    Status(Api),
    /// Back up the records of a running node, and print the folder
    Backup(Api),
    /// Replay records of a running node against a target and compare what comes back
    Replay(Replay),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say in one line that a file is good, or what is wrong where
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Print a new key, for a file that nobody else can read
    Generate,
}

#[derive(Debug, Arguments)]
pub(super) struct Standalone {
    /// The service to stand in front of
    #[arg(long, value_name = "URL")]
    pub(super) upstream: String,
    /// Where clients send their requests
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub(super) listen: String,
    /// Where requests are answered from the records
    #[arg(long, default_value = "127.0.0.1:8092", value_name = "HOST:PORT")]
    pub(super) answer: String,
    /// Where API and dashboard are
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "HOST:PORT")]
    pub(super) api: String,
    /// Where the embedded broker listens
    #[arg(long, default_value = "127.0.0.1:8084", value_name = "HOST:PORT")]
    pub(super) broker: String,
    /// Where records are kept
    #[arg(long, default_value = "data", value_name = "DIR")]
    pub(super) data: PathBuf,
}

#[derive(Debug, Arguments)]
pub(super) struct Demo {
    /// Where records are kept
    #[arg(long, default_value = "data", value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Take free ports instead of 8080 to 8092
    #[arg(long)]
    pub(super) free_ports: bool,
}

/// Which running node to ask.
#[derive(Debug, Clone, Arguments)]
pub(super) struct Api {
    /// The node's API
    #[arg(
        long,
        default_value = "http://127.0.0.1:8090",
        env = "QPROXY_API",
        value_name = "URL"
    )]
    pub(super) api: String,
    /// The API's token
    #[arg(
        long,
        env = "QPROXY_API_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(super) token: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Which records.
#[derive(Debug, Clone, Arguments)]
pub(super) struct Selection {
    /// Started at or after this time, e.g. 2026-11-23T10:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) start: Option<String>,
    /// Started before this time
    #[arg(long, value_name = "TIME")]
    pub(super) end: Option<String>,
    /// Only this service
    #[arg(long)]
    pub(super) service: Option<String>,
    /// Only this method
    #[arg(long)]
    pub(super) method: Option<String>,
    /// Only this status, or a class of them such as 5xx
    #[arg(long)]
    pub(super) status: Option<String>,
    /// Only paths that start so
    #[arg(long)]
    pub(super) path: Option<String>,
}

impl Selection {
    /// The parameters of the API that stand for it.
    pub(super) fn parameters(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("start", &self.start),
            ("end", &self.end),
            ("service", &self.service),
            ("method", &self.method),
            ("status", &self.status),
            ("path", &self.path),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
            .collect()
    }
}

#[derive(Debug, Arguments)]
pub(super) struct Records {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) selection: Selection,
    /// How many, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
}

#[derive(Debug, Arguments)]
pub(super) struct Show {
    #[command(flatten)]
    pub(super) api: Api,
    /// The record's id
    pub(super) id: String,
}

#[derive(Debug, Arguments)]
pub(super) struct Replay {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) selection: Selection,
    /// Where to send the recorded requests; its host must be in `playback.allowed_targets`
    #[arg(long, value_name = "URL")]
    pub(super) target: String,
    /// `max`, or how many times as fast as recorded, e.g. 1 or 0.5
    #[arg(long, default_value = "max")]
    pub(super) speed: String,
    /// How many requests may be under way at once
    #[arg(long, default_value_t = 16)]
    pub(super) concurrency: u32,
    /// Send the recorded Host instead of the target's
    #[arg(long)]
    pub(super) keep_host: bool,
    /// A response header that may differ (may be given several times)
    #[arg(long, value_name = "NAME")]
    pub(super) ignore_header: Vec<String>,
    /// A place in JSON bodies that may differ, e.g. /items/*/id (may be given several times)
    #[arg(long, value_name = "POINTER")]
    pub(super) ignore_json: Vec<String>,
    /// End with exit code 3 where anything differed or failed
    #[arg(long)]
    pub(super) fail_on_difference: bool,
}
