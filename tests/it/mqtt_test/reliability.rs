//! The cases in which clients wedge, leak or lie: calls given up half-way, networks that die without a word, windows
//! that are full, servers that answer what nobody asked.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use qproxy::mqtt_client::Version;
use qproxy::mqtt_client::client::{Event, MqttClient, MqttConfig, Request};
use qproxy::mqtt_client::codec::{Ack, Packet, PacketId, ReasonCode, SubAck};
use qproxy::mqtt_client::error::{ConnectError, Disconnected, Error, QueryError};
use qproxy::mqtt_client::message::QoS;
use qproxy::mqtt_client::options::{Overflow, QueryOptions, Server, Takeover, TlsOptions};
use tokio::net::{TcpSocket, TcpStream};

use super::{connected, event};
use crate::support::mqtt_peer::{Peer, PeerConnection};
use crate::support::{PATIENCE, eventually, soon};

/// Answers everything, queries included, until the client leaves.
async fn oblige(mut connection: PeerConnection) {
    while let Some(packet) = connection.try_next().await {
        match packet {
            Packet::Publish(publish) => {
                match publish.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => connection.puback(&publish).await,
                    QoS::ExactlyOnce => {
                        let ack = Ack::from(publish.id.unwrap());
                        connection.send(&Packet::PubRec(ack)).await;
                    }
                }
                if let Some((_, ids)) = publish.topic.split_once("/_q/") {
                    let to = format!("_r/{ids}/ok");
                    connection.message(&to, "answer", 0).await;
                }
            }
            Packet::PubRel(ack) => connection.send(&Packet::PubComp(ack)).await,
            Packet::Subscribe(subscribe) => {
                let granted = ReasonCode::GrantedQoS2;
                let suback = SubAck {
                    id: subscribe.id,
                    codes: vec![granted; subscribe.filters.len()],
                    properties: None,
                };
                connection.send(&Packet::SubAck(suback)).await;
            }
            Packet::Unsubscribe(unsubscribe) => {
                connection.unsuback(&unsubscribe).await;
            }
            Packet::PingReq => connection.send(&Packet::PingResp).await,
            Packet::Disconnect(_) => return,
            other => panic!("not from a client: {other:?}"),
        }
    }
}

/// Polls a future so many times, then drops it where it stands.
async fn given_up_after<F: Future>(polls: u64, future: F) {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        if left == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// A call of some kind on the client; what comes of it does not matter.
fn any_call(client: &MqttClient, kind: u64) -> Pin<Box<dyn Future<Output = ()>>> {
    let client = client.clone();
    Box::pin(async move {
        match kind {
            0 => drop(client.publish("a", "", QoS::AtMostOnce).await),
            1 => drop(client.publish("a", "", QoS::AtLeastOnce).await),
            2 => drop(client.publish("a", "", QoS::ExactlyOnce).await),
            3 => drop(client.subscribe("a", QoS::AtLeastOnce).await),
            4 => drop(client.subscribe_stream("b/+", QoS::AtLeastOnce).await),
            5 => drop(client.unsubscribe("a").await),
            6 => drop(client.query("question", "").await),
            7 => drop(client.respond("c", |_| async { Err("no".into()) }).await),
            8 => drop(client.connect().await),
            _ => drop(client.disconnect().await),
        }
    })
}

#[tokio::test]
async fn calls_given_up_at_any_await_leave_nothing_behind() {
    give_up_calls_in(Version::V311).await;
}

#[tokio::test]
async fn calls_given_up_at_any_await_leave_nothing_behind_in_5_0() {
    give_up_calls_in(Version::V5).await;
}

async fn give_up_calls_in(protocol: Version) {
    let peer = Arc::new(Peer::bind().await);
    // Small, so that calls wait for room too.
    let config = MqttConfig {
        protocol,
        window: 2,
        queue_messages: 2,
        ..peer.config()
    };
    let server = tokio::spawn({
        let peer = peer.clone();
        async move {
            loop {
                tokio::spawn(oblige(peer.accept().await));
            }
        }
    });
    let client = MqttClient::new(config);
    let mut state = 1_u64;
    let mut random = |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % bound
    };
    for _ in 0..500 {
        client.connect().await.unwrap();
        // Leaving ends what the others do: now and then is enough.
        let kinds = if random(10) == 0 { 10 } else { 9 };
        let calls = [(); 3].map(|()| {
            let call = any_call(&client, random(kinds));
            given_up_after(random(6), call)
        });
        let [one, two, three] = calls;
        soon("the calls", async { tokio::join!(one, two, three) }).await;
    }
    client.connect().await.unwrap();
    eventually("nothing is left", || async {
        let stats = client.stats();
        (stats.in_flight, stats.queued, stats.open_queries) == (0, 0, 0)
    })
    .await;
    assert_eq!(client.query("question", "").await.unwrap(), "answer");
    client.publish("a", "", QoS::ExactlyOnce).await.unwrap();
    client.disconnect().await.unwrap();
    assert_eq!(client.stats().in_flight, 0);
    server.abort();
}

