//! What the server said when it accepted the connection (MQTT 5.0 section 3.2.2.3): its limits, and what they forbid.
//!
//! Everything has the value that the specification gives to what is not said, so nobody else asks which version is
//! spoken. The terms are those of one connection; the next may have others.

use crate::codec::{ConnAck, Publish, QoS, Subscription, SubscriptionId, Text, UserProperty};

/// See the module.
///
/// ```
/// use qproxy_mqtt::codec::{ConnAck, QoS};
/// use qproxy_mqtt::session::Terms;
///
/// let terms = Terms::from(&ConnAck::default());
/// assert_eq!(terms, Terms::plain(false));
/// assert_eq!(terms.max_qos, QoS::ExactlyOnce);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// The server still had the session.
    pub session_present: bool,
    /// Publishes of QoS 1 and 2 that it takes at once.
    pub receive_maximum: u16,
    /// Highest topic alias it takes; 0: none.
    pub topic_alias_maximum: u16,
    /// Largest packet it takes, in bytes.
    pub max_packet_size: usize,
    /// Highest QoS it takes.
    pub max_qos: QoS,
    /// Whether it keeps retained messages.
    pub retain: Offered,
    /// Whether filters may have wildcards.
    pub wildcards: Offered,
    /// Whether subscriptions may be shared.
    pub shared: Offered,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids: Offered,
    /// Keep alive in seconds that it asks for instead of ours.
    pub keep_alive: Option<u16>,
    /// Seconds it keeps the session, where it does not do as asked.
    pub session_expiry: Option<u32>,
    /// The client id it chose.
    pub assigned_client_id: Option<Text>,
    /// What a client may build its response topics on.
    pub response_information: Option<Text>,
    /// For the program.
    pub user_properties: Vec<UserProperty>,
}

/// Whether a server offers something.
///
/// ```
/// use qproxy_mqtt::session::Offered;
///
/// assert_eq!(Offered::from(None), Offered::Yes);
/// assert_eq!(Offered::from(Some(false)), Offered::No);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It does.
    Yes,
    /// It does not, and says so.
    No,
}

/// What the server said that it does not take. Nothing was sent.
///
/// ```
/// use qproxy_mqtt::session::Forbidden;
///
/// let error = Forbidden::Wildcards("lamp/+".into());
/// assert_eq!(
///     error.to_string(),
///     "the server takes no wildcards in lamp/+ (section 3.2.2.3.11)"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Forbidden {
    /// Over its Maximum Packet Size.
    #[error("packet of {size} bytes is over the server's limit of {limit} [MQTT-3.2.2-15]")]
    TooLarge {
        /// Its size.
        size: usize,
        /// What the server takes.
        limit: usize,
    },
    /// Over its Maximum QoS.
    #[error("the server takes no QoS above {} [MQTT-3.2.2-11]", .0.as_u8())]
    QoS(QoS),
    /// It keeps no retained messages.
    #[error("the server keeps no retained messages [MQTT-3.2.2-14]")]
    Retain,
    /// A filter with `+` or `#`.
    #[error("the server takes no wildcards in {0} (section 3.2.2.3.11)")]
    Wildcards(Text),
    /// A filter that begins with `$share/`.
    #[error("the server takes no shared subscription {0} (section 3.2.2.3.13)")]
    Shared(Text),
    /// A subscription identifier.
    #[error("the server takes no subscription identifiers (section 3.2.2.3.12)")]
    SubscriptionId,
}

impl Terms {
    /// Those of a server that says nothing more: every MQTT 3.1.1 server.
    #[must_use]
    pub const fn plain(session_present: bool) -> Self {
        Self {
            session_present,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            max_packet_size: usize::MAX,
            max_qos: QoS::ExactlyOnce,
            retain: Offered::Yes,
            wildcards: Offered::Yes,
            shared: Offered::Yes,
            subscription_ids: Offered::Yes,
            keep_alive: None,
            session_expiry: None,
            assigned_client_id: None,
            response_information: None,
            user_properties: Vec::new(),
        }
    }

    /// Whether a publish may go out; its size is seen when it is written.
    pub(super) fn check_publish(&self, publish: &Publish) -> Result<(), Forbidden> {
        if publish.qos > self.max_qos {
            return Err(Forbidden::QoS(self.max_qos));
        }
        if publish.retain && self.retain == Offered::No {
            return Err(Forbidden::Retain);
        }
        Ok(())
    }

    /// Whether these filters may be asked for. A QoS above the server's is no error: it grants what it has.
    pub(super) fn check_subscribe(
        &self,
        filters: &[Subscription],
        id: Option<SubscriptionId>,
    ) -> Result<(), Forbidden> {
        if id.is_some() && self.subscription_ids == Offered::No {
            return Err(Forbidden::SubscriptionId);
        }
        for Subscription { filter, .. } in filters {
            if self.wildcards == Offered::No && filter.contains(['+', '#']) {
                return Err(Forbidden::Wildcards(filter.clone()));
            }
            if self.shared == Offered::No && filter.starts_with("$share/") {
                return Err(Forbidden::Shared(filter.clone()));
            }
        }
        Ok(())
    }
}

impl From<&ConnAck> for Terms {
    fn from(connack: &ConnAck) -> Self {
        let plain = Self::plain(connack.session_present);
        let Some(said) = &connack.properties else {
            return plain;
        };
        let size = said.max_packet_size;
        let size = size.and_then(|size| usize::try_from(size.get()).ok());
        Self {
            receive_maximum: said
                .receive_max
                .map_or(plain.receive_maximum, std::num::NonZeroU16::get),
            topic_alias_maximum: said.topic_alias_max.unwrap_or(0),
            max_packet_size: size.unwrap_or(plain.max_packet_size),
            max_qos: said.max_qos.unwrap_or(plain.max_qos),
            retain: said.retain_available.into(),
            wildcards: said.wildcard_available.into(),
            shared: said.shared_available.into(),
            subscription_ids: said.subscription_ids_available.into(),
            keep_alive: said.server_keep_alive,
            session_expiry: said.session_expiry,
            assigned_client_id: said.assigned_client_id.as_ref().map(Text::detached),
            response_information: said.response_information.as_ref().map(Text::detached),
            user_properties: said.user_properties.clone(),
            ..plain
        }
    }
}

/// What is not said is offered.
impl From<Option<bool>> for Offered {
    fn from(said: Option<bool>) -> Self {
        if said == Some(false) {
            Self::No
        } else {
            Self::Yes
        }
    }
}
