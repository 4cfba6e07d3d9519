//! A backup made under load, and a player that starts from it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::stage::{Stage, numbers, wait_for};
use crate::support::node::{Node, binary};
use crate::support::numbered::stored_numbers;
use crate::support::{free_port, until};

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// `qproxy backup`; gives the folder that it prints.
fn back_up(node: &Node) -> PathBuf {
    let mut command = Command::new(binary());
    let output = command.args(["backup", "--api", node.url("api")]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn backup_under_load_holds_what_was_stored_before_it_and_nothing_else() {
    let mut stage = Stage::set();
    let traffic = stage.traffic(0);
    wait_for(&traffic, 300);
    until("records are stored", || {
        (stage.stored().len() > 200).then_some(())
    });
    let home = stage.folder.path().join("player");
    let mut backups = Vec::new();
    for _ in 0..2 {
        let before = stage.stored();
        let path = home.join(back_up(&stage.player));
        backups.push((path, before, stage.stored()));
        wait_for(&traffic, 100);
    }
    let listed = stage.player.api("/api/backups", &[]).json();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
    let answered = traffic.finish();
    for (at, (path, before, after)) in backups.iter().enumerate() {
        let folder = stage.folder.path().join(format!("restored-{at}"));
        copy(path, &folder);
        // A player with a broker of its own: nobody fills in what its store lacks.
        let config = json!({
            "mode": "Playback", "node": "restored", "http": { "port": 0 },
            "broker": { "host": "127.0.0.1", "port": free_port() },
            "api": { "port": 0 }, "store": { "path": folder },
        });
        let restored = Node::start(&stage.folder.path().join(format!("node-{at}")), &config);
        let held = stored_numbers(&restored);
        assert!(held.values().all(|count| *count == 1));
        assert!(before.iter().all(|number| held.contains_key(number)));
        assert!(held.keys().all(|number| after.contains(number)));
    }
    // In the place of the store that was lost: the rest comes from the recorder's spool.
    stage.player.kill();
    let records = home.join("data/records");
    std::fs::remove_dir_all(&records).unwrap();
    copy(&backups[0].0.join("records"), &records);
    stage.player.kill_and_restart();
    stage.expect_stored(&numbers(&answered));
}

#[test]
fn only_a_node_with_records_in_files_makes_backups() {
    let stage = Stage::set();
    let refused = stage.recorder.api("/api/backups", &["--request", "POST"]);
    assert_eq!(refused.status, 404, "{refused:?}");
    assert_eq!(refused.json()["error"]["code"], "no_store");
    let foreign = ["--request", "POST", "--header", "Origin: http://elsewhere"];
    let refused = stage.player.api("/api/backups", &foreign);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(!stage.folder.path().join("player/data/backups").exists());
}
