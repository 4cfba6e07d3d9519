//! Bodies that are larger than any memory they may take, both ways, through recorder, broker and player: 200 MiB each,
//! and 1 GiB with `QPROXY_LONG=1`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::long_run;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::{PATIENCE, until};

const BLOCK: usize = 1 << 20;
/// What large bodies may add to the memory of a node at their peak: parts on their way to the disk, the newest of the
/// spool, and what the debug build pages in of itself meanwhile.
const GROWTH: u64 = 40 << 20;
/// What a large body may add to that of a smaller one that went ahead: nothing that grows with its length.
const FURTHER_GROWTH: u64 = 20 << 20;
/// How fast bodies are recorded: past what the encoder of a debug build on a busy machine takes, the copy would be cut
/// short, as it has to be.
const RATE: &str = "8M";
/// How often a body is sent at most until its copy is whole.
const ATTEMPTS: u32 = 8;
/// How large a body is that goes ahead, in blocks: it fills every buffer and queue on its way.
const WARM_UP: u64 = 48;

fn blocks() -> u64 {
    if long_run() { 1024 } else { 200 }
}

/// Answers `GET /blocks/{n}` with that many blocks, each of which has its number in it, and any upload with its length.
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
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut chunked = false;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        chunked |= line
            .to_ascii_lowercase()
            .starts_with("transfer-encoding: chunked");
        line.clear();
    }
    if first.starts_with("POST") {
        assert!(chunked, "uploads come in chunks");
        let answer = drain(&mut reader)?.to_string();
        let length = answer.len();
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
        return write!(socket, "{head}: {length}\r\n\r\n{answer}");
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let blocks: u64 = path.rsplit('/').next().unwrap_or_default().parse().unwrap();
    let length = blocks * BLOCK as u64;
    write!(
        socket,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )?;
    let mut block: Vec<u8> = (0..BLOCK).map(|at| (at * 31 % 251) as u8).collect();
    for number in 0..blocks {
        block[..8].copy_from_slice(&number.to_le_bytes());
        socket.write_all(&block)?;
    }
    Ok(())
}

/// Reads a body in chunks; tells how long it was.
fn drain(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut total = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
        std::io::copy(&mut reader.by_ref().take(length + 2), &mut std::io::sink())?;
        if length == 0 {
            return Ok(total);
        }
        total += length;
    }
}

