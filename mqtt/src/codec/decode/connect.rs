//! CONNECT and CONNACK.

use super::super::{
    ConnAck, ConnAckProperties, Connect, ConnectProperties, DecodeError, Kind, QoS, ReasonCode,
    Version, Will, WillProperties, properties,
};
use super::fields::check_auth;
use super::{Body, Header};
use crate::topic;

/// In the version that it names itself.
pub(super) fn connect(mut body: Body, header: &Header) -> Result<Connect, DecodeError> {
    if body.binary()?.as_ref() != b"MQTT" {
        return Err(DecodeError::ProtocolName);
    }
    let level = body.u8()?;
    let version = Version::from_level(level).ok_or(DecodeError::ProtocolLevel(level))?;
    if version == Version::V5 && !header.shortest {
        return Err(DecodeError::RemainingLength);
    }
    let flags = Flags::parse(body.u8()?, version)?;
    let keep_alive = body.u16()?;
    let properties = match version {
        Version::V311 => None,
        Version::V5 => properties::read::<ConnectProperties>(&mut body)?,
    };
    if let Some(it) = &properties {
        check_auth(
            Kind::Connect,
            it.auth_method.as_ref(),
            it.auth_data.as_ref(),
        )?;
    }
    let client_id = body.text()?;
    let will = match flags.will {
        None => None,
        Some((qos, retain)) => Some(will(&mut body, version, qos, retain)?),
    };
    let username = flags.username.then(|| body.text()).transpose()?;
    let password = flags.password.then(|| body.binary()).transpose()?;
    body.finish()?;
    Ok(Connect {
        version,
        client_id,
        clean_session: flags.clean_session,
        keep_alive,
        will,
        username,
        password,
        properties,
    })
}

fn will(body: &mut Body, version: Version, qos: QoS, retain: bool) -> Result<Will, DecodeError> {
    let properties = match version {
        Version::V311 => None,
        Version::V5 => properties::read::<WillProperties>(body)?,
    };
    let response = properties
        .as_ref()
        .and_then(|it| it.response_topic.as_ref());
    if let Some(response) = response {
        let kind = body.kind;
        topic::validate_topic(response).map_err(|source| DecodeError::Topic { kind, source })?;
    }
    let topic = body.topic()?;
    Ok(Will {
        topic,
        payload: body.binary()?,
        qos,
        retain,
        properties,
    })
}

/// The byte of section 3.1.2.3, checked against itself.
struct Flags {
    clean_session: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl Flags {
    fn parse(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let bit = |index: u8| byte >> index & 1 == 1;
        if bit(0) {
            return Err(DecodeError::ConnectFlag);
        }
        let qos = QoS::from_u8(byte >> 3 & 0b11);
        let will = match (bit(2), qos, bit(5)) {
            (false, Some(QoS::AtMostOnce), false) => None,
            (false, _, _) => return Err(DecodeError::WillFlags),
            (true, None, _) => return Err(DecodeError::QoS(Kind::Connect)),
            (true, Some(qos), retain) => Some((qos, retain)),
        };
        let (username, password) = (bit(7), bit(6));
        if password && !username && version == Version::V311 {
            return Err(DecodeError::PasswordAlone);
        }
        Ok(Self {
            clean_session: bit(1),
            will,
            username,
            password,
        })
    }
}

pub(super) fn connack(mut body: Body, version: Version) -> Result<ConnAck, DecodeError> {
    let flags = body.u8()?;
    if flags > 1 {
        return Err(DecodeError::ConnAckFlags(flags));
    }
    let (session_present, byte) = (flags == 1, body.u8()?);
    let code = match version {
        Version::V311 => ReasonCode::from_connect_return(byte),
        Version::V5 => ReasonCode::from_u8(byte).filter(|code| code.allowed_in(Kind::ConnAck)),
    };
    let code = code.ok_or(DecodeError::ConnAckCode(byte))?;
    if session_present && code != ReasonCode::Success {
        return Err(DecodeError::SessionPresent);
    }
    let properties = match version {
        Version::V311 => None,
        Version::V5 => properties::read::<ConnAckProperties>(&mut body)?,
    };
    if let Some(it) = &properties {
        check_auth(
            Kind::ConnAck,
            it.auth_method.as_ref(),
            it.auth_data.as_ref(),
        )?;
    }
    body.finish()?;
    Ok(ConnAck {
        session_present,
        code,
        properties,
    })
}
