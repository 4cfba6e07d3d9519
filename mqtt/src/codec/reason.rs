//! Reason codes: what became of a request, or why a connection ends (MQTT 5.0 section 2.4).
//!
//! One list for both versions. The return codes of 3.1.1 CONNACK and SUBACK are other numbers for some of the same
//! reasons; the codec translates them here, so that a program never asks which version it speaks.

use std::fmt;

use super::{Kind, QoS};

macro_rules! reason_codes {
    ($($code:literal $name:ident $words:literal,)*) => {
        /// A reason code, named as in table 2-6 of MQTT 5.0.
        ///
        /// ```
        /// use qproxy_mqtt::codec::{Kind, ReasonCode};
        ///
        /// let reason = ReasonCode::from_u8(0x97).expect("a code that is given out");
        /// assert_eq!(reason, ReasonCode::QuotaExceeded);
        /// assert_eq!(reason.as_u8(), 0x97);
        /// assert_eq!(reason.words(), "quota exceeded");
        /// assert!(reason.is_error());
        /// assert!(reason.allowed_in(Kind::PubAck) && !reason.allowed_in(Kind::PubRel));
        /// assert!(ReasonCode::ALL.contains(&reason));
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = concat!(stringify!($code), ": ", $words)] $name = $code,)*
        }

        impl ReasonCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// From the byte of MQTT 5.0; `None` where the number is not given out.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// In words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

reason_codes! {
    0x00 Success "success",
    0x01 GrantedQoS1 "granted QoS 1",
    0x02 GrantedQoS2 "granted QoS 2",
    0x04 DisconnectWithWill "disconnect with will message",
    0x10 NoMatchingSubscribers "no matching subscribers",
    0x11 NoSubscriptionExisted "no subscription existed",
    0x18 ContinueAuthentication "continue authentication",
    0x19 ReAuthenticate "re-authenticate",
    0x80 UnspecifiedError "unspecified error",
    0x81 MalformedPacket "malformed packet",
    0x82 ProtocolError "protocol error",
    0x83 ImplementationSpecificError "implementation specific error",
    0x84 UnsupportedProtocolVersion "protocol version not supported",
    0x85 ClientIdNotValid "client id rejected",
    0x86 BadCredentials "bad user name or password",
    0x87 NotAuthorized "not authorised",
    0x88 ServerUnavailable "server unavailable",
    0x89 ServerBusy "server busy",
    0x8a Banned "banned",
    0x8b ServerShuttingDown "server shutting down",
    0x8c BadAuthenticationMethod "bad authentication method",
    0x8d KeepAliveTimeout "keep alive timeout",
    0x8e SessionTakenOver "session taken over",
    0x8f TopicFilterInvalid "topic filter invalid",
    0x90 TopicNameInvalid "topic name invalid",
    0x91 PacketIdInUse "packet identifier in use",
    0x92 PacketIdNotFound "packet identifier not found",
    0x93 ReceiveMaximumExceeded "receive maximum exceeded",
    0x94 TopicAliasInvalid "topic alias invalid",
    0x95 PacketTooLarge "packet too large",
    0x96 MessageRateTooHigh "message rate too high",
    0x97 QuotaExceeded "quota exceeded",
    0x98 AdministrativeAction "administrative action",
    0x99 PayloadFormatInvalid "payload format invalid",
    0x9a RetainNotSupported "retain not supported",
    0x9b QoSNotSupported "QoS not supported",
    0x9c UseAnotherServer "use another server",
    0x9d ServerMoved "server moved",
    0x9e SharedSubscriptionsNotSupported "shared subscriptions not supported",
    0x9f ConnectionRateExceeded "connection rate exceeded",
    0xa0 MaximumConnectTime "maximum connect time",
    0xa1 SubscriptionIdsNotSupported "subscription identifiers not supported",
    0xa2 WildcardSubscriptionsNotSupported "wildcard subscriptions not supported",
}

#[allow(
    clippy::derivable_impls,
    reason = "the table has no place to mark a default"
)]
impl Default for ReasonCode {
    fn default() -> Self {
        Self::Success
    }
}

impl ReasonCode {
    /// The byte of MQTT 5.0.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed: 0x80 and above (2.4).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The code that grants a subscription with at most `qos`.
    ///
    /// ```
    /// use qproxy_mqtt::{QoS, codec::ReasonCode};
    ///
    /// let code = ReasonCode::granted(QoS::AtLeastOnce);
    /// assert_eq!(code, ReasonCode::GrantedQoS1);
    /// assert_eq!(code.granted_qos(), Some(QoS::AtLeastOnce));
    /// ```
    #[must_use]
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::Success,
            QoS::AtLeastOnce => Self::GrantedQoS1,
            QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }

    /// The QoS granted, where the code of a SUBACK grants one.
    ///
    /// ```
    /// use qproxy_mqtt::{QoS, codec::ReasonCode};
    ///
    /// assert_eq!(ReasonCode::GrantedQoS2.granted_qos(), Some(QoS::ExactlyOnce));
    /// assert_eq!(ReasonCode::NotAuthorized.granted_qos(), None);
    /// ```
    #[must_use]
    pub const fn granted_qos(self) -> Option<QoS> {
        match self {
            Self::Success => Some(QoS::AtMostOnce),
            Self::GrantedQoS1 => Some(QoS::AtLeastOnce),
            Self::GrantedQoS2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// Whether the code may stand in packets of this kind (MQTT 5.0 table 2-6).
    #[must_use]
    pub const fn allowed_in(self, kind: Kind) -> bool {
        let code = self.as_u8();
        match kind {
            Kind::ConnAck => matches!(
                code,
                0x00 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f
            ),
            Kind::PubAck | Kind::PubRec => {
                matches!(
                    code,
                    0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
                )
            }
            Kind::PubRel | Kind::PubComp => matches!(code, 0x00 | 0x92),
            Kind::SubAck => matches!(
                code,
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2
            ),
            Kind::UnsubAck => matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91),
            Kind::Disconnect => matches!(
                code,
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b | 0x8d..=0x90 | 0x93..=0xa2
            ),
            Kind::Auth => matches!(code, 0x00 | 0x18 | 0x19),
            _ => false,
        }
    }

    /// From the return code of a 3.1.1 CONNACK; 6 and above are reserved (3.1.1 section 3.2.2.3).
    pub(super) const fn from_connect_return(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Success,
            1 => Self::UnsupportedProtocolVersion,
            2 => Self::ClientIdNotValid,
            3 => Self::ServerUnavailable,
            4 => Self::BadCredentials,
            5 => Self::NotAuthorized,
            _ => return None,
        })
    }

    /// The return code of a 3.1.1 CONNACK that says the nearest: what it has no number for is "unavailable", which
    /// leaves the client free to come again.
    pub(super) const fn as_connect_return(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdNotValid => 2,
            Self::BadCredentials | Self::BadAuthenticationMethod => 4,
            Self::NotAuthorized | Self::Banned => 5,
            _ => 3,
        }
    }

    /// From the return code in a 3.1.1 SUBACK; others are reserved [MQTT-3.9.3-2].
    pub(super) const fn from_subscribe_return(value: u8) -> Option<Self> {
        match value {
            0..=2 | 0x80 => Self::from_u8(value),
            _ => None,
        }
    }

    /// The return code in a 3.1.1 SUBACK, which has one number for every failure.
    pub(super) const fn as_subscribe_return(self) -> u8 {
        if self.is_error() { 0x80 } else { self.as_u8() }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}
