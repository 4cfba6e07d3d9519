//! The dashboard in a real browser: its pages show what was recorded, and none of its scripts fails.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::curl::curl;
use crate::support::httpbin::{python, require};
use crate::support::node::Node;
use crate::support::numbered::Origin;
use crate::support::process::Process;
use crate::support::redis::RedisServer;
use crate::support::until;
use crate::websocket_test;

/// Chromium, driven by its DevTools protocol.
struct Browser(Process);

impl Browser {
    fn start() -> Self {
        require("websockets");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let mut command = Command::new(python());
        command.arg(folder.join("browser.py"));
        let mut process = Process::start(&mut command, "python3 and chromium");
        process.expect_line("`ready`", |line| (line == "ready").then_some(()));
        Self(process)
    }

    /// The text of a page once it has all of `words`.
    fn shows(&mut self, url: &str, words: &[&str]) -> String {
        let until = json!(words).to_string();
        let until = format!("{until}.every((word) => document.body.innerText.includes(word))");
        let step = json!({ "open": url, "until": until });
        writeln!(self.0.stdin(), "{step}").unwrap();
        let told: Value = self
            .0
            .expect_line("what it shows", |line| serde_json::from_str(line).ok());
        assert_eq!(told["errors"], json!([]), "{url}: {told:#}");
        let text = told["text"].as_str();
        text.unwrap_or_else(|| panic!("{url} does not show {words:?}"))
            .to_owned()
    }
}

fn only(node: &Node, query: &str) -> String {
    let path = format!("/api/records?{query}");
    until("it is recorded", || {
        let list = node.api(&path, &[]).json();
        list["records"][0]["id"].as_str().map(ToOwned::to_owned)
    })
}

#[test]
fn the_dashboard_shows_requests_messages_and_commands() {
    let folder = tempfile::tempdir().unwrap();
    let (_service, chat) = websocket_test::service(&["deflate"]);
    let origin = Origin::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let redis = runtime.block_on(RedisServer::start(&[]));
    let any = json!({ "port": 0 });
    let node = Node::start(
        folder.path(),
        &json!({
            "mode": "Standalone", "node": "one", "broker": any, "api": any,
            "playback": { "http": any },
            "http": {
                "port": 0, "downstream": origin.url(), "service": "shop",
                "routes": [{ "path": "/echo", "downstream": format!("http://127.0.0.1:{chat}") },
                           { "path": "/reverse", "downstream": format!("http://127.0.0.1:{chat}") }]
            },
            "tcp": { "port": 0, "downstream": format!("127.0.0.1:{}", redis.port()), "service": "cache" }
        }),
    );
    let url = node.url("record");
    curl(&format!("{url}/things/7?colour=green"), &[]);
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(node.url("tcp"))
            .await
            .unwrap();
        socket.write_all(b"SET tea green\r\n").await.unwrap();
        let mut heard = [0; 5];
        socket.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"+OK\r\n");
    });
    let said = websocket_test::say(
        &format!("{}/reverse", url.replacen("http", "ws", 1)),
        "stressed",
    );
    assert_eq!(said, "desserts");
    let request = only(&node, "protocol=http&path=/things");
    let messages = only(&node, "protocol=ws");
    let commands = only(&node, "protocol=tcp");

    let mut browser = Browser::start();
    let api = node.url("api");
    let listed = browser.shows(
        &format!("{api}/"),
        &["/things/7?colour=green", "/reverse", "SET tea green", "101"],
    );
    assert!(
        listed.contains("shop") && listed.contains("cache"),
        "{listed}"
    );
    let page = |id: &str| format!("{api}/#/records/{id}");
    browser.shows(&page(&request), &["GET /things/7?colour=green", "colour"]);
    browser.shows(
        &page(&messages),
        &["Conversation", "stressed", "desserts", "permessage-deflate"],
    );
    browser.shows(
        &page(&commands),
        &["Calls", "SET tea green", "Bytes", "53 45 54 20 74 65 61"],
    );
}
