//! MQTT 5.0 against a server that follows a script.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::Bytes;
use qproxy::mqtt_client::Version;
use qproxy::mqtt_client::client::{
    Event, Farewell, MqttClient, MqttConfig, PublishOptions, SubscribeOptions,
};
use qproxy::mqtt_client::codec::{
    Ack, AckProperties, ConnAck, ConnAckProperties, Connect, Disconnect, DisconnectProperties,
    Packet, PacketId, Publish, PublishProperties, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscriptionId, UnsubAck, Will,
};
use qproxy::mqtt_client::error::{ConnectError, Disconnected, Error, QueryError};
use qproxy::mqtt_client::message::{PayloadFormat, QoS, Text};
use qproxy::mqtt_client::options::{QueryOptions, Server, Takeover};
use qproxy::mqtt_client::session::{AckMode, Forbidden};

use super::{connected, event};
use crate::support::mqtt_peer::{Peer, PeerConnection};
use crate::support::{PATIENCE, eventually, soon};

fn config(peer: &Peer) -> MqttConfig {
    MqttConfig {
        protocol: Version::V5,
        ..peer.config()
    }
}

fn words(said: &'static str) -> Option<Box<AckProperties>> {
    Some(Box::new(AckProperties {
        reason_string: Some(Text::from_static(said)),
        ..AckProperties::default()
    }))
}

/// Accepts on the terms given.
async fn accept(peer: &Peer, terms: ConnAckProperties) -> (PeerConnection, Connect) {
    peer.answer_with(ConnAck {
        properties: Some(Box::new(terms)),
        ..ConnAck::default()
    })
    .await
}

async fn client_on(peer: &Peer, terms: ConnAckProperties) -> (MqttClient, PeerConnection) {
    let client = MqttClient::new(config(peer));
    let (result, (connection, _)) = tokio::join!(client.connect(), accept(peer, terms));
    result.unwrap();
    (client, connection)
}

#[tokio::test]
async fn connect_carries_the_settings_and_later_ones_the_client_id_that_the_server_chose() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(MqttConfig {
        client_id: String::new(),
        clean_session: false,
        session_expiry: Some(Duration::from_secs(600)),
        receive_maximum: 30,
        topic_alias_maximum: 4,
        max_packet_size: 5000,
        user_properties: vec![("site".into(), "north".into())],
        ..config(&peer)
    });
    let terms = ConnAckProperties {
        assigned_client_id: Some("chosen".into()),
        session_expiry: Some(60),
        ..ConnAckProperties::default()
    };
    let (result, (connection, connect)) = tokio::join!(client.connect(), accept(&peer, terms));
    result.unwrap();
    assert_eq!(
        (connect.version, connect.client_id.as_str()),
        (Version::V5, "")
    );
    let said = connect.properties.unwrap();
    assert!(!connect.clean_session);
    assert_eq!(said.session_expiry, Some(600));
    assert_eq!(said.receive_max.map(NonZeroU16::get), Some(30));
    assert_eq!(said.topic_alias_max, Some(4));
    assert_eq!(said.max_packet_size.map(|size| size.get()), Some(5000));
    assert_eq!(said.user_properties, [("site".into(), "north".into())]);
    assert_eq!(client.terms().unwrap().session_expiry, Some(60));
    drop(connection);
    let (_connection, again) = accept(&peer, ConnAckProperties::default()).await;
    assert_eq!(again.client_id, "chosen");
}

#[tokio::test]
async fn a_session_with_an_expiry_is_begun_once_resumed_and_ended_by_disconnect() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(MqttConfig {
        session_expiry: Some(Duration::from_secs(60)),
        ..config(&peer)
    });
    let (result, (connection, connect)) =
        tokio::join!(client.connect(), peer.answer_with(ConnAck::default()));
    result.unwrap();
    assert!(connect.clean_session);
    drop(connection);
    let present = ConnAck {
        session_present: true,
        ..ConnAck::default()
    };
    let (mut connection, connect) = peer.answer_with(present).await;
    assert!(!connect.clean_session);
    eventually("the connection", || async { client.is_connected() }).await;
    let (left, goodbye) = tokio::join!(client.disconnect(), connection.next());
    left.unwrap();
    let Packet::Disconnect(Disconnect { reason, properties }) = goodbye else {
        panic!("{goodbye:?}")
    };
    assert_eq!(reason, ReasonCode::Success);
    assert_eq!(properties.unwrap().session_expiry, Some(0));
}

