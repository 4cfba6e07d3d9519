//! The second opinion on MQTT 5, as far as `mqttbytes` 0.6 can be asked.
//!
//! Not asked, because it is known to be wrong about them: DISCONNECT (without a body it is an error, with a reason
//! alone it waits for more bytes), AUTH (not known), UNSUBSCRIBE (it prints each packet id to the terminal) and what only
//! a server sends (several subscription identifiers end up in the payload). What is left is nearly all that clients send.

use bytes::BytesMut;
use mqttbytes::v5;
use qproxy_mqtt::codec::{
    Ack, Connect, ConnectProperties, Packet, PayloadFormat, Publish, PublishProperties, QoS,
    Subscribe, Subscription, Text, UserProperty, WillProperties,
};

use super::qos;

/// Compares field by field; the error is what the other decoder sees.
pub(super) fn compare(ours: &Packet, frame: &[u8]) -> Result<(), String> {
    if !is_asked(ours) {
        return Ok(());
    }
    let mut bytes = BytesMut::from(frame);
    let theirs = v5::read(&mut bytes, frame.len()).map_err(|error| format!("{error:?}"))?;
    if bytes.is_empty() && same(ours, &theirs) {
        Ok(())
    } else {
        Err(describe(&theirs))
    }
}

fn is_asked(packet: &Packet) -> bool {
    matches!(
        packet,
        Packet::Connect(_)
            | Packet::Publish(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::PingReq
    )
}

/// Without payloads, passwords and properties.
fn describe(packet: &v5::Packet) -> String {
    match packet {
        v5::Packet::Publish(publish) => format!("PUBLISH: {publish:?}"),
        v5::Packet::Connect(connect) => format!("CONNECT of {:?}", connect.client_id),
        v5::Packet::Subscribe(subscribe) => format!("SUBSCRIBE to {:?}", subscribe.filters),
        other => format!("{other:?}"),
    }
}

fn same(ours: &Packet, theirs: &v5::Packet) -> bool {
    match (ours, theirs) {
        (Packet::Connect(ours), v5::Packet::Connect(theirs)) => same_connect(ours, theirs),
        (Packet::Publish(ours), v5::Packet::Publish(theirs)) => same_publish(ours, theirs),
        (Packet::PubAck(ours), v5::Packet::PubAck(theirs)) => {
            same_ack(ours, theirs.pkid, theirs.reason as u8)
        }
        (Packet::PubRec(ours), v5::Packet::PubRec(theirs)) => {
            same_ack(ours, theirs.pkid, theirs.reason as u8)
        }
        (Packet::PubRel(ours), v5::Packet::PubRel(theirs)) => {
            same_ack(ours, theirs.pkid, theirs.reason as u8)
        }
        (Packet::PubComp(ours), v5::Packet::PubComp(theirs)) => {
            same_ack(ours, theirs.pkid, theirs.reason as u8)
        }
        (Packet::Subscribe(ours), v5::Packet::Subscribe(theirs)) => same_subscribe(ours, theirs),
        (Packet::PingReq, v5::Packet::PingReq) => true,
        _ => false,
    }
}

fn same_ack(ours: &Ack, id: u16, reason: u8) -> bool {
    (ours.id.get(), ours.reason.as_u8()) == (id, reason)
}

fn same_connect(ours: &Connect, theirs: &v5::Connect) -> bool {
    let will = match (&ours.will, &theirs.last_will) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => {
            ours.topic == *theirs.topic.as_str()
                && ours.payload == theirs.message
                && (ours.qos, ours.retain) == (qos(theirs.qos), theirs.retain)
                && same_will_properties(
                    &ours.properties.as_deref().cloned().unwrap_or_default(),
                    theirs.properties.as_ref(),
                )
        }
        _ => false,
    };
    let (username, password) = theirs.login.as_ref().map_or(("", ""), |login| {
        (login.username.as_str(), login.password.as_str())
    });
    let properties = ours.properties.as_deref().cloned().unwrap_or_default();
    will && ours.client_id == *theirs.client_id.as_str()
        && (ours.keep_alive, ours.clean_session) == (theirs.keep_alive, theirs.clean_session)
        && ours.username.as_deref().unwrap_or_default() == username
        && ours.password.as_deref().unwrap_or_default() == password.as_bytes()
        && same_connect_properties(&properties, theirs.properties.as_ref())
}

