//! Tunnels that are not looked into, or hold what is not HTTP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use qproxy::capture::Capture;
use qproxy::proxy::http::ForwardProxy;
use qproxy::proxy::{Metrics, Running, http, tls};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, path_text, records};
use crate::support::curl::{curl, try_curl};
use crate::support::node::Node;
use crate::support::{PATIENCE, soon};

/// The beginning of a tunnel to a port of this machine, and the head of the answer.
fn connect(node: &Node, label: &str, port: u16) -> (TcpStream, String) {
    let address = node.url(label).trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        socket,
        "CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (socket, String::from_utf8(head).unwrap())
}

/// A server that says `greeting`, reads to the end, says what it has read, and closes.
fn echo_at_the_end(greeting: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || {
                let mut socket = socket.unwrap();
                let mut all = Vec::new();
                let _ = socket.write_all(greeting.as_bytes());
                let _ = socket.read_to_end(&mut all);
                let _ = socket.write_all(&all);
            });
        }
    });
    port
}

#[test]
fn without_an_authority_a_tunnel_is_carried_as_it_is_and_summed_up() {
    let world = World::new();
    let node = world.standalone(json!({}));
    let url = format!("https://localhost:{}/secret", world.https);
    let ca = path_text(&world.origin.ca);
    let answer = curl(&url, &["--proxy", node.url("record"), "--cacert", ca]);
    assert_eq!(answer.text(), "GET localhost /secret auth= via=");
    let plain = format!("http://localhost:{}/plain", world.http);
    let answer = curl(&plain, &["--proxy", node.url("record"), "--proxytunnel"]);
    assert_eq!(answer.text(), "GET localhost /plain auth= via=");
    let all = records(&node, 2);
    for (record, port) in all.iter().zip([world.https, world.http]) {
        assert_eq!(record["protocol"], "tcp", "{record}");
        assert_eq!(record["service"], "localhost", "{record}");
        assert_eq!(record["upstream"], format!("localhost:{port}"), "{record}");
        assert_eq!(record["outcome"]["kind"], "ok", "{record}");
        assert!(
            record["stream"]["client_bytes"].as_u64().unwrap() > 50,
            "{record}"
        );
        assert!(
            record["stream"]["server_bytes"].as_u64().unwrap() > 50,
            "{record}"
        );
        assert_eq!(record["stream"]["truncated"], true, "{record}");
        let id = record["id"].as_str().unwrap();
        let segments = node.api(&format!("/api/records/{id}/segments"), &[]).text();
        assert!(!segments.contains("bytes\":"), "{segments}");
    }
}

#[test]
fn a_tunnel_that_leads_nowhere_is_refused_and_recorded() {
    let world = World::new();
    let node = world.standalone(json!({}));
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (_, head) = connect(&node, "record", closed);
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let (_, head) = connect(&node, "record", 22);
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let own: u16 = node
        .url("record")
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let (_, head) = connect(&node, "record", own);
    assert!(head.starts_with("HTTP/1.1 508 "), "{head}");
    let recorded = records(&node, 2);
    assert_eq!(
        recorded[0]["outcome"]["kind"], "upstream_failed",
        "{recorded:?}"
    );
    assert_eq!(recorded[0]["upstream"], format!("localhost:{closed}"));
    assert_eq!(
        recorded[1]["outcome"]["kind"], "client_error",
        "{recorded:?}"
    );
}

#[test]
fn what_is_not_http_passes_a_decrypting_proxy_in_every_order_of_speaking() {
    let world = World::new();
    let (_, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca }));
    let (silent, greeting) = (echo_at_the_end(""), echo_at_the_end("220 hello\r\n"));
    for (port, said, heard) in [
        (
            silent,
            &b"\0\x01 garbage \xff"[..],
            &b"\0\x01 garbage \xff"[..],
        ),
        (silent, b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n"),
        (
            silent,
            &[22, 3, 1, 0, 1, 77, 0, 0],
            &[22, 3, 1, 0, 1, 77, 0, 0],
        ),
        (greeting, b"EHLO me\r\n", b"220 hello\r\nEHLO me\r\n"),
    ] {
        let (mut socket, head) = connect(&node, "record", port);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        socket.write_all(said).unwrap();
        // Half-closed: the answer comes on the other half.
        socket.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        assert_eq!(all, heard);
    }
    // The server speaks first, and the client waits for it.
    let (mut socket, _) = connect(&node, "record", greeting);
    let mut banner = [0; 11];
    socket.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"220 hello\r\n");
    drop(socket);
    for record in records(&node, 5) {
        assert_eq!(record["protocol"], "tcp", "{record}");
    }
}

