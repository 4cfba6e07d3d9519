//! A forwarding node between clients that ask for too much and upstreams that come and go.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::stage::logged;
use crate::support::curl::curl;
use crate::support::httpbin::Httpbin;
use crate::support::node::Node;
use crate::support::numbered::Origin;
use crate::support::{free_port, until};

fn forward(http: &Value) -> Value {
    let mut config = json!({
        "mode": "Forward", "http": http, "api": { "host": "127.0.0.1", "port": 0 },
    });
    config["http"]["host"] = "127.0.0.1".into();
    config["http"]["port"] = 0.into();
    config
}

/// Answers the first request of each connection to this port.
fn answer_on(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nback";
            let _ = socket.write_all(answer);
        }
    });
}

#[test]
fn an_upstream_that_goes_is_left_out_and_comes_back_and_the_log_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, port) = (Origin::start(), free_port());
    let absent = format!("http://127.0.0.1:{port}");
    let http = json!({ "downstream": [origin.url(), absent] });
    let mut node = Node::start(folder.path(), &forward(&http));
    let url = format!("{}/n/7", node.url("forward"));
    // Nobody sees a failure: the next one takes over.
    until("the absent one is left out", || {
        assert_eq!(curl(&url, &[]).text(), "7");
        (node.metric("endpoint_left_out_total") >= 1.0).then_some(())
    });
    logged(&mut node, &["endpoint is down", &absent]);
    answer_on(port);
    until("it is used again", || {
        let answer = curl(&url, &[]);
        assert_eq!(answer.status, 200);
        (answer.text() == "back").then_some(())
    });
    logged(&mut node, &["endpoint is up again", &absent]);
}

#[test]
fn an_upload_over_the_limit_gets_413_in_every_version_and_one_within_it_passes() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Httpbin::start(0);
    let http = json!({ "downstream": origin.url(), "max_request_bytes": "1KiB" });
    let node = Node::start(folder.path(), &forward(&http));
    let url = format!("{}/post", node.url("forward"));
    let file = |name: &str, length: usize| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![b'x'; length]).unwrap();
        format!("@{}", path.display())
    };
    let (fits, large) = (file("fits", 1024), file("large", 1 << 20));
    for how in [
        &["--http1.1"][..],
        &["--http1.1", "-H", "Transfer-Encoding: chunked"],
        &["--http1.1", "-H", "Expect:"],
        &["--http2-prior-knowledge"],
    ] {
        let upload = |from: &str| curl(&url, &[how, &["--data-binary", from]].concat());
        let refused = upload(&large);
        assert_eq!(refused.status, 413, "{how:?}: {refused:?}");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("over the limit of 1024 bytes"), "{detail}");
        let passed = upload(&fits);
        assert_eq!(passed.status, 200, "{how:?}");
        let headers = &passed.json()["headers"];
        assert!(headers["Content-Type"].is_string(), "{headers}");
    }
}
