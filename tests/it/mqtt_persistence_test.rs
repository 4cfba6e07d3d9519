//! Publishes that outlive their process: a process ends without a word, and the next one goes on with its journal.

mod choosy;
mod expiry;
mod killed;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qproxy::mqtt_client::client::{Event, MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::{Ack, Packet, PacketId, Publish, QoS, ReasonCode};
use qproxy::mqtt_client::error::{Disconnected, Error, QueryError};
use qproxy::mqtt_client::persistence::{
    Change, Journal, JournalOptions, Persistence, PersistenceError, Saved,
};
use qproxy::mqtt_client::session::AckMode;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::mqtt_transport_test::chain;
use crate::support::mqtt_peer::{Peer, PeerConnection};
use crate::support::{eventually, soon};

/// Waits for the one before to have let go of it.
async fn journal(path: &Path) -> Arc<dyn Persistence> {
    let opened = Mutex::new(None);
    eventually("the journal is free", || async {
        match Journal::open(path, JournalOptions::default()) {
            Ok(journal) => *opened.lock().unwrap() = Some(journal),
            Err(PersistenceError::Locked { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        opened.lock().unwrap().is_some()
    })
    .await;
    Arc::new(opened.into_inner().unwrap().unwrap())
}

async fn lasting(config: MqttConfig, path: &Path) -> MqttConfig {
    MqttConfig {
        clean_session: false,
        persistence: Some(journal(path).await),
        ..config
    }
}

/// What runs here ends all at once, as a process does: nothing is drained, nobody says goodbye.
struct Process(Runtime);

impl Process {
    fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(builder.worker_threads(1).enable_all().build().unwrap())
    }

    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        soon("the process", self.0.spawn(work)).await.unwrap()
    }

    fn end(self) {
        self.0.shutdown_background();
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("session");
    (folder, path)
}

async fn pubrec(peer: &mut PeerConnection, publish: &Publish) {
    let ack = Ack::from(publish.id.unwrap());
    peer.send(&Packet::PubRec(ack)).await;
}

#[tokio::test]
async fn what_is_in_flight_goes_out_again_as_it_was_and_in_order() {
    let (_folder, path) = folder();
    let peer = Peer::bind().await;
    let first = Process::start();
    let config = lasting(peer.config(), &path).await;
    let client = MqttClient::new(config);
    let handle = client.clone();
    let (connected, mut server) = tokio::join!(
        first.run(async move { handle.connect().await }),
        peer.accept()
    );
    connected.unwrap();
    let handle = client.clone();
    let sent = first.run(async move {
        let mut tokens = Vec::new();
        for (number, qos) in [
            (0, QoS::ExactlyOnce),
            (1, QoS::AtLeastOnce),
            (2, QoS::ExactlyOnce),
            (3, QoS::AtMostOnce),
            (4, QoS::AtLeastOnce),
            (5, QoS::AtLeastOnce),
        ] {
            tokens.push(
                handle
                    .publish_deferred("t", number.to_string(), qos)
                    .await
                    .unwrap(),
            );
        }
        tokens
    });
    let seen = async {
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(server.publish().await);
        }
        seen
    };
    let (tokens, seen) = tokio::join!(sent, seen);
    // The second is finished, the first got as far as PUBREL.
    server.puback(&seen[1]).await;
    pubrec(&mut server, &seen[0]).await;
    let Packet::PubRel(released) = server.next().await else {
        panic!("not a PUBREL")
    };
    assert_eq!(Some(released.id), seen[0].id);
    first.end();
    drop((client, tokens, server));

    let client = MqttClient::new(lasting(peer.config(), &path).await);
    let (connected, mut server) = tokio::join!(client.connect(), peer.resume());
    connected.unwrap();
    for expected in [&seen[2], &seen[4], &seen[5]] {
        let again = server.publish().await;
        assert!(again.dup);
        assert_eq!((again.id, again.qos), (expected.id, expected.qos));
        assert_eq!(again.payload, expected.payload);
    }
    let Packet::PubRel(again) = server.next().await else {
        panic!("not a PUBREL")
    };
    assert_eq!(again.id, released.id);
    // Its id and those of the others are not given out again before they are free.
    let token = client
        .publish_deferred("t", "new", QoS::AtLeastOnce)
        .await
        .unwrap();
    let new = server.publish().await;
    assert!(!new.dup);
    let taken: Vec<_> = [0, 2, 4, 5].map(|at: usize| seen[at].id).to_vec();
    assert!(!taken.contains(&new.id), "{new:?}");
    server.puback(&new).await;
    soon("PUBACK", token).await.unwrap();
}

#[tokio::test]
async fn what_was_accepted_without_a_server_is_sent_by_the_next_process() {
    let (_folder, path) = folder();
    let peer = Peer::bind().await;
    let first = Process::start();
    let nowhere = MqttConfig {
        port: crate::support::free_port(),
        ..peer.config()
    };
    let client = MqttClient::new(lasting(nowhere, &path).await);
    first
        .run(async move {
            client.start().await.unwrap();
            for number in 0..200 {
                let token = client.publish_deferred("t", number.to_string(), QoS::AtLeastOnce);
                // That it is accepted is all there is to wait for.
                drop(token.await.unwrap());
            }
        })
        .await;
    first.end();

    let client = MqttClient::new(lasting(peer.config(), &path).await);
    let (connected, mut server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    for number in 0..200 {
        let publish = server.publish().await;
        assert_eq!(publish.payload, number.to_string());
        server.puback(&publish).await;
    }
    client.disconnect().await.unwrap();
    drop(client);
    let left = journal(&path).await.load("tested").unwrap();
    assert_eq!(left.changes(), []);
}

#[tokio::test]
async fn what_is_left_at_disconnect_is_sent_by_the_next_connect() {
    let (_folder, path) = folder();
    let peer = Peer::bind().await;
    let config = MqttConfig {
        drain_timeout: std::time::Duration::from_millis(50),
        ..lasting(peer.config(), &path).await
    };
    let client = MqttClient::new(config);
    let (connected, server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    let token = client
        .publish_deferred("t", "left", QoS::AtLeastOnce)
        .await
        .unwrap();
    let left = soon("disconnect", client.disconnect()).await;
    assert!(
        matches!(left, Err(Error::Undelivered { left: 1, .. })),
        "{left:?}"
    );
    assert!(matches!(token.await, Err(Error::Stopped)));
    drop(server);
    let (connected, mut server) = tokio::join!(client.connect(), peer.resume());
    connected.unwrap();
    assert_eq!(server.publish().await.payload, "left");
}

#[tokio::test]
async fn a_message_of_qos_2_is_not_delivered_to_two_processes() {
    for mode in [AckMode::Auto, AckMode::Manual] {
        let (_folder, path) = folder();
        let peer = Peer::bind().await;
        let message = |dup| {
            Packet::Publish(Publish {
                dup,
                qos: QoS::ExactlyOnce,
                topic: "t".into(),
                id: PacketId::new(7),
                payload: "once".into(),
                ..Publish::default()
            })
        };
        let first = Process::start();
        let config = MqttConfig {
            ack_mode: mode,
            ..lasting(peer.config(), &path).await
        };
        let client = MqttClient::new(config);
        let mut messages = client.messages();
        let handle = client.clone();
        let (connected, mut server) = tokio::join!(
            first.run(async move { handle.connect().await }),
            peer.accept()
        );
        connected.unwrap();
        server.send(&message(false)).await;
        let received = soon("the message", messages.recv()).await.unwrap();
        received.ack();
        assert!(matches!(server.next().await, Packet::PubRec(_)));
        first.end();
        drop((client, messages, received, server));

        let config = MqttConfig {
            ack_mode: mode,
            ..lasting(peer.config(), &path).await
        };
        let client = MqttClient::new(config);
        let mut messages = client.messages();
        let (connected, mut server) = tokio::join!(client.connect(), peer.resume());
        connected.unwrap();
        server.send(&message(true)).await;
        assert!(matches!(server.next().await, Packet::PubRec(_)));
        server
            .send(&Packet::PubRel(Ack::from(PacketId::new(7).unwrap())))
            .await;
        assert!(matches!(server.next().await, Packet::PubComp(_)));
        assert!(messages.try_recv().is_none(), "{mode:?}");
        // From then on the id stands for another message.
        server.send(&message(false)).await;
        soon("the next message", messages.recv())
            .await
            .unwrap()
            .ack();
    }
}

/// A store that refuses when it is told to.
#[derive(Debug, Default)]
struct Refusing {
    saved: Mutex<Saved>,
    refuses: AtomicBool,
}

impl Persistence for Refusing {
    fn load(&self, _: &str) -> Result<Saved, PersistenceError> {
        Ok(self.saved.lock().unwrap().clone())
    }

    fn save(&self, changes: &[Change]) -> Result<(), PersistenceError> {
        if self.refuses.load(Ordering::Relaxed) {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(PersistenceError::Other(Arc::new(full)));
        }
        let mut saved = self.saved.lock().unwrap();
        changes.iter().for_each(|change| saved.apply(change));
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_saved_fails_and_is_not_sent() {
    let peer = Peer::bind().await;
    let store = Arc::new(Refusing::default());
    let client = MqttClient::new(MqttConfig {
        clean_session: false,
        persistence: Some(store.clone()),
        ..peer.config()
    });
    let mut events = client.events();
    let (connected, mut server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    store.refuses.store(true, Ordering::Relaxed);
    let refused = soon("an answer", client.publish("t", "lost", QoS::AtLeastOnce)).await;
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");
    let refused = client.publish_deferred("t", "lost", QoS::AtLeastOnce).await;
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");
    loop {
        if let Event::NotSaved { publishes, .. } = soon("an event", events.recv()).await.unwrap() {
            assert_eq!(publishes, 1);
            break;
        }
    }
    // QoS 0 promises nothing and needs no store.
    client.publish("t", "light", QoS::AtMostOnce).await.unwrap();
    assert_eq!(server.publish().await.payload, "light");
    store.refuses.store(false, Ordering::Relaxed);
    let (published, ()) = tokio::join!(client.publish("t", "kept", QoS::AtLeastOnce), async {
        let publish = server.publish().await;
        assert_eq!(publish.payload, "kept");
        server.puback(&publish).await;
    });
    published.unwrap();
}

#[tokio::test]
async fn nothing_leaves_that_follows_from_what_could_not_be_saved() {
    let peer = Peer::bind().await;
    let store = Arc::new(Refusing::default());
    let client = MqttClient::new(MqttConfig {
        clean_session: false,
        persistence: Some(store.clone()),
        ..peer.config()
    });
    let mut events = client.events();
    let (connected, mut server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    let token = client
        .publish_deferred("t", "x", QoS::ExactlyOnce)
        .await
        .unwrap();
    let publish = server.publish().await;
    store.refuses.store(true, Ordering::Relaxed);
    pubrec(&mut server, &publish).await;
    // Were PUBREL to leave, a crash would make the next process publish a second time.
    assert!(server.try_next().await.is_none());
    loop {
        if let Event::Disconnected { reason } = soon("an event", events.recv()).await.unwrap() {
            assert!(matches!(reason, Disconnected::NotSaved(_)), "{reason:?}");
            break;
        }
    }
    store.refuses.store(false, Ordering::Relaxed);
    let (mut server, _) = peer.answer(true, ReasonCode::Success).await;
    let Packet::PubRel(ack) = server.next().await else {
        panic!("not a PUBREL")
    };
    assert_eq!(Some(ack.id), publish.id);
    server.send(&Packet::PubComp(ack)).await;
    soon("PUBCOMP", token).await.unwrap();
    assert_eq!(store.saved.lock().unwrap().changes(), []);
}

#[tokio::test]
async fn persistence_without_a_lasting_session_is_refused() {
    let client = MqttClient::new(MqttConfig {
        persistence: Some(Arc::new(Refusing::default())),
        ..MqttConfig::default()
    });
    let refused = client.start().await;
    assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
}

#[tokio::test]
async fn a_query_whose_caller_gave_up_is_neither_sent_later_nor_kept() {
    let (_folder, path) = folder();
    let peer = Peer::bind().await;
    let mut config = lasting(peer.config(), &path).await;
    config.query.timeout = Duration::from_secs(1);
    let store = config.persistence.clone().unwrap();
    let client = MqttClient::new(config);
    let (connected, mut server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    let answering = async {
        server.grant().await;
        let request = server.publish().await;
        server.puback(&request).await;
        let to = request.topic.replace("t/_q/", "_r/");
        server.message(&format!("{to}/ok"), "answer", 0).await;
    };
    let (answer, ()) = tokio::join!(client.query("t", ""), answering);
    assert_eq!(answer.unwrap(), "answer");
    drop(server);
    eventually("the break is seen", || async { !client.is_connected() }).await;
    let error = client.query("t", "").await.unwrap_err();
    assert!(
        matches!(error, Error::Query(QueryError::Timeout(_))),
        "{error:?}"
    );
    let saved = store.load("tested").unwrap();
    assert_eq!(saved.queued().count() + saved.in_flight().len(), 0);
    let mut server = peer.resume().await;
    let _token = client.try_publish("after", "", QoS::AtLeastOnce).unwrap();
    assert_eq!(server.publish().await.topic, "after");
}