#[tokio::test]
async fn a_session_that_was_not_asked_for_fails_the_attempt() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(config(&peer));
    let present = ConnAck {
        session_present: true,
        ..ConnAck::default()
    };
    let (result, _) = tokio::join!(client.connect(), peer.answer_with(present));
    assert!(matches!(
        result,
        Err(Error::Connect(ConnectError::Violation(_)))
    ));
}

#[tokio::test]
async fn a_refused_connection_says_why_in_the_servers_words_and_where_to_go() {
    let peer = Peer::bind().await;
    let client = MqttClient::new(config(&peer));
    let refusal = ConnAck {
        code: ReasonCode::UseAnotherServer,
        properties: Some(Box::new(ConnAckProperties {
            reason_string: Some("full".into()),
            server_reference: Some("b.example".into()),
            ..ConnAckProperties::default()
        })),
        ..ConnAck::default()
    };
    let (result, _) = tokio::join!(client.connect(), peer.answer_with(refusal));
    let Err(Error::Connect(error @ ConnectError::Refused(_))) = result else {
        panic!("{result:?}")
    };
    assert!(!error.is_permanent());
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "use another server: full (go to b.example)");
}

#[tokio::test]
async fn a_refused_publish_is_an_error_with_the_servers_words() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, config(&peer)).await;
    for (qos, reason) in [
        (QoS::AtLeastOnce, ReasonCode::NotAuthorized),
        (QoS::ExactlyOnce, ReasonCode::QuotaExceeded),
    ] {
        let refuse = async {
            let ack = Ack {
                id: connection.publish().await.id.unwrap(),
                reason,
                properties: words("not you"),
            };
            connection
                .send(&match qos {
                    QoS::ExactlyOnce => Packet::PubRec(ack),
                    _ => Packet::PubAck(ack),
                })
                .await;
        };
        let (result, ()) = tokio::join!(client.publish("a", "1", qos), refuse);
        let Err(Error::PublishRefused(said)) = result else {
            panic!("{result:?}")
        };
        assert_eq!(
            (said.reason, said.text.as_deref()),
            (reason, Some("not you"))
        );
    }
    assert_eq!(client.stats().refused, 2);
}

#[tokio::test]
async fn what_the_server_does_not_take_is_an_error_and_nothing_is_sent() {
    let peer = Peer::bind().await;
    let terms = ConnAckProperties {
        max_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        wildcard_available: Some(false),
        max_packet_size: std::num::NonZeroU32::new(100),
        ..ConnAckProperties::default()
    };
    let (client, mut connection) = client_on(&peer, terms).await;
    let retained = PublishOptions::new(QoS::AtMostOnce).retain();
    for result in [
        client.publish("a", "1", QoS::ExactlyOnce).await,
        client.publish_with("a", "1", retained).await,
        client.publish("a", vec![0; 100], QoS::AtLeastOnce).await,
        client.subscribe("a/#", QoS::AtMostOnce).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::Forbidden(_))), "{result:?}");
    }
    let expected = Forbidden::QoS(QoS::AtLeastOnce);
    let again = client.publish("a", "1", QoS::ExactlyOnce).await;
    assert!(matches!(again, Err(Error::Forbidden(why)) if why == expected));
    client.publish("a", "fits", QoS::AtMostOnce).await.unwrap();
    assert_eq!(connection.publish().await.payload, "fits");
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_server_takes() {
    let peer = Peer::bind().await;
    let terms = ConnAckProperties {
        receive_max: NonZeroU16::new(2),
        ..ConnAckProperties::default()
    };
    let (client, mut connection) = client_on(&peer, terms).await;
    let mut tokens = Vec::new();
    for number in 0..10 {
        let token = client.publish_deferred("a", number.to_string(), QoS::AtLeastOnce);
        tokens.push(token.await.unwrap());
    }
    for number in (0..10).step_by(2) {
        let (first, second) = (connection.publish().await, connection.publish().await);
        assert_eq!(first.payload, number.to_string());
        // The third would stand before the answer to this.
        connection
            .send(&Packet::PubRel(Ack::from(PacketId::MAX)))
            .await;
        assert!(matches!(connection.next().await, Packet::PubComp(_)));
        connection.puback(&first).await;
        connection.puback(&second).await;
    }
    for token in tokens {
        soon("an acknowledgement", token).await.unwrap();
    }
}

