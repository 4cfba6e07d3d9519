//! The small JSON messages that nodes exchange beside the items: heads, acknowledgements, presence, resends,
//! live settings.
//!
//! JSON, so that an operator can read and write them with any MQTT tool. Unknown keys are ignored, lists are
//! cut at a limit, and a message that does not parse is refused with the parser's own words.

use serde::{Deserialize, Serialize};

use crate::record::SequenceRange;

/// The largest number that a sequence may reach: every JSON reader takes it without loss.
pub(super) const MAX_SEQUENCE: u64 = (1 << 53) - 1;

/// No notice is longer than this.
const MAX_NOTICE_BYTES: usize = 64 << 10;

/// A notice that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// It is too long to be one.
    #[error("{0} bytes are more than any notice has ({MAX_NOTICE_BYTES})")]
    TooLong(usize),
    /// It is no JSON, or a key is missing or has the wrong type.
    #[error("not the JSON that belongs here")]
    Json(#[from] serde_json::Error),
}

/// Reads a notice.
///
/// # Errors
/// [`NoticeError`] where it is too long or not of this form.
pub(super) fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, NoticeError> {
    if payload.len() > MAX_NOTICE_BYTES {
        return Err(NoticeError::TooLong(payload.len()));
    }
    Ok(serde_json::from_slice(payload)?)
}

/// Writes a notice.
#[must_use]
pub(super) fn write<T: Serialize>(notice: &T) -> bytes::Bytes {
    serde_json::to_vec(notice)
        .expect("notices have string keys and writing to memory cannot fail")
        .into()
}

/// `[first, last]`: consecutive sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct Range(SequenceRange);

impl Range {
    /// The numbers.
    #[must_use]
    pub const fn get(self) -> SequenceRange {
        self.0
    }
}

impl From<SequenceRange> for Range {
    fn from(range: SequenceRange) -> Self {
        Self(range)
    }
}

impl TryFrom<(u64, u64)> for Range {
    type Error = String;

    fn try_from((first, last): (u64, u64)) -> Result<Self, String> {
        if first == 0 || first > last || last > MAX_SEQUENCE {
            return Err(format!("[{first}, {last}] is no range of sequence numbers"));
        }
        Ok(Self(SequenceRange { first, last }))
    }
}

impl From<Range> for (u64, u64) {
    fn from(range: Range) -> Self {
        (range.0.first, range.0.last)
    }
}

/// On `…/head/{recorder}`: every number up to `highest` was published and taken by the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The recorder's life.
    pub epoch: u64,
    /// The last number of the unbroken run.
    pub highest: u64,
}

/// On `…/ack/{recorder}/{player}`: what a player has committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The recorder's life.
    pub epoch: u64,
    /// Every number up to this one is settled.
    pub watermark: u64,
    /// The largest settled number.
    pub highest: u64,
    /// How many numbers are missing for longer than a moment.
    #[serde(default)]
    pub missing_count: u64,
    /// The first of the missing ranges.
    #[serde(default)]
    pub missing: Vec<Range>,
}

impl Ack {
    /// An acknowledgement names at most this many ranges.
    pub const MAX_RANGES: usize = 32;
}

/// Asks `…/node/{recorder}/resend` to publish numbers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResendRequest {
    /// The recorder's life.
    pub epoch: u64,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
}

/// What a recorder answers to a [`ResendRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResendAnswer {
    /// How many items it will publish again.
    pub sent: u64,
    /// What it does not have any more.
    #[serde(default)]
    pub gone: Vec<Range>,
    /// How much of the request it has dealt with: up to this number. The rest is to be asked for again.
    pub up_to: u64,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Connected.
    Online,
    /// Gone, by its own word or by its last will.
    Offline,
}

/// Retained on `…/node/{node}`: who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The node's name.
    pub node: String,
    /// Whether it is there.
    pub state: State,
    /// `record`, `playback`, `standalone`, `forward`.
    #[serde(default)]
    pub mode: String,
    /// Its program version.
    #[serde(default)]
    pub version: String,
    /// Its life; 0 where it records nothing.
    #[serde(default)]
    pub epoch: u64,
    /// Where it listens, `what=host:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Since when it has been in this state, or was last online; ISO 8601.
    #[serde(default)]
    pub since: String,
}

/// Retained on `…/config/{node or _all}`: live capture settings. What is absent stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveSettings {
    /// Whether to record.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Which part of the exchanges to record, 0 to 1.
    #[serde(default)]
    pub sample: Option<f64>,
}

impl LiveSettings {
    /// Reads settings; `sample` must lie between 0 and 1.
    ///
    /// # Errors
    /// [`NoticeError`] where they are not of this form.
    pub fn parse(payload: &[u8]) -> Result<Self, NoticeError> {
        let settings: Self = read(payload)?;
        match settings.sample {
            Some(sample) if !(0.0..=1.0).contains(&sample) => {
                let message = format!("`sample` is {sample}, it must lie between 0 and 1");
                Err(NoticeError::Json(serde::de::Error::custom(message)))
            }
            _ => Ok(settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_is_plain_json_and_reads_back() {
        let ack = Ack {
            epoch: 7,
            watermark: 10,
            highest: 20,
            missing_count: 2,
            missing: vec![
                SequenceRange {
                    first: 11,
                    last: 12,
                }
                .into(),
            ],
        };
        let json = write(&ack);
        let expected =
            r#"{"epoch":7,"watermark":10,"highest":20,"missing_count":2,"missing":[[11,12]]}"#;
        assert_eq!(json, expected);
        assert_eq!(read::<Ack>(&json).unwrap(), ack);
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for bad in ["[0,1]", "[2,1]", "[1,9007199254740992]", "[1]", "{}"] {
            assert!(read::<Range>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn live_settings_name_what_is_wrong() {
        let settings = LiveSettings::parse(br#"{"enabled":false,"sample":0.5}"#).unwrap();
        assert_eq!(
            (settings.enabled, settings.sample),
            (Some(false), Some(0.5))
        );
        for (bad, word) in [
            (r#"{"sample":2}"#, "sample"),
            (r#"{"enable":true}"#, "enable"),
            ("", "EOF"),
        ] {
            let error = LiveSettings::parse(bad.as_bytes()).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(word), "{source}");
        }
    }

    #[test]
    fn a_long_notice_is_refused_unread() {
        let long = vec![b' '; MAX_NOTICE_BYTES + 1];
        assert!(matches!(read::<Head>(&long), Err(NoticeError::TooLong(_))));
    }
}
