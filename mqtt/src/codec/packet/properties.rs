//! What MQTT 5.0 properties hold, where a plain number or text would allow more than the protocol does.

use std::fmt;

use bytes::Bytes;

use super::super::Text;

/// A name and a value, for the programs at both ends (2.2.2.2); a name may come more than once.
///
/// ```
/// use qproxy_mqtt::codec::UserProperty;
///
/// let property: UserProperty = ("trace".into(), "4bf92f35".into());
/// assert_eq!(property.0, "trace");
/// ```
pub type UserProperty = (Text, Text);

/// The number a client gives a subscription, to be told which one brought a message: 1 to 268,435,455 (3.8.2.1.2).
///
/// ```
/// use qproxy_mqtt::codec::SubscriptionId;
///
/// assert_eq!(SubscriptionId::new(7).map(SubscriptionId::get), Some(7));
/// assert_eq!(SubscriptionId::new(0), None);
/// assert_eq!(SubscriptionId::new(SubscriptionId::MAX.get() + 1), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u32);

impl SubscriptionId {
    /// The largest there is.
    pub const MAX: Self = Self(268_435_455);

    /// `None` for 0 and above [`SubscriptionId::MAX`].
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value > Self::MAX.0 {
            return None;
        }
        Some(Self(value))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What a payload is said to be (3.3.2.3.2).
///
/// ```
/// use qproxy_mqtt::{QoS, client::PublishOptions, message::PayloadFormat};
///
/// let options = PublishOptions::new(QoS::AtMostOnce).payload_format(PayloadFormat::Utf8);
/// let said = options.properties.and_then(|it| it.payload_format);
/// assert_eq!(said, Some(PayloadFormat::Utf8));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PayloadFormat {
    /// 0: any bytes, the same as not saying it.
    #[default]
    Bytes,
    /// 1: UTF-8 text.
    Utf8,
}

/// Shows how long something is, where what it is must not show.
pub(super) struct Hidden<'a>(pub(super) &'a Option<Bytes>);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str("None"),
            Some(bytes) => write!(formatter, "*** ({} bytes)", bytes.len()),
        }
    }
}
