//! What `mqttbytes` makes of the bytes of a packet that our codec has accepted.
//!
//! Two decoders that were written apart hardly share a bug; with one alone, a client and a broker built on it would
//! agree on a mistake. `mqttbytes` reads passwords as text, so a binary one is the single packet it is not asked about.

use bytes::BytesMut;
use mqttbytes::v4;
use qproxy_mqtt::codec::{Connect, Packet, Publish, QoS, Text};

/// Compares field by field; the error is what the other decoder sees.
pub(super) fn compare(ours: &Packet, frame: &[u8]) -> Result<(), String> {
    if let Packet::Connect(connect) = ours
        && let Some(password) = &connect.password
        && std::str::from_utf8(password).is_err()
    {
        return Ok(());
    }
    let mut bytes = BytesMut::from(frame);
    let theirs = v4::read(&mut bytes, frame.len()).map_err(|error| format!("{error:?}"))?;
    if bytes.is_empty() && same(ours, &theirs) {
        Ok(())
    } else {
        Err(describe(&theirs))
    }
}

/// Without payloads and passwords.
fn describe(packet: &v4::Packet) -> String {
    match packet {
        v4::Packet::Publish(publish) => format!(
            "PUBLISH to {:?}, {:?}, id {}, {} bytes",
            publish.topic,
            publish.qos,
            publish.pkid,
            publish.payload.len()
        ),
        v4::Packet::Connect(connect) => format!("CONNECT of {:?}", connect.client_id),
        other => format!("{other:?}"),
    }
}

fn same(ours: &Packet, theirs: &v4::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(ours), v4::Packet::Connect(theirs)) => same_connect(ours, theirs),
        (Packet::Publish(ours), v4::Packet::Publish(theirs)) => same_publish(ours, theirs),
        (Packet::PubAck(ours), v4::Packet::PubAck(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubRec(ours), v4::Packet::PubRec(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubRel(ours), v4::Packet::PubRel(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::PubComp(ours), v4::Packet::PubComp(theirs)) => ours.id.get() == theirs.pkid,
        (Packet::Subscribe(ours), v4::Packet::Subscribe(theirs)) => {
            let wanted = ours
                .filters
                .iter()
                .map(|one| (one.filter.as_str(), one.qos));
            let seen = theirs
                .filters
                .iter()
                .map(|one| (one.path.as_str(), qos(one.qos)));
            ours.id.get() == theirs.pkid && wanted.eq(seen)
        }
        (Packet::Unsubscribe(ours), v4::Packet::Unsubscribe(theirs)) => {
            let wanted = ours.filters.iter().map(Text::as_str);
            ours.id.get() == theirs.pkid && wanted.eq(theirs.topics.iter().map(String::as_str))
        }
        (Packet::PingReq, v4::Packet::PingReq) | (Packet::Disconnect, v4::Packet::Disconnect) => {
            true
        }
        // What only a server sends is the core's to refuse; that both see the same kind is enough.
        (Packet::ConnAck(_), v4::Packet::ConnAck(_))
        | (Packet::SubAck(_), v4::Packet::SubAck(_))
        | (Packet::UnsubAck(_), v4::Packet::UnsubAck(_))
        | (Packet::PingResp, v4::Packet::PingResp) => true,
        _ => false,
    }
}

fn same_connect(ours: &Connect, theirs: &v4::Connect) -> bool {
    let will = match (&ours.will, &theirs.last_will) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => {
            ours.topic == *theirs.topic.as_str()
                && ours.payload == theirs.message
                && ours.qos == qos(theirs.qos)
                && ours.retain == theirs.retain
        }
        _ => false,
    };
    let (username, password) = theirs.login.as_ref().map_or(("", ""), |login| {
        (login.username.as_str(), login.password.as_str())
    });
    will && ours.client_id == *theirs.client_id.as_str()
        && ours.keep_alive == theirs.keep_alive
        && ours.clean_session == theirs.clean_session
        && ours.username.as_deref().unwrap_or_default() == username
        && ours.password.as_deref().unwrap_or_default() == password.as_bytes()
}

fn same_publish(ours: &Publish, theirs: &v4::Publish) -> bool {
    ours.topic == *theirs.topic.as_str()
        && ours.payload == theirs.payload
        && ours.qos == qos(theirs.qos)
        && ours.id.map_or(0, std::num::NonZeroU16::get) == theirs.pkid
        && (ours.dup, ours.retain) == (theirs.dup, theirs.retain)
}

fn qos(theirs: mqttbytes::QoS) -> QoS {
    match theirs {
        mqttbytes::QoS::AtMostOnce => QoS::AtMostOnce,
        mqttbytes::QoS::AtLeastOnce => QoS::AtLeastOnce,
        mqttbytes::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}
