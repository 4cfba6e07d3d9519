//! The wire format: packet types, a strict decoder and an encoder.
//!
//! Both directions of every packet are here, so that a broker can be built on it too. Pure: bytes in, packets out.
//! The decoder refuses whatever the specification forbids and names the rule; it never allocates by a length that a peer
//! only announced. One set of packet types serves every protocol version; what differs by version is how they are
//! written, which is `decode` and `encode` alone.

mod text;
mod version;
mod reason;
mod packet;
mod error;
mod properties;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::{encode, encode_publish_head, encoded_len};
pub use error::{DecodeError, EncodeError};
pub use packet::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Kind, Packet, PacketId, PayloadFormat,
    Publish, PublishProperties, QoS, RetainHandling, SubAck, Subscribe, SubscribeProperties,
    Subscription, SubscriptionId, UnsubAck, Unsubscribe, UserProperty, Will, WillProperties,
};
pub use properties::MAX_REPEATED_PROPERTIES;
pub use reason::ReasonCode;
pub use text::Text;
pub use version::Version;

/// The largest value the remaining-length field can hold: four bytes of seven bits (section 2.2.3).
///
/// ```
/// use qproxy_mqtt::{MqttConfig, codec::MAX_REMAINING_LENGTH};
///
/// assert!(MqttConfig::default().max_packet_size < MAX_REMAINING_LENGTH);
/// ```
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;
