//! One suite for every broker. What a broker cannot do stands in `support/broker.rs`, with the reason.

use std::collections::BTreeSet;

use bytes::Bytes;
use qproxy::mqtt_client::client::{Event, Messages, MqttClient, MqttConfig, PublishOptions};
use qproxy::mqtt_client::codec::{Version, Will};
use qproxy::mqtt_client::error::Error;
use qproxy::mqtt_client::message::QoS;
use qproxy::mqtt_client::options::Takeover;
use qproxy::mqtt_client::session::AckMode;

use crate::support::broker::{Broker, ExactlyOnce, Kind, Need, Retained};
use crate::support::soon;

/// Gives each broker a module with every test, so that `cargo test mqtt_integration_test::every_broker::nats` runs one.
macro_rules! on_every_broker {
    ($tests:tt) => {
        on_every_broker!(mosquitto, Kind::Mosquitto, Version::V311, $tests);
        on_every_broker!(mosquitto_v5, Kind::Mosquitto, Version::V5, $tests);
        // MQTT 5 came to them with 3.13 and not yet, respectively.
        on_every_broker!(rabbitmq, Kind::RabbitMq, Version::V311, $tests);
        on_every_broker!(nats, Kind::Nats, Version::V311, $tests);
    };
    ($module:ident, $kind:expr, $version:expr, { $($test:ident)* }) => {
        mod $module {
            use crate::support::broker::Kind;
            use qproxy::mqtt_client::codec::Version;
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($kind, $version).await;
                }
            )*
        }
    };
}

on_every_broker!({
    every_qos_arrives_in_order
    exactly_once_ends_as_the_broker_treats_it
    a_session_keeps_what_came_while_its_client_was_away
    a_session_of_an_earlier_process_takes_publishes_of_every_qos
    a_message_that_is_not_acknowledged_comes_again
    a_will_is_published_for_a_client_that_vanishes_but_not_for_one_that_leaves
    a_retained_message_reaches_later_subscribers
    tls_carries_large_messages_both_ways
    sixteen_mebibytes_arrive_whole
    thousands_in_flight_all_arrive
    nothing_acknowledged_is_lost_when_the_broker_restarts_midway
});

async fn connected(config: MqttConfig) -> MqttClient {
    let client = MqttClient::new(config);
    soon("CONNACK", client.connect()).await.unwrap();
    client
}

/// A client with everything that it receives.
async fn listening(config: MqttConfig) -> (MqttClient, Messages) {
    let client = MqttClient::new(config);
    let messages = client.messages();
    soon("CONNACK", client.connect()).await.unwrap();
    (client, messages)
}

async fn next(messages: &mut Messages) -> String {
    let message = soon("a message", messages.recv()).await.unwrap();
    message.ack();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

async fn every_qos_arrives_in_order(kind: Kind, version: Version) {
    const COUNT: usize = 300;
    let broker = Broker::start(kind, version, Need::Plain).await;
    let exactly_once = kind.exactly_once() == ExactlyOnce::Kept;
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for qos in &levels[..if exactly_once { 3 } else { 2 }] {
        let topic = broker.topic("x");
        let (receiver, mut messages) = listening(broker.config("receiver")).await;
        let granted = receiver.subscribe(broker.topic("+"), *qos).await.unwrap();
        assert_eq!(granted, *qos);
        let sender = connected(broker.config("sender")).await;
        let mut tokens = Vec::new();
        for number in 0..COUNT {
            let publish = sender.publish_deferred(topic.as_str(), number.to_string(), *qos);
            tokens.push(publish.await.unwrap());
        }
        for token in tokens {
            soon("an acknowledgement", token).await.unwrap();
        }
        for number in 0..COUNT {
            let message = soon("a message", messages.recv()).await.unwrap();
            assert_eq!(message.payload, number.to_string(), "{qos:?}");
            assert_eq!(
                (message.qos, message.retain, message.dup),
                (*qos, false, false)
            );
        }
        soon("UNSUBACK", receiver.unsubscribe(broker.topic("+")))
            .await
            .unwrap();
        sender.publish(topic, "unheard", *qos).await.unwrap();
        sender.disconnect().await.unwrap();
        receiver.disconnect().await.unwrap();
        assert!(messages.try_recv().is_none());
    }
}

async fn exactly_once_ends_as_the_broker_treats_it(kind: Kind, version: Version) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let topic = broker.topic("x");
    let (receiver, mut messages) = listening(broker.config("receiver")).await;
    let granted = receiver
        .subscribe(topic.as_str(), QoS::ExactlyOnce)
        .await
        .unwrap();
    let takeover = Takeover::default();
    let sender = connected(MqttConfig {
        takeover,
        ..broker.config("sender")
    })
    .await;
    let sent = soon("an end", sender.publish(topic, "x", QoS::ExactlyOnce)).await;
    match kind.exactly_once() {
        ExactlyOnce::Kept => {
            assert_eq!(granted, QoS::ExactlyOnce);
            sent.unwrap();
            assert_eq!(next(&mut messages).await, "x");
        }
        ExactlyOnce::Downgraded => {
            assert_eq!(granted, QoS::AtLeastOnce);
            sent.unwrap();
            assert_eq!(next(&mut messages).await, "x");
        }
        ExactlyOnce::Refused => {
            assert_eq!(granted, QoS::AtLeastOnce);
            let error = sent.unwrap_err();
            assert!(matches!(error, Error::TakenOver(_)), "{error}");
            assert!(messages.try_recv().is_none());
        }
    }
}

