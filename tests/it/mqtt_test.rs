//! How the MQTT client behaves against a server that follows a script.

mod answers;
mod coalescing;
mod conformance;
mod leaving;
mod past;
mod reliability;
mod v5;

use std::time::{Duration, Instant};

use bytes::Bytes;
use qproxy::mqtt_client::client::{Event, MqttClient, MqttConfig, PublishOptions};
use qproxy::mqtt_client::codec::{Ack, Disconnect, Kind, Packet, ReasonCode, SubAck, UnsubAck};
use qproxy::mqtt_client::error::{ConnectError, Disconnected, Error, QueryError};
use qproxy::mqtt_client::message::QoS;
use qproxy::mqtt_client::options::{Overflow, QueryOptions, Takeover};
use qproxy::mqtt_client::session::AckMode;
use tokio::sync::broadcast;

use crate::support::mqtt_peer::{Peer, PeerConnection};
use crate::support::{eventually, soon};

/// A connected client and the other end of its connection.
async fn connected(peer: &Peer, config: MqttConfig) -> (MqttClient, PeerConnection) {
    let client = MqttClient::new(config);
    let (result, connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    (client, connection)
}

async fn event(events: &mut broadcast::Receiver<Event>, wanted: fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    soon("an event", found).await
}

/// The example of the user guide, word for word but for the address.
async fn users_example(
    host: String,
    port: u16,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let config = MqttConfig {
        client_id: "my-client".to_string(),
        host,
        port,
        keep_alive: 60,
        app_id: Some("my-app".to_string()),
        token: Some("auth-token".to_string()),
        ..Default::default()
    };
    #[allow(unused_mut, reason = "the user guide has it")]
    let mut client = MqttClient::new(config);
    client.connect().await?;
    let topic = "my/topic".to_string();
    let payload = Bytes::from("Hello, MQTT!");
    client.publish(topic, payload, QoS::AtLeastOnce).await?;
    client
        .subscribe("notifications/#".to_string(), QoS::AtMostOnce)
        .await?;
    let query_topic = "query/status".to_string();
    let query_payload = Bytes::from("query data");
    let response = client.query(query_topic, query_payload).await?;
    client.disconnect().await?;
    Ok(response)
}

#[tokio::test]
async fn example_of_the_user_guide_runs_as_it_stands() {
    let peer = Peer::bind().await;
    let MqttConfig { host, port, .. } = peer.config();
    let example = tokio::spawn(users_example(host, port));
    let (mut connection, connect) = peer.answer(false, ReasonCode::Success).await;
    assert_eq!(
        (connect.client_id.as_str(), connect.keep_alive),
        ("my-client", 60)
    );
    assert_eq!(connect.username.as_deref(), Some("my-app"));
    assert_eq!(connect.password.as_deref(), Some(&b"auth-token"[..]));
    let publish = connection.publish().await;
    assert_eq!(
        (publish.topic.as_str(), &publish.payload[..]),
        ("my/topic", &b"Hello, MQTT!"[..])
    );
    connection.puback(&publish).await;
    assert_eq!(connection.grant().await, "notifications/#");
    let replies = connection.grant().await;
    let request = connection.publish().await;
    let levels: Vec<&str> = request.topic.split('/').collect();
    let ["query", "status", "_q", caller, correlation] = levels[..] else {
        panic!("{levels:?}")
    };
    assert_eq!(replies.as_str(), format!("_r/{caller}/#"));
    assert!(caller.starts_with("my-client-"));
    connection.puback(&request).await;
    connection
        .message(&format!("_r/{caller}/{correlation}/ok"), "fine", 7)
        .await;
    let ack = Packet::PubAck(Ack::from(std::num::NonZeroU16::new(7).unwrap()));
    assert_eq!(connection.next().await, ack);
    assert_eq!(
        connection.next().await,
        Packet::Disconnect(Disconnect::default())
    );
    assert_eq!(soon("the example", example).await.unwrap().unwrap(), "fine");
}

#[tokio::test]
async fn publish_resolves_only_when_it_is_acknowledged() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let publishing = tokio::spawn({
        let client = client.clone();
        async move { client.publish("a", "1", QoS::AtLeastOnce).await }
    });
    let first = connection.publish().await;
    client.publish("a", "0", QoS::AtMostOnce).await.unwrap();
    assert_eq!(connection.publish().await.qos, QoS::AtMostOnce);
    assert!(!publishing.is_finished());
    connection.puback(&first).await;
    soon("the publish", publishing).await.unwrap().unwrap();

    let exactly = client
        .publish_deferred("a", "2", QoS::ExactlyOnce)
        .await
        .unwrap();
    let second = connection.publish().await;
    let ack = Ack::from(second.id.unwrap());
    connection.send(&Packet::PubRec(ack.clone())).await;
    assert_eq!(connection.next().await, Packet::PubRel(ack.clone()));
    connection.send(&Packet::PubComp(ack)).await;
    soon("the QoS 2 publish", exactly).await.unwrap();
    assert_eq!(client.stats().acknowledged, 2);
}

