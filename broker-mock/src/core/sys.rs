//! The `$SYS` topics: how the broker does, as retained messages every `Limits::sys_interval`.

use std::sync::Arc;

use bytes::Bytes;
use qproxy_mqtt::codec::{QoS, Text};

use super::Broker;
use super::message::Message;

impl Broker {
    pub(super) fn publish_sys(&mut self) {
        if self.now < self.sys_due {
            return;
        }
        self.sys_due = self.now + self.limits.sys_interval;
        let counters = &self.counters;
        let values = [
            (
                "version",
                format!("broker-mock {}", env!("CARGO_PKG_VERSION")),
            ),
            ("uptime", format!("{} seconds", self.now.as_secs())),
            ("clients/connected", self.sessions.online().to_string()),
            ("clients/total", self.sessions.len().to_string()),
            (
                "subscriptions/count",
                self.sessions.subscriptions().to_string(),
            ),
            ("retained messages/count", self.retained.len().to_string()),
            ("store/messages/bytes", self.budget.used().to_string()),
            (
                "publish/messages/received",
                counters.publishes_received.to_string(),
            ),
            ("publish/messages/sent", counters.publishes_sent.to_string()),
            ("publish/messages/dropped", counters.dropped().to_string()),
        ];
        for (name, value) in values {
            let topic = Text::from(format!("$SYS/broker/{name}"));
            let mut message = Message::new(&topic, &Bytes::from(value), QoS::AtMostOnce);
            message.retain = true;
            self.distribute(&Arc::new(message));
        }
    }
}
