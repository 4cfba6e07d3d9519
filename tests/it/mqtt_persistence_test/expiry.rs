//! A message's time runs on while no process is there to count it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use qproxy::mqtt_client::Version;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig, PublishOptions};
use qproxy::mqtt_client::codec::{PacketId, Publish, PublishProperties, QoS};
use qproxy::mqtt_client::persistence::{Change, Persistence, PersistenceError, Saved};

use crate::support::mqtt_peer::Peer;
use crate::support::{eventually, free_port, soon};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct InMemory(Mutex<Saved>);

impl Persistence for InMemory {
    fn load(&self, _: &str) -> Result<Saved, PersistenceError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn save(&self, changes: &[Change]) -> Result<(), PersistenceError> {
        let mut saved = self.0.lock().unwrap();
        changes.iter().for_each(|change| saved.apply(change));
        Ok(())
    }
}

fn accepted(number: u64, payload: &'static str, expires: SystemTime) -> Change {
    let properties = PublishProperties {
        message_expiry: Some(3600),
        ..PublishProperties::default()
    };
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        topic: "t".into(),
        payload: payload.into(),
        properties: Some(Box::new(properties)),
        ..Publish::default()
    };
    Change::Accepted {
        number,
        publish,
        expires: Some(expires),
    }
}

#[tokio::test]
async fn the_next_process_sends_what_is_left_of_a_life_and_nothing_that_is_over() {
    let now = SystemTime::now();
    let store = Arc::new(InMemory::default());
    let id = PacketId::new(7).unwrap();
    let (over, soon_over) = (now - Duration::from_secs(1), now + HOUR / 6);
    let earlier = [
        accepted(0, "in flight", soon_over),
        Change::Sent { number: 0, id },
        accepted(1, "over", over),
        accepted(2, "queued", soon_over),
    ];
    store.save(&earlier).unwrap();
    let peer = Peer::bind().await;
    let client = MqttClient::new(MqttConfig {
        clean_session: false,
        protocol: Version::V5,
        persistence: Some(store.clone()),
        ..peer.config()
    });
    let (connected, mut server) = tokio::join!(client.connect(), peer.resume());
    connected.unwrap();
    for payload in ["in flight", "queued"] {
        let publish = server.publish().await;
        assert_eq!(publish.payload, payload);
        let left = publish.properties.as_ref().unwrap().message_expiry.unwrap();
        assert!(
            (1..=600).contains(&left),
            "{payload}: {left} s of ten minutes"
        );
        server.puback(&publish).await;
    }
    assert_eq!(client.stats().expired, 1);
    eventually("the store has nothing left", || async {
        let saved = store.0.lock().unwrap();
        saved.queued().count() + saved.in_flight().len() == 0
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_life_is_saved_in_both_versions() {
    for protocol in [Version::V311, Version::V5] {
        let store = Arc::new(InMemory::default());
        let client = MqttClient::new(MqttConfig {
            client_id: "tested".to_owned(),
            port: free_port(),
            clean_session: false,
            protocol,
            persistence: Some(store.clone()),
            ..MqttConfig::default()
        });
        client.start().await.unwrap();
        let before = SystemTime::now();
        let options = PublishOptions::new(QoS::AtLeastOnce).expiry(HOUR);
        let publish = client.publish_deferred("t", "x", options);
        drop(soon("the store", publish).await.unwrap());
        let after = SystemTime::now();
        let saved = store.0.lock().unwrap().clone();
        let (_, _, expires) = saved.queued().next().unwrap();
        let expires = expires.unwrap();
        // The two clocks are not read at the same moment.
        let slack = Duration::from_secs(60);
        assert!(expires > before + HOUR - slack && expires < after + HOUR + slack);
    }
}