#[test]
fn clients_that_vanish_in_a_tunnel_leave_nothing_behind() {
    let world = World::new();
    let (certificate, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca }));
    for words in [
        &[][..],
        &[22, 3, 1, 2, 0, 1],
        b"GE",
        b"GET / HTTP/1.1\r\nHost:",
    ] {
        let (mut socket, head) = connect(&node, "record", world.https);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        socket.write_all(words).unwrap();
    }
    crate::support::until("nobody is connected", || {
        (node.metric("proxy_open_connections") < 0.5).then_some(())
    });
    let url = format!("https://localhost:{}/", world.https);
    let answer = curl(
        &url,
        &["--proxy", node.url("record"), "--cacert", &certificate],
    );
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_over_http2_is_a_stream_beside_others() {
    let world = World::new();
    let node = world.node(
        "forward",
        json!({
            "mode": "Forward", "http": { "port": 0, "forward_proxy": {} },
        }),
    );
    let address = node.url("forward").trim_start_matches("http://").to_owned();
    let socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut sender, driver) = made.await.unwrap();
    tokio::spawn(driver);
    for path in ["/one", "/two"] {
        let request = hyper::Request::connect(format!("localhost:{}", world.http));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = soon("the answer", sender.send_request(request))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let tunnel = hyper::upgrade::on(response).await.unwrap();
        let mut tunnel = TokioIo::new(tunnel);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        tunnel.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", tunnel.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(
            answer.ends_with(&format!("GET localhost {path} auth= via=")),
            "{answer}"
        );
    }
    let uri = format!("http://127.0.5.5:{}/h2", world.http);
    let request = hyper::Request::get(uri)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = soon("the answer", sender.send_request(request))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

/// The answer to a CONNECT of a proxy in this process, and the connection.
async fn connect_here(proxy: SocketAddr, port: u16) -> (tokio::net::TcpStream, String) {
    let mut socket = tokio::net::TcpStream::connect(proxy).await.unwrap();
    let ask = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the head", socket.read_u8()).await.unwrap());
    }
    (socket, String::from_utf8(head).unwrap())
}

fn proxy_here(listen: &str, change: impl FnOnce(&mut http::Config)) -> Running {
    let mut config = http::Config::new(listen.parse().unwrap(), "test");
    config.forward_proxy = Some(ForwardProxy::default());
    change(&mut config);
    let bound = http::bind(config, None, Capture::disabled(), Metrics::default());
    bound.unwrap().serve()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_first_words_is_let_go() {
    let world = World::new();
    let (certificate, _) = world.authority();
    let proxy = proxy_here("127.0.0.1:0", |config| {
        config.handshake_timeout = Duration::from_millis(50);
        config.forward_proxy.as_mut().unwrap().authority = Some(tls::Files {
            key: certificate.replace("ca.pem", "ca.key").into(),
            certificate: certificate.into(),
        });
    });
    for words in [&[22, 3, 1, 2, 0, 1, 0][..], b"PROP"] {
        let (mut socket, head) = connect_here(proxy.local_addr(), world.http).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        socket.write_all(words).await.unwrap();
        let ended = soon("the end", socket.read_u8()).await;
        assert!(ended.is_err(), "{ended:?}");
    }
    proxy.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_for_others_leads_to_its_own_machine_only_where_that_is_named() {
    let port = echo_at_the_end("hello");
    for (hosts, status) in [(&[][..], "403"), (&["*"], "403"), (&["127.0.0.1"], "200")] {
        let proxy = proxy_here("0.0.0.0:0", |config| {
            let hosts = hosts.iter().map(|host| (*host).into()).collect();
            config.forward_proxy.as_mut().unwrap().allowed_hosts = hosts;
        });
        let address = SocketAddr::from(([127, 0, 0, 1], proxy.local_addr().port()));
        let (_, head) = connect_here(address, port).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{hosts:?}");
        proxy.shutdown(Duration::from_secs(5)).await;
    }
}

#[test]
fn a_node_that_stops_waits_for_no_tunnel() {
    let world = World::new();
    let mut node = world.node(
        "forward",
        json!({
            "mode": "Forward", "http": { "port": 0, "forward_proxy": {} },
        }),
    );
    let (mut socket, _) = connect(&node, "forward", echo_at_the_end("hello"));
    let mut greeting = [0; 5];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(node.process().terminate(), Some(0));
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    assert!(matches!(socket.read(&mut greeting), Ok(0) | Err(_)));
    assert!(try_curl("http://x.invalid", &["--proxy", "http://127.0.0.1:1"]).is_err());
}
