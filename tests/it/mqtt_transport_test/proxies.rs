//! SOCKS5 and HTTP proxies: real ones, and such that never answer.

use std::time::Duration;

use qproxy::mqtt_client::client::MqttConfig;
use qproxy::mqtt_client::error::ConnectError;
use qproxy::mqtt_client::transport::ProxyError;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{carries_messages, chain, proxy, refusal, to, trusting, websocket};
use crate::support::curl::curl;
use crate::support::httpbin::Httpbin;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::nats::{Nats, Speaks};
use crate::support::node::Node;
use crate::support::tunnel::Tunnel;
use crate::support::{free_port, soon, until};

#[tokio::test]
async fn socks5_leads_to_the_broker_and_its_refusals_are_explained() {
    let broker = Mosquitto::start(Options::default()).await;
    let open = Tunnel::socks5(None);
    let guarded = Tunnel::socks5(Some(("user", "hunter2")));
    let through = |way: String, host: &str, port| MqttConfig {
        proxy: proxy(way),
        ..to(host, port)
    };
    let way = format!("socks5://127.0.0.1:{}", open.port);
    carries_messages(through(way.clone(), "127.0.0.1", broker.port())).await;
    // The name travels to the proxy, which resolves it.
    carries_messages(through(way.clone(), "localhost", broker.port())).await;
    let known = format!("socks5://user:hunter2@127.0.0.1:{}", guarded.port);
    carries_messages(through(known, "127.0.0.1", broker.port())).await;

    let closed = free_port();
    let error = refusal(through(way.clone(), "127.0.0.1", closed)).await;
    let text = chain(&error);
    assert!(
        text.contains(&format!("{way} does not connect to 127.0.0.1:{closed}")),
        "{text}"
    );
    assert!(text.contains("connection refused"), "{text}");
    assert!(!error.is_permanent());

    let anonymous = format!("socks5://127.0.0.1:{}", guarded.port);
    let error = refusal(through(anonymous, "127.0.0.1", broker.port())).await;
    assert!(chain(&error).contains("wants credentials"), "{error:?}");
    let wrong = format!("socks5://user:hunter3@127.0.0.1:{}", guarded.port);
    let error = refusal(through(wrong, "127.0.0.1", broker.port())).await;
    let refused = matches!(
        error,
        ConnectError::Proxy(ProxyError::CredentialsRefused { .. })
    );
    assert!(refused && error.is_permanent(), "{error:?}");
    assert!(
        !format!("{error:?} {}", chain(&error)).contains("hunter3"),
        "{error:?}"
    );
}

#[tokio::test]
async fn connect_leads_to_the_broker_and_its_refusals_are_explained() {
    let broker = Mosquitto::start(Options::default()).await;
    let closed = free_port();
    let open = Tunnel::http(None, &[broker.port(), closed]);
    let guarded = Tunnel::http(Some(("user", "hunter2")), &[broker.port()]);
    let through = |way: String, port| MqttConfig {
        proxy: proxy(way),
        ..to("localhost", port)
    };
    let way = format!("http://127.0.0.1:{}", open.port);
    carries_messages(through(way.clone(), broker.port())).await;
    let known = format!("http://user:hunter2@127.0.0.1:{}", guarded.port);
    carries_messages(through(known, broker.port())).await;

    // A port that it does not allow, and one where nobody listens.
    let error = refusal(through(way.clone(), 1)).await;
    assert!(chain(&error).contains("403 Access violation"), "{error:?}");
    assert!(
        chain(&error).contains(&format!("{way} does not connect to localhost:1")),
        "{error:?}"
    );
    let error = refusal(through(way.clone(), closed)).await;
    let expected = format!("{way} does not connect to localhost:{closed}: HTTP/1.");
    assert!(chain(&error).contains(&expected), "{error:?}");

    let anonymous = format!("http://127.0.0.1:{}", guarded.port);
    let error = refusal(through(anonymous, broker.port())).await;
    let wanted = matches!(
        error,
        ConnectError::Proxy(ProxyError::CredentialsWanted { .. })
    );
    assert!(wanted, "{error:?}");
    let wrong = format!("http://user:hunter3@127.0.0.1:{}", guarded.port);
    let error = refusal(through(wrong, broker.port())).await;
    assert!(
        !format!("{error:?} {}", chain(&error)).contains("hunter3"),
        "{error:?}"
    );
    assert!(error.is_permanent(), "{error:?}");
}

#[tokio::test]
async fn proxy_tls_and_websocket_go_together() {
    let server = Nats::start(Speaks::Tls);
    let files = server.tls.clone().unwrap();
    let socks = Tunnel::socks5(Some(("user", "hunter2")));
    let http = Tunnel::http(None, &[server.websocket]);
    for way in [
        format!("socks5://user:hunter2@127.0.0.1:{}", socks.port),
        format!("http://127.0.0.1:{}", http.port),
    ] {
        carries_messages(MqttConfig {
            proxy: proxy(way),
            tls: trusting(&files),
            transport: websocket("/mqtt"),
            ..to("localhost", server.websocket)
        })
        .await;
    }
}

#[tokio::test]
async fn a_silent_proxy_is_left_at_the_deadline_and_named() {
    for scheme in ["http", "socks5"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = format!("{scheme}://{}", listener.local_addr().unwrap());
        let config = MqttConfig {
            proxy: proxy(way.clone()),
            connect_timeout: Duration::from_millis(300),
            ..to("broker.invalid", 1883)
        };
        let silent = async { soon("a connection", listener.accept()).await.unwrap() };
        let (error, _stream) = tokio::join!(refusal(config), silent);
        let ConnectError::Timeout { stage, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*stage, "the answer of the proxy");
        let expected = format!("broker.invalid:1883 through {way}");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let way = format!("socks5://127.0.0.1:{}", free_port());
    let error = refusal(MqttConfig {
        proxy: proxy(way.clone()),
        ..to("broker.invalid", 1883)
    })
    .await;
    let expected = format!("could not reach the proxy {way}");
    assert!(chain(&error).contains(&expected), "{error:?}");
}

#[test]
fn two_nodes_meet_in_a_websocket_behind_a_proxy() {
    let folder = TempDir::new().unwrap();
    let (server, origin) = (Nats::start(Speaks::Tls), Httpbin::start(0));
    let files = server.tls.clone().unwrap();
    let proxy = Tunnel::socks5(Some(("user", "hunter2")));
    let node = |name: &str, mode: &str, http: serde_json::Value| {
        let config = json!({
            "mode": mode, "node": name, "http": http,
            "peer": { "host": "localhost", "port": server.websocket, "tls": true },
            "mqtt": {
                "transport": "websocket", "ca": files.ca,
                "proxy": format!("socks5://user:hunter2@127.0.0.1:{}", proxy.port),
            },
            "store": { "path": "data" },
            "api": { "port": 0 }
        });
        Node::start(&folder.path().join(name), &config)
    };
    let player = node("az2", "Playback", json!({ "port": 0 }));
    let recorder = node(
        "az1",
        "Record",
        json!({ "port": 0, "downstream": origin.url() }),
    );
    let asked = curl(&format!("{}/robots.txt", recorder.url("record")), &[]);
    let answered = until("the record answers on the other node", || {
        let answer = curl(&format!("{}/robots.txt", player.url("answer")), &[]);
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(answered.body, asked.body);
}
