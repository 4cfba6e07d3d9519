//! Whether a packet can be written, and its remaining length.

use bytes::Bytes;

use super::super::properties::{self, check_field, check_text};
use super::super::{
    Ack, Auth, ConnAck, Connect, Disconnect, EncodeError, Kind, MAX_REMAINING_LENGTH, Packet,
    Publish, QoS, ReasonCode, SubAck, Subscribe, Text, UnsubAck, Unsubscribe, Version, Will,
};
use crate::topic::{self, TopicError};

type Checked = Result<usize, EncodeError>;

pub(super) fn packet(packet: &Packet, version: Version) -> Checked {
    match packet {
        Packet::Connect(it) => connect(it),
        Packet::ConnAck(it) => connack(it, version),
        Packet::Publish(it) => publish(it, version),
        Packet::PubAck(it) | Packet::PubRec(it) | Packet::PubRel(it) | Packet::PubComp(it) => {
            ack(packet.kind(), it, version)
        }
        Packet::Subscribe(it) => subscribe(it, version),
        Packet::SubAck(it) => suback(it, version),
        Packet::Unsubscribe(it) => unsubscribe(it, version),
        Packet::UnsubAck(it) => unsuback(it, version),
        Packet::PingReq | Packet::PingResp => Ok(0),
        Packet::Disconnect(it) => disconnect(it, version),
        Packet::Auth(it) => auth(it, version),
    }
}

fn total(kind: Kind, size: usize) -> Checked {
    if size > MAX_REMAINING_LENGTH {
        return Err(EncodeError::TooLarge { kind, size });
    }
    Ok(size)
}

fn legal(kind: Kind, result: Result<(), TopicError>) -> Result<(), EncodeError> {
    result.map_err(|source| EncodeError::Topic { kind, source })
}

fn allowed(kind: Kind, reason: ReasonCode) -> Result<(), EncodeError> {
    if reason.allowed_in(kind) {
        Ok(())
    } else {
        Err(EncodeError::Reason { kind, reason })
    }
}

fn response_topic(kind: Kind, topic: Option<&Text>) -> Result<(), EncodeError> {
    topic.map_or(Ok(()), |topic| {
        legal(kind, topic::validate_name(topic.as_bytes()))
    })
}

fn authentication(
    kind: Kind,
    method: Option<&Text>,
    data: Option<&Bytes>,
) -> Result<(), EncodeError> {
    if data.is_some() && method.is_none() {
        return Err(EncodeError::AuthMethod(kind));
    }
    Ok(())
}

fn connect(connect: &Connect) -> Checked {
    let kind = Kind::Connect;
    let mut size = 10 + check_text(kind, connect.client_id.as_bytes())?;
    if connect.version == Version::V5 {
        let block = connect.properties.as_deref();
        size += properties::check(kind, block)?;
        if let Some(it) = block {
            authentication(kind, it.auth_method.as_ref(), it.auth_data.as_ref())?;
        }
    }
    if let Some(will) = &connect.will {
        size += self::will(will, connect.version)?;
    }
    if connect.version == Version::V311 && connect.password.is_some() && connect.username.is_none()
    {
        return Err(EncodeError::PasswordAlone);
    }
    if let Some(username) = &connect.username {
        size += check_text(kind, username.as_bytes())?;
    }
    if let Some(password) = &connect.password {
        size += check_field(kind, password)?;
    }
    total(kind, size)
}

fn will(will: &Will, version: Version) -> Checked {
    let kind = Kind::Connect;
    legal(kind, topic::validate_topic(&will.topic))?;
    let size = 2 + will.topic.as_bytes().len() + check_field(kind, &will.payload)?;
    if version == Version::V311 {
        return Ok(size);
    }
    let block = will.properties.as_deref();
    response_topic(kind, block.and_then(|it| it.response_topic.as_ref()))?;
    Ok(size + properties::check(kind, block)?)
}

fn connack(connack: &ConnAck, version: Version) -> Checked {
    let kind = Kind::ConnAck;
    if connack.session_present && connack.code != ReasonCode::Success {
        return Err(EncodeError::SessionPresent);
    }
    if version == Version::V311 {
        return Ok(2);
    }
    allowed(kind, connack.code)?;
    let block = connack.properties.as_deref();
    if let Some(it) = block {
        authentication(kind, it.auth_method.as_ref(), it.auth_data.as_ref())?;
    }
    total(kind, 2 + properties::check(kind, block)?)
}