async fn a_session_keeps_what_came_while_its_client_was_away(kind: Kind, version: Version) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let topic = broker.topic("x");
    let lasting = MqttConfig {
        clean_session: false,
        ..broker.config("receiver")
    };
    let (receiver, mut messages) = listening(lasting.clone()).await;
    receiver
        .subscribe(topic.as_str(), QoS::AtLeastOnce)
        .await
        .unwrap();
    let sender = connected(broker.config("sender")).await;
    sender
        .publish(topic.as_str(), "here", QoS::AtLeastOnce)
        .await
        .unwrap();
    assert_eq!(next(&mut messages).await, "here");
    receiver.disconnect().await.unwrap();
    drop((receiver, messages));

    for number in 0..100 {
        let publish = sender.publish(topic.as_str(), number.to_string(), QoS::AtLeastOnce);
        soon("PUBACK", publish).await.unwrap();
    }
    // Another client of the program, with nothing but the id: what it gets it owes to the broker.
    let receiver = MqttClient::new(lasting);
    let (mut messages, mut events) = (receiver.messages(), receiver.events());
    receiver.connect().await.unwrap();
    let event = soon("an event", events.recv()).await.unwrap();
    assert!(
        matches!(
            event,
            Event::Connected {
                session_present: true
            }
        ),
        "{event:?}"
    );
    // NATS hands the first of them to the connection that is just ending, and then sends it again, late and marked.
    let (mut seen, mut first_sent) = (BTreeSet::new(), Vec::new());
    while seen.len() < 100 {
        let message = soon("a message", messages.recv()).await.unwrap();
        let number: u8 = std::str::from_utf8(&message.payload)
            .unwrap()
            .parse()
            .unwrap();
        seen.insert(number);
        if !message.dup {
            first_sent.push(number);
        }
    }
    assert!(first_sent.is_sorted(), "{first_sent:?}");
    assert!(first_sent.len() >= 99, "{first_sent:?}");
}

async fn a_session_of_an_earlier_process_takes_publishes_of_every_qos(
    kind: Kind,
    version: Version,
) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let topic = broker.topic("x");
    let (_receiver, mut messages) = {
        let (receiver, messages) = listening(broker.config("receiver")).await;
        let subscribe = receiver.subscribe(topic.as_str(), QoS::ExactlyOnce);
        soon("SUBACK", subscribe).await.unwrap();
        (receiver, messages)
    };
    let lasting = MqttConfig {
        clean_session: false,
        ..broker.config("lasting")
    };
    let earlier = connected(lasting.clone()).await;
    let other = broker.topic("other");
    earlier.subscribe(other, QoS::AtLeastOnce).await.unwrap();
    earlier.disconnect().await.unwrap();

    let next_process = MqttClient::new(lasting);
    let mut events = next_process.events();
    soon("CONNACK", next_process.connect()).await.unwrap();
    let event = soon("an event", events.recv()).await.unwrap();
    let Event::Connected { session_present } = event else {
        panic!("{event:?}");
    };
    assert!(session_present);
    let mut levels = vec![QoS::AtLeastOnce];
    // NATS hangs up at a publish of QoS 2, which another test shows.
    if kind.exactly_once() != ExactlyOnce::Refused {
        levels.push(QoS::ExactlyOnce);
    }
    for qos in levels {
        let publish = next_process.publish(topic.as_str(), format!("{qos:?}"), qos);
        soon("an acknowledgement", publish).await.unwrap();
        assert_eq!(next(&mut messages).await, format!("{qos:?}"));
    }
    assert_eq!(next_process.stats().ignored, 0);
}

