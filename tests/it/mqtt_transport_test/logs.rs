//! What the client writes to the log: where it connects, and never what it carries.

use std::io;
use std::sync::{Arc, Mutex};

use std::future::Future;

use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::Packet;
use qproxy::mqtt_client::message::QoS;
use tracing::Level;

use super::websocket;
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::mqtt_peer::Peer;
use crate::support::nats::{Nats, Speaks};
use crate::support::{eventually, free_port, soon};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that is logged on this thread at any level while `work` runs.
async fn logged(work: impl Future<Output = ()>) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    work.await;
    drop(guard);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

async fn talk(config: MqttConfig) {
    let client = MqttClient::new(MqttConfig {
        app_id: Some("user".to_string()),
        token: Some("hunter2".to_string()),
        ..config
    });
    let mut messages = client.messages();
    soon("CONNACK", client.connect()).await.unwrap();
    client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        client
            .publish("t", "a payload of hunter2", qos)
            .await
            .unwrap();
        soon("a message", messages.recv()).await.unwrap();
    }
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn the_log_names_client_and_server_and_holds_no_payload_and_no_secret() {
    let broker = Mosquitto::start(Options::default()).await;
    let server = Nats::start(Speaks::Plain);
    let in_websocket = MqttConfig {
        transport: websocket("/mqtt"),
        ..super::to("127.0.0.1", server.websocket)
    };
    for config in [broker.config("tested"), in_websocket] {
        let port = config.port;
        let log = logged(talk(config)).await;
        assert!(log.contains("client_id=\"tested\""), "{log}");
        assert!(
            log.contains(&format!("server=\"127.0.0.1:{port}\"")),
            "{log}"
        );
        assert!(log.contains("connected"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[tokio::test]
async fn the_log_tells_each_attempt_and_why_it_failed() {
    let first = free_port();
    let config = MqttConfig {
        fallbacks: vec![qproxy::mqtt_client::options::Server {
            host: "127.0.0.1".to_string(),
            port: free_port(),
        }],
        ..super::to("127.0.0.1", first)
    };
    let second = config.fallbacks[0].port;
    let log = logged(async {
        let failed = MqttClient::new(config).connect().await;
        assert!(failed.is_err());
    })
    .await;
    for port in [first, second] {
        assert!(
            log.contains(&format!("attempt{{server=\"127.0.0.1:{port}\"}}")),
            "{log}"
        );
    }
    assert!(log.contains("refused"), "{log}");
}

#[tokio::test]
async fn the_times_of_acknowledgements_and_pings_are_counted() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(MqttConfig {
        keep_alive: 1,
        ..peer.config()
    });
    let (connected, mut server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    for _ in 0..3 {
        let (published, ()) = tokio::join!(client.publish("t", "x", QoS::AtLeastOnce), async {
            let publish = server.publish().await;
            server.puback(&publish).await;
        });
        published.unwrap();
    }
    client
        .publish("t", "not acknowledged", QoS::AtMostOnce)
        .await
        .unwrap();
    server.publish().await;
    assert!(matches!(server.next().await, Packet::PingReq));
    server.send(&Packet::PingResp).await;
    eventually("the answer is counted", || async {
        client.latencies().ping.count() == 1
    })
    .await;
    let times = client.latencies().publish;
    assert_eq!(times.count(), 3);
    let (half, all) = (times.quantile(0.5).unwrap(), times.quantile(1.0).unwrap());
    assert!(half <= all && all == times.max() && times.max() <= times.sum());
}
