//! What makes two requests the same: XXH3-128 over the parts that the rules name. A stream has no request: those of
//! one service and protocol have one fingerprint.

use percent_encoding::percent_decode_str;
use twox_hash::XxHash3_128;

use super::{Digest, Protocol, Request};

/// The identity of a request under one set of [`FingerprintRules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// Under which all streams of a service are found.
    #[must_use]
    pub fn of_streams(protocol: Protocol, service: &str) -> Self {
        let mut hash = XxHash3_128::new();
        // No request's fingerprint begins so.
        hash.write(b"stream");
        hash.write(&[0]);
        hash.write(protocol.as_str().as_bytes());
        hash.write(&[0]);
        hash.write(service.as_bytes());
        Self(hash.finish_128())
    }
}

/// How a body takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyMatch {
    /// Not at all.
    Ignore,
    /// Byte for byte.
    #[default]
    Exact,
}

/// Which parts of a request make its identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FingerprintRules {
    /// Whether the `Host` takes part.
    pub host: bool,
    /// Query parameters that do not take part, by name.
    pub ignore_query: Vec<String>,
    /// Header fields that take part, by name.
    pub headers: Vec<String>,
    /// How the body takes part.
    pub body: BodyMatch,
}

/// The parts of a request that rules can look at, recorded or just arrived.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a str,
    /// Host and port.
    pub host: &'a str,
    /// The path, undecoded.
    pub path: &'a str,
    /// The query without `?`, undecoded.
    pub query: &'a str,
    /// Header fields.
    pub headers: &'a super::Headers,
    /// The digest of the content.
    pub body: Digest,
}

impl<'a> From<&'a Request> for RequestView<'a> {
    fn from(request: &'a Request) -> Self {
        Self {
            method: &request.method,
            host: request.host(),
            path: request.path(),
            query: request.query(),
            headers: &request.headers,
            body: request.body.digest,
        }
    }
}

impl FingerprintRules {
    /// The fingerprint of a request: method, path, query sorted by name (order of equal names kept),
    /// and, as the rules say, host, header fields and body.
    #[must_use]
    pub fn fingerprint(&self, request: &RequestView<'_>) -> Fingerprint {
        let mut hash = XxHash3_128::new();
        let mut part = |tag: u8, bytes: &[u8]| {
            hash.write(&[tag]);
            hash.write(&(bytes.len() as u64).to_le_bytes());
            hash.write(bytes);
        };
        part(b'm', request.method.as_bytes());
        if self.host {
            part(b'h', request.host.to_ascii_lowercase().as_bytes());
        }
        part(b'p', request.path.as_bytes());
        for (name, value) in self.sorted_query(request.query) {
            part(b'q', &name);
            part(b'v', &value);
        }
        for name in &self.headers {
            part(b'n', name.to_ascii_lowercase().as_bytes());
            for value in request.headers.all(name) {
                part(b'v', value);
            }
        }
        match self.body {
            BodyMatch::Ignore => {}
            BodyMatch::Exact => part(b'b', request.body.as_be_bytes()),
        }
        Fingerprint(hash.finish_128())
    }

    /// Names and values, percent-decoded, without the ignored ones, sorted by name.
    fn sorted_query(&self, query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
        let mut pairs: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decode(name), decode(value)))
            .filter(|(name, _)| {
                !self
                    .ignore_query
                    .iter()
                    .any(|i| i.as_bytes() == name.as_slice())
            })
            .collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Headers;

    fn of(rules: &FingerprintRules, target: &str, body: &[u8]) -> Fingerprint {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = Headers::default();
        rules.fingerprint(&RequestView {
            method: "GET",
            host: "shop",
            path,
            query,
            headers: &headers,
            body: Digest::of(body),
        })
    }

    #[test]
    fn query_order_and_escaping_do_not_matter_but_values_do() {
        let rules = FingerprintRules::default();
        assert_eq!(
            of(&rules, "/a?x=1&y=2", b""),
            of(&rules, "/a?y=2&x=%31", b"")
        );
        assert_ne!(of(&rules, "/a?x=1&x=2", b""), of(&rules, "/a?x=2&x=1", b""));
        assert_ne!(of(&rules, "/a?x=1", b""), of(&rules, "/a?x=2", b""));
        assert_ne!(of(&rules, "/a", b""), of(&rules, "/a", b"body"));
        assert_ne!(of(&rules, "/a?b=", b""), of(&rules, "/ab?=", b""));
    }

    #[test]
    fn streams_of_one_service_and_protocol_are_found_together() {
        let of = Fingerprint::of_streams;
        assert_eq!(of(Protocol::Tcp, "redis"), of(Protocol::Tcp, "redis"));
        assert_ne!(of(Protocol::Tcp, "redis"), of(Protocol::Tcp, "redis2"));
        assert_ne!(of(Protocol::Tcp, "redis"), of(Protocol::WebSocket, "redis"));
    }

    #[test]
    fn ignored_parts_do_not_matter() {
        let rules = FingerprintRules {
            ignore_query: vec!["ts".into()],
            body: BodyMatch::Ignore,
            ..FingerprintRules::default()
        };
        assert_eq!(of(&rules, "/a?ts=1", b"x"), of(&rules, "/a?ts=2", b"y"));
    }
}
