//! Which protocol it is, by the first bytes of either side.

use super::read::decimal;
use super::{Held, UNDECIDED_BYTES};
use crate::record::Direction;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Redis,
    PostgreSql,
    MySql,
    Http1,
    Http2,
    Tls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Is(Kind),
    /// It may be one of several yet.
    More,
    /// It is none of them.
    No,
}

/// The longest line that an unknown protocol may begin with and be a Redis reply, bytes.
const REPLY_BYTES: usize = 1024;

pub(super) fn verdict(held: &[Held]) -> Verdict {
    // What comes later does not count: a verdict must not depend on how the bytes are cut.
    let said = |direction| {
        let mut parts = held.iter();
        let first = parts.find(|part| part.direction == direction);
        first.map_or(b"".as_slice(), |part| {
            &part.bytes[..part.bytes.len().min(UNDECIDED_BYTES)]
        })
    };
    let (client, server) = (said(Direction::Client), said(Direction::Server));
    match (held.first().map(|part| part.direction), client.first()) {
        (Some(Direction::Server), _) => greeting(server),
        (_, Some(0x16)) => begins(
            client,
            &[&[0x16], &[3], &[0, 1, 2, 3, 4], &[], &[], &[1]],
            Kind::Tls,
        ),
        (_, Some(0)) => startup(client),
        (_, Some(b'*')) => command(client),
        (_, Some(first)) if first.is_ascii_alphabetic() => line(client, server),
        _ => Verdict::No,
    }
}

/// Whether each byte is one of those allowed in its place; none named allows any.
fn begins(bytes: &[u8], places: &[&[u8]], kind: Kind) -> Verdict {
    let mut pairs = bytes.iter().zip(places);
    if !pairs.all(|(byte, allowed)| allowed.is_empty() || allowed.contains(byte)) {
        Verdict::No
    } else if bytes.len() < places.len() {
        Verdict::More
    } else {
        Verdict::Is(kind)
    }
}

/// PostgreSQL: a length up to 10,000, then version 3 or one of three codes that begin with 1234.
fn startup(client: &[u8]) -> Verdict {
    let codes: [&[u8]; 8] = [&[0], &[0], &[], &[], &[0, 0x04], &[3, 0xd2], &[], &[]];
    match client.first_chunk::<4>() {
        Some(length) if !(8..=10_000).contains(&u32::from_be_bytes(*length)) => Verdict::No,
        _ => begins(client, &codes, Kind::PostgreSql),
    }
}

/// MySQL: a packet with the number 0 and protocol 10, then a version in printable text.
fn greeting(server: &[u8]) -> Verdict {
    let places: [&[u8]; 6] = [&[], &[0, 1, 2, 3], &[0], &[0], &[10], &[]];
    match begins(server, &places, Kind::MySql) {
        Verdict::Is(kind) => {
            let version = server[5..]
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            let printable = version
                .iter()
                .all(|byte| byte.is_ascii_graphic() || *byte == b' ');
            match (printable, version.len()) {
                (true, 1..=128) if version.len() < server.len() - 5 => Verdict::Is(kind),
                (true, 1..=128) => Verdict::More,
                _ => Verdict::No,
            }
        }
        other => other,
    }
}

/// Redis: `*` and how many words, then `$`.
fn command(client: &[u8]) -> Verdict {
    let rest = &client[1..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match (digits, &rest[digits..]) {
        (_, []) | (1..=7, [b'\r'] | [b'\r', b'\n']) if digits <= 7 => Verdict::More,
        (1..=7, [b'\r', b'\n', b'$', ..]) => Verdict::Is(Kind::Redis),
        _ => Verdict::No,
    }
}

/// Text: HTTP by its first line; an inline command of Redis only where the server answers as Redis does.
fn line(client: &[u8], server: &[u8]) -> Verdict {
    let end = client.iter().position(|byte| *byte == b'\n');
    let line = client[..end.unwrap_or(client.len())].trim_ascii_end();
    if line.iter().any(u8::is_ascii_control) {
        return Verdict::No;
    }
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let is_http = line.iter().filter(|byte| **byte == b' ').count() >= 2;
    match (end, server.is_empty()) {
        (None, true) => Verdict::More,
        (None, false) => Verdict::No,
        (Some(_), _) if line == b"PRI * HTTP/2.0" => Verdict::Is(Kind::Http2),
        (Some(_), _) if is_http && version.starts_with(b"HTTP/1.") => Verdict::Is(Kind::Http1),
        (Some(_), true) => Verdict::More,
        (Some(_), false) => reply(server),
    }
}

fn reply(server: &[u8]) -> Verdict {
    let mut first = server.iter().take(REPLY_BYTES);
    let Some(end) = first.position(|byte| *byte == b'\n') else {
        let long = server.len() >= REPLY_BYTES;
        return if long { Verdict::No } else { Verdict::More };
    };
    let Some((line, b"\r\n")) = server[..=end]
        .split_last_chunk::<2>()
        .map(|(l, e)| (l, e.as_slice()))
    else {
        return Verdict::No;
    };
    let legal = match line.split_first() {
        Some((b'+', text)) => !text.is_empty(),
        Some((b'-', text)) => text.first().is_some_and(u8::is_ascii_uppercase),
        Some((b':' | b'$' | b'*' | b'%' | b'~', number)) => {
            number == b"-1" || decimal(number).is_some()
        }
        Some((b'_', rest)) => rest.is_empty(),
        _ => false,
    };
    if legal && !line.iter().any(u8::is_ascii_control) {
        Verdict::Is(Kind::Redis)
    } else {
        Verdict::No
    }
}
