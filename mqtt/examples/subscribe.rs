//! Prints what arrives, and acknowledges each message only once it is printed.
//!
//! `cargo run --example subscribe -- localhost:1883 'some/#'`

use std::io::Write;

use qproxy_mqtt::client::Event;
use qproxy_mqtt::session::AckMode;
use qproxy_mqtt::{MqttClient, MqttConfig, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or("localhost:1883".to_owned());
    let filter = arguments.next().unwrap_or("#".to_owned());
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let client = MqttClient::new(MqttConfig {
        client_id: "example-subscribe".to_owned(),
        host: host.to_owned(),
        port: port.parse()?,
        // The server keeps what comes while we are away, and what we have not acknowledged.
        clean_session: false,
        ack_mode: AckMode::Manual,
        ..MqttConfig::default()
    });
    let mut messages = client.messages();
    let mut events = client.events();
    client.connect().await?;
    let granted = client.subscribe(filter.as_str(), QoS::AtLeastOnce).await?;
    eprintln!("subscribed to {filter} with {granted:?}");

    let mut out = std::io::stdout();
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else { break };
                let payload = String::from_utf8_lossy(&message.payload);
                writeln!(out, "{} {payload}", message.topic)?;
                message.ack();
            }
            event = events.recv() => match event {
                Ok(Event::Stopped { reason }) => return Err(reason.into()),
                Ok(event) => eprintln!("{event:?}"),
                Err(missed) => eprintln!("{missed}"),
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        }
    }
    client.disconnect().await?;
    Ok(())
}