#[tokio::test]
async fn a_goodbye_of_the_server_is_reported_with_its_reason_and_mended() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, config(&peer)).await;
    let mut events = client.events();
    let properties = DisconnectProperties {
        reason_string: Some("maintenance".into()),
        server_reference: Some("b.example".into()),
        ..DisconnectProperties::default()
    };
    connection
        .send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::ServerMoved,
            properties: Some(Box::new(properties)),
        }))
        .await;
    let ended = event(&mut events, |it| matches!(it, Event::Disconnected { .. })).await;
    let Event::Disconnected {
        reason: Disconnected::Server(said),
    } = ended
    else {
        panic!("{ended:?}")
    };
    assert_eq!(said.reason, ReasonCode::ServerMoved);
    assert_eq!(said.server_reference.unwrap(), "b.example");
    let _connection = peer.accept().await;
}

#[tokio::test]
async fn a_client_whose_session_is_taken_over_again_and_again_stops() {
    let peer = Peer::bind().await;
    let takeover = Takeover {
        connections: 3,
        within: Duration::from_secs(60),
    };
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            takeover,
            ..config(&peer)
        },
    )
    .await;
    let mut events = client.events();
    for taken in 1..=3 {
        let goodbye = Disconnect::from(ReasonCode::SessionTakenOver);
        connection.send(&Packet::Disconnect(goodbye)).await;
        if taken < 3 {
            connection = peer.accept().await;
        }
    }
    let stopped = event(&mut events, |it| matches!(it, Event::Stopped { .. })).await;
    assert!(matches!(
        stopped,
        Event::Stopped {
            reason: Error::TakenOver(3)
        }
    ));
}

