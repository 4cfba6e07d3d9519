//! Clients answered from recorded streams, with no server anywhere.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use super::{Stage, noise, port_of, redis_cli};
use crate::support::node::Node;
use crate::support::redis::RedisServer;
use crate::support::until;

/// A service of ours, one thread for each connection, until the test ends.
fn serve(answer: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for (at, socket) in listener.incoming().map_while(Result::ok).enumerate() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(at, socket));
        }
    });
    port
}

fn read(socket: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    socket.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    bytes
}

fn ended(player: &Node, how: &str) -> u64 {
    let page = player.api("/metrics", &[]).text();
    let name = format!("qproxy_playback_tcp_answers_total{{outcome=\"{how}\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&name));
    count.map_or(0, |count| count.parse().unwrap())
}

fn mismatches(player: &Node) -> Vec<Value> {
    let status = player.status();
    let listed = status["ledger"]["tcp_answers"][0]["mismatches"].as_array();
    listed.unwrap_or_else(|| panic!("{status:#}")).clone()
}

#[test]
fn redis_cli_is_answered_from_the_records_when_redis_is_gone() {
    let playback = json!({ "tcp": { "port": 0, "service": "redis" } });
    let mut stage = Stage::with_playback(&playback);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut redis = runtime.block_on(RedisServer::start(&[]));
    let mut recorder = stage.recorder("redis", redis.port());
    let live = port_of(recorder.url("tcp"));
    for (words, said) in [
        (&["SET", "tea", "grün"][..], "OK\n"),
        (&["GET", "tea"], "grün\n"),
        (&["SET", "tea", "weiß"], "OK\n"),
        (&["GET", "tea"], "weiß\n"),
    ] {
        assert_eq!(redis_cli(&live, words), said);
    }
    stage.streams(4);
    recorder.kill();
    redis.kill();

    let answers = port_of(stage.player.url("answer-tcp"));
    let cli = |words: &[&str]| redis_cli(&answers, words);
    assert_eq!(cli(&["GET", "tea"]), "grün\n");
    assert_eq!(cli(&["SET", "tea", "weiß"]), "OK\n");
    assert_eq!(cli(&["GET", "tea"]), "weiß\n", "in the recorded order");
    assert_eq!(cli(&["GET", "tea"]), "weiß\n", "then the last one repeats");

    let other = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &answers, "GET", "toe"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("Server closed the connection"), "{other:?}");
    let listed = until("the mismatch is told", || {
        Some(mismatches(&stage.player)).filter(|listed| !listed.is_empty())
    });
    let told = &listed[0];
    // `*2\r\n$3\r\nGET\r\n$3\r\nt` is what both say.
    assert_eq!(told["offset"], 18, "{told:#}");
    assert!(
        told["expected"].as_str().unwrap().contains("[65 61 0d 0a"),
        "{told:#}"
    );
    assert!(
        told["got"].as_str().unwrap().contains("[6f 65 0d 0a"),
        "{told:#}"
    );
    assert_eq!(ended(&stage.player, "mismatch"), 1);
    let (expected, record) = (&told["expected"], &told["record"]);
    stage
        .player
        .process()
        .expect_line("the mismatch, in its log", |line| {
            let whole = [expected, record]
                .iter()
                .all(|part| line.contains(part.as_str().unwrap()));
            (line.contains("what no recorded stream has") && whole).then_some(())
        });
}

