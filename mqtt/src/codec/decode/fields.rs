//! What follows the fixed header, packet by packet, but for CONNECT and CONNACK.

use bytes::Bytes;

use super::super::{
    Ack, AckProperties, Auth, AuthProperties, DecodeError, Disconnect, DisconnectProperties, Kind,
    Packet, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeProperties, Subscription, Text, UnsubAck, Unsubscribe, Version, properties,
};
use super::{Body, Header, connect};
use crate::topic;

pub(super) fn packet(body: Body, header: &Header, version: Version) -> Result<Packet, DecodeError> {
    Ok(match body.kind {
        Kind::Connect => Packet::Connect(Box::new(connect::connect(body, header)?)),
        Kind::ConnAck => Packet::ConnAck(connect::connack(body, version)?),
        Kind::Publish => Packet::Publish(publish(body, header.flags, version)?),
        Kind::PubAck => Packet::PubAck(ack(body)?),
        Kind::PubRec => Packet::PubRec(ack(body)?),
        Kind::PubRel => Packet::PubRel(ack(body)?),
        Kind::PubComp => Packet::PubComp(ack(body)?),
        Kind::Subscribe => Packet::Subscribe(subscribe(body, version)?),
        Kind::SubAck => Packet::SubAck(suback(body, version)?),
        Kind::Unsubscribe => Packet::Unsubscribe(unsubscribe(body, version)?),
        Kind::UnsubAck => Packet::UnsubAck(unsuback(body, version)?),
        Kind::Disconnect => Packet::Disconnect(disconnect(body)?),
        Kind::Auth => Packet::Auth(auth(body)?),
        Kind::PingReq => Packet::PingReq,
        Kind::PingResp => Packet::PingResp,
    })
}

/// Data without a method says nothing (3.1.2.11.10).
pub(super) fn check_auth(
    kind: Kind,
    method: Option<&Text>,
    data: Option<&Bytes>,
) -> Result<(), DecodeError> {
    if data.is_some() && method.is_none() {
        return Err(DecodeError::AuthMethod(kind));
    }
    Ok(())
}

fn reason(body: &mut Body) -> Result<ReasonCode, DecodeError> {
    let (kind, code) = (body.kind, body.u8()?);
    ReasonCode::from_u8(code)
        .filter(|reason| reason.allowed_in(kind))
        .ok_or(DecodeError::Reason { kind, code })
}

/// Of 5.0; the short form of two bytes is read without a body. Without a property length there are no properties
/// (3.4.2.2.1).
fn ack(mut body: Body) -> Result<Ack, DecodeError> {
    let id = body.packet_id()?;
    let reason = reason(&mut body)?;
    let properties = if body.is_empty() {
        None
    } else {
        properties::read::<AckProperties>(&mut body)?
    };
    body.finish()?;
    Ok(Ack {
        id,
        reason,
        properties,
    })
}

fn publish(mut body: Body, flags: u8, version: Version) -> Result<Publish, DecodeError> {
    let qos = QoS::from_u8(flags >> 1 & 0b11).ok_or(DecodeError::QoS(Kind::Publish))?;
    let topic = body.text()?;
    let id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(body.packet_id()?),
    };
    let properties = match version {
        Version::V311 => None,
        Version::V5 => properties::read::<PublishProperties>(&mut body)?,
    };
    let aliased = properties
        .as_ref()
        .is_some_and(|it| it.topic_alias.is_some());
    let response = properties
        .as_ref()
        .and_then(|it| it.response_topic.as_ref());
    if !topic.as_bytes().is_empty() || !aliased {
        body.check_topic(&topic)?;
    }
    if let Some(response) = response {
        body.check_topic(response)?;
    }
    let (dup, retain) = (flags & 0b1000 != 0, flags & 1 != 0);
    Ok(Publish {
        dup,
        qos,
        retain,
        topic,
        id,
        payload: body.bytes,
        properties,
    })
}

fn subscribe(mut body: Body, version: Version) -> Result<Subscribe, DecodeError> {
    let id = body.packet_id()?;
    let properties = match version {
        Version::V311 => None,
        Version::V5 => properties::read::<SubscribeProperties>(&mut body)?,
    };
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(match version {
            Version::V311 => subscription(&mut body)?,
            Version::V5 => subscription_v5(&mut body)?,
        });
    }
    if filters.is_empty() {
        return Err(DecodeError::EmptyList(Kind::Subscribe));
    }
    Ok(Subscribe {
        id,
        filters,
        properties,
    })
}

