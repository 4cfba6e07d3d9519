//! rumqttc, set up as well as it can be: a long request channel, payloads as `Bytes`, and Nagle's algorithm left on
//! where throughput counts (it writes once per message) and off where latency does.

use std::sync::Arc;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, NetworkOptions, Outgoing, QoS,
};
use tokio::sync::Semaphore;

use super::contest::{Case, Pacer, Path, Tally, UNDER_WAY, WINDOW, latency, stamp};

const TOPIC: &str = "bench/topic";

fn client(case: Case, port: u16, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options
        .set_inflight(WINDOW)
        .set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, UNDER_WAY);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(case.path == Path::Latency);
    events.set_network_options(network);
    (client, events)
}

pub(crate) async fn start(case: Case, port: u16, tally: &'static Tally) {
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(case.qos)];
    let (publisher, events) = client(case, port, "rumqttc-publisher");
    if case.path == Path::Acknowledging {
        tokio::spawn(acknowledged(events, tally));
        tokio::spawn(publish(publisher, case, qos));
        return;
    }
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let (subscriber, mut received) = client(case, port, "rumqttc-subscriber");
    subscriber.subscribe(TOPIC, qos).await.unwrap();
    while !matches!(
        received.poll().await.unwrap(),
        Event::Incoming(Incoming::SubAck(_))
    ) {}
    tokio::spawn(receive(
        subscriber,
        received,
        case.path,
        room.clone(),
        tally,
    ));
    tokio::spawn(drive(events));
    match case.path {
        Path::Latency => tokio::spawn(paced(publisher, case, qos)),
        _ => tokio::spawn(through(publisher, case, qos, room)),
    };
}

/// Counts what the broker has answered for; a QoS 0 publish counts when it is written.
async fn acknowledged(mut events: EventLoop, tally: &Tally) {
    loop {
        match events.poll().await.unwrap() {
            Event::Incoming(Incoming::PubAck(_) | Incoming::PubComp(_))
            | Event::Outgoing(Outgoing::Publish(0)) => tally.add(1),
            _ => {}
        }
    }
}

async fn drive(mut events: EventLoop) {
    loop {
        events.poll().await.unwrap();
    }
}

async fn publish(client: AsyncClient, case: Case, qos: QoS) {
    let payload = Bytes::from(vec![b'x'; case.bytes]);
    loop {
        client
            .publish_bytes(TOPIC, qos, false, payload.clone())
            .await
            .unwrap();
    }
}

async fn through(client: AsyncClient, case: Case, qos: QoS, room: Arc<Semaphore>) {
    let payload = Bytes::from(vec![b'x'; case.bytes]);
    loop {
        room.acquire().await.unwrap().forget();
        client
            .publish_bytes(TOPIC, qos, false, payload.clone())
            .await
            .unwrap();
    }
}

async fn paced(client: AsyncClient, case: Case, qos: QoS) {
    let pacer = Pacer::new();
    loop {
        for _ in 0..pacer.ticks().await {
            let mut payload = vec![b'x'; case.bytes];
            payload[..8].copy_from_slice(&stamp().to_le_bytes());
            client
                .publish_bytes(TOPIC, qos, false, payload.into())
                .await
                .unwrap();
        }
    }
}

async fn receive(
    _client: AsyncClient,
    mut events: EventLoop,
    path: Path,
    room: Arc<Semaphore>,
    tally: &Tally,
) {
    loop {
        if let Event::Incoming(Incoming::Publish(message)) = events.poll().await.unwrap() {
            if path == Path::Latency {
                tally
                    .latencies
                    .lock()
                    .unwrap()
                    .push(latency(&message.payload));
            }
            tally.add(1);
            room.add_permits(1);
        }
    }
}
