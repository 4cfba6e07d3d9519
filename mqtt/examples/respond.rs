//! Answers queries: squares numbers until it is interrupted; see the example `query`.
//!
//! `cargo run --example respond -- localhost:1883`

use bytes::Bytes;
use qproxy_mqtt::client::Request;
use qproxy_mqtt::{MqttClient, MqttConfig};

/// The square of the number in the payload, or what is wrong with it.
async fn square(request: Request) -> Result<Bytes, Bytes> {
    let text = String::from_utf8_lossy(&request.payload);
    let number: i64 = text
        .trim()
        .parse()
        .map_err(|error| Bytes::from(format!("{text:?}: {error}")))?;
    let square = number.checked_mul(number).ok_or("too large")?;
    Ok(Bytes::from(square.to_string()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args()
        .nth(1)
        .unwrap_or("localhost:1883".to_owned());
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let client = MqttClient::new(MqttConfig {
        client_id: "example-respond".to_owned(),
        host: host.to_owned(),
        port: port.parse()?,
        ..MqttConfig::default()
    });
    client.connect().await?;
    // It works as long as the value lives; a lost subscription is renewed by itself.
    let responder = client.respond("math/square", square).await?;
    tokio::signal::ctrl_c().await?;
    responder.stop().await?;
    client.disconnect().await?;
    Ok(())
}
