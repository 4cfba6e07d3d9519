//! A QProxy node as a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::curl::{self, Answer};
use super::process::Process;
use super::until;

pub struct Node {
    process: Process,
    /// Where each listener is, by its label: `record`, `answer`, `api`, `broker`, `tcp`.
    pub addresses: BTreeMap<String, String>,
    config: PathBuf,
    arguments: Vec<String>,
}

impl Node {
    /// Starts a node with this configuration, kept in `folder`.
    pub fn start(folder: &Path, config: &Value) -> Self {
        let path = folder.join("config.json");
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&path, serde_json::to_vec_pretty(config).unwrap()).unwrap();
        let mut node = Self::spawn(&path);
        node.wait_until_ready();
        node
    }

    /// The same with so many file descriptors at most.
    pub fn with_open_files(folder: &Path, config: &Value, most: u32) -> Self {
        let path = folder.join("config.json");
        std::fs::write(&path, serde_json::to_vec_pretty(config).unwrap()).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {most} && exec \"$0\"")])
            .arg(binary());
        let mut node = Self::run(command, &path, Vec::new());
        node.wait_until_ready();
        node
    }

    /// Starts `qproxy` in `folder` with these arguments.
    pub fn with_arguments(folder: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut node = Self::launch(&folder.join("config.json"), arguments);
        node.wait_until_ready();
        node
    }

    /// Starts a node and does not wait until it is ready.
    pub fn spawn(config: &Path) -> Self {
        Self::launch(config, Vec::new())
    }

    fn launch(config: &Path, arguments: Vec<String>) -> Self {
        let mut command = Command::new(binary());
        command.args(&arguments);
        Self::run(command, config, arguments)
    }

    fn run(mut command: Command, config: &Path, arguments: Vec<String>) -> Self {
        command
            .env("CONFIG_PATH", config)
            .env("RUST_LOG", "info")
            .current_dir(config.parent().unwrap());
        let process = Process::start(&mut command, "nothing: cargo builds it");
        Self {
            process,
            addresses: BTreeMap::new(),
            config: config.to_owned(),
            arguments,
        }
    }

    fn wait_until_ready(&mut self) {
        let addresses = &mut self.addresses;
        self.process.expect_line("`ready`", |line| {
            let mut words = line.split_whitespace();
            if let (Some(label), Some(address)) = (words.next(), words.next())
                && [
                    "record",
                    "forward",
                    "answer",
                    "answer-tcp",
                    "api",
                    "broker",
                    "tcp",
                ]
                .contains(&label)
            {
                addresses.insert(label.to_owned(), address.to_owned());
            }
            (line.trim() == "ready").then_some(())
        });
    }

    /// The URL of a listener.
    pub fn url(&self, label: &str) -> &str {
        self.addresses
            .get(label)
            .unwrap_or_else(|| panic!("no {label} in {:?}", self.addresses))
    }

    /// `kill -9`, then the same node again, on the same configuration.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        *self = Self::launch(&self.config, std::mem::take(&mut self.arguments));
        self.wait_until_ready();
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks the node's API.
    pub fn api(&self, path: &str, arguments: &[&str]) -> Answer {
        curl::curl(&format!("{}{path}", self.url("api")), arguments)
    }

    pub fn status(&self) -> Value {
        self.api("/api/status", &[]).json()
    }

    /// Waits until it has subscribed to all that it takes: it is ready before, and what another client publishes until then
    /// passes it by.
    pub fn wait_until_subscribed(&self) {
        until("it has subscribed", || {
            let status = self.status();
            let player = &status["ledger"]["player"];
            let nodes = status["broker"]["nodes"].as_array()?;
            let online = nodes
                .iter()
                .any(|node| node["node"] == status["node"] && node["state"] == "online");
            (online && (player.is_null() || player["connected"] == true)).then_some(())
        });
    }

    /// The value of a metric without labels, by its name after `qproxy_`.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.api("/metrics", &[]).text();
        let name = format!("qproxy_{name} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name}in {page}"))
            .parse()
            .unwrap()
    }

    /// The most resident memory that it ever had, bytes.
    pub fn peak_rss(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1024
    }
}

/// The program that is tested, or another build of it at `QPROXY_BIN`.
pub fn binary() -> std::ffi::OsString {
    std::env::var_os("QPROXY_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_qproxy").into())
}