#[tokio::test]
async fn refusals_fail_connect_at_once_and_say_what() {
    let peer = Peer::bind().await;
    for code in [
        ReasonCode::BadCredentials,
        ReasonCode::NotAuthorized,
        ReasonCode::ClientIdNotValid,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ServerUnavailable,
    ] {
        let client = MqttClient::new(peer.config());
        let (result, _) = tokio::join!(client.connect(), peer.answer(false, code));
        let Err(Error::Connect(ConnectError::Refused(said))) = result else {
            panic!("{result:?}")
        };
        assert_eq!(said, code);
        let late = client.publish("a", "", QoS::AtLeastOnce).await;
        assert!(matches!(late, Err(Error::NotConnected)), "{late:?}");
    }
}

#[tokio::test]
async fn connect_has_a_deadline_and_names_what_took_long() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        connect_timeout: Duration::from_millis(50),
        ..peer.config()
    };
    let client = MqttClient::new(config);
    let (result, _silent) = tokio::join!(client.connect(), peer.accept_tcp());
    let Err(Error::Connect(ConnectError::Timeout { stage, .. })) = result else {
        panic!("{result:?}")
    };
    assert_eq!(stage, "the answer to CONNECT");
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_can_be_called_again_after_it_failed() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(peer.config());
    for _ in 0..50 {
        let refusing = peer.answer(false, ReasonCode::BadCredentials);
        let (failed, _) = tokio::join!(client.connect(), refusing);
        assert!(failed.is_err());
    }
    let (worked, _connection) = tokio::join!(client.connect(), peer.accept());
    worked.unwrap();
    assert!(client.is_connected());
    client.connect().await.expect("connected already");
}

#[tokio::test]
async fn what_is_in_flight_is_sent_again_in_order_with_dup_and_its_id() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        clean_session: false,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let mut tokens = Vec::new();
    let mut ids = Vec::new();
    for number in 0..3 {
        let payload = number.to_string();
        tokens.push(
            client
                .publish_deferred("a", payload, QoS::AtLeastOnce)
                .await
                .unwrap(),
        );
        ids.push(connection.publish().await.id);
    }
    drop(connection);
    let mut connection = peer.resume().await;
    for (number, id) in ids.into_iter().enumerate() {
        let again = connection.publish().await;
        assert!(again.dup);
        assert_eq!(
            (again.id, &again.payload[..]),
            (id, number.to_string().as_bytes())
        );
        connection.puback(&again).await;
    }
    for token in tokens {
        soon("a token", token).await.unwrap();
    }
    assert_eq!(client.stats().republished, 3);
}

#[tokio::test]
async fn subscriptions_are_renewed_only_when_the_server_lost_them() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        clean_session: false,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let mut events = client.events();
    let (granted, filter) = tokio::join!(
        client.subscribe("a/#", QoS::ExactlyOnce),
        connection.grant()
    );
    assert_eq!(
        (granted.unwrap(), filter.as_str()),
        (QoS::ExactlyOnce, "a/#")
    );
    drop(connection);
    let mut connection = peer.resume().await;
    client.publish("x", "", QoS::AtMostOnce).await.unwrap();
    assert_eq!(
        connection.next().await.kind(),
        Kind::Publish,
        "no SUBSCRIBE before it"
    );
    drop(connection);
    let mut connection = peer.accept().await;
    assert_eq!(connection.grant().await, "a/#");
    let lost = event(&mut events, |event| {
        matches!(event, Event::SessionLost { .. })
    })
    .await;
    assert!(matches!(
        lost,
        Event::SessionLost {
            republished: 0,
            failed: 0,
            resubscribed: 1
        }
    ));
}

