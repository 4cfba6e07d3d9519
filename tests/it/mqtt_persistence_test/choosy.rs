//! A store that takes some changes and refuses others: what it refused is neither forgotten nor done twice.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::codec::QoS;
use qproxy::mqtt_client::error::Error;
use qproxy::mqtt_client::options::Overflow;
use qproxy::mqtt_client::persistence::{Change, Persistence, PersistenceError, Saved};

use crate::support::mqtt_peer::Peer;
use crate::support::{free_port, soon};

#[derive(Debug)]
struct Choosy {
    saved: Mutex<Saved>,
    refuses: Mutex<fn(&Change) -> bool>,
}

impl Choosy {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            saved: Mutex::default(),
            refuses: Mutex::new(|_| false),
        })
    }

    fn refuse(&self, which: fn(&Change) -> bool) {
        *self.refuses.lock().unwrap() = which;
    }

    /// What it would have the next process send.
    fn queued(&self) -> Vec<Bytes> {
        let saved = self.saved.lock().unwrap();
        let queued = saved.queued();
        queued
            .map(|(_, publish, _)| publish.payload.clone())
            .collect()
    }
}

impl Persistence for Choosy {
    fn load(&self, _: &str) -> Result<Saved, PersistenceError> {
        Ok(self.saved.lock().unwrap().clone())
    }

    fn save(&self, changes: &[Change]) -> Result<(), PersistenceError> {
        let refuses = *self.refuses.lock().unwrap();
        if changes.iter().any(refuses) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(PersistenceError::Other(Arc::new(full)));
        }
        let mut saved = self.saved.lock().unwrap();
        changes.iter().for_each(|change| saved.apply(change));
        Ok(())
    }
}

fn lasting(config: MqttConfig, store: &Arc<Choosy>) -> MqttConfig {
    MqttConfig {
        clean_session: false,
        persistence: Some(store.clone()),
        drain_timeout: Duration::from_millis(50),
        ..config
    }
}

#[tokio::test]
async fn a_publish_whose_id_could_not_be_saved_is_not_sent_under_two() {
    let peer = Peer::bind().await;
    let store = Choosy::new();
    let client = MqttClient::new(lasting(peer.config(), &store));
    let (connected, mut server) = tokio::join!(client.connect(), peer.accept());
    connected.unwrap();
    store.refuse(|change| matches!(change, Change::Sent { .. }));
    let token = client.publish_deferred("t", "once", QoS::ExactlyOnce).await;
    drop(token.unwrap());
    assert!(server.try_next().await.is_none());
    let left = soon("disconnect", client.disconnect()).await;
    assert!(
        matches!(left, Err(Error::Undelivered { left: 1, .. })),
        "{left:?}"
    );
    let refused = soon("connect", client.connect()).await;
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");

    store.refuse(|_| false);
    let (connected, mut server) = tokio::join!(client.connect(), peer.resume());
    connected.unwrap();
    let once = server.publish().await;
    assert_eq!(once.payload, "once");
    let token = client.publish_deferred("t", "next", QoS::AtLeastOnce).await;
    drop(token.unwrap());
    let next = server.publish().await;
    assert_eq!(next.payload, "next");
    assert_ne!(next.id, once.id);
}

#[tokio::test]
async fn a_message_that_was_thrown_out_leaves_the_store_as_soon_as_the_store_lets_it() {
    let store = Choosy::new();
    let nowhere = MqttConfig {
        client_id: "tested".to_string(),
        port: free_port(),
        queue_messages: 2,
        overflow: Overflow::DropOldest,
        ..MqttConfig::default()
    };
    let client = MqttClient::new(lasting(nowhere, &store));
    client.start().await.unwrap();
    let publish = async |payload: &'static str| {
        let publish = client.publish_deferred("t", payload, QoS::AtLeastOnce);
        soon("the store", publish).await.map(drop)
    };
    publish("a").await.unwrap();
    publish("b").await.unwrap();
    store.refuse(|_| true);
    let refused = publish("throws a out").await;
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");
    assert_eq!(store.queued(), ["a", "b"]);
    store.refuse(|_| false);
    publish("c").await.unwrap();
    assert_eq!(store.queued(), ["b", "c"]);

    // A full store refuses what needs room, and takes what makes some.
    store.refuse(|change| matches!(change, Change::Accepted { .. }));
    let refused = publish("throws b out").await;
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");
    assert_eq!(store.queued(), ["c"]);

    store.refuse(|_| false);
    publish("d").await.unwrap();
    store.refuse(|_| true);
    let refused = publish("throws c out").await;
    assert!(matches!(refused, Err(Error::NotSaved(_))), "{refused:?}");
    store.refuse(|_| false);
    let left = client.disconnect().await;
    assert!(
        matches!(left, Err(Error::Undelivered { left: 1, .. })),
        "{left:?}"
    );
    assert_eq!(store.queued(), ["d"]);
}
