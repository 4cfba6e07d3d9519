//! Connects in a WebSocket, secure where the address says `wss`, and through a proxy where one is given.
//!
//! `cargo run --example websocket -- wss://broker.example.com/mqtt [socks5://user:password@proxy:1080]`

use std::error::Error;

use qproxy_mqtt::options::{Proxy, TlsOptions, Transport, WebSocketOptions};
use qproxy_mqtt::{MqttClient, MqttConfig, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or("ws://localhost:8083/mqtt".to_owned());
    let proxy = arguments.next().map(|proxy| proxy.parse::<Proxy>());
    let (secure, rest) = match (url.strip_prefix("wss://"), url.strip_prefix("ws://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        _ => return Err("expected ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH".into()),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, "mqtt"));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, if secure { 443 } else { 80 }),
    };
    let client = MqttClient::new(MqttConfig {
        client_id: "example-websocket".to_owned(),
        host: host.to_owned(),
        port,
        tls: secure.then(TlsOptions::default),
        transport: Transport::WebSocket(WebSocketOptions::default().with_path(format!("/{path}"))?),
        proxy: proxy.transpose()?,
        ..MqttConfig::default()
    });
    client.connect().await?;
    client
        .publish("example", "in a WebSocket", QoS::AtLeastOnce)
        .await?;
    client.disconnect().await?;
    Ok(())
}
