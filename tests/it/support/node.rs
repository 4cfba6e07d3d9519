//! A QProxy node as a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::curl::{self, Answer};
use super::process::Process;

pub struct Node {
    process: Process,
    /// Where each listener is, by its label: `record`, `answer`, `api`, `broker`, `tcp`.
    pub addresses: BTreeMap<String, String>,
    config: PathBuf,
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

    /// Starts a node and does not wait until it is ready.
    pub fn spawn(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qproxy"));
        command
            .env("CONFIG_PATH", config)
            .env("RUST_LOG", "info")
            .current_dir(config.parent().unwrap());
        let process = Process::start(&mut command, "nothing: cargo builds it");
        Self {
            process,
            addresses: BTreeMap::new(),
            config: config.to_owned(),
        }
    }

    fn wait_until_ready(&mut self) {
        let addresses = &mut self.addresses;
        self.process.expect_line("`ready`", |line| {
            let mut words = line.split_whitespace();
            if let (Some(label), Some(address)) = (words.next(), words.next())
                && ["record", "forward", "answer", "api", "broker", "tcp"].contains(&label)
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
        let config = self.config.clone();
        *self = Self::spawn(&config);
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

    /// Resident memory, bytes.
    pub fn rss(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}