fn same_connect_properties(
    ours: &ConnectProperties,
    theirs: Option<&v5::ConnectProperties>,
) -> bool {
    let Some(theirs) = theirs else {
        return *ours == ConnectProperties::default();
    };
    ours.session_expiry == theirs.session_expiry_interval
        && ours.receive_max.map(|most| most.get()) == theirs.receive_maximum
        && ours.max_packet_size.map(|most| most.get()) == theirs.max_packet_size
        && ours.topic_alias_max == theirs.topic_alias_max
        && ours.request_response_information.map(u8::from) == theirs.request_response_info
        && ours.request_problem_information.map(u8::from) == theirs.request_problem_info
        && same_user_properties(&ours.user_properties, &theirs.user_properties)
        && same_text(
            ours.auth_method.as_ref(),
            theirs.authentication_method.as_ref(),
        )
        && ours.auth_data == theirs.authentication_data
}

fn same_will_properties(ours: &WillProperties, theirs: Option<&v5::WillProperties>) -> bool {
    let Some(theirs) = theirs else {
        return *ours == WillProperties::default();
    };
    ours.delay == theirs.delay_interval
        && format(ours.payload_format) == theirs.payload_format_indicator
        && ours.message_expiry == theirs.message_expiry_interval
        && same_text(ours.content_type.as_ref(), theirs.content_type.as_ref())
        && same_text(ours.response_topic.as_ref(), theirs.response_topic.as_ref())
        && ours.correlation_data == theirs.correlation_data
        && same_user_properties(&ours.user_properties, &theirs.user_properties)
}

fn same_publish(ours: &Publish, theirs: &v5::Publish) -> bool {
    let properties = ours.properties.as_deref().cloned().unwrap_or_default();
    ours.topic == *theirs.topic.as_str()
        && ours.payload == theirs.payload
        && ours.qos == qos(theirs.qos)
        && ours.id.map_or(0, |id| id.get()) == theirs.pkid
        && (ours.dup, ours.retain) == (theirs.dup, theirs.retain)
        && same_publish_properties(&properties, theirs.properties.as_ref())
}

fn same_publish_properties(
    ours: &PublishProperties,
    theirs: Option<&v5::PublishProperties>,
) -> bool {
    let Some(theirs) = theirs else {
        return *ours == PublishProperties::default();
    };
    format(ours.payload_format) == theirs.payload_format_indicator
        && ours.message_expiry == theirs.message_expiry_interval
        && ours.topic_alias.map(|alias| alias.get()) == theirs.topic_alias
        && same_text(ours.response_topic.as_ref(), theirs.response_topic.as_ref())
        && ours.correlation_data == theirs.correlation_data
        && same_user_properties(&ours.user_properties, &theirs.user_properties)
        && same_text(ours.content_type.as_ref(), theirs.content_type.as_ref())
}

fn same_subscribe(ours: &Subscribe, theirs: &v5::Subscribe) -> bool {
    let properties = ours.properties.as_deref().cloned().unwrap_or_default();
    let (id, user) = theirs.properties.as_ref().map_or((None, &[][..]), |seen| {
        (seen.id, seen.user_properties.as_slice())
    });
    ours.id.get() == theirs.pkid
        && properties.subscription_id.map(|id| id.get() as usize) == id
        && same_user_properties(&properties.user_properties, user)
        && ours.filters.len() == theirs.filters.len()
        && ours
            .filters
            .iter()
            .zip(&theirs.filters)
            .all(|(ours, theirs)| same_filter(ours, theirs))
}

fn same_filter(ours: &Subscription, theirs: &v5::SubscribeFilter) -> bool {
    let handling = match theirs.retain_forward_rule {
        v5::RetainForwardRule::OnEverySubscribe => 0,
        v5::RetainForwardRule::OnNewSubscribe => 1,
        v5::RetainForwardRule::Never => 2,
    };
    let wanted: QoS = qos(theirs.qos);
    ours.filter == *theirs.path.as_str()
        && ours.qos == wanted
        && (ours.no_local, ours.retain_as_published) == (theirs.nolocal, theirs.preserve_retain)
        && ours.retain_handling.as_u8() == handling
}