#[tokio::test]
async fn a_refused_subscription_is_an_error_and_the_rest_is_granted() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let refuse = async {
        let Packet::Subscribe(subscribe) = connection.next().await else {
            panic!("no SUBSCRIBE")
        };
        let codes = vec![ReasonCode::UnspecifiedError];
        connection
            .send(&Packet::SubAck(SubAck {
                id: subscribe.id,
                codes,
                properties: None,
            }))
            .await;
    };
    let (result, ()) = tokio::join!(client.subscribe("secret", QoS::AtMostOnce), refuse);
    assert!(matches!(result, Err(Error::SubscribeRefused { filter, .. }) if filter == "secret"));
    for bad in ["", "a#", "+b/c"] {
        let result = client.subscribe(bad, QoS::AtMostOnce).await;
        assert!(matches!(result, Err(Error::Topic(_))), "{bad}: {result:?}");
    }
    assert!(matches!(
        client.publish("a/+", "", QoS::AtMostOnce).await,
        Err(Error::Topic(_))
    ));
}

#[tokio::test]
async fn two_clients_with_one_id_stop_instead_of_flapping() {
    let peer = Peer::bind().await;
    let takeover = Takeover {
        connections: 3,
        within: Duration::from_secs(5),
    };
    let (client, connection) = connected(
        &peer,
        MqttConfig {
            takeover,
            ..peer.config()
        },
    )
    .await;
    let mut events = client.events();
    let waiting = client
        .publish_deferred("a", "", QoS::AtLeastOnce)
        .await
        .unwrap();
    drop(connection);
    drop(peer.accept().await);
    drop(peer.accept().await);
    let stopped = event(&mut events, |event| matches!(event, Event::Stopped { .. })).await;
    let Event::Stopped { reason } = stopped else {
        unreachable!("just matched")
    };
    assert!(
        reason
            .to_string()
            .contains("another client with the same client id"),
        "{reason}"
    );
    assert!(matches!(
        soon("the token", waiting).await,
        Err(Error::TakenOver(3))
    ));
    assert!(matches!(
        client.disconnect().await,
        Err(Error::TakenOver(3))
    ));
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_given_up_within_one_and_a_half_keep_alives() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            keep_alive: 1,
            ..peer.config()
        },
    )
    .await;
    let mut events = client.events();
    let since = Instant::now();
    assert_eq!(connection.next().await, Packet::PingReq);
    let lost = event(&mut events, |event| {
        matches!(event, Event::Disconnected { .. })
    })
    .await;
    assert!(
        matches!(
            lost,
            Event::Disconnected {
                reason: Disconnected::Dead(_)
            }
        ),
        "{lost:?}"
    );
    let took = since.elapsed();
    assert!((1400..4000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(connection.try_next().await, None);
}

#[tokio::test]
async fn a_malformed_packet_ends_the_connection_but_not_the_client() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let mut events = client.events();
    connection.write(&[0x36, 0]).await;
    let lost = event(&mut events, |event| {
        matches!(event, Event::Disconnected { .. })
    })
    .await;
    assert!(
        matches!(
            lost,
            Event::Disconnected {
                reason: Disconnected::Malformed(_)
            }
        ),
        "{lost:?}"
    );
    let _again = peer.accept().await;
    eventually("it is connected again", || async { client.is_connected() }).await;
}