#[tokio::test]
async fn a_server_of_5_0_that_closes_at_once_again_and_again_is_not_taken_for_another_client() {
    let peer = Peer::bind().await;
    let takeover = Takeover {
        connections: 2,
        within: Duration::from_secs(60),
    };
    let config = MqttConfig {
        takeover,
        ..config(&peer)
    };
    let (client, connection) = connected(&peer, config).await;
    drop(connection);
    for _ in 0..4 {
        drop(peer.accept().await);
    }
    let _connection = peer.accept().await;
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_server_that_sends_the_client_away_has_the_next_one_tried() {
    let (first, second) = (Peer::bind().await, Peer::bind().await);
    let config = |within| MqttConfig {
        takeover: Takeover {
            connections: 5,
            within,
        },
        fallbacks: vec![Server {
            host: "127.0.0.1".to_owned(),
            port: second.config().port,
        }],
        ..config(&first)
    };
    // Without a word, but too soon.
    let (_client, connection) = connected(&first, config(Duration::from_secs(60))).await;
    drop(connection);
    let _served = second.accept().await;
    // With a word, however long it lasted.
    let (_client, mut connection) = connected(&first, config(Duration::ZERO)).await;
    let goodbye = Disconnect::from(ReasonCode::UseAnotherServer);
    connection.send(&Packet::Disconnect(goodbye)).await;
    let _served = second.accept().await;
    // A longer connection that breaks is made again with the same one.
    let (_client, connection) = connected(&first, config(Duration::ZERO)).await;
    drop(connection);
    let _served = first.accept().await;
}

#[tokio::test]
async fn whatever_breaks_the_protocol_is_told_with_its_reason() {
    let peer = Peer::bind().await;
    let receive_maximum = 1;
    let max_packet_size = 100;
    let client = MqttClient::new(MqttConfig {
        receive_maximum,
        max_packet_size,
        ack_mode: AckMode::Manual,
        ..config(&peer)
    });
    let _messages = client.messages();
    client.start().await.unwrap();
    let incoming = |id, topic: &'static str, alias| {
        Packet::Publish(Publish {
            topic: Text::from_static(topic),
            qos: QoS::AtLeastOnce,
            id: PacketId::new(id),
            properties: Some(Box::new(PublishProperties {
                topic_alias: NonZeroU16::new(alias),
                ..PublishProperties::default()
            })),
            ..Publish::default()
        })
    };
    for (reason, packets) in [
        (ReasonCode::ProtocolError, vec![Packet::PingReq]),
        (ReasonCode::ProtocolError, vec![incoming(1, "", 3)]),
        (ReasonCode::TopicAliasInvalid, vec![incoming(1, "a", 11)]),
        (
            ReasonCode::ReceiveMaximumExceeded,
            vec![incoming(1, "a", 1), incoming(2, "a", 1)],
        ),
    ] {
        let mut connection = peer.accept().await;
        for packet in packets {
            connection.send(&packet).await;
        }
        assert_eq!(goodbye(&mut connection).await, reason);
    }
    for (reason, bytes) in [
        (ReasonCode::MalformedPacket, &[0x36, 2, 0, 0][..]),
        (ReasonCode::PacketTooLarge, &[0x30, 0xff, 0x7f][..]),
    ] {
        let mut connection = peer.accept().await;
        connection.write(bytes).await;
        assert_eq!(goodbye(&mut connection).await, reason);
    }
}

/// The reason of the DISCONNECT that comes next, and last.
async fn goodbye(connection: &mut PeerConnection) -> ReasonCode {
    let Packet::Disconnect(said) = connection.next().await else {
        panic!("not a DISCONNECT")
    };
    assert_eq!(connection.try_next().await, None);
    said.reason
}

#[tokio::test]
async fn a_farewell_can_have_the_will_published_in_both_versions() {
    for protocol in [Version::V311, Version::V5] {
        let peer = Peer::bind().await;
        let will = Will {
            topic: "gone".into(),
            ..Will::default()
        };
        let (client, mut connection) = connected(
            &peer,
            MqttConfig {
                protocol,
                will: Some(will),
                ..peer.config()
            },
        )
        .await;
        let (left, last) = tokio::join!(
            client.disconnect_with(Farewell::WithWill),
            connection.try_next()
        );
        left.unwrap();
        let expected = match protocol {
            Version::V311 => None,
            Version::V5 => Some(Packet::Disconnect(ReasonCode::DisconnectWithWill.into())),
        };
        assert_eq!(last, expected);
    }
}

