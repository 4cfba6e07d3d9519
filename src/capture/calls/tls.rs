//! The first words of TLS that passes through: whom the client asks for (RFC 8446 section 4.1.2).
//!
//! Only the `ClientHello` is read. What follows is nobody's business.

use super::text;
use super::{Facts, Stop};

/// The longest hello that is read, bytes; those of browsers take about 2,000.
const HELLO_BYTES: usize = 16 << 10;
/// How many protocols of an offer are kept.
const OFFERS: usize = 8;
/// How much of each, bytes.
const OFFER_BYTES: usize = 32;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// A `ClientHello` as it comes, in one record or several.
#[derive(Debug, Default)]
pub(super) struct Hello(Vec<u8>);

impl Hello {
    pub(super) const fn held(&self) -> usize {
        self.0.capacity()
    }

    /// Reads what the client says. `Err` once there is no more to learn.
    pub(super) fn read(&mut self, bytes: &[u8], facts: &mut Facts) -> Result<(), Stop> {
        facts.encrypted = true;
        let room = HELLO_BYTES.saturating_sub(self.0.len()).min(bytes.len());
        self.0.extend_from_slice(&bytes[..room]);
        match handshake(&self.0) {
            Some(Ok(hello)) => {
                let read = extensions(&hello, facts);
                Err(read.map_or(Stop::Broken, |()| Stop::Opaque))
            }
            Some(Err(stop)) => Err(stop),
            None if self.0.len() >= HELLO_BYTES => Err(Stop::Broken),
            None => Ok(()),
        }
    }
}

/// The content of the `ClientHello` in these records (RFC 8446 section 5.1); `None` where it has not all come.
fn handshake(mut records: &[u8]) -> Option<Result<Vec<u8>, Stop>> {
    let mut message = Vec::new();
    while let Some((head, rest)) = records.split_first_chunk::<5>() {
        let [kind, major, _, high, low] = *head;
        if (kind, major) != (HANDSHAKE, 3) {
            return Some(Err(Stop::Broken));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let part = &rest[..length.min(rest.len())];
        message.extend_from_slice(part);
        records = &rest[part.len()..];
        if let Some((&[kind, high, middle, low], hello)) = message.split_first_chunk::<4>() {
            if kind != CLIENT_HELLO {
                return Some(Err(Stop::Broken));
            }
            let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?;
            if hello.len() >= length {
                return Some(Ok(hello[..length].to_vec()));
            }
        }
    }
    None
}

/// Walks to the extensions; `None` where the lengths do not fit.
fn extensions(hello: &[u8], facts: &mut Facts) -> Option<()> {
    // Version and random, then three vectors of which the last may be absent.
    let rest = hello.get(34..)?;
    let (_session, rest) = vector::<1>(rest)?;
    let (_ciphers, rest) = vector::<2>(rest)?;
    let (_compression, rest) = vector::<1>(rest)?;
    if rest.is_empty() {
        return Some(());
    }
    let (mut extensions, _) = vector::<2>(rest)?;
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_first_chunk::<2>()?;
        let (content, rest) = vector::<2>(rest)?;
        match u16::from_be_bytes(*kind) {
            SERVER_NAME => facts.server_name = server_name(content),
            ALPN => facts.alpn = offers(content),
            _ => {}
        }
        extensions = rest;
    }
    Some(())
}

/// The host name of a `ServerNameList` (RFC 6066 section 3).
fn server_name(content: &[u8]) -> Option<std::sync::Arc<str>> {
    let (list, _) = vector::<2>(content)?;
    let name = list.strip_prefix(&[0])?;
    text::name(vector::<2>(name)?.0)
}

/// The names of a `ProtocolNameList` (RFC 7301 section 3.1).
fn offers(content: &[u8]) -> Vec<std::sync::Arc<str>> {
    let mut list = vector::<2>(content).map_or(b"".as_slice(), |(list, _)| list);
    let next = || {
        let (name, rest) = vector::<1>(list)?;
        list = rest;
        text::name(name)
    };
    let short = |name: std::sync::Arc<str>| text::shorten(&name, OFFER_BYTES, false).into();
    std::iter::from_fn(next).take(OFFERS).map(short).collect()
}

/// A vector with a length of `N` bytes, and what follows it.
fn vector<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<N>()?;
    let length = length
        .iter()
        .fold(0, |n, byte| n * 256 + usize::from(*byte));
    rest.split_at_checked(length)
}