async fn a_message_that_is_not_acknowledged_comes_again(kind: Kind, version: Version) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let topic = broker.topic("x");
    let lasting = MqttConfig {
        clean_session: false,
        ack_mode: AckMode::Manual,
        ..broker.config("receiver")
    };
    let (receiver, mut messages) = listening(lasting.clone()).await;
    receiver
        .subscribe(topic.as_str(), QoS::AtLeastOnce)
        .await
        .unwrap();
    let sender = connected(broker.config("sender")).await;
    for payload in ["done", "not done"] {
        sender
            .publish(topic.as_str(), payload, QoS::AtLeastOnce)
            .await
            .unwrap();
    }
    assert_eq!(next(&mut messages).await, "done");
    let held = soon("the second", messages.recv()).await.unwrap();
    assert_eq!((&held.payload[..], held.dup), (&b"not done"[..], false));
    drop(held);
    receiver.disconnect().await.unwrap();
    drop((receiver, messages));

    let (_receiver, mut messages) = listening(lasting).await;
    let again = soon("the repeat", messages.recv()).await.unwrap();
    assert_eq!((&again.payload[..], again.dup), (&b"not done"[..], true));
    again.ack();
}

async fn a_will_is_published_for_a_client_that_vanishes_but_not_for_one_that_leaves(
    kind: Kind,
    version: Version,
) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let (watcher, mut messages) = listening(broker.config("watcher")).await;
    watcher
        .subscribe(broker.topic("will/#"), QoS::AtLeastOnce)
        .await
        .unwrap();
    let with_will = |id: &str| {
        let will = Will {
            topic: broker.topic(&format!("will/{id}")).into(),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: None,
        };
        MqttConfig {
            will: Some(will),
            ..broker.config(id)
        }
    };
    let leaving = connected(with_will("leaving")).await;
    leaving.disconnect().await.unwrap();
    // A runtime that is torn down takes its sockets with it, without a word to the broker.
    let config = with_will("vanishing");
    let vanish = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let client = runtime.block_on(connected(config));
        drop(runtime);
        drop(client);
    };
    std::thread::spawn(vanish).join().unwrap();
    let will = soon("the will", messages.recv()).await.unwrap();
    assert_eq!(
        will.topic.as_str(),
        broker.topic("will/vanishing"),
        "and none from the one that left"
    );
    assert_eq!(will.payload, "gone");
}

async fn a_retained_message_reaches_later_subscribers(kind: Kind, version: Version) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let (client, mut messages) = listening(broker.config("client")).await;
    let retained = PublishOptions::new(QoS::AtLeastOnce).retain();
    let publish = |payload: &'static str| {
        client.publish_with(broker.topic("state"), payload, retained.clone())
    };
    publish("on").await.unwrap();
    let (wildcard, name) = (broker.topic("+"), broker.topic("state"));
    let filters: &[String] = match kind.retained() {
        Retained::ToEveryMatch => &[wildcard, name],
        Retained::ToTheSameTopic => &[name],
    };
    for filter in filters {
        client
            .subscribe(filter.as_str(), QoS::AtLeastOnce)
            .await
            .unwrap();
        let kept = soon("the retained message", messages.recv()).await.unwrap();
        assert_eq!(
            (&kept.payload[..], kept.retain),
            (&b"on"[..], true),
            "{filter}"
        );
        client.unsubscribe(filter.as_str()).await.unwrap();
    }
    // An empty one takes it back: whoever subscribes then hears the next message first.
    publish("").await.unwrap();
    client
        .subscribe(filters[0].as_str(), QoS::AtLeastOnce)
        .await
        .unwrap();
    client
        .publish(broker.topic("state"), "live", QoS::AtLeastOnce)
        .await
        .unwrap();
    let live = soon("the live message", messages.recv()).await.unwrap();
    assert_eq!((&live.payload[..], live.retain), (&b"live"[..], false));
}

/// Bytes in which a shift or a lost block shows.
fn pattern(bytes: usize) -> Bytes {
    (0..bytes)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect::<Vec<_>>()
        .into()
}

async fn tls_carries_large_messages_both_ways(kind: Kind, version: Version) {
    let broker = Broker::start(kind, version, Need::Tls).await;
    let (client, mut messages) = listening(broker.config("client")).await;
    client
        .subscribe(broker.topic("x"), QoS::AtLeastOnce)
        .await
        .unwrap();
    let payload = pattern(1 << 20);
    for _ in 0..5 {
        let publish = client.publish(broker.topic("x"), payload.clone(), QoS::AtLeastOnce);
        soon("PUBACK", publish).await.unwrap();
        let message = soon("a message", messages.recv()).await.unwrap();
        assert!(message.payload == payload, "what came is not what was sent");
    }
    client.disconnect().await.unwrap();

    // The same server, taken for one that nobody vouches for.
    let mut distrustful = broker.config("distrustful");
    distrustful.tls = Some(Default::default());
    let refused = MqttClient::new(distrustful).connect().await;
    assert!(matches!(refused, Err(Error::Connect(_))), "{refused:?}");
}

