//! Which recorded header fields are passed on, in an answer or in a replayed request.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::record::Headers;

/// Fields about one connection (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 6] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// All fields but those about one connection, and how many HTTP has no form for.
pub(super) fn passed_on(recorded: &Headers) -> (HeaderMap, u64) {
    let mut map = HeaderMap::with_capacity(recorded.len());
    let mut dropped = 0;
    for (name, value) in recorded.iter() {
        if is_hop_by_hop(name) || is_named_by_connection(recorded, name) {
            continue;
        }
        match (
            HeaderName::from_bytes(name),
            HeaderValue::from_maybe_shared(value.clone()),
        ) {
            (Ok(name), Ok(value)) => {
                map.append(name, value);
            }
            _ => dropped += 1,
        }
    }
    (map, dropped)
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP
        .iter()
        .any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
}

/// Whether one of the `Connection` fields lists `name`.
fn is_named_by_connection(headers: &Headers, name: &[u8]) -> bool {
    headers
        .all("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(name))
}
