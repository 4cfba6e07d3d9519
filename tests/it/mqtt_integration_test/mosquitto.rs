//! What only Mosquitto shows, or shows best: sessions over its restart, users, certificates, two clients with one id.

use std::time::Duration;

use bytes::Bytes;
use qproxy::mqtt_client::Version;
use qproxy::mqtt_client::client::{Event, MqttClient, MqttConfig, Request};
use qproxy::mqtt_client::codec::ReasonCode;
use qproxy::mqtt_client::error::{ConnectError, Error, QueryError, TlsError};
use qproxy::mqtt_client::message::QoS;
use qproxy::mqtt_client::options::{Backoff, QueryOptions, TlsOptions};
use qproxy::mqtt_client::session::AckMode;
use tempfile::TempDir;

use crate::support::certificates::{self, TlsFiles};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::soon;

async fn connected(config: MqttConfig) -> MqttClient {
    let client = MqttClient::new(config);
    soon("CONNACK", client.connect()).await.unwrap();
    client
}

#[tokio::test]
async fn a_session_survives_a_restart_of_the_broker() {
    let mut broker = Mosquitto::start(Options {
        persistence: true,
        ..Options::default()
    })
    .await;
    let pause = Duration::from_millis(20);
    let reconnect = Backoff {
        initial: pause,
        max: pause,
    };
    let lasting = |id: &str| MqttConfig {
        clean_session: false,
        ack_mode: AckMode::Manual,
        reconnect,
        ..broker.config(id)
    };
    let receiver = MqttClient::new(lasting("receiver"));
    let sender = MqttClient::new(lasting("sender"));
    let mut messages = receiver.messages();
    let mut events = receiver.events();
    receiver.connect().await.unwrap();
    sender.connect().await.unwrap();
    receiver.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    sender
        .publish("t", "before", QoS::AtLeastOnce)
        .await
        .unwrap();
    let unacknowledged = soon("the first message", messages.recv()).await.unwrap();
    broker.stop();
    drop(unacknowledged);
    let waiting = sender
        .publish_deferred("t", "meanwhile", QoS::ExactlyOnce)
        .await
        .unwrap();
    broker.launch().await;
    soon("the publish", waiting).await.unwrap();
    let again = soon("the repeat", messages.recv()).await.unwrap();
    assert_eq!((&again.payload[..], again.dup), (&b"before"[..], true));
    again.ack();
    let second = soon("the second message", messages.recv()).await.unwrap();
    assert_eq!(&second.payload[..], b"meanwhile");
    second.ack();
    let mut present = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, Event::SessionLost { .. }));
        if let Event::Connected { session_present } = event {
            present.push(session_present);
        }
    }
    assert_eq!(present, [false, true]);
}

#[tokio::test]
async fn a_session_that_the_broker_lost_is_renewed() {
    let mut broker = Mosquitto::start(Options::default()).await;
    let pause = Duration::from_millis(20);
    let reconnect = Backoff {
        initial: pause,
        max: pause,
    };
    let config = MqttConfig {
        clean_session: false,
        reconnect,
        ..broker.config("client")
    };
    let client = MqttClient::new(config);
    let mut messages = client.messages();
    let mut events = client.events();
    client.connect().await.unwrap();
    client.subscribe("t", QoS::AtLeastOnce).await.unwrap();
    broker.stop();
    broker.launch().await;
    loop {
        let event = soon("an event", events.recv()).await.unwrap();
        if let Event::SessionLost { resubscribed, .. } = event {
            assert_eq!(resubscribed, 1);
            break;
        }
    }
    client
        .publish("t", "again", QoS::AtLeastOnce)
        .await
        .unwrap();
    assert_eq!(
        soon("a message", messages.recv()).await.unwrap().payload,
        "again"
    );
}

#[tokio::test]
async fn user_and_token_are_checked() {
    let user = Some(("app", "secret"));
    let broker = Mosquitto::start(Options {
        user,
        ..Options::default()
    })
    .await;
    let with = |app_id: Option<&str>, token: Option<&str>| MqttConfig {
        app_id: app_id.map(str::to_string),
        token: token.map(str::to_string),
        ..broker.config("client")
    };
    connected(with(Some("app"), Some("secret")))
        .await
        .disconnect()
        .await
        .unwrap();
    for config in [with(Some("app"), Some("wrong")), with(None, None)] {
        let refused = MqttClient::new(config).connect().await;
        let Err(Error::Connect(ConnectError::Refused(code))) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(code, ReasonCode::NotAuthorized);
    }
}

#[tokio::test]
async fn two_clients_query_and_respond() {
    let broker = Mosquitto::start(Options::default()).await;
    let responder = connected(broker.config("responder")).await;
    let _responding = responder
        .respond("math/+", |request| async move {
            match request.payload.len() {
                0 => Err(Bytes::from_static(b"nothing to do")),
                size => Ok(Bytes::from(vec![b'x'; size * 100_000])),
            }
        })
        .await
        .unwrap();
    let query = QueryOptions {
        timeout: Duration::from_secs(2),
        ..Default::default()
    };
    let caller = connected(MqttConfig {
        query,
        ..broker.config("a/b+c")
    })
    .await;
    let sizes = [1_usize, 2, 3];
    let [one, two, three] = sizes.map(|size| caller.query("math/x", vec![0; size]));
    let (one, two, three) = tokio::join!(one, two, three);
    let found = [one, two, three].map(|answer| answer.unwrap().len());
    assert_eq!(found, [100_000, 200_000, 300_000]);
    let failed = caller.query("math/x", "").await;
    assert!(
        matches!(&failed, Err(Error::Query(QueryError::Failed(why))) if why == "nothing to do")
    );
    let nobody = caller.query("elsewhere", "").await;
    assert!(matches!(nobody, Err(Error::Query(QueryError::Timeout(_)))));
}

