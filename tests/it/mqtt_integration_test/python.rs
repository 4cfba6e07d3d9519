//! Queries between our client and programs in Python (paho-mqtt), either way round.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::Version;
use qproxy::mqtt_client::error::{Error, QueryError};
use qproxy::mqtt_client::options::QueryOptions;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::httpbin::{python, require};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::process::Process;
use crate::support::{PATIENCE, soon};

/// At once; more than the window of 100, so that they also wait for each other.
const QUERIES: usize = 400;

/// Mosquitto that writes down every packet.
async fn broker() -> Mosquitto {
    let options = Options {
        transcript: true,
        ..Options::default()
    };
    Mosquitto::start(options).await
}

fn peer(arguments: &[&str]) -> Process {
    require("paho.mqtt");
    let mut command = Command::new(python());
    command.arg("tests/peers/rpc.py").args(arguments);
    Process::start(&mut command, "python3-venv")
}

/// As the Python peer names it.
fn name(version: Version) -> &'static str {
    match version {
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    }
}

async fn connected(broker: &Mosquitto, version: Version, id: &str) -> MqttClient {
    let query = QueryOptions {
        timeout: PATIENCE,
        max_handlers: QUERIES,
        ..QueryOptions::default()
    };
    let client = MqttClient::new(MqttConfig {
        query,
        protocol: version,
        ..broker.config(id)
    });
    soon("CONNACK", client.connect()).await.unwrap();
    client
}

#[tokio::test]
async fn a_python_responder_answers_hundreds_of_queries_over_one_subscription() {
    hundreds_of_queries(Version::V311).await;
}

#[tokio::test]
async fn a_python_responder_that_looks_at_properties_alone_answers_queries_of_mqtt_5() {
    hundreds_of_queries(Version::V5).await;
}

#[tokio::test]
async fn our_responder_answers_a_python_caller() {
    python_asks(Version::V311).await;
}

#[tokio::test]
async fn our_responder_answers_a_python_caller_of_mqtt_5_where_it_wants() {
    python_asks(Version::V5).await;
}

async fn hundreds_of_queries(version: Version) {
    let broker = broker().await;
    let mut responder = peer(&[
        "respond",
        &broker.port().to_string(),
        name(version),
        "words",
    ]);
    responder.expect_line("`ready`", |line| (line == "ready").then_some(()));
    let caller = connected(&broker, version, "caller").await;
    let together = Arc::new(Barrier::new(QUERIES));
    let mut queries = JoinSet::new();
    for number in 0..QUERIES {
        let (caller, together) = (caller.clone(), together.clone());
        queries.spawn(async move {
            together.wait().await;
            let answer = caller
                .query("words", format!("word {number}"))
                .await
                .unwrap();
            assert_eq!(answer, format!("WORD {number}"));
        });
    }
    while let Some(query) = soon("an answer", queries.join_next()).await {
        query.unwrap();
    }
    let failed = caller.query("words", "fail").await.unwrap_err();
    assert!(
        matches!(&failed, Error::Query(QueryError::Failed(why)) if why == "refused"),
        "{failed}"
    );

    let transcript = broker.transcript();
    let count = |text: &str| {
        transcript
            .lines()
            .filter(|line| line.contains(text))
            .count()
    };
    assert_eq!(count("Received SUBSCRIBE from caller"), 1, "{transcript}");
    assert_eq!(count("Received UNSUBSCRIBE from caller"), 0);
    assert_eq!(
        count("Received PUBLISH from caller"),
        QUERIES + 1,
        "each query is one message"
    );
    assert_eq!(caller.stats().late_answers, 0);
}

async fn python_asks(version: Version) {
    let broker = broker().await;
    let responder = connected(&broker, version, "responder").await;
    let handler = |request: qproxy::mqtt_client::client::Request| async move {
        match &request.payload[..] {
            b"question 7" => Err(Bytes::from_static(b"not that one")),
            other => Ok(Bytes::from(other.to_ascii_uppercase())),
        }
    };
    let _responding = responder.respond("words", handler).await.unwrap();
    let count = 200;
    let port = broker.port().to_string();
    let asking = tokio::task::spawn_blocking(move || {
        let mut caller = peer(&["ask", &port, name(version), "words", &count.to_string()]);
        caller.expect_line("the answers", |line| serde_json::from_str(line).ok())
    });
    let answers: BTreeMap<String, (String, String)> = asking.await.unwrap();
    assert_eq!(answers.len(), count);
    for number in 0..count {
        let expected = match number {
            7 => ("error".to_owned(), "not that one".to_owned()),
            _ => ("ok".to_owned(), format!("QUESTION {number}")),
        };
        assert_eq!(answers[&format!("c{number}")], expected);
    }
    assert_eq!(responder.stats().requests, count as u64);
}
