//! A node that runs out of what the system gives it: file descriptors, and room for idle clients.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};
use std::io::{Read, Write};

use crate::support::curl::curl;
use crate::support::httpbin_requests::authority;
use crate::support::node::Node;
use crate::support::until;

const GET: &[u8] = b"GET /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin that serves each connection in a thread, for as long as it lasts.
fn origin() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while answer(&socket).is_some() {});
        }
    });
    address
}

fn answer(mut socket: &TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    socket.write_all(answer).ok()
}

/// Asks over a connection that stays open.
fn ask(mut socket: &TcpStream) {
    socket.write_all(GET).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"ok") {
        let mut part = [0; 1024];
        let length = socket.read(&mut part).unwrap();
        assert!(
            length > 0,
            "the connection ended: {}",
            String::from_utf8_lossy(&got)
        );
        got.extend_from_slice(&part[..length]);
    }
    assert!(
        got.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&got)
    );
}

fn standalone(folder: &Path, max_connections: u32) -> Value {
    let local = json!({ "host": "127.0.0.1", "port": 0 });
    json!({
        "mode": "Standalone", "node": "exhausted", "api": local, "broker": local,
        "http": {
            "host": "127.0.0.1", "port": 0, "max_connections": max_connections,
            "downstream": format!("http://{}", origin()),
        },
        "playback": { "http": local },
        "store": { "path": folder.join("data") },
    })
}

fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(authority(node.url("record"))).unwrap()
}

fn stored(node: &Node, count: u64) {
    until(&format!("{count} records stored"), || {
        let records = node.status()["counts"]["records"].as_u64();
        records.filter(|records| *records >= count)
    });
}

#[test]
fn a_full_table_of_descriptors_stops_new_clients_only_and_for_no_longer_than_it_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let config = standalone(folder.path(), 10_000);
    let mut node = Node::with_open_files(folder.path(), &config, 160);
    let first = connect(&node);
    ask(&first);
    stored(&node, 1);
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(&node)).collect();
    node.process().expect_line("that accepting pauses", |line| {
        line.contains("accepting pauses").then_some(())
    });
    // Who is connected is served as ever: its connection to the origin is there, too.
    for _ in 0..20 {
        ask(&first);
    }
    drop(crowd);
    ask(&connect(&node));
    assert_eq!(curl(node.url("record"), &[]).status, 200);
    stored(&node, 23);
    assert!(node.metric("proxy_accept_errors_total") >= 1.0);
    assert_eq!(node.process().terminate(), Some(0), "ends in order");
}

#[test]
fn ten_thousand_idle_clients_cost_little_and_leave_room_for_others() {
    const IDLE: u32 = 10_000;
    /// Of the node with its broker, store and API, and what each client may cost: a build for tests takes more.
    const BYTES_AT_REST: u64 = 256 << 20;
    const BYTES_EACH: u64 = 16 << 10;
    raise_limit(u64::from(IDLE) + 2_000);
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &standalone(folder.path(), IDLE + 100));
    // Every hundredth has asked once and keeps its connection for later, the others have said nothing yet.
    let idle: Vec<TcpStream> = (0..IDLE)
        .map(|number| {
            let socket = connect(&node);
            if number % 100 == 0 {
                ask(&socket);
            }
            socket
        })
        .collect();
    until("all are connected", || {
        (node.metric("proxy_connections_total") >= f64::from(IDLE)).then_some(())
    });
    for _ in 0..20 {
        ask(&connect(&node));
    }
    for socket in idle.iter().step_by(100) {
        ask(socket);
    }
    let peak = node.peak_rss();
    assert!(
        peak < BYTES_AT_REST + u64::from(IDLE) * BYTES_EACH,
        "{peak} bytes"
    );
    stored(&node, 220);
}

/// The clients are in this process: it needs as many descriptors.
fn raise_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum;
        let enough = maximum.is_none_or(|maximum| maximum >= wanted);
        assert!(
            enough,
            "this test needs `ulimit -Hn` of {wanted}, it is {maximum:?}"
        );
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}