#[tokio::test]
async fn properties_reach_the_other_side_and_the_program() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, config(&peer)).await;
    let mut messages = client.messages();
    let options = PublishOptions::new(QoS::AtMostOnce)
        .expiry(Duration::from_millis(1500))
        .response_topic("answers")
        .correlation_data("17")
        .content_type("text/plain")
        .payload_format(PayloadFormat::Utf8)
        .user_property("a", "1")
        .user_property("a", "2");
    client.publish_with("t", "x", options).await.unwrap();
    let mut publish = connection.publish().await;
    let id = SubscriptionId::new(7).unwrap();
    let said = publish.properties.as_mut().unwrap();
    assert_eq!(said.message_expiry, Some(2), "rounded up");
    said.subscription_ids.push(id);
    connection.send(&Packet::Publish(publish)).await;
    let message = soon("the message", messages.recv()).await.unwrap();
    assert_eq!(message.expiry(), Some(Duration::from_secs(2)));
    assert_eq!(message.response_topic().unwrap(), "answers");
    assert_eq!(message.correlation_data().unwrap(), "17");
    assert_eq!(message.content_type().unwrap(), "text/plain");
    assert_eq!(message.payload_format(), PayloadFormat::Utf8);
    assert_eq!(
        message.user_properties(),
        [("a".into(), "1".into()), ("a".into(), "2".into())]
    );
    assert_eq!(message.subscription_ids(), [id]);
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_at_the_call() {
    let peer = Peer::bind().await;
    let config = MqttConfig {
        // What gets as far as the queue has no answer.
        request_timeout: Some(PATIENCE),
        ..config(&peer)
    };
    let (client, _connection) = connected(&peer, config).await;
    let shared = SubscribeOptions {
        no_local: true,
        ..QoS::AtMostOnce.into()
    };
    for result in [
        client
            .publish_with("t", "", PublishOptions::default().content_type("\0"))
            .await,
        client
            .publish_with("t", "", PublishOptions::default().response_topic("a/#"))
            .await,
        client.subscribe("$share/g/t", shared).await.map(drop),
        client.unsubscribe("$share/g").await,
        client.unsubscribe("$share//t").await,
        client
            .unsubscribe_many(vec!["t".into(), "$share/+/t".into()])
            .await
            .map(drop),
    ] {
        assert!(matches!(result, Err(Error::Unsendable(_))), "{result:?}");
    }
    let (plain, _connection) = connected(&peer, peer.config()).await;
    for result in [
        plain
            .publish_with("t", "", PublishOptions::default().content_type("a"))
            .await,
        plain.subscribe("t", shared).await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::NeedsV5(_))), "{result:?}");
    }
}

/// Answers a SUBSCRIBE of one filter.
async fn answer(
    connection: &mut PeerConnection,
    code: ReasonCode,
    properties: Option<Box<AckProperties>>,
) -> Subscribe {
    let Packet::Subscribe(subscribe) = connection.next().await else {
        panic!("not a SUBSCRIBE")
    };
    connection
        .send(&Packet::SubAck(SubAck {
            id: subscribe.id,
            codes: vec![code],
            properties,
        }))
        .await;
    subscribe
}

#[tokio::test]
async fn subscriptions_carry_options_and_answers_carry_reasons() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, config(&peer)).await;
    let options = SubscribeOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::SendIfNew,
        id: SubscriptionId::new(300),
    };
    let granted = answer(&mut connection, ReasonCode::GrantedQoS1, None);
    let (qos, sent) = tokio::join!(client.subscribe("t", options), granted);
    assert_eq!(qos.unwrap(), QoS::AtLeastOnce);
    let [wanted] = &sent.filters[..] else {
        panic!("{sent:?}")
    };
    assert!(wanted.no_local && wanted.retain_as_published);
    assert_eq!(wanted.retain_handling, RetainHandling::SendIfNew);
    assert_eq!(sent.properties.unwrap().subscription_id, options.id);

    let reason = ReasonCode::NotAuthorized;
    let refused = answer(&mut connection, reason, words("not here"));
    let (result, _) = tokio::join!(client.subscribe("secret", QoS::AtMostOnce), refused);
    let Err(Error::SubscribeRefused { filter, source }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(
        (filter.as_str(), source.reason),
        ("secret", ReasonCode::NotAuthorized)
    );
    assert_eq!(source.text.unwrap(), "not here");

    let codes = vec![ReasonCode::Success, ReasonCode::NotAuthorized];
    let unsubscribed = async {
        let Packet::Unsubscribe(unsubscribe) = connection.next().await else {
            panic!("not an UNSUBSCRIBE")
        };
        connection
            .send(&Packet::UnsubAck(UnsubAck {
                id: unsubscribe.id,
                codes: codes.clone(),
                properties: None,
            }))
            .await;
    };
    let filters = vec!["t".into(), "secret".into()];
    let (said, ()) = tokio::join!(client.unsubscribe_many(filters), unsubscribed);
    assert_eq!(said.unwrap(), codes);
}