#[tokio::test]
async fn manual_mode_acknowledges_nothing_before_the_program_does() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        ack_mode: AckMode::Manual,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let mut messages = client.messages();
    for id in 1..=3 {
        connection.message("a", format!("{id}"), id).await;
    }
    let mut batch = Vec::new();
    while batch.len() < 3 {
        soon("messages", messages.recv_many(&mut batch, 10)).await;
    }
    assert!(messages.try_recv().is_none());
    // In the wrong order, and the second not at all.
    batch[2].ack();
    batch[0].ack();
    batch.remove(1);
    let ack = |id| Packet::PubAck(Ack::from(std::num::NonZeroU16::new(id).unwrap()));
    assert_eq!(connection.next().await, ack(1));
    assert_eq!(connection.next().await, ack(3));
    drop(connection);
    let mut connection = peer.accept().await;
    batch[1].ack();
    drop(batch);
    client.publish("x", "", QoS::AtMostOnce).await.unwrap();
    assert_eq!(
        connection.next().await.kind(),
        Kind::Publish,
        "no acknowledgement of old messages"
    );
}

#[tokio::test]
async fn a_slow_program_stops_the_reader_and_loses_nothing() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        inbound_messages: 2,
        ..peer.config()
    };
    let client = MqttClient::new(config);
    let mut messages = client.messages();
    let (result, mut connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    for number in 0..100 {
        connection.message("a", number.to_string(), 0).await;
    }
    eventually("the reader stands still", || async {
        client.stats().pauses > 0
    })
    .await;
    assert!(client.stats().received <= 3);
    client
        .publish("b", "out", QoS::AtMostOnce)
        .await
        .expect("writing goes on");
    assert_eq!(connection.publish().await.topic, "b");
    for number in 0..100 {
        let message = soon("a message", messages.recv()).await.unwrap();
        assert_eq!(&message.payload[..], number.to_string().as_bytes());
    }
}

#[tokio::test]
async fn large_messages_are_bounded_by_bytes_on_their_way_in() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(MqttConfig {
        inbound_bytes: 1000,
        ..peer.config()
    });
    let mut messages = client.messages();
    let (result, mut connection) = tokio::join!(client.connect(), peer.accept());
    result.unwrap();
    for _ in 0..3 {
        connection.message("a", vec![0; 900], 0).await;
    }
    eventually("the reader stands still", || async {
        client.stats().pauses > 0
    })
    .await;
    assert_eq!(messages.len(), 1);
    for _ in 0..3 {
        assert_eq!(
            soon("a message", messages.recv())
                .await
                .unwrap()
                .payload
                .len(),
            900
        );
    }
}

#[tokio::test]
async fn each_message_goes_to_the_first_stream_that_wants_it() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    connection.message("nobody", "listens", 0).await;
    eventually("it is counted", || async { client.stats().unclaimed == 1 }).await;
    let mut rest = client.messages();
    let (stream, _) = tokio::join!(
        client.subscribe_stream("a/#", QoS::AtMostOnce),
        connection.grant()
    );
    let mut stream = stream.unwrap();
    connection.message("a/1", "mine", 0).await;
    connection.message("b", "other", 0).await;
    assert_eq!(soon("a message", stream.recv()).await.unwrap().topic, "a/1");
    assert_eq!(soon("a message", rest.recv()).await.unwrap().topic, "b");
    assert!(stream.is_empty() && rest.is_empty());
}

#[tokio::test]
async fn messages_wait_for_the_first_connection_within_the_bound() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        queue_messages: 2,
        overflow: Overflow::Refuse,
        ..peer.config()
    };
    let client = MqttClient::new(config);
    assert!(matches!(
        client.try_publish("a", "", QoS::AtLeastOnce),
        Err(Error::NotConnected)
    ));
    client.start().await.unwrap();
    let connection = peer.accept_tcp().await;
    let first = client.try_publish("a", "1", QoS::AtLeastOnce).unwrap();
    let second = client.try_publish("a", "2", QoS::AtLeastOnce).unwrap();
    assert!(matches!(
        client.try_publish("a", "3", QoS::AtLeastOnce),
        Err(Error::QueueFull)
    ));
    drop(connection);
    let mut connection = peer.accept().await;
    for token in [first, second] {
        let publish = connection.publish().await;
        assert!(!publish.dup);
        connection.puback(&publish).await;
        soon("the token", token).await.unwrap();
    }
    assert_eq!(client.stats().failed_attempts, 1);
}

