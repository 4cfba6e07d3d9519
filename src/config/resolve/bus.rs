//! `peer`, `broker`, `mqtt` and `sync`: where the nodes meet, and how they speak there.

use crate::config::Environment;
use crate::config::file::{Broker, Mqtt, PeerForm, Sync};
use crate::config::settings::{BrokerSettings, Compression, Mode, MqttSettings, MqttVersion, Peer};
use crate::config::transport::WaySettings;
use crate::config::units::Size;

use super::{PEER_PORT, Resolver, span};

/// The largest message that MQTT can carry is 256 MiB; brokers take far less.
const MAX_MESSAGE: std::ops::RangeInclusive<u64> = 4096..=16 << 20;

impl Resolver {
    /// The MQTT endpoint on which nodes meet.
    pub(super) fn meeting_point(
        &mut self,
        mode: Mode,
        peer: Option<PeerForm>,
        broker: Option<Broker>,
        mqtt: &MqttSettings,
    ) -> (Option<Peer>, Option<BrokerSettings>) {
        if mode == Mode::Forward {
            return (None, None);
        }
        let peer = peer.map(|form| {
            let host = form.host.unwrap_or_else(|| {
                self.wrong("peer.host", "is missing");
                String::new()
            });
            let endpoint = self.listen("peer", Some(host), form.port, PEER_PORT);
            if endpoint.port == 0 {
                self.wrong("peer.port", "`0` is no port to connect to");
            }
            Peer {
                endpoint,
                tls: form.tls.unwrap_or(false),
            }
        });
        let default = (mode.plays() && peer.is_none()).then(Broker::default);
        let broker = broker.or(default).map(|form| {
            let listen = self.listen("broker", form.host, form.port, PEER_PORT);
            if !listen.is_loopback() && (mqtt.app_id.is_none() || mqtt.token.is_none()) {
                let message = format!(
                    "the broker on `{listen}` could be reached by others: set `mqtt.app_id` and `mqtt.token`, \
                     or listen on 127.0.0.1"
                );
                self.wrong("broker.host", message);
            }
            let tls = self.broker_tls(form.tls);
            BrokerSettings { listen, tls }
        });
        if mode == Mode::Record && peer.is_none() && broker.is_none() {
            let message = "is missing: mode Record needs the MQTT endpoint to send to (or `broker`, to run it here)";
            self.wrong("peer", message);
        }
        (peer, broker)
    }

    pub(super) fn mqtt(
        &mut self,
        form: Mqtt,
        way: WaySettings,
        sync: &Sync,
        environment: &Environment,
    ) -> MqttSettings {
        let root = form.root.unwrap_or_else(|| "qproxy".to_owned());
        let level = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=64).contains(&root.len()) || !root.bytes().all(level) {
            self.wrong(
                "mqtt.root",
                format!("`{root}` must be one topic level of A-Z a-z 0-9 _ -, at most 64"),
            );
        }
        let keep_alive = span(form.keep_alive, 60);
        if !(1..=65_535).contains(&keep_alive.as_secs()) {
            self.wrong("mqtt.keep_alive", "must be from 1s to 65535s");
        }
        let window = sync.window_messages.unwrap_or(500);
        if window == 0 {
            self.wrong("sync.window_messages", "`0` would let nothing through");
        }
        if let Some(group) = sync.group.as_ref()
            && (!(1..=64).contains(&group.len()) || !group.bytes().all(level))
        {
            let message = format!("`{group}` must be 1 to 64 of A-Z a-z 0-9 _ -");
            self.wrong("sync.group", message);
        }
        let message = sync.max_message_bytes.unwrap_or(Size(60 << 10)).0;
        if !MAX_MESSAGE.contains(&message) {
            self.wrong(
                "sync.max_message_bytes",
                format!("`{message}` must be from 4KiB to 16MiB"),
            );
        }
        let token = environment.mqtt_token.clone().or(form.token);
        let app_id = environment.mqtt_app_id.clone().or(form.app_id);
        if token.is_some() && app_id.is_none() {
            self.wrong(
                "mqtt.app_id",
                "is missing: MQTT takes no `mqtt.token` without it",
            );
        }
        MqttSettings {
            root,
            protocol: form.protocol.unwrap_or(MqttVersion::V311),
            app_id,
            token,
            ca: form.ca,
            way,
            compression: form.compression.unwrap_or(Compression::None),
            keep_alive,
            window_messages: window as usize,
            group: sync.group.clone(),
            max_message_bytes: usize::try_from(message).unwrap_or(usize::MAX),
        }
    }
}