#[tokio::test]
async fn a_message_that_expires_while_it_waits_is_not_sent() {
    for protocol in [Version::V311, Version::V5] {
        let peer = Peer::bind().await;
        let client = MqttClient::new(MqttConfig {
            protocol,
            ..peer.config()
        });
        client.start().await.unwrap();
        // Taken, and not yet accepted: whatever is published waits.
        let connection = peer.accept_tcp().await;
        let expiry = |time| PublishOptions::new(QoS::AtLeastOnce).expiry(time);
        let none = expiry(Duration::ZERO);
        let short = client.publish_deferred("t", "short", none).await.unwrap();
        let ample = expiry(Duration::from_secs(600));
        let long = client.publish_deferred("t", "long", ample).await.unwrap();
        drop(connection);
        let mut connection = peer.accept().await;
        let publish = connection.publish().await;
        connection.puback(&publish).await;
        assert_eq!(publish.payload, "long");
        assert!(matches!(
            soon("the short one", short).await,
            Err(Error::Expired)
        ));
        soon("the long one", long).await.unwrap();
        assert_eq!(client.stats().expired, 1);
    }
}

#[tokio::test]
async fn a_subscribe_without_an_answer_ends_after_its_limit() {
    let peer = Peer::bind().await;
    let limit = Duration::from_millis(20);
    let (client, _connection) = connected(
        &peer,
        MqttConfig {
            request_timeout: Some(limit),
            ..peer.config()
        },
    )
    .await;
    let subscribed = client.subscribe("t", QoS::AtMostOnce).await;
    assert!(matches!(subscribed, Err(Error::Timeout(after)) if after == limit));
    let unsubscribed = client.unsubscribe("t").await;
    assert!(matches!(unsubscribed, Err(Error::Timeout(_))));
}

/// A message with what a caller of 5.0 says in properties.
fn asking(topic: &str, response_topic: &str, payload: &'static str) -> Packet {
    Packet::Publish(Publish {
        topic: topic.into(),
        payload: Bytes::from_static(payload.as_bytes()),
        properties: Some(Box::new(PublishProperties {
            response_topic: Some(response_topic.into()),
            correlation_data: Some(Bytes::from_static(b"mine")),
            ..PublishProperties::default()
        })),
        ..Publish::default()
    })
}

#[tokio::test]
async fn a_query_says_where_its_answer_goes_and_takes_either_form() {
    let peer = Peer::bind().await;
    let (client, mut connection) = connected(&peer, config(&peer)).await;
    let said = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        Some(Box::new(PublishProperties {
            user_properties: pairs.collect(),
            ..PublishProperties::default()
        }))
    };
    let server = async {
        connection.grant().await;
        for round in 0..4 {
            let request = connection.publish().await;
            let properties = request.properties.clone().unwrap();
            assert_eq!(properties.message_expiry, Some(10));
            let to = properties.response_topic.unwrap();
            let (_, ids) = request.topic.split_once("/_q/").unwrap();
            assert_eq!(to.as_str(), format!("_r/{ids}"));
            assert!(
                ids.as_bytes()
                    .ends_with(&properties.correlation_data.unwrap())
            );
            if round == 3 {
                let id = request.id.unwrap();
                let nobody = Ack::new(id, ReasonCode::NoMatchingSubscribers);
                connection.send(&Packet::PubAck(nobody)).await;
                continue;
            }
            connection.puback(&request).await;
            let answers = match round {
                0 => vec![(format!("{to}/ok"), None, "levels")],
                1 => vec![(to.to_string(), None, "plain")],
                _ => vec![
                    (
                        to.to_string(),
                        said(&[("query-status", "more"), ("query-part", "0")]),
                        "two ",
                    ),
                    (to.to_string(), said(&[("query-part", "1")]), "parts"),
                ],
            };
            for (topic, properties, payload) in answers {
                connection
                    .send(&Packet::Publish(Publish {
                        topic: topic.into(),
                        payload: Bytes::from_static(payload.as_bytes()),
                        properties,
                        ..Publish::default()
                    }))
                    .await;
            }
        }
    };
    let asked = async {
        for expected in ["levels", "plain", "two parts"] {
            assert_eq!(client.query("t", "").await.unwrap(), expected);
        }
        client.query("t", "").await
    };
    let (nobody, ()) = tokio::join!(asked, server);
    assert!(matches!(
        nobody,
        Err(Error::Query(QueryError::NobodyListens(topic))) if topic == "t"
    ));
}