pub(super) fn publish(publish: &Publish, version: Version) -> Checked {
    let kind = Kind::Publish;
    let acknowledged = publish.qos != QoS::AtMostOnce;
    if publish.id.is_some() != acknowledged || (publish.dup && !acknowledged) {
        return Err(EncodeError::PublishId);
    }
    let mut size = 2 + publish.topic.as_bytes().len() + if acknowledged { 2 } else { 0 };
    let mut aliased = false;
    if version == Version::V5 {
        let block = publish.properties.as_deref();
        size += properties::check(kind, block)?;
        if let Some(block) = block {
            aliased = block.topic_alias.is_some();
            response_topic(kind, block.response_topic.as_ref())?;
        }
    }
    if !(aliased && publish.topic.as_bytes().is_empty()) {
        legal(kind, topic::validate_name(publish.topic.as_bytes()))?;
    }
    total(kind, size + publish.payload.len())
}

/// A reason with properties is written in full, one without in three bytes, success in two (3.4.2.1).
fn ack(kind: Kind, ack: &Ack, version: Version) -> Checked {
    if version == Version::V311 {
        return Ok(2);
    }
    allowed(kind, ack.reason)?;
    match ack.properties.as_deref() {
        Some(block) => total(kind, 3 + properties::check(kind, Some(block))?),
        None if ack.reason == ReasonCode::Success => Ok(2),
        None => Ok(3),
    }
}

fn filter(kind: Kind, filter: &Text, version: Version) -> Checked {
    legal(kind, topic::validate_filter(filter))?;
    if version == Version::V5 {
        legal(kind, topic::validate_share(filter))?;
    }
    Ok(2 + filter.as_bytes().len())
}

fn subscribe(subscribe: &Subscribe, version: Version) -> Checked {
    let kind = Kind::Subscribe;
    if subscribe.filters.is_empty() {
        return Err(EncodeError::EmptyList(kind));
    }
    let mut size = 2;
    if version == Version::V5 {
        size += properties::check(kind, subscribe.properties.as_deref())?;
    }
    for wanted in &subscribe.filters {
        size += 1 + filter(kind, &wanted.filter, version)?;
        if version == Version::V5 && wanted.no_local && topic::is_shared(&wanted.filter) {
            return Err(EncodeError::SharedNoLocal);
        }
    }
    total(kind, size)
}

fn suback(suback: &SubAck, version: Version) -> Checked {
    let kind = Kind::SubAck;
    if suback.codes.is_empty() {
        return Err(EncodeError::EmptyList(kind));
    }
    let mut size = 2 + suback.codes.len();
    if version == Version::V5 {
        size += properties::check(kind, suback.properties.as_deref())?;
        suback
            .codes
            .iter()
            .try_for_each(|code| allowed(kind, *code))?;
    }
    total(kind, size)
}

fn unsubscribe(unsubscribe: &Unsubscribe, version: Version) -> Checked {
    let kind = Kind::Unsubscribe;
    if unsubscribe.filters.is_empty() {
        return Err(EncodeError::EmptyList(kind));
    }
    let mut size = 2;
    if version == Version::V5 {
        size += properties::check_user(kind, &unsubscribe.user_properties)?;
    }
    for given_up in &unsubscribe.filters {
        size += filter(kind, given_up, version)?;
    }
    total(kind, size)
}

fn unsuback(unsuback: &UnsubAck, version: Version) -> Checked {
    let kind = Kind::UnsubAck;
    if version == Version::V311 {
        return Ok(2);
    }
    if unsuback.codes.is_empty() {
        return Err(EncodeError::EmptyList(kind));
    }
    unsuback
        .codes
        .iter()
        .try_for_each(|code| allowed(kind, *code))?;
    let block = properties::check(kind, unsuback.properties.as_deref())?;
    total(kind, 2 + block + unsuback.codes.len())
}

fn disconnect(disconnect: &Disconnect, version: Version) -> Checked {
    let kind = Kind::Disconnect;
    if version == Version::V311 {
        return Ok(0);
    }
    allowed(kind, disconnect.reason)?;
    match disconnect.properties.as_deref() {
        Some(block) => total(kind, 1 + properties::check(kind, Some(block))?),
        None if disconnect.reason == ReasonCode::Success => Ok(0),
        None => Ok(1),
    }
}

fn auth(auth: &Auth, version: Version) -> Checked {
    let kind = Kind::Auth;
    if version == Version::V311 {
        return Err(EncodeError::Version(version));
    }
    allowed(kind, auth.reason)?;
    match auth.properties.as_deref() {
        None if auth.reason == ReasonCode::Success => Ok(0),
        Some(block) if block.auth_method.is_some() => {
            total(kind, 1 + properties::check(kind, Some(block))?)
        }
        _ => Err(EncodeError::AuthMethod(kind)),
    }
}