#[tokio::test]
async fn a_shared_subscription_brings_its_messages_and_requests_to_one_of_the_group() {
    let broker = Mosquitto::start(Options::default()).await;
    for protocol in [Version::V311, Version::V5] {
        let client = |id: &str| {
            connected(MqttConfig {
                protocol,
                ..broker.config(id)
            })
        };
        let (first, second) = tokio::join!(client("first"), client("second"));
        let caller = client("caller").await;
        let filter = "$share/g/a/#";
        let mut streams = Vec::new();
        let mut responders = Vec::new();
        for member in [&first, &second] {
            let stream = member.subscribe_stream(filter, QoS::AtLeastOnce).await;
            streams.push(stream.unwrap());
            let answer = |request: Request| async move { Ok(request.payload) };
            responders.push(member.respond("$share/g/svc", answer).await.unwrap());
        }
        for number in 0..8 {
            let published = caller.publish("a/x", number.to_string(), QoS::AtLeastOnce);
            published.await.unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 8 {
            let [one, other] = &mut streams[..] else {
                panic!("two streams")
            };
            let message = async {
                tokio::select! {
                    message = one.recv() => message,
                    message = other.recv() => message,
                }
            };
            seen.push(soon("a message", message).await.unwrap().payload);
        }
        seen.sort();
        let all: Vec<_> = (0..8).map(|number: u8| number.to_string()).collect();
        assert_eq!(seen, all);
        let answer = soon("an answer", caller.query("svc", "question")).await;
        assert_eq!(answer.unwrap(), "question");
        for responder in responders {
            responder.stop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn two_clients_with_one_id_do_not_fight_for_ever() {
    let broker = Mosquitto::start(Options::default()).await;
    let pause = Duration::from_millis(10);
    let reconnect = Backoff {
        initial: pause,
        max: pause,
    };
    let config = MqttConfig {
        reconnect,
        ..broker.config("same")
    };
    let first = connected(config.clone()).await;
    let mut events = first.events();
    let second = connected(config).await;
    let mut other = second.events();
    loop {
        let event = tokio::select! {
            event = events.recv() => event.unwrap(),
            event = other.recv() => event.unwrap(),
        };
        if let Event::Stopped { reason } = event {
            assert!(matches!(reason, Error::TakenOver(_)), "{reason}");
            break;
        }
    }
}

#[tokio::test]
async fn tls_connects_with_the_right_authority_and_explains_a_wrong_one() {
    let (directory, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let files = certificates::make(directory.path(), "ours");
    let wrong = certificates::make(other.path(), "another");
    let broker = Mosquitto::start(Options {
        tls: Some(files.clone()),
        ..Options::default()
    })
    .await;
    let with = |tls: TlsOptions| {
        let host = "localhost".to_string();
        MqttConfig {
            host,
            tls: Some(tls),
            ..broker.config("client")
        }
    };
    let ca = Some(files.ca.clone());
    let client = connected(with(TlsOptions {
        ca: ca.clone(),
        ..Default::default()
    }))
    .await;
    client
        .publish("a", vec![0; 1 << 20], QoS::ExactlyOnce)
        .await
        .unwrap();
    client.disconnect().await.unwrap();

    let named = TlsOptions {
        ca,
        server_name: Some("other.test".to_string()),
        ..Default::default()
    };
    let unknown = TlsOptions {
        ca: Some(wrong.ca),
        ..Default::default()
    };
    for (options, expected) in [
        (unknown, "no trusted authority has signed it"),
        (TlsOptions::default(), "no trusted authority has signed it"),
        (named, "it is for another name"),
    ] {
        let failed = MqttClient::new(with(options)).connect().await;
        let Err(Error::Connect(ConnectError::Tls(error))) = failed else {
            panic!("{failed:?}")
        };
        assert!(error.to_string().contains(expected), "{error:?}");
    }
    let missing = TlsOptions {
        ca: Some("/no/such.pem".into()),
        ..Default::default()
    };
    let failed = MqttClient::new(with(missing)).connect().await;
    let Err(Error::Connect(ConnectError::Tls(error))) = failed else {
        panic!("{failed:?}")
    };
    assert!(matches!(error, TlsError::File { .. }), "{error}");
    assert!(error.to_string().contains("/no/such.pem"), "{error}");
}

#[tokio::test]
async fn tls_shows_a_client_certificate_where_one_is_required() {
    let directory = TempDir::new().unwrap();
    let files = TlsFiles {
        require_client: true,
        ..certificates::make(directory.path(), "ours")
    };
    let broker = Mosquitto::start(Options {
        tls: Some(files.clone()),
        ..Options::default()
    })
    .await;
    let with = |client_certificate| {
        let tls = TlsOptions {
            ca: Some(files.ca.clone()),
            client_certificate,
            ..TlsOptions::default()
        };
        MqttConfig {
            host: "localhost".to_string(),
            tls: Some(tls),
            ..broker.config("client")
        }
    };
    let refused = MqttClient::new(with(None)).connect().await;
    let Err(Error::Connect(ConnectError::Tls(error))) = refused else {
        panic!("{refused:?}")
    };
    assert!(matches!(error, TlsError::Handshake { .. }), "{error:?}");
    let own = (
        directory.path().join("client.pem"),
        directory.path().join("client.key"),
    );
    let client = connected(with(Some(own))).await;
    client.publish("a", "", QoS::AtLeastOnce).await.unwrap();
}