fn shell(script: &str, arguments: &[&str]) -> String {
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", script]).args(arguments);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The SHA-256 of what a URL gives, hexadecimal, as it flows.
fn sha256_of(url: &str) -> String {
    sha256_at("1000M", url)
}

fn sha256_at(rate: &str, url: &str) -> String {
    let script =
        "curl --silent --show-error --fail --max-time 500 --limit-rate \"$1\" \"$0\" | sha256sum";
    let line = shell(script, &[url, rate]);
    line.split(' ').next().unwrap().to_owned()
}

/// Uploads what one URL gives to another, as it flows; gives the answer.
fn upload(from: &str, to: &str) -> String {
    let script = "curl --silent --show-error --fail --max-time 500 \"$0\" \
        | curl --silent --show-error --fail --max-time 500 --limit-rate \"$2\" --request POST --upload-file - \"$1\"";
    shell(script, &[from, to, RATE])
}

struct Stage {
    _folder: tempfile::TempDir,
    _broker: Mosquitto,
    origin: String,
    recorder: Node,
    player: Node,
}

impl Stage {
    fn set() -> Self {
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
            "capture": { "max_body_bytes": "2GiB" },
            "peer": peer, "api": { "port": 0 }
        });
        let recorder = Node::start(&folder.path().join("az1"), &recorder);
        Self {
            _folder: folder,
            _broker: broker,
            origin,
            recorder,
            player,
        }
    }

    /// The stored record of a target, once all of it is there.
    fn stored(&self, target: &str) -> Value {
        let id = until("the record is stored", || {
            let page = self.player.api("/api/records", &[]).json();
            let records = page["records"].as_array().unwrap();
            let record = records.iter().find(|record| record["target"] == target)?;
            Some(record["id"].as_str().unwrap().to_owned())
        });
        let started = std::time::Instant::now();
        loop {
            let recorder = &self.recorder.status()["ledger"]["recorder"];
            let watermark = recorder["players"][0]["watermark"].as_u64().unwrap_or(0);
            if watermark >= recorder["highest"].as_u64().unwrap() {
                break;
            }
            // A debug build on a busy machine stores 10 MB a second.
            assert!(started.elapsed() < 4 * PATIENCE, "{recorder:#}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        self.player.api(&format!("/api/records/{id}"), &[]).json()
    }

    /// Sends something through the recorder until it is recorded whole; gives the path and the record. On a machine that
    /// leaves the encoder without a processor for a while the copy is cut short, as it has to be.
    fn record(&self, rest: &str, side: &str, send: impl Fn(&str)) -> (String, Value) {
        for attempt in 0..ATTEMPTS {
            let path = format!("/{attempt}{rest}");
            send(&path);
            let record = self.stored(&path);
            if record[side]["body"]["truncated"] == false {
                return (path, record);
            }
        }
        panic!("{rest} was cut short {ATTEMPTS} times");
    }

    /// Sends a body down through recorder and player; what comes must be what the origin gives.
    fn download(&self, blocks: u64) {
        let rest = format!("/blocks/{blocks}");
        let expected = sha256_of(&format!("{}{rest}", self.origin));
        let (path, record) = self.record(&rest, "response", |path| {
            let url = format!("{}{path}", self.recorder.url("record"));
            assert_eq!(sha256_at(RATE, &url), expected);
        });
        let body = &record["response"]["body"];
        assert_eq!(body["bytes"], blocks * BLOCK as u64);
        let id = record["id"].as_str().unwrap();
        let href = format!("{}/api/records/{id}/response/body", self.player.url("api"));
        assert_eq!(sha256_of(&href), expected, "through the API");
        let answered = format!("{}{path}", self.player.url("answer"));
        assert_eq!(sha256_of(&answered), expected, "from the record");
    }

    /// Sends a body up through the recorder; the player answers the same upload from the record.
    fn upload(&self, blocks: u64) {
        let from = format!("{}/blocks/{blocks}", self.origin);
        let length = (blocks * BLOCK as u64).to_string();
        let (path, record) = self.record(&format!("/upload/{blocks}"), "request", |path| {
            let url = format!("{}{path}", self.recorder.url("record"));
            assert_eq!(upload(&from, &url), length);
        });
        let body = &record["request"]["body"];
        assert_eq!(body["bytes"].to_string(), length);
        let id = record["id"].as_str().unwrap();
        let href = format!("{}/api/records/{id}/request/body", self.player.url("api"));
        assert_eq!(sha256_of(&href), sha256_of(&from), "through the API");
        let answered = upload(&from, &format!("{}{path}", self.player.url("answer")));
        assert_eq!(answered, length, "from the record");
    }

    fn peaks(&self) -> [u64; 2] {
        [&self.recorder, &self.player].map(Node::peak_rss)
    }
}

#[test]
fn large_bodies_are_recorded_and_played_back_both_ways_in_flat_memory() {
    let _alone = crate::support::alone();
    let stage = Stage::set();
    let idle = stage.peaks();
    stage.download(WARM_UP);
    stage.upload(WARM_UP);
    let before = stage.peaks();
    stage.download(blocks());
    stage.upload(blocks());
    let after = stage.peaks();
    for (at, name) in ["recorder", "player"].into_iter().enumerate() {
        let peaks = [idle[at], before[at], after[at]];
        let said = format!("{name} took {:?} MiB", peaks.map(|bytes| bytes >> 20));
        println!("{said}");
        assert!(peaks[2] - peaks[0] <= GROWTH, "{said}");
        assert!(peaks[2] - peaks[1] <= FURTHER_GROWTH, "{said}");
    }
}
