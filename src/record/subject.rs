//! What an item is about, as far as a subscriber can choose by it: the levels of its topic.

use std::sync::Arc;

/// The part of a topic that comes from the item itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A record.
    Traffic {
        /// The service's name.
        service: Arc<str>,
        /// `http`, `h2`, `grpc`, `ws`, `tcp`.
        protocol: Arc<str>,
        /// The request's method; `-` for a stream.
        method: Arc<str>,
        /// The response's status; `-` for a stream and where there was no response.
        status: Arc<str>,
    },
    /// A piece of a body.
    Body {
        /// The service's name.
        service: Arc<str>,
    },
    /// A piece of a stream.
    Segment {
        /// The service's name.
        service: Arc<str>,
    },
    /// A gap in the sequence.
    Gap,
}

impl Subject {
    /// The form kept beside an item in the spool: a tag, then each level with its length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (tag, levels): (u8, Vec<&str>) = match self {
            Self::Traffic {
                service,
                protocol,
                method,
                status,
            } => (1, vec![service, protocol, method, status]),
            Self::Body { service } => (2, vec![service]),
            Self::Segment { service } => (3, vec![service]),
            Self::Gap => (4, vec![]),
        };
        let mut out = vec![tag];
        for level in levels {
            // A level is part of a topic, which cannot be longer than 65,535 bytes.
            let bytes = &level.as_bytes()[..level.len().min(usize::from(u16::MAX))];
            out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }

    /// The inverse of [`Subject::to_bytes`]; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tag, mut rest) = bytes.split_first()?;
        let mut level = || -> Option<Arc<str>> {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (text, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = tail;
            std::str::from_utf8(text).ok().map(Arc::from)
        };
        let subject = match tag {
            1 => Self::Traffic {
                service: level()?,
                protocol: level()?,
                method: level()?,
                status: level()?,
            },
            2 => Self::Body { service: level()? },
            3 => Self::Segment { service: level()? },
            4 => Self::Gap,
            _ => return None,
        };
        rest.is_empty().then_some(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_every_prefix_is_refused() {
        let subjects = [
            Subject::Traffic {
                service: "shop".into(),
                protocol: "http".into(),
                method: "GET".into(),
                status: "200".into(),
            },
            Subject::Body {
                service: "é".into(),
            },
            Subject::Segment { service: "".into() },
            Subject::Gap,
        ];
        for subject in subjects {
            let bytes = subject.to_bytes();
            assert_eq!(Subject::from_bytes(&bytes), Some(subject));
            assert!((0..bytes.len()).all(|n| Subject::from_bytes(&bytes[..n]).is_none()));
        }
    }
}