async fn sixteen_mebibytes_arrive_whole(kind: Kind, version: Version) {
    let broker = Broker::start(kind, version, Need::Plain).await;
    let config = MqttConfig {
        max_packet_size: 32 << 20,
        ..broker.config("client")
    };
    let (client, mut messages) = listening(config).await;
    client
        .subscribe(broker.topic("x"), QoS::AtLeastOnce)
        .await
        .unwrap();
    let payload = pattern(16 << 20);
    let publish = client.publish(broker.topic("x"), payload.clone(), QoS::AtLeastOnce);
    soon("PUBACK", publish).await.unwrap();
    let message = soon("the large message", messages.recv()).await.unwrap();
    assert!(message.payload == payload, "what came is not what was sent");
    // Our own limit is the default's: it is refused before a byte is written, and the connection stays.
    let small = connected(broker.config("small")).await;
    let refused = small
        .publish(broker.topic("x"), payload, QoS::AtLeastOnce)
        .await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    small
        .publish(broker.topic("x"), "", QoS::AtLeastOnce)
        .await
        .unwrap();
    assert_eq!(small.stats().connections, 1);
}

async fn thousands_in_flight_all_arrive(kind: Kind, version: Version) {
    const EACH: usize = 1000;
    let broker = Broker::start(kind, version, Need::Plain).await;
    let (receiver, mut messages) = listening(broker.config("receiver")).await;
    receiver
        .subscribe(broker.topic("+"), QoS::AtLeastOnce)
        .await
        .unwrap();
    let sender = connected(MqttConfig {
        window: 2000,
        ..broker.config("sender")
    })
    .await;
    let publish = |lane: usize| {
        let (sender, topic) = (sender.clone(), broker.topic(&lane.to_string()));
        async move {
            let mut tokens = Vec::new();
            for number in 0..EACH {
                let publish =
                    sender.publish_deferred(topic.as_str(), number.to_string(), QoS::AtLeastOnce);
                tokens.push(publish.await.unwrap());
            }
            for token in tokens {
                soon("an acknowledgement", token).await.unwrap();
            }
        }
    };
    let receive = async {
        // Each lane in its order, whatever the order between them.
        let mut expected = [0; 4];
        for _ in 0..4 * EACH {
            let message = soon("a message", messages.recv()).await.unwrap();
            let lane: usize = message.topic.rsplit('/').next().unwrap().parse().unwrap();
            assert_eq!(message.payload, expected[lane].to_string(), "lane {lane}");
            expected[lane] += 1;
        }
    };
    tokio::join!(publish(0), publish(1), publish(2), publish(3), receive);
    assert_eq!(sender.stats().in_flight, 0);
}

async fn nothing_acknowledged_is_lost_when_the_broker_restarts_midway(
    kind: Kind,
    version: Version,
) {
    const COUNT: usize = 600;
    let mut broker = Broker::start(kind, version, Need::Restart).await;
    let topic = broker.topic("x");
    let lasting = |id: &str| MqttConfig {
        clean_session: false,
        ..broker.config(id)
    };
    let (receiver, mut messages) = listening(lasting("receiver")).await;
    receiver
        .subscribe(topic.as_str(), QoS::AtLeastOnce)
        .await
        .unwrap();
    let sender = connected(lasting("sender")).await;
    let mut tokens = Vec::new();
    for number in 0..COUNT / 2 {
        let publish = sender.publish_deferred(topic.as_str(), number.to_string(), QoS::AtLeastOnce);
        tokens.push(publish.await.unwrap());
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        seen.insert(next(&mut messages).await.parse::<usize>().unwrap());
    }
    broker.go_away();
    for number in COUNT / 2..COUNT {
        let publish = sender.publish_deferred(topic.as_str(), number.to_string(), QoS::AtLeastOnce);
        tokens.push(publish.await.unwrap());
    }
    broker.come_back().await;
    for token in tokens {
        soon("an acknowledgement", token).await.unwrap();
    }
    while seen.len() < COUNT {
        seen.insert(next(&mut messages).await.parse().unwrap());
    }
    assert_eq!(seen.last(), Some(&(COUNT - 1)));
    assert!(
        sender.stats().connections >= 2,
        "it was not restarted under way"
    );
}
