//! Sizes and times as people write them: `"10GiB"`, `"1h30m"`, `"none"` where there is no limit.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A type that is written as a text or a whole number.
pub(super) trait Written: Sized {
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Option<Self>;
    fn from_number(number: u64) -> Option<Self>;
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// A time span, more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A port, or all from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit<T> {
    /// No limit; written `none`.
    None,
    /// This one.
    Of(T),
}

const SIZES: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const SPANS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl Written for Size {
    const EXPECTED: &'static str = "a size in bytes, such as 1048576 or \"10GiB\"";

    fn from_text(text: &str) -> Option<Self> {
        let (number, unit) = number_and_rest(text.trim())?;
        let unit = unit.trim_start();
        let (_, factor) = SIZES.into_iter().find(|(name, _)| *name == unit)?;
        number.checked_mul(factor).map(Self)
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(Self(number))
    }
}

impl Written for Span {
    const EXPECTED: &'static str =
        "a time with its unit, such as \"500ms\", \"30s\", \"1h30m\", \"7d\"";

    fn from_text(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut millis = 0u64;
        while !rest.is_empty() {
            let (number, tail) = number_and_rest(rest)?;
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let (_, factor) = SPANS.into_iter().find(|(name, _)| *name == unit)?;
            millis = millis.checked_add(number.checked_mul(factor)?)?;
            rest = tail.trim_start();
        }
        (millis > 0).then(|| Self(Duration::from_millis(millis)))
    }

    fn from_number(_: u64) -> Option<Self> {
        None
    }
}

impl Written for Ports {
    const EXPECTED: &'static str = "a port such as 443, or from one to another as \"8000-8999\"";

    fn from_text(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        let port = |text: &str| text.trim().parse().ok().filter(|port| *port > 0);
        let (first, last) = (port(first)?, port(last)?);
        (first <= last).then_some(Self { first, last })
    }

    fn from_number(number: u64) -> Option<Self> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0)?;
        Some(Self {
            first: port,
            last: port,
        })
    }
}

impl<T: Written> Written for Limit<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_text(text: &str) -> Option<Self> {
        if text == "none" {
            Some(Self::None)
        } else {
            T::from_text(text).map(Self::Of)
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        T::from_number(number).map(Self::Of)
    }
}

impl<T> Limit<T> {
    pub(super) fn get(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Of(value) => Some(value),
        }
    }
}

fn number_and_rest(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

struct WrittenVisitor<T>(PhantomData<T>);

impl<T: Written> Visitor<'_> for WrittenVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
        T::from_text(text).ok_or_else(wrong)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let wrong = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        T::from_number(number).ok_or_else(wrong)
    }
}

macro_rules! deserialize_written {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(WrittenVisitor(PhantomData))
            }
        }
    )+};
}

deserialize_written!(Size, Span, Ports, Limit<Size>, Limit<Span>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        let size = |text| Size::from_text(text).map(|size| size.0);
        assert_eq!(size("10GiB"), Some(10 << 30));
        assert_eq!(size("1 MB"), Some(1_000_000));
        assert_eq!(size("7B"), Some(7));
        for bad in [
            "",
            "10",
            "10G",
            "GiB",
            "-1KB",
            "1.5GiB",
            "99999999999TiB",
            "10gib",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn ports_are_one_or_a_range() {
        let range = |text| Ports::from_text(text).map(|ports| (ports.first, ports.last));
        assert_eq!(range("8000-8999"), Some((8000, 8999)));
        assert_eq!(range("1 - 1"), Some((1, 1)));
        for bad in ["", "443", "9-8", "0-1", "1-65536", "-", "a-b"] {
            assert_eq!(range(bad), None, "{bad}");
        }
        let one = |number| Ports::from_number(number).map(|ports| ports.first);
        assert_eq!((one(443), one(0), one(65_536)), (Some(443), None, None));
    }

    #[test]
    fn spans_are_read_with_their_units() {
        let millis = |text| Span::from_text(text).map(|span| span.0.as_millis());
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis("7d"), Some(604_800_000));
        for bad in [
            "",
            "0s",
            "30",
            "s",
            "1x",
            "-5s",
            "5 s 3",
            "99999999999999999d",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }
}