#[tokio::test]
async fn a_responder_answers_where_it_is_told_to_and_callers_of_3_1_1_on_their_levels() {
    let peer = Peer::bind().await;
    let query = QueryOptions {
        part_bytes: 4,
        ..QueryOptions::default()
    };
    let (client, mut connection) = connected(
        &peer,
        MqttConfig {
            query,
            ..config(&peer)
        },
    )
    .await;
    let echo = |request: qproxy::mqtt_client::client::Request| async move {
        if request.payload.is_empty() {
            Err(Bytes::from_static(b"no"))
        } else {
            Ok(request.payload)
        }
    };
    let (responder, _) = tokio::join!(client.respond("t", echo), connection.grant());
    let _responder = responder.unwrap();
    for (packet, answers) in [
        (
            asking("t/_q/me/1", "root/me/1", "abcdef"),
            vec![
                (
                    "root/me/1",
                    "abcd",
                    vec![("query-status", "more"), ("query-part", "0")],
                ),
                ("root/me/1", "ef", vec![("query-part", "1")]),
            ],
        ),
        (
            // Of another form: who asks may not know of parts.
            asking("t/_q/me/5", "elsewhere", "abcdef"),
            vec![("elsewhere", "abcdef", vec![])],
        ),
        (
            asking("t/_q/me/2", "elsewhere", "ab"),
            vec![("elsewhere", "ab", vec![])],
        ),
        (
            asking("t/_q/me/3", "elsewhere", ""),
            vec![("elsewhere", "no", vec![("query-status", "error")])],
        ),
    ] {
        connection.send(&packet).await;
        for (topic, payload, pairs) in answers {
            let answer = connection.publish().await;
            connection.puback(&answer).await;
            assert_eq!(
                (answer.topic.as_str(), &answer.payload[..]),
                (topic, payload.as_bytes())
            );
            let said = answer.properties.unwrap();
            assert_eq!(said.correlation_data.unwrap(), "mine");
            let pairs: Vec<(Text, Text)> = pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
            assert_eq!(said.user_properties, pairs);
        }
    }
    connection.message("t/_q/me/4", "abcdef", 0).await;
    for (topic, payload) in [("_r/me/4/more/0", "abcd"), ("_r/me/4/ok/1", "ef")] {
        let answer = connection.publish().await;
        assert_eq!(
            (answer.topic.as_str(), &answer.payload[..]),
            (topic, payload.as_bytes())
        );
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_over_the_servers_limit_is_an_error_answer() {
    let peer = Peer::bind().await;
    let terms = ConnAckProperties {
        max_packet_size: NonZeroU32::new(200),
        ..ConnAckProperties::default()
    };
    let (client, mut connection) = client_on(&peer, terms).await;
    let handler = |_| async { Ok(Bytes::from(vec![0; 200])) };
    let (responder, _) = tokio::join!(client.respond("t", handler), connection.grant());
    let _responder = responder.unwrap();
    connection.send(&asking("t/_q/me/1", "elsewhere", "")).await;
    let answer = soon("an answer", connection.publish()).await;
    assert_eq!(answer.topic, "elsewhere");
    assert_eq!(
        answer.payload,
        "an answer of 200 bytes does not fit into 200"
    );
    let said = answer.properties.unwrap();
    assert_eq!(
        said.user_properties,
        [("query-status".into(), "error".into())]
    );
}