/// Waits for the connection to be given up as dead.
async fn dead(events: &mut tokio::sync::broadcast::Receiver<Event>) {
    let ended = event(events, |event| matches!(event, Event::Disconnected { .. })).await;
    let Event::Disconnected { reason } = ended else {
        unreachable!("just matched")
    };
    assert!(matches!(reason, Disconnected::Dead(_)), "{reason:?}");
}

#[tokio::test]
async fn a_server_that_takes_everything_and_says_nothing_is_given_up_in_time() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        keep_alive: 1,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let mut events = client.events();
    let since = Instant::now();
    let reader = tokio::spawn(async move { while connection.try_next().await.is_some() {} });
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let sending = async {
        loop {
            pace.tick().await;
            drop(client.publish("a", "", QoS::AtMostOnce).await);
        }
    };
    tokio::select! {
        () = dead(&mut events) => {}
        () = sending => unreachable!("it goes on for ever"),
    }
    let took = since.elapsed();
    assert!((1400..4000).contains(&took.as_millis()), "{took:?}");
    soon("the reader", reader).await.unwrap();
}

#[tokio::test]
async fn a_network_that_takes_nothing_any_more_is_given_up_in_time() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        keep_alive: 1,
        ..peer.config()
    };
    let (client, _unread) = connected(&peer, config).await;
    let mut events = client.events();
    let sending = tokio::spawn({
        let client = client.clone();
        let payload = bytes::Bytes::from(vec![0; 64 << 10]);
        async move {
            let qos = QoS::AtMostOnce;
            while client.publish("a", payload.clone(), qos).await.is_ok() {}
        }
    });
    let (mut sent, mut moved) = (0, Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    let watching = async {
        loop {
            pace.tick().await;
            let now = client.stats().bytes_out;
            if now != sent {
                (sent, moved) = (now, Instant::now());
            }
        }
    };
    tokio::select! {
        () = dead(&mut events) => {}
        () = watching => unreachable!("it goes on for ever"),
    }
    let took = moved.elapsed();
    assert!(sent > 64 << 10, "the network took something at first");
    assert!((1300..4000).contains(&took.as_millis()), "{took:?}");
    soon("the sender hears of it", sending).await.unwrap();
}

#[tokio::test]
async fn a_full_window_without_a_connection_refuses_at_once_and_loses_nothing() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        clean_session: false,
        window: 2,
        queue_messages: 2,
        overflow: Overflow::Refuse,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let publish = |number: &str| client.try_publish("a", number.to_string(), QoS::AtLeastOnce);
    let mut tokens = Vec::new();
    for number in ["1", "2"] {
        tokens.push(publish(number).unwrap());
        assert_eq!(connection.publish().await.payload, number);
    }
    drop(connection);
    eventually("the break is seen", || async { !client.is_connected() }).await;
    tokens.extend(["3", "4"].map(|number| publish(number).unwrap()));
    assert!(matches!(publish("5"), Err(Error::QueueFull)));
    let waiting = client.publish("a", "6", QoS::AtLeastOnce);
    let refused = soon("the refusal", waiting).await;
    assert!(matches!(refused, Err(Error::QueueFull)), "{refused:?}");

    let mut connection = peer.resume().await;
    for (number, dup) in [("1", true), ("2", true), ("3", false), ("4", false)] {
        let publish = connection.publish().await;
        assert_eq!(
            (&publish.payload[..], publish.dup),
            (number.as_bytes(), dup)
        );
        connection.puback(&publish).await;
    }
    for token in tokens {
        soon("a token", token).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_oversize_is_sent_whatever_the_call() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        max_packet_size: 100,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let before = client.stats();
    let long = "x".repeat(100);
    let filters = vec!["x".repeat(30); 4].into_iter().map(|filter| {
        let qos = QoS::AtLeastOnce;
        qproxy::mqtt_client::codec::Subscription::new(filter, qos)
    });
    let mut results = vec![
        client
            .subscribe(long.as_str(), QoS::AtLeastOnce)
            .await
            .map(drop),
        client.subscribe_many(filters.collect()).await.map(drop),
        client.unsubscribe(long.as_str()).await,
    ];
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        results.push(client.publish(long.as_str(), "", qos).await);
        results.push(client.publish("a", vec![0; 95], qos).await);
    }
    for result in results {
        let Err(Error::TooLarge { limit: 100, .. }) = result else {
            panic!("{result:?}")
        };
    }
    assert_eq!(client.stats(), before, "not a byte was sent");
    client.publish("a", "fits", QoS::AtMostOnce).await.unwrap();
    assert_eq!(connection.publish().await.payload, "fits");
}

