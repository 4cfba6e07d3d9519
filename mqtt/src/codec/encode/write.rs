//! The bytes of packets that `check` has passed; `remaining` is what it said.

use bytes::{BufMut, BytesMut};

use super::super::properties::{self, write_field, write_variable};
use super::super::{
    Ack, Auth, ConnAck, Connect, Disconnect, Publish, SubAck, Subscribe, Subscription, UnsubAck,
    Unsubscribe, Version,
};

fn header(first: u8, remaining: usize, buf: &mut BytesMut) {
    buf.put_u8(first);
    write_variable(remaining, buf);
}

pub(super) fn ack(first: u8, ack: &Ack, remaining: usize, buf: &mut BytesMut) {
    let [high, low] = ack.id.get().to_be_bytes();
    if remaining == 2 {
        buf.put_slice(&[first, 2, high, low]);
        return;
    }
    header(first, remaining, buf);
    buf.put_slice(&[high, low, ack.reason.as_u8()]);
    if remaining > 3 {
        properties::write(ack.properties.as_deref(), buf);
    }
}

pub(super) fn connect(connect: &Connect, remaining: usize, buf: &mut BytesMut) {
    let mut flags = u8::from(connect.clean_session) << 1;
    if let Some(will) = &connect.will {
        flags |= 0b100 | will.qos.as_u8() << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6;
    flags |= u8::from(connect.username.is_some()) << 7;
    header(0x10, remaining, buf);
    write_field(b"MQTT", buf);
    buf.put_u8(connect.version.level());
    buf.put_u8(flags);
    buf.put_u16(connect.keep_alive);
    if connect.version == Version::V5 {
        properties::write(connect.properties.as_deref(), buf);
    }
    write_field(connect.client_id.as_bytes(), buf);
    if let Some(will) = &connect.will {
        if connect.version == Version::V5 {
            properties::write(will.properties.as_deref(), buf);
        }
        write_field(will.topic.as_bytes(), buf);
        write_field(&will.payload, buf);
    }
    if let Some(username) = &connect.username {
        write_field(username.as_bytes(), buf);
    }
    if let Some(password) = &connect.password {
        write_field(password, buf);
    }
}

pub(super) fn connack(connack: &ConnAck, version: Version, remaining: usize, buf: &mut BytesMut) {
    header(0x20, remaining, buf);
    buf.put_u8(u8::from(connack.session_present));
    match version {
        Version::V311 => buf.put_u8(connack.code.as_connect_return()),
        Version::V5 => {
            buf.put_u8(connack.code.as_u8());
            properties::write(connack.properties.as_deref(), buf);
        }
    }
}

pub(super) fn publish_head(
    publish: &Publish,
    version: Version,
    remaining: usize,
    buf: &mut BytesMut,
) {
    let flags = u8::from(publish.dup) << 3 | publish.qos.as_u8() << 1 | u8::from(publish.retain);
    header(0x30 | flags, remaining, buf);
    write_field(publish.topic.as_bytes(), buf);
    if let Some(id) = publish.id {
        buf.put_u16(id.get());
    }
    if version == Version::V5 {
        properties::write(publish.properties.as_deref(), buf);
    }
}

pub(super) fn subscribe(
    subscribe: &Subscribe,
    version: Version,
    remaining: usize,
    buf: &mut BytesMut,
) {
    header(0x82, remaining, buf);
    buf.put_u16(subscribe.id.get());
    if version == Version::V5 {
        properties::write(subscribe.properties.as_deref(), buf);
    }
    for wanted in &subscribe.filters {
        write_field(wanted.filter.as_bytes(), buf);
        buf.put_u8(match version {
            Version::V311 => wanted.qos.as_u8(),
            Version::V5 => options(wanted),
        });
    }
}

/// The byte of section 3.8.3.1.
fn options(wanted: &Subscription) -> u8 {
    wanted.qos.as_u8()
        | u8::from(wanted.no_local) << 2
        | u8::from(wanted.retain_as_published) << 3
        | wanted.retain_handling.as_u8() << 4
}

pub(super) fn suback(suback: &SubAck, version: Version, remaining: usize, buf: &mut BytesMut) {
    header(0x90, remaining, buf);
    buf.put_u16(suback.id.get());
    match version {
        Version::V311 => buf.extend(suback.codes.iter().map(|code| code.as_subscribe_return())),
        Version::V5 => {
            properties::write(suback.properties.as_deref(), buf);
            buf.extend(suback.codes.iter().map(|code| code.as_u8()));
        }
    }
}

pub(super) fn unsubscribe(
    unsubscribe: &Unsubscribe,
    version: Version,
    remaining: usize,
    buf: &mut BytesMut,
) {
    header(0xa2, remaining, buf);
    buf.put_u16(unsubscribe.id.get());
    if version == Version::V5 {
        properties::write_user(&unsubscribe.user_properties, buf);
    }
    for filter in &unsubscribe.filters {
        write_field(filter.as_bytes(), buf);
    }
}

pub(super) fn unsuback(
    unsuback: &UnsubAck,
    version: Version,
    remaining: usize,
    buf: &mut BytesMut,
) {
    header(0xb0, remaining, buf);
    buf.put_u16(unsuback.id.get());
    if version == Version::V5 {
        properties::write(unsuback.properties.as_deref(), buf);
        buf.extend(unsuback.codes.iter().map(|code| code.as_u8()));
    }
}

pub(super) fn disconnect(disconnect: &Disconnect, remaining: usize, buf: &mut BytesMut) {
    header(0xe0, remaining, buf);
    if remaining > 0 {
        buf.put_u8(disconnect.reason.as_u8());
    }
    if remaining > 1 {
        properties::write(disconnect.properties.as_deref(), buf);
    }
}

pub(super) fn auth(auth: &Auth, remaining: usize, buf: &mut BytesMut) {
    header(0xf0, remaining, buf);
    if remaining > 0 {
        buf.put_u8(auth.reason.as_u8());
        properties::write(auth.properties.as_deref(), buf);
    }
}