#[tokio::test]
async fn a_publish_can_have_a_time_limit() {
    let peer = Peer::bind().await;
    let (client, _silent) = connected(&peer, peer.config()).await;
    let timeout = Some(Duration::from_millis(20));
    let options = PublishOptions {
        qos: QoS::AtLeastOnce,
        timeout,
        ..Default::default()
    };
    let result = client.publish_with("a", "", options).await;
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
}

#[tokio::test]
async fn an_oversize_publish_is_refused_and_nothing_is_sent() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            max_packet_size: 1000,
            ..peer.config()
        },
    )
    .await;
    let result = client.publish("a", vec![0; 1000], QoS::AtMostOnce).await;
    assert!(matches!(result, Err(Error::TooLarge { .. })), "{result:?}");
    client
        .publish("a", vec![0; 900], QoS::AtMostOnce)
        .await
        .unwrap();
    assert_eq!(connection.publish().await.payload.len(), 900);
}

#[tokio::test]
async fn thousands_of_deferred_publishes_flow_through_a_small_window() {
    const COUNT: usize = 5000;
    let peer = Peer::bind().await;
    let config = MqttConfig {
        window: 10,
        queue_messages: 100,
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let server = tokio::spawn(async move {
        for number in 0..COUNT {
            let publish = connection.publish().await;
            assert_eq!(&publish.payload[..], number.to_string().as_bytes());
            connection.puback(&publish).await;
        }
    });
    let mut tokens = Vec::new();
    for number in 0..COUNT {
        let payload = number.to_string();
        tokens.push(
            client
                .publish_deferred("a", payload, QoS::AtLeastOnce)
                .await
                .unwrap(),
        );
    }
    for token in tokens {
        soon("a token", token).await.unwrap();
    }
    server.await.unwrap();
}

#[tokio::test]
async fn disconnect_delivers_what_is_queued_and_leaves_in_order() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            window: 1,
            ..peer.config()
        },
    )
    .await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(
            client
                .publish_deferred("a", "", QoS::AtLeastOnce)
                .await
                .unwrap(),
        );
    }
    let server = async {
        for _ in 0..3 {
            let publish = connection.publish().await;
            connection.puback(&publish).await;
        }
        assert_eq!(
            connection.next().await,
            Packet::Disconnect(Disconnect::default())
        );
        assert_eq!(connection.try_next().await, None);
    };
    let (left, ()) = tokio::join!(client.disconnect(), server);
    left.unwrap();
    for token in tokens {
        token.await.unwrap();
    }
    client
        .disconnect()
        .await
        .expect("a second one does nothing");
}

#[tokio::test]
async fn disconnect_gives_up_after_its_limit_and_says_what_is_left() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        drain_timeout: Duration::from_millis(50),
        ..peer.config()
    };
    let (client, mut connection) = connected(&peer, config).await;
    let token = client
        .publish_deferred("a", "", QoS::AtLeastOnce)
        .await
        .unwrap();
    let left = client.disconnect().await;
    assert!(
        matches!(left, Err(Error::Undelivered { left: 1, .. })),
        "{left:?}"
    );
    assert!(matches!(token.await, Err(Error::Stopped)));
    assert_eq!(connection.publish().await.topic, "a");
    assert_eq!(
        connection.next().await,
        Packet::Disconnect(Disconnect::default())
    );
    let (again, _) = tokio::join!(client.connect(), peer.accept());
    again.unwrap();
}

#[tokio::test]
async fn the_last_clone_takes_the_connection_with_it() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let other = client.clone();
    drop(client);
    other.publish("a", "", QoS::AtMostOnce).await.unwrap();
    assert_eq!(connection.publish().await.topic, "a");
    drop(other);
    assert_eq!(
        connection.next().await,
        Packet::Disconnect(Disconnect::default())
    );
}