#[tokio::test]
async fn a_handler_may_subscribe_and_publish_itself() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let handler = {
        let client = client.clone();
        move |request: Request| {
            let client = client.clone();
            async move {
                let granted = client.subscribe("more/#", QoS::AtLeastOnce).await;
                assert_eq!(granted.unwrap(), QoS::AtLeastOnce);
                let publish = client.publish("seen", request.payload, QoS::AtLeastOnce);
                publish.await.unwrap();
                Ok("done".into())
            }
        }
    };
    let (responder, _) = tokio::join!(client.respond("t", handler), connection.grant());
    connection.message("t/_q/me/1", "question", 0).await;
    assert_eq!(connection.grant().await, "more/#");
    let seen = connection.publish().await;
    assert_eq!(
        (seen.topic.as_str(), &seen.payload[..]),
        ("seen", &b"question"[..])
    );
    connection.puback(&seen).await;
    assert_eq!(connection.publish().await.topic, "_r/me/1/ok");
    drop(responder);
}

#[tokio::test]
async fn waiting_for_an_answer_behind_unread_messages_ends_with_an_error() {
    let peer = Peer::bind().await;
    let stall_timeout = Duration::from_millis(50);
    let config = MqttConfig {
        inbound_messages: 1,
        stall_timeout,
        window: 1,
        queue_messages: 1,
        ..peer.config()
    };
    let client = MqttClient::new(config);
    let mut messages = client.messages();
    let (result, mut connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    for number in 0..3 {
        connection.message("a", number.to_string(), 0).await;
    }
    eventually("the reader stands still", || async {
        client.stats().pauses > 0
    })
    .await;
    let server = tokio::spawn(oblige(connection));
    let publish = |number: &str| client.publish("b", number.to_string(), QoS::AtLeastOnce);
    let stalled = async {
        // In flight, in the queue, and waiting for room in it.
        tokio::join!(
            client.subscribe("more", QoS::AtMostOnce),
            publish("1"),
            publish("2"),
            publish("3"),
        )
    };
    let (granted, one, two, three) = soon("the calls", stalled).await;
    for result in [granted.map(drop), one, two, three] {
        let Err(Error::Stalled(after)) = result else {
            panic!("{result:?}")
        };
        assert_eq!(after, stall_timeout);
    }
    assert!(client.stats().stalls > 0);
    for number in 0..3 {
        let message = soon("a message", messages.recv()).await.unwrap();
        assert_eq!(&message.payload[..], number.to_string().as_bytes());
    }
    eventually("what was under way is done", || async {
        let stats = client.stats();
        (stats.in_flight, stats.queued, stats.acknowledged) == (0, 0, 2)
    })
    .await;
    client.subscribe("again", QoS::AtMostOnce).await.unwrap();
    client.disconnect().await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn answers_to_nothing_are_counted_and_harm_nothing() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let id = PacketId::new(77).unwrap();
    let unknown = || Ack::from(id);
    connection.send(&Packet::PubAck(unknown())).await;
    connection.send(&Packet::PubComp(unknown())).await;
    connection.send(&Packet::UnsubAck(id.into())).await;
    connection.send(&Packet::PubRel(unknown())).await;
    assert_eq!(connection.next().await, Packet::PubComp(unknown()));
    connection.send(&Packet::PubRec(unknown())).await;
    assert_eq!(connection.next().await, Packet::PubRel(unknown()));

    let token = client.try_publish("a", "", QoS::ExactlyOnce).unwrap();
    let id = Ack::from(connection.publish().await.id.unwrap());
    // Out of turn.
    connection.send(&Packet::PubComp(id.clone())).await;
    for _ in 0..2 {
        connection.send(&Packet::PubRec(id.clone())).await;
        assert_eq!(connection.next().await, Packet::PubRel(id.clone()));
        assert_eq!(client.stats().acknowledged, 0, "it is not complete yet");
    }
    for _ in 0..2 {
        connection.send(&Packet::PubComp(id.clone())).await;
    }
    soon("the publish", token).await.unwrap();
    // Its answer says that everything before it was seen.
    connection.send(&Packet::PubRel(unknown())).await;
    assert_eq!(connection.next().await, Packet::PubComp(unknown()));
    eventually("all are counted", || async { client.stats().ignored >= 8 }).await;
    assert_eq!(client.stats().ignored, 8);
    assert_eq!(client.stats().acknowledged, 1);
    assert!(client.is_connected());
}

/// The error of an attempt that must end at its deadline.
async fn late(config: MqttConfig) -> ConnectError {
    let since = Instant::now();
    let timeout = config.connect_timeout;
    let client = MqttClient::new(config);
    let result = soon("the attempt", client.connect()).await;
    let took = since.elapsed();
    let Err(Error::Connect(error)) = result else {
        panic!("{result:?}")
    };
    assert!(took < timeout + Duration::from_secs(3), "{took:?}: {error}");
    error
}

#[tokio::test]
async fn one_deadline_spans_tcp_tls_and_connack() {
    let connect_timeout = Duration::from_millis(200);
    let peer = Peer::bind().await;
    let config = MqttConfig {
        connect_timeout,
        ..peer.config()
    };
    let tls = Some(TlsOptions::default());
    let with_tls = MqttConfig {
        tls,
        ..config.clone()
    };
    let (error, _silent) = tokio::join!(late(with_tls), peer.accept_tcp());
    let ConnectError::Timeout { stage, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(stage, "the TLS handshake");

    // Most of a CONNACK, in pieces: progress does not move the deadline.
    let dripping = async {
        let mut connection = peer.accept_tcp().await;
        connection.next().await;
        for byte in [0x20, 2, 0] {
            connection.write(&[byte]).await;
        }
        connection
    };
    let (error, _dripping) = tokio::join!(late(config.clone()), dripping);
    let ConnectError::Timeout { stage, timeout, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((stage, timeout), ("the answer to CONNECT", connect_timeout));

    // A listener that takes no more: its system drops the SYN.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let patience = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
        assert!(waiting.len() < 100, "the backlog never fills");
    }
    let unreachable = MqttConfig {
        port: address.port(),
        ..config
    };
    let error = late(unreachable).await;
    let at_tcp = match &error {
        ConnectError::Timeout { stage, .. } => *stage == "the TCP connection",
        ConnectError::Tcp { source, .. } => source.kind() == std::io::ErrorKind::TimedOut,
        _ => false,
    };
    assert!(at_tcp, "{error:?}");
}

#[tokio::test]
async fn fallbacks_are_tried_in_turn_and_one_that_works_is_kept() {
    let [first, second] = [Peer::bind().await, Peer::bind().await];
    let MqttConfig { host, port, .. } = second.config();
    let config = MqttConfig {
        fallbacks: vec![Server { host, port }],
        // However short a connection was, it served.
        takeover: Takeover {
            within: Duration::ZERO,
            ..Takeover::default()
        },
        ..first.config()
    };
    let client = MqttClient::new(config.clone());
    // A refusal of all fails the call, with what the last one said.
    let (result, _, _) = tokio::join!(
        client.connect(),
        first.answer(false, ReasonCode::ServerUnavailable),
        second.answer(false, ReasonCode::NotAuthorized),
    );
    let Err(Error::Connect(ConnectError::Refused(code))) = result else {
        panic!("{result:?}")
    };
    assert_eq!(code, ReasonCode::NotAuthorized);

    let client = MqttClient::new(config);
    let refusing = first.answer(false, ReasonCode::ServerUnavailable);
    let (result, _, connection) = tokio::join!(client.connect(), refusing, second.accept());
    result.unwrap();
    drop(connection);
    // The one that worked is asked first; from there it goes round.
    let _refused = second.answer(false, ReasonCode::ServerUnavailable).await;
    let mut connection = first.accept().await;
    client.publish("a", "", QoS::AtMostOnce).await.unwrap();
    assert_eq!(connection.publish().await.topic, "a");
}

#[tokio::test]
async fn queries_that_nobody_waits_for_any_more_leave_no_subscription_behind() {
    let peer = Peer::bind().await;
    let query = QueryOptions {
        timeout: Duration::from_millis(10),
        ..Default::default()
    };
    let client = MqttClient::new(MqttConfig {
        query,
        request_timeout: Some(PATIENCE),
        ..peer.config()
    });
    client.start().await.unwrap();
    for _ in 0..3 {
        let asked = client.query("t", "").await;
        assert!(
            matches!(asked, Err(Error::Query(QueryError::Timeout(_)))),
            "{asked:?}"
        );
    }
    let mut connection = peer.accept().await;
    let (subscribed, first) = tokio::join!(
        client.subscribe("wanted", QoS::AtMostOnce),
        connection.grant()
    );
    subscribed.unwrap();
    assert_eq!(first, "wanted");
}

#[tokio::test]
async fn queries_count_from_the_call_on() {
    let peer = Peer::bind().await;
    let query = QueryOptions {
        max_outstanding: 1,
        ..Default::default()
    };
    let client = MqttClient::new(MqttConfig {
        query,
        ..peer.config()
    });
    client.start().await.unwrap();
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.query("t", "").await }
    });
    eventually("the first query waits", || async {
        client.stats().open_queries == 1
    })
    .await;
    let second = soon("the second query", client.query("t", "")).await;
    assert!(
        matches!(second, Err(Error::Query(QueryError::TooMany(1)))),
        "{second:?}"
    );
    first.abort();
    eventually("the first query is given up", || async {
        client.stats().open_queries == 0
    })
    .await;
}
