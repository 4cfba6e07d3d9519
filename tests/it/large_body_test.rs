//! A body that is larger than any memory it may take: 200 MB through recorder, broker and player.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::json;

use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::until;

const BLOCK: usize = 1 << 20;
const BLOCKS: u64 = 200;
/// What a debug build of either process may take at its peak: about 30 MB are the program itself, 32 MiB
/// capture's queue.
const MEMORY: u64 = 160 << 20;

/// Answers every request with 200 blocks, each of which has its number in it.
fn start_origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket));
        }
    });
    port
}

fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(socket.try_clone()?).lines();
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let length = BLOCKS * BLOCK as u64;
    write!(
        socket,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )?;
    let mut block: Vec<u8> = (0..BLOCK).map(|at| (at * 31 % 251) as u8).collect();
    for number in 0..BLOCKS {
        block[..8].copy_from_slice(&number.to_le_bytes());
        socket.write_all(&block)?;
    }
    Ok(())
}

/// The SHA-256 of what a URL gives, hexadecimal, as it flows.
fn sha256_of(url: &str) -> String {
    let script = "curl --silent --show-error --fail --max-time 300 \"$0\" | sha256sum";
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", script, url]);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{url}: {output:?}");
    let line = String::from_utf8(output.stdout).unwrap();
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn two_hundred_megabytes_are_recorded_and_played_back_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start_now(&Options::default());
    let origin = format!("http://127.0.0.1:{}", start_origin());
    let peer = json!({ "host": "127.0.0.1", "port": broker.port() });
    let player = json!({
        "mode": "Playback", "node": "az2", "http": { "port": 0 },
        "peer": peer, "api": { "port": 0 }
    });
    let player = Node::start(&folder.path().join("az2"), &player);
    let recorder = json!({
        "mode": "Record", "node": "az1", "http": { "port": 0, "downstream": origin },
        "capture": { "max_body_bytes": "1GiB" },
        "peer": peer, "api": { "port": 0 }
    });
    let recorder = Node::start(&folder.path().join("az1"), &recorder);

    let expected = sha256_of(&origin);
    let path = "/large";
    assert_eq!(
        sha256_of(&format!("{}{path}", recorder.url("record"))),
        expected
    );

    let id = until("the record is stored", || {
        let page = player.api("/api/records", &[]).json();
        let record = page["records"].as_array().unwrap().first()?;
        Some(record["id"].as_str().unwrap().to_owned())
    });
    until("every chunk is stored", || {
        let recorder = &recorder.status()["ledger"]["recorder"];
        let stored = recorder["players"][0]["watermark"].as_u64()?;
        (stored >= recorder["highest"].as_u64()?).then_some(())
    });
    let record = player.api(&format!("/api/records/{id}"), &[]).json();
    let body = &record["response"]["body"];
    assert_eq!(body["truncated"], false, "{record:#}");
    assert_eq!(body["bytes"], BLOCKS * BLOCK as u64);
    assert!(body["chunks"].as_u64().unwrap() > 1000, "{record:#}");

    let href = format!("{}/api/records/{id}/response/body", player.url("api"));
    assert_eq!(sha256_of(&href), expected, "through the API");
    let answered = format!("{}{path}", player.url("answer"));
    assert_eq!(sha256_of(&answered), expected, "from the record");

    for (name, node) in [("recorder", &recorder), ("player", &player)] {
        let (peak, now) = (node.peak_rss(), node.rss());
        assert!(
            peak < MEMORY,
            "{name} took {} MiB at its peak, {} MiB now",
            peak >> 20,
            now >> 20
        );
    }
}
