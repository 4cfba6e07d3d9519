//! An answer on its way: what its topic says about it, and the joining of its parts.
//!
//! A long answer comes as `more/0`, `more/1` … and ends with `ok/{parts before it}`. QoS 1 may bring a part twice, on
//! either leg of its way; its number tells. An answer in one piece is just `ok`. Parts without numbers, from programs
//! that send none, are joined as they come.
//!
//! In MQTT 5.0 an answer goes to the response topic just as it is, and user properties `query-status` and
//! `query-part` say the same; without them it is an answer in one piece.

use bytes::{Bytes, BytesMut};

use crate::codec::PublishProperties;
use crate::error::QueryError;

/// Names of user properties.
pub(super) const STATUS: &str = "query-status";
pub(super) const PART: &str = "query-part";

/// What a part says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    Error,
    Busy,
    /// More follow, the last as `Ok`.
    More,
}

impl Status {
    pub(super) const fn level(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Busy => "busy",
            Self::More => "more",
        }
    }

    pub(super) fn parse(level: &str) -> Option<Self> {
        [Self::Ok, Self::Error, Self::Busy, Self::More]
            .into_iter()
            .find(|it| it.level() == level)
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) status: Status,
    /// How many parts stand before it.
    pub(super) number: Option<u32>,
}

/// One that stands alone.
impl From<Status> for Part {
    fn from(status: Status) -> Self {
        let number = None;
        Self { status, number }
    }
}

impl Part {
    /// From the levels after the correlation: `ok`, `more/3` …
    pub(super) fn parse(levels: &str) -> Option<Self> {
        let (status, number) = match levels.split_once('/') {
            None => (levels, None),
            Some((status, number)) => (status, Some(number.parse().ok()?)),
        };
        let status = Status::parse(status)?;
        Some(Self { status, number })
    }

    /// From the user properties of an answer.
    pub(super) fn of(properties: Option<&PublishProperties>) -> Option<Self> {
        let mut part = Self::from(Status::Ok);
        let said = properties.map_or(&[][..], |it| it.user_properties.as_slice());
        for (name, value) in said {
            match name.as_str() {
                STATUS => part.status = Status::parse(value)?,
                PART => part.number = Some(value.parse().ok()?),
                _ => {}
            }
        }
        Some(part)
    }

    /// The levels that say it.
    pub(super) fn levels(self) -> String {
        let status = self.status.level();
        match self.number {
            None => status.to_owned(),
            Some(number) => format!("{status}/{number}"),
        }
    }
}

/// What is here of an answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    joined: BytesMut,
    parts: u32,
}

/// What a part did.
#[derive(Debug)]
pub(super) enum Taken {
    /// More has to come.
    Open,
    /// It was here before, or came before its elder, which will bring it again.
    Ignored,
    Complete(Result<Bytes, QueryError>),
}

impl Answer {
    pub(super) fn take(&mut self, part: Part, payload: Bytes, max_bytes: usize) -> Taken {
        let taken = match part.status {
            Status::Busy => Err(QueryError::Busy),
            Status::Error => Err(QueryError::Failed(payload)),
            Status::More if part.number.is_some_and(|number| number != self.parts) => {
                return Taken::Ignored;
            }
            Status::Ok if part.number.is_some_and(|number| number != self.parts) => {
                Err(QueryError::Incomplete)
            }
            Status::Ok | Status::More if self.joined.len() + payload.len() > max_bytes => {
                Err(QueryError::TooLarge(max_bytes))
            }
            Status::Ok if self.parts == 0 => Ok(payload),
            Status::Ok => {
                self.joined.extend_from_slice(&payload);
                Ok(self.joined.split().freeze())
            }
            Status::More => {
                self.joined.extend_from_slice(&payload);
                self.parts = self.parts.saturating_add(1);
                return Taken::Open;
            }
        };
        Taken::Complete(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(answer: &mut Answer, levels: &str, payload: &'static str) -> Taken {
        let part = Part::parse(levels).unwrap();
        answer.take(part, Bytes::from_static(payload.as_bytes()), 8)
    }

    #[test]
    fn a_part_that_comes_twice_is_joined_once() {
        let mut answer = Answer::default();
        for (levels, payload) in [
            ("more/0", "ab"),
            ("more/1", "cd"),
            ("more/0", "ab"),
            ("more/1", "cd"),
        ] {
            take(&mut answer, levels, payload);
        }
        let Taken::Complete(Ok(joined)) = take(&mut answer, "ok/2", "ef") else {
            panic!("not complete");
        };
        assert_eq!(joined, "abcdef");
    }

    #[test]
    fn an_answer_with_a_part_missing_is_an_error_and_never_a_shorter_answer() {
        let mut answer = Answer::default();
        take(&mut answer, "more/0", "ab");
        assert!(matches!(take(&mut answer, "more/2", "ef"), Taken::Ignored));
        assert!(matches!(
            take(&mut answer, "ok/3", "gh"),
            Taken::Complete(Err(QueryError::Incomplete))
        ));
    }

    #[test]
    fn parts_without_numbers_are_joined_as_they_come() {
        let mut answer = Answer::default();
        take(&mut answer, "more", "ab");
        assert!(matches!(
            take(&mut answer, "ok", "cd"),
            Taken::Complete(Ok(joined)) if joined == "abcd"
        ));
    }

    #[test]
    fn an_answer_over_the_limit_is_an_error_at_the_part_that_passes_it() {
        let mut answer = Answer::default();
        take(&mut answer, "more/0", "12345678");
        assert!(matches!(
            take(&mut answer, "more/1", "9"),
            Taken::Complete(Err(QueryError::TooLarge(8)))
        ));
    }

    #[test]
    fn levels_are_read_as_they_are_written_and_nothing_else() {
        for levels in ["ok", "ok/2", "more/0", "error", "busy"] {
            assert_eq!(Part::parse(levels).unwrap().levels(), levels);
        }
        for levels in [
            "",
            "what",
            "more/",
            "more/x",
            "more/-1",
            "ok/1/2",
            "more/4294967296",
        ] {
            assert_eq!(Part::parse(levels), None, "{levels}");
        }
    }

    #[test]
    fn user_properties_say_the_same_as_levels_and_none_say_ok() {
        let said = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|&(name, value)| (name.into(), value.into()));
            let properties = PublishProperties {
                user_properties: pairs.collect(),
                ..PublishProperties::default()
            };
            Part::of(Some(&properties))
        };
        assert_eq!(Part::of(None), Part::parse("ok"));
        assert_eq!(said(&[("status", "1")]), Part::parse("ok"));
        assert_eq!(said(&[(STATUS, "busy")]), Part::parse("busy"));
        assert_eq!(
            said(&[(PART, "3"), (STATUS, "more")]),
            Part::parse("more/3")
        );
        assert_eq!(said(&[(STATUS, "what")]), None);
        assert_eq!(said(&[(PART, "x")]), None);
    }
}
