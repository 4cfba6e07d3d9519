//! The two versions of the protocol.

use std::fmt;

/// A version of MQTT, by its protocol level in CONNECT (3.1.2.2).
///
/// ```
/// use qproxy_mqtt::Version;
///
/// assert_eq!(Version::default().to_string(), "3.1.1");
/// assert_eq!(Version::V5.level(), 5);
/// assert_eq!(Version::from_level(4), Some(Version::V311));
/// assert_eq!(Version::from_level(3), None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    #[default]
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// The protocol level on the wire.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// From the protocol level on the wire; others are not spoken here.
    #[must_use]
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            4 => Some(Self::V311),
            5 => Some(Self::V5),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}