/// Takes one query and answers it as told.
async fn answer_one(connection: &mut PeerConnection, answers: &[(&str, &'static str)]) {
    let request = connection.publish().await;
    connection.puback(&request).await;
    let (_, ids) = request.topic.split_once("/_q/").unwrap();
    for (status, payload) in answers {
        connection
            .message(&format!("_r/{ids}/{status}"), *payload, 0)
            .await;
    }
}

#[tokio::test]
async fn queries_end_with_the_answer_or_with_what_went_wrong() {
    let peer = Peer::bind().await;
    let timeout = Duration::from_millis(300);
    let query = QueryOptions {
        timeout,
        ..Default::default()
    };
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            query,
            ..peer.config()
        },
    )
    .await;
    let server = tokio::spawn(async move {
        connection.grant().await;
        answer_one(
            &mut connection,
            &[
                ("more/0", "ab"),
                ("more/1", "cd"),
                ("more/0", "ab"),
                ("ok/2", "ef"),
                ("ok/2", "ef"),
            ],
        )
        .await;
        answer_one(&mut connection, &[("error", "no")]).await;
        answer_one(&mut connection, &[("busy", "")]).await;
        answer_one(&mut connection, &[]).await;
        connection
    });
    assert_eq!(client.query("t", "").await.unwrap(), "abcdef");
    let failed = client.query("t", "").await;
    assert!(matches!(&failed, Err(Error::Query(QueryError::Failed(why))) if why == "no"));
    assert!(matches!(
        client.query("t", "").await,
        Err(Error::Query(QueryError::Busy))
    ));
    assert!(matches!(
        client.query("t", "").await,
        Err(Error::Query(QueryError::Timeout(_)))
    ));
    let stats = client.stats();
    assert_eq!(
        (stats.queries, stats.query_timeouts, stats.late_answers),
        (4, 1, 2)
    );
    let _connection = server.await.unwrap();
}

#[tokio::test]
async fn a_responder_answers_each_request_once_and_says_when_it_is_busy() {
    let peer = Peer::bind().await;
    let query = QueryOptions {
        max_handlers: 1,
        part_bytes: 4,
        ..Default::default()
    };
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            query,
            ..peer.config()
        },
    )
    .await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let handler = {
        let gate = gate.clone();
        move |request: qproxy::mqtt_client::client::Request| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                assert_eq!((&*request.topic, &*request.caller), ("t/x", "me"));
                Ok(request.payload)
            }
        }
    };
    let (responder, filter) = tokio::join!(client.respond("t/+", handler), connection.grant());
    let responder = responder.unwrap();
    assert_eq!(filter, "t/+/_q/+/+");
    connection.message("t/x/_q/me/1", "abcdefghij", 0).await;
    connection.message("t/x/_q/me/1", "abcdefghij", 0).await;
    connection.message("t/x/_q/me/2", "", 0).await;
    let busy = connection.publish().await;
    assert_eq!(busy.topic, "_r/me/2/busy");
    gate.add_permits(10);
    for (topic, payload) in [("more/0", "abcd"), ("more/1", "efgh"), ("ok/2", "ij")] {
        let part = connection.publish().await;
        assert_eq!(part.topic.as_str(), format!("_r/me/1/{topic}"));
        assert_eq!(part.payload, payload);
    }
    assert_eq!(
        (
            client.stats().repeated_requests,
            client.stats().busy_requests
        ),
        (1, 1)
    );
    let unsubscribe = async {
        // Acknowledge nothing but the UNSUBSCRIBE.
        loop {
            if let Packet::Unsubscribe(unsubscribe) = connection.next().await {
                connection
                    .send(&Packet::UnsubAck(UnsubAck {
                        id: unsubscribe.id,
                        codes: Vec::new(),
                        properties: None,
                    }))
                    .await;
                return;
            }
        }
    };
    let (stopped, ()) = tokio::join!(responder.stop(), unsubscribe);
    stopped.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_at_the_call_does_not_end_the_responder() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, peer.config()).await;
    let handler = |request: qproxy::mqtt_client::client::Request| {
        assert_ne!(request.payload, "bad");
        async move { Ok(request.payload) }
    };
    let (responder, _) = tokio::join!(client.respond("t", handler), connection.grant());
    let _responder = responder.unwrap();
    connection.message("t/_q/me/1", "bad", 0).await;
    connection.message("t/_q/me/2", "good", 0).await;
    let answer = soon("the other's answer", connection.publish()).await;
    assert_eq!(
        (&*answer.topic, &answer.payload[..]),
        ("_r/me/2/ok", &b"good"[..])
    );
}