#[test]
fn a_server_that_speaks_first_does_and_the_stream_is_chosen_by_what_follows() {
    let playback = json!({ "tcp": {
        "port": 0, "service": "mail",
        "ignore": { "pattern": "nonce=[0-9]{4}" }
    } });
    let stage = Stage::with_playback(&playback);
    // Greets everyone with another number, as MySQL does, and each name in its own way.
    let port = serve(|at, mut socket| {
        socket.write_all(format!("220 {at}\n").as_bytes()).unwrap();
        let said = read(&mut socket, "HELO a nonce=0000\n".len());
        let name = said.split(' ').nth(1).unwrap();
        socket
            .write_all(format!("250 hello {name} at {at}\n").as_bytes())
            .unwrap();
    });
    let recorder = stage.recorder("mail", port);
    for name in ["a", "b", "c"] {
        let mut client = TcpStream::connect(recorder.url("tcp")).unwrap();
        read(&mut client, 6);
        client
            .write_all(format!("HELO {name} nonce=1111\n").as_bytes())
            .unwrap();
        rest(&mut client);
    }
    stage.streams(3);
    let connect = || TcpStream::connect(stage.player.url("answer-tcp")).unwrap();

    // A probe that says nothing uses nothing up.
    let mut probe = connect();
    assert_eq!(read(&mut probe, 6), "220 0\n");
    drop(probe);
    until("the probe has left", || {
        (ended(&stage.player, "left") == 1).then_some(())
    });

    // Two at once: each gets a stream of its own. One is greeted before the other is there, or nobody could say
    // who was first.
    let mut one = connect();
    assert_eq!(read(&mut one, 6), "220 0\n");
    let mut other = connect();
    assert_eq!(read(&mut other, 6), "220 1\n");
    other.write_all(b"HELO c nonce=4711\n").unwrap();
    one.write_all(b"HELO ").unwrap();
    assert_eq!(rest(&mut other), b"250 hello c at 2\n");
    one.write_all(b"b nonce=9999\n").unwrap();
    assert_eq!(rest(&mut one), b"250 hello b at 1\n");

    // What is not ignored has to be there.
    let mut third = connect();
    read(&mut third, 6);
    third.write_all(b"HELO d nonce=1111\n").unwrap();
    assert!(rest(&mut third).is_empty(), "nothing is made up");
    until("it is told", || {
        let listed = mismatches(&stage.player);
        listed.iter().any(|told| told["offset"] == 5).then_some(())
    });
}

#[test]
fn a_stream_of_many_megabytes_with_a_half_close_is_answered_in_little_memory() {
    const LENGTH: usize = 32 << 20;
    let playback = json!({ "tcp": { "port": 0, "service": "bulk" } });
    let mut stage = Stage::with_playback(&playback);
    let (asked, answered) = (noise(300_000, 1), noise(LENGTH, 2));
    let reply = answered.clone();
    let port = serve(move |_, mut socket| {
        rest(&mut socket);
        socket.write_all(&reply).unwrap();
    });
    let recorder = stage.recorder("bulk", port);
    let ask = |address: &str| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&asked).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        rest(&mut client)
    };
    assert!(
        ask(recorder.url("tcp")) == answered,
        "the proxy changed something"
    );
    stage.streams(1);
    let (client, server) = stage.said(&stage.streams(1)[0], 64);
    assert!(client == asked && server == answered);

    // A new process, which has not held any of it.
    stage.player.kill_and_restart();
    let before = stage.player.peak_rss();
    assert!(
        ask(stage.player.url("answer-tcp")) == answered,
        "the answer is another"
    );
    let grown = stage.player.peak_rss().saturating_sub(before);
    assert!(
        grown < 24 << 20,
        "{} KiB for an answer of {LENGTH}",
        grown >> 10
    );
    until("it is counted", || {
        (ended(&stage.player, "completed") == 1).then_some(())
    });
}

#[test]
fn a_client_that_says_nothing_and_a_service_without_records_end_in_order() {
    let playback = json!({ "tcp": { "port": 0, "service": "quiet", "idle_timeout": "300ms" } });
    let stage = Stage::with_playback(&playback);
    let connect = || TcpStream::connect(stage.player.url("answer-tcp")).unwrap();
    assert!(rest(&mut connect()).is_empty());
    until("it is counted", || {
        (ended(&stage.player, "no_record") == 1).then_some(())
    });

    let port = serve(|_, mut socket| {
        let said = read(&mut socket, 2);
        socket.write_all(said.as_bytes()).unwrap();
    });
    let recorder = stage.recorder("quiet", port);
    let mut client = TcpStream::connect(recorder.url("tcp")).unwrap();
    client.write_all(b"hi").unwrap();
    rest(&mut client);
    drop(client);
    stage.streams(1);

    assert!(
        rest(&mut connect()).is_empty(),
        "silent for as long as is allowed"
    );
    let mut slow = connect();
    slow.write_all(b"h").unwrap();
    assert!(rest(&mut slow).is_empty());
    until("both are counted", || {
        (ended(&stage.player, "idle") == 2).then_some(())
    });
    // Garbage, more than is ever held, and gone before the answer.
    let mut rude = connect();
    let _ = rude.write_all(&noise(2 << 20, 3));
    drop(rude);
    let mut client = connect();
    client.write_all(b"hi").unwrap();
    assert_eq!(rest(&mut client), b"hi", "the node is well");
}
