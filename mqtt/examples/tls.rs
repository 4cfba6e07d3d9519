//! Connects over TLS, with an authority and a client certificate of one's own where they are given, and tells what
//! went wrong in one line.
//!
//! `cargo run --example tls -- broker.example.com:8883 [ca.pem [client.pem client.key]]`

use std::error::Error;
use std::path::PathBuf;

use qproxy_mqtt::options::TlsOptions;
use qproxy_mqtt::{MqttClient, MqttConfig, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or("localhost:8883".to_owned());
    let mut path = || arguments.next().map(PathBuf::from);
    let ca = path();
    let client_certificate = path().zip(path());
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let client = MqttClient::new(MqttConfig {
        client_id: "example-tls".to_owned(),
        host: host.to_owned(),
        port: port.parse()?,
        // Without an authority of our own, those of the operating system are trusted.
        tls: Some(TlsOptions {
            ca,
            client_certificate,
            ..TlsOptions::default()
        }),
        ..MqttConfig::default()
    });
    if let Err(error) = client.connect().await {
        let mut line = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            line = format!("{line}: {error}");
            cause = error.source();
        }
        return Err(line.into());
    }
    client
        .publish("example", "over TLS", QoS::AtLeastOnce)
        .await?;
    client.disconnect().await?;
    Ok(())
}