fn format(format: Option<PayloadFormat>) -> Option<u8> {
    format.map(|format| u8::from(format == PayloadFormat::Utf8))
}

fn same_text(ours: Option<&Text>, theirs: Option<&String>) -> bool {
    ours.map(Text::as_str) == theirs.map(String::as_str)
}

fn same_user_properties(ours: &[UserProperty], theirs: &[(String, String)]) -> bool {
    let ours = ours
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    ours.eq(theirs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str())))
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
    use qproxy_mqtt::codec::{
        self, AckProperties, PacketId, ReasonCode, RetainHandling, SubscribeProperties,
        SubscriptionId, Version, Will,
    };

    use super::*;

    fn text() -> impl Strategy<Value = Text> {
        "[a-zé]{0,9}".prop_map(Text::from)
    }

    fn data() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn user() -> impl Strategy<Value = Vec<UserProperty>> {
        vec((text(), text()), 0..3)
    }

    fn payload_format() -> impl Strategy<Value = Option<PayloadFormat>> {
        of(prop_oneof![
            Just(PayloadFormat::Bytes),
            Just(PayloadFormat::Utf8)
        ])
    }

    fn level() -> impl Strategy<Value = QoS> {
        (0..3_u8).prop_map(|level| QoS::from_u8(level).unwrap())
    }

    fn publish() -> impl Strategy<Value = Packet> {
        let flags = (level(), any::<bool>(), any::<bool>(), any::<PacketId>());
        let numbers = (of(any::<u32>()), of(any::<NonZeroU16>()));
        let texts = (of("[a-z/]{1,9}"), of(text()), of(data()));
        let properties = (payload_format(), numbers, texts, user());
        (flags, "[a-zé/]{1,20}", data(), properties).prop_map(
            |((qos, dup, retain, id), topic, payload, properties)| {
                let (payload_format, (message_expiry, topic_alias), texts, user_properties) =
                    properties;
                let (response_topic, content_type, correlation_data) = texts;
                let acknowledged = qos != QoS::AtMostOnce;
                Packet::Publish(Publish {
                    dup: dup && acknowledged,
                    qos,
                    retain,
                    topic: topic.into(),
                    id: acknowledged.then_some(id),
                    payload,
                    properties: Some(Box::new(PublishProperties {
                        payload_format,
                        message_expiry,
                        topic_alias,
                        response_topic: response_topic.map(Text::from),
                        correlation_data,
                        user_properties,
                        subscription_ids: Vec::new(),
                        content_type,
                    })),
                })
            },
        )
    }

    fn will() -> impl Strategy<Value = Will> {
        let message = ("[a-zé/]{1,9}", data(), level(), any::<bool>());
        let numbers = (of(any::<u32>()), of(any::<u32>()), payload_format());
        (message, numbers, of(text()), of(data()), user()).prop_map(
            |((topic, payload, qos, retain), numbers, content_type, correlation_data, user)| {
                let (delay, message_expiry, payload_format) = numbers;
                Will {
                    topic: topic.into(),
                    payload,
                    qos,
                    retain,
                    properties: Some(Box::new(WillProperties {
                        delay,
                        payload_format,
                        message_expiry,
                        content_type,
                        response_topic: None,
                        correlation_data,
                        user_properties: user,
                    })),
                }
            },
        )
    }

    fn connect() -> impl Strategy<Value = Packet> {
        let numbers = (
            of(any::<u32>()),
            of(any::<NonZeroU16>()),
            of(any::<NonZeroU32>()),
            of(any::<u16>()),
            of(any::<bool>()),
            of(any::<bool>()),
        );
        let login = (of(text()), of("[a-z]{0,9}"));
        let head = (text(), any::<bool>(), any::<u16>());
        (
            head,
            of(will()),
            login,
            numbers,
            user(),
            of((text(), data())),
        )
            .prop_map(
                |((client_id, clean_session, keep_alive), will, login, numbers, user, auth)| {
                    let (auth_method, auth_data) = auth.unzip();
                    let (session_expiry, receive_max, max_packet_size, aliases, response, problem) =
                        numbers;
                    Packet::Connect(Box::new(Connect {
                        version: Version::V5,
                        client_id,
                        clean_session,
                        keep_alive,
                        will,
                        username: login.0,
                        password: login.1.map(Bytes::from),
                        properties: Some(Box::new(ConnectProperties {
                            session_expiry,
                            receive_max,
                            max_packet_size,
                            topic_alias_max: aliases,
                            request_response_information: response,
                            request_problem_information: problem,
                            user_properties: user,
                            auth_method,
                            auth_data,
                        })),
                    }))
                },
            )
    }

    fn subscribe() -> impl Strategy<Value = Packet> {
        let filter = "([a-zé]{1,5}|\\+)(/([a-z]{0,4}|\\+)){0,3}(/#)?";
        let wanted = (filter, level(), any::<(bool, bool)>(), 0..3_u8).prop_map(
            |(filter, qos, (no_local, retain_as_published), handling)| Subscription {
                no_local,
                retain_as_published,
                retain_handling: RetainHandling::from_u8(handling).unwrap(),
                ..Subscription::new(filter, qos)
            },
        );
        let number = of(1..268_435_455_u32);
        (any::<PacketId>(), vec(wanted, 1..5), number, user()).prop_map(
            |(id, filters, number, user_properties)| {
                Packet::Subscribe(Subscribe {
                    id,
                    filters,
                    properties: Some(Box::new(SubscribeProperties {
                        subscription_id: number.and_then(SubscriptionId::new),
                        user_properties,
                    })),
                })
            },
        )
    }

    fn ack(codes: &'static [ReasonCode]) -> impl Strategy<Value = Ack> {
        let code = proptest::sample::select(codes);
        (any::<PacketId>(), code, of((of(text()), user()))).prop_map(|(id, reason, said)| Ack {
            properties: said.map(|(reason_string, user_properties)| {
                Box::new(AckProperties {
                    reason_string,
                    user_properties,
                })
            }),
            ..Ack::new(id, reason)
        })
    }

    fn packet() -> impl Strategy<Value = Packet> {
        const ACCEPTS: &[ReasonCode] = &[
            ReasonCode::Success,
            ReasonCode::NoMatchingSubscribers,
            ReasonCode::UnspecifiedError,
            ReasonCode::QuotaExceeded,
        ];
        const FINISHES: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdNotFound];
        prop_oneof![
            publish(),
            connect(),
            subscribe(),
            ack(ACCEPTS).prop_map(Packet::PubAck),
            ack(ACCEPTS).prop_map(Packet::PubRec),
            ack(FINISHES).prop_map(Packet::PubRel),
            ack(FINISHES).prop_map(Packet::PubComp),
            Just(Packet::PingReq),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn both_decoders_agree_on_what_a_client_may_send(packet in packet()) {
            let mut bytes = BytesMut::new();
            codec::encode(&packet, Version::V5, &mut bytes).unwrap();
            proptest::prop_assert_eq!(compare(&packet, &bytes), Ok(()));
        }

        /// Where our strict decoder accepts changed bytes, the other sees the same packet.
        #[test]
        fn both_agree_on_mutated_packets_that_ours_accepts(
            packet in packet(),
            position in any::<proptest::sample::Index>(),
            value in any::<u8>(),
        ) {
            let mut bytes = BytesMut::new();
            codec::encode(&packet, Version::V5, &mut bytes).unwrap();
            let at = position.index(bytes.len());
            bytes[at] = value;
            let frame = bytes.clone();
            if let Ok(Some(accepted)) = codec::decode(&mut bytes, usize::MAX, Version::V5) {
                let used = frame.len() - bytes.len();
                let seen = super::super::compare(&accepted, Version::V5, &frame[..used]);
                proptest::prop_assert_eq!(seen, Ok(()));
            }
        }
    }
}