fn subscription(body: &mut Body) -> Result<Subscription, DecodeError> {
    let filter = body.filter()?;
    let options = body.u8()?;
    if options & !0b11 != 0 {
        return Err(DecodeError::SubscribeBits(options));
    }
    let qos = QoS::from_u8(options).ok_or(DecodeError::QoS(Kind::Subscribe))?;
    Ok(Subscription::new(filter, qos))
}

fn subscription_v5(body: &mut Body) -> Result<Subscription, DecodeError> {
    let filter = body.filter_v5()?;
    let options = body.u8()?;
    let retain_handling = RetainHandling::from_u8(options >> 4 & 0b11);
    let (Some(retain_handling), 0) = (retain_handling, options & 0b1100_0000) else {
        return Err(DecodeError::SubscribeBits(options));
    };
    let qos = QoS::from_u8(options & 0b11).ok_or(DecodeError::QoS(Kind::Subscribe))?;
    let no_local = options & 0b100 != 0;
    if no_local && topic::is_shared(&filter) {
        return Err(DecodeError::SharedNoLocal);
    }
    Ok(Subscription {
        filter,
        qos,
        no_local,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    })
}

fn suback(mut body: Body, version: Version) -> Result<SubAck, DecodeError> {
    let id = body.packet_id()?;
    let properties = match version {
        Version::V311 => None,
        Version::V5 => properties::read::<AckProperties>(&mut body)?,
    };
    let code = |&byte: &u8| {
        let code = match version {
            Version::V311 => ReasonCode::from_subscribe_return(byte),
            Version::V5 => ReasonCode::from_u8(byte).filter(|code| code.allowed_in(Kind::SubAck)),
        };
        code.ok_or(DecodeError::SubAckCode(byte))
    };
    let codes: Vec<_> = body.bytes.iter().map(code).collect::<Result<_, _>>()?;
    if codes.is_empty() {
        return Err(DecodeError::EmptyList(Kind::SubAck));
    }
    Ok(SubAck {
        id,
        codes,
        properties,
    })
}

fn unsubscribe(mut body: Body, version: Version) -> Result<Unsubscribe, DecodeError> {
    let id = body.packet_id()?;
    let user_properties = match version {
        Version::V311 => Vec::new(),
        Version::V5 => properties::read_user(&mut body)?,
    };
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(match version {
            Version::V311 => body.filter()?,
            Version::V5 => body.filter_v5()?,
        });
    }
    if filters.is_empty() {
        return Err(DecodeError::EmptyList(Kind::Unsubscribe));
    }
    Ok(Unsubscribe {
        id,
        filters,
        user_properties,
    })
}

fn unsuback(mut body: Body, version: Version) -> Result<UnsubAck, DecodeError> {
    let id = body.packet_id()?;
    if version == Version::V311 {
        return Ok(id.into());
    }
    let properties = properties::read::<AckProperties>(&mut body)?;
    let mut codes = Vec::with_capacity(body.bytes.len());
    while !body.is_empty() {
        codes.push(reason(&mut body)?);
    }
    if codes.is_empty() {
        return Err(DecodeError::EmptyList(Kind::UnsubAck));
    }
    Ok(UnsubAck {
        id,
        codes,
        properties,
    })
}

/// Of 5.0 with a reason; the empty one is read without a body.
fn disconnect(mut body: Body) -> Result<Disconnect, DecodeError> {
    let reason = reason(&mut body)?;
    let properties = if body.is_empty() {
        None
    } else {
        properties::read::<DisconnectProperties>(&mut body)?
    };
    body.finish()?;
    Ok(Disconnect { reason, properties })
}

/// Only success may go without properties, and with them needs a method (3.15.2).
fn auth(mut body: Body) -> Result<Auth, DecodeError> {
    if body.is_empty() {
        return Ok(Auth::default());
    }
    let reason = reason(&mut body)?;
    let properties = properties::read::<AuthProperties>(&mut body)?;
    body.finish()?;
    if properties
        .as_ref()
        .is_none_or(|it| it.auth_method.is_none())
    {
        return Err(DecodeError::AuthMethod(Kind::Auth));
    }
    Ok(Auth { reason, properties })
}
