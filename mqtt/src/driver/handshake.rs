//! CONNECT from the settings, and what CONNACK says to it (3.1, 3.2).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::codec::{ConnAck, Connect, ConnectProperties, Packet, Text, Version};
use crate::error::{ConnectError, ServerReason};
use crate::options::MqttConfig;
use crate::session::{Terms, Violation};

use super::ClientSession;

/// What differs from one CONNECT of a client to the next.
#[derive(Debug)]
pub(super) struct Opening {
    client_id: Text,
    begins_anew: bool,
}

impl Opening {
    pub(super) fn new(config: &MqttConfig, session: &ClientSession) -> Self {
        let assigned = session.assigned_client_id().cloned();
        Self {
            client_id: assigned.unwrap_or_else(|| Text::from(config.client_id.as_str())),
            begins_anew: session.begins_anew(),
        }
    }

    pub(super) fn connect_packet(&self, config: &MqttConfig) -> Packet {
        let properties = match config.protocol {
            Version::V311 => None,
            Version::V5 => Some(Box::new(properties(config))),
        };
        Packet::Connect(Box::new(Connect {
            version: config.protocol,
            client_id: self.client_id.clone(),
            clean_session: self.begins_anew,
            keep_alive: config.keep_alive,
            will: config.will.clone(),
            username: config.app_id.as_deref().map(Text::from),
            password: config
                .token
                .as_ref()
                .map(|token| Bytes::copy_from_slice(token.as_bytes())),
            properties,
        }))
    }

    /// The terms on which the server accepts, or why it does not.
    pub(super) fn accepted(
        &self,
        connack: &ConnAck,
        version: Version,
    ) -> Result<Terms, ConnectError> {
        if connack.code.is_error() {
            return Err(ConnectError::Refused(ServerReason::from(connack)));
        }
        if version == Version::V5 && self.begins_anew && connack.session_present {
            return Err(Violation::SessionPresent.into());
        }
        Ok(Terms::from(connack))
    }
}

/// What has the value that the specification gives to what is absent is not sent.
fn properties(config: &MqttConfig) -> ConnectProperties {
    let expiry = config.session_expiry_seconds();
    let size = u32::try_from(config.max_packet_size).unwrap_or(u32::MAX);
    let receive_max = Some(config.receive_maximum).filter(|&max| max < u16::MAX);
    ConnectProperties {
        session_expiry: (expiry > 0).then_some(expiry),
        receive_max: receive_max.and_then(NonZeroU16::new),
        max_packet_size: NonZeroU32::new(size),
        topic_alias_max: Some(config.topic_alias_maximum).filter(|&max| max > 0),
        user_properties: config.user_properties.clone(),
        ..ConnectProperties::default()
    }
}
