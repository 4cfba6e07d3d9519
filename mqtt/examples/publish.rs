//! Publishes the lines of standard input, many at once, and says what became of them.
//!
//! `cargo run --example publish -- localhost:1883 some/topic < lines.txt`

use std::io::BufRead;

use qproxy_mqtt::{MqttClient, MqttConfig, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or("localhost:1883".to_owned());
    let topic = arguments.next().unwrap_or("example".to_owned());
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let client = MqttClient::new(MqttConfig {
        client_id: "example-publish".to_owned(),
        host: host.to_owned(),
        port: port.parse()?,
        ..MqttConfig::default()
    });
    client.connect().await?;

    // Each line enters the bounded queue, which makes us wait where it is full; none waits for the one before it.
    let mut tokens = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let publish = client.publish_deferred(topic.as_str(), line?, QoS::AtLeastOnce);
        tokens.push(publish.await?);
    }
    let count = tokens.len();
    for token in tokens {
        token.await?;
    }
    eprintln!("{count} messages acknowledged");
    client.disconnect().await?;
    Ok(())
}
