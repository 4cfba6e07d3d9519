//! Asks whoever responds on a topic, and prints the answer; see the example `respond`.
//!
//! `cargo run --example query -- localhost:1883 math/square 12`

use std::io::Write;
use std::time::Duration;

use qproxy_mqtt::error::{Error, QueryError};
use qproxy_mqtt::options::QueryOptions;
use qproxy_mqtt::{MqttClient, MqttConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or("localhost:1883".to_owned());
    let topic = arguments.next().unwrap_or("math/square".to_owned());
    let question = arguments.next().unwrap_or("12".to_owned());
    let (host, port) = server.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let client = MqttClient::new(MqttConfig {
        client_id: "example-query".to_owned(),
        host: host.to_owned(),
        port: port.parse()?,
        query: QueryOptions {
            timeout: Duration::from_secs(3),
            ..QueryOptions::default()
        },
        ..MqttConfig::default()
    });
    client.connect().await?;
    match client.query(topic.as_str(), question).await {
        Ok(answer) => {
            let mut out = std::io::stdout();
            out.write_all(&answer)?;
            writeln!(out)?;
        }
        Err(Error::Query(QueryError::Failed(why))) => {
            eprintln!("refused: {}", String::from_utf8_lossy(&why));
        }
        Err(Error::Query(QueryError::Timeout(limit))) => {
            eprintln!("nobody answered on {topic} within {limit:?}");
        }
        Err(error) => return Err(error.into()),
    }
    client.disconnect().await?;
    Ok(())
}
