//! Our client: `publish_deferred` with a token for each message, as a program that wants to know publishes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use qproxy::mqtt_client::client::{Messages, MqttClient, MqttConfig, PublishToken};
use qproxy::mqtt_client::message::{QoS, Text};
use tokio::sync::Semaphore;

use super::contest::{Case, Pacer, Path, Tally, UNDER_WAY, WINDOW, latency, stamp};

const TOPIC: Text = Text::from_static("bench/topic");

async fn client(port: u16, id: &str) -> MqttClient {
    let client = MqttClient::new(MqttConfig {
        client_id: id.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        window: WINDOW,
        window_exactly_once: WINDOW,
        ..MqttConfig::default()
    });
    client.connect().await.unwrap();
    client
}

pub(crate) async fn start(case: Case, port: u16, tally: &'static Tally) {
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(case.qos)];
    if case.path == Path::Acknowledging {
        let client = client(port, "ours").await;
        tokio::spawn(publish(client, case, qos, tally));
        return;
    }
    let subscriber = client(port, "ours-subscriber").await;
    let messages = subscriber.subscribe_stream(TOPIC, qos).await.unwrap();
    let publisher = client(port, "ours-publisher").await;
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    tokio::spawn(receive(
        subscriber,
        messages,
        case.path,
        room.clone(),
        tally,
    ));
    match case.path {
        Path::Latency => tokio::spawn(paced(publisher, case, qos)),
        _ => tokio::spawn(through(publisher, case, qos, room)),
    };
}

async fn publish(client: MqttClient, case: Case, qos: QoS, tally: &Tally) {
    let payload = Bytes::from(vec![b'x'; case.bytes]);
    let mut tokens = VecDeque::<PublishToken>::with_capacity(UNDER_WAY);
    loop {
        if tokens.len() == UNDER_WAY {
            tokens.pop_front().unwrap().await.unwrap();
            tally.add(1);
        }
        tokens.push_back(
            client
                .publish_deferred(TOPIC, payload.clone(), qos)
                .await
                .unwrap(),
        );
    }
}

async fn through(client: MqttClient, case: Case, qos: QoS, room: Arc<Semaphore>) {
    let payload = Bytes::from(vec![b'x'; case.bytes]);
    let mut tokens = VecDeque::<PublishToken>::with_capacity(UNDER_WAY);
    loop {
        room.acquire().await.unwrap().forget();
        if tokens.len() == UNDER_WAY {
            tokens.pop_front().unwrap().await.unwrap();
        }
        tokens.push_back(
            client
                .publish_deferred(TOPIC, payload.clone(), qos)
                .await
                .unwrap(),
        );
    }
}

async fn paced(client: MqttClient, case: Case, qos: QoS) {
    let pacer = Pacer::new();
    let mut tokens = VecDeque::<PublishToken>::with_capacity(UNDER_WAY);
    loop {
        for _ in 0..pacer.ticks().await {
            let mut payload = vec![b'x'; case.bytes];
            payload[..8].copy_from_slice(&stamp().to_le_bytes());
            tokens.push_back(client.publish_deferred(TOPIC, payload, qos).await.unwrap());
            if tokens.len() == UNDER_WAY {
                tokens.pop_front().unwrap().await.unwrap();
            }
        }
    }
}

async fn receive(
    _client: MqttClient,
    mut messages: Messages,
    path: Path,
    room: Arc<Semaphore>,
    tally: &Tally,
) {
    let mut batch = Vec::with_capacity(UNDER_WAY);
    while messages.recv_many(&mut batch, UNDER_WAY).await > 0 {
        if path == Path::Latency {
            let mut latencies = tally.latencies.lock().unwrap();
            latencies.extend(batch.iter().map(|message| latency(&message.payload)));
        }
        tally.add(batch.len() as u64);
        room.add_permits(batch.len());
        batch.clear();
    }
}
