//! The MQTT client over everything but a bare TCP connection: WebSocket, proxies, ALPN; with real servers where they
//! behave, and with scripted ones where they do not.

mod alpn;
mod framing;
mod logs;
mod proxies;
mod websocket;

use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::error::{ConnectError, Error};
use qproxy::mqtt_client::message::QoS;
use qproxy::mqtt_client::options::{Proxy, TlsOptions, Transport, WebSocketOptions};

use crate::support::certificates::TlsFiles;
use crate::support::soon;

fn to(host: &str, port: u16) -> MqttConfig {
    MqttConfig {
        client_id: "tested".to_string(),
        host: host.to_string(),
        port,
        ..Default::default()
    }
}

fn websocket(path: &str) -> Transport {
    Transport::WebSocket(WebSocketOptions::default().with_path(path).unwrap())
}

fn trusting(files: &TlsFiles) -> Option<TlsOptions> {
    Some(TlsOptions {
        ca: Some(files.ca.clone()),
        ..TlsOptions::default()
    })
}

fn proxy(url: String) -> Option<Proxy> {
    Some(url.parse().unwrap())
}

/// Small and large messages there and back, in order, over whatever way `config` takes.
async fn carries_messages(config: MqttConfig) {
    const LARGE: usize = 300 << 10;
    let client = MqttClient::new(config);
    let mut messages = client.messages();
    soon("CONNACK", client.connect()).await.unwrap();
    let subscribed = soon("SUBACK", client.subscribe("t/#", QoS::AtLeastOnce)).await;
    subscribed.unwrap();
    let payload = |number: usize| match number {
        50 => vec![7; LARGE],
        number => number.to_string().into_bytes(),
    };
    let mut tokens = Vec::new();
    for number in 0..100 {
        let token = client.publish_deferred("t/x", payload(number), QoS::AtLeastOnce);
        tokens.push(token.await.unwrap());
    }
    for token in tokens {
        soon("PUBACK", token).await.unwrap();
    }
    for number in 0..100 {
        let message = soon("a message", messages.recv()).await.unwrap();
        assert!(message.payload == payload(number), "message {number}");
    }
    client.disconnect().await.unwrap();
}

/// Why one attempt fails.
async fn refusal(config: MqttConfig) -> ConnectError {
    let result = soon("an answer", MqttClient::new(config).connect()).await;
    match result {
        Err(Error::Connect(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
