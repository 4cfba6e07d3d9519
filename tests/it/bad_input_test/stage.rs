//! Nodes, brokers and disks that can be made to fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::curl::curl;
use crate::support::node::Node;
use crate::support::{free_port, until};

/// What a command said and how it ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    /// Fails unless it ended with `code` and its last words hold all of `words`.
    pub(super) fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no `{word}` in {self:#?}");
        }
    }
}

/// Runs `qproxy` to its end; 124 stands for one that did not end by itself.
pub(super) fn qproxy(arguments: &[&str], config: &Path) -> Said {
    let output = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_qproxy")])
        .args(arguments)
        .env("CONFIG_PATH", config)
        .current_dir(config.parent().unwrap())
        .output()
        .unwrap_or_else(|error| panic!("cannot run timeout: {error}. Install coreutils"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Writes a configuration; the folder goes with the guard.
pub(super) fn written(config: &Value) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, serde_json::to_vec_pretty(config).unwrap()).unwrap();
    (folder, path)
}

/// Starts a node that must not start.
pub(super) fn refused(config: &Value) -> Said {
    let (_folder, path) = written(config);
    qproxy(&[], &path)
}

/// A node whose every port is free and whose store is in `data`.
pub(super) fn node(mode: &str, name: &str, broker: Option<u16>) -> Value {
    let mut config = json!({
        "mode": mode, "node": name,
        "http": { "host": "127.0.0.1", "port": free_port() },
        "store": { "path": "data" },
        "api": { "host": "127.0.0.1", "port": 0 },
    });
    match broker {
        Some(port) => config["peer"] = json!({ "host": "127.0.0.1", "port": port }),
        None => config["broker"] = json!({ "port": 0 }),
    }
    config
}

pub(super) fn recorder(broker: u16, upstream: &str) -> Value {
    let mut config = node("Record", "recorder", Some(broker));
    config["http"]["downstream"] = upstream.into();
    config
}

pub(super) fn player(broker: u16) -> Value {
    node("Playback", "player", Some(broker))
}

/// Sends the requests of these numbers through `recorder`; every one must be answered.
pub(super) fn send(recorder: &Node, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let answer = curl(&format!("{}/n/{number}", recorder.url("record")), &[]);
        assert_eq!(
            (answer.status, answer.text()),
            (200, number.to_string()),
            "the proxy goes on"
        );
    }
}

/// The numbers that a player has, sorted.
pub(super) fn stored(player: &Node) -> Vec<u32> {
    let page = player.api("/api/records?limit=1000", &[]).json();
    let records = page["records"].as_array().unwrap().iter();
    let number = |record: &Value| record["target"].as_str()?.strip_prefix("/n/")?.parse().ok();
    let mut numbers: Vec<u32> = records.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Waits until a player has just these numbers, each once.
pub(super) fn expect_stored(player: &Node, wanted: impl IntoIterator<Item = u32>) {
    let wanted: Vec<u32> = wanted.into_iter().collect();
    until(&format!("stored: {wanted:?}"), || {
        (stored(player) == wanted).then_some(())
    });
}

/// Waits until the node says that it is unwell; gives the reasons.
pub(super) fn unwell(node: &Node, word: &str) -> String {
    until(&format!("a health reason with `{word}`"), || {
        let health = node.api("/healthz", &[]);
        let text = health.text();
        (health.status == 503 && text.contains(word)).then_some(text)
    })
}

/// Waits until the node is well again.
pub(super) fn well(node: &Node) {
    until("the node is well", || {
        (node.api("/healthz", &[]).status == 200).then_some(())
    });
}

/// Waits until the node's log has all of these words.
pub(super) fn logged(node: &mut Node, words: &[&str]) {
    until(&format!("a log with {words:?}"), || {
        let said = node.process().said();
        words.iter().all(|word| said.contains(word)).then_some(())
    });
}

/// A file system of a few MiB that a test can fill.
pub(super) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    pub(super) fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(folder.path())
            .output()
            .unwrap_or_else(|error| panic!("cannot run mount: {error}"));
        assert!(
            mounted.status.success(),
            "this test fills a file system of its own and has to be allowed to mount one (run it as root): {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self { folder }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room there is.
    pub(super) fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.path().join("ballast")).unwrap();
        for block in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    /// Gives it back.
    pub(super) fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that a failed test left open has its files there still.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().success());
        }
    }
}
