//! Which recorded exchange answers a request.
//!
//! Same requests have the same fingerprint. Where several exchanges have it, they are given in the order in
//! which they were recorded, for each session and client on its own; [`Repeat`] says what comes after the
//! last. An exchange that is of less use (the proxy's own 502, a body of which only a part was kept, a coding that
//! the client did not ask for) is passed over while there is a better one. A 304 or a part answers only the
//! condition or the range that it was recorded for: to any other client it would be wrong. What answered a WebSocket
//! handshake answers only a handshake, and one that offers the subprotocol that was chosen then.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Version};
use parking_lot::Mutex;
use twox_hash::XxHash3_128;

use super::generations::Generations;
use super::{Error, Metrics, web_socket};
use crate::record::{
    Digest, Exchange, Fingerprint, FingerprintRules, Headers, Outcome, Record, RecordId, Request,
    RequestView, Response,
};
use crate::store::{self, Pieces, Store};

/// How many records are looked at for one that is of full use.
const MAX_PROBES: usize = 32;

/// Request fields that take no part in the fingerprint, but decide whether an answer fits.
const DECIDING: [&str; 5] = [
    "range",
    "if-none-match",
    "if-modified-since",
    "accept-encoding",
    "sec-websocket-protocol",
];

/// What answers after the last recorded exchange was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repeat {
    /// The last one again.
    #[default]
    Last,
    /// All of them again, from the first.
    Loop,
    /// No sequence: always the newest.
    Latest,
}

/// Who has a sequence of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientKey {
    /// Each IP address.
    #[default]
    Address,
    /// Each value of this header field.
    Header(HeaderName),
    /// Nobody: one sequence for all.
    Shared,
}

/// How requests are matched.
#[derive(Debug, Clone)]
pub struct Config {
    /// What makes two requests the same; has to be what the store was filled with.
    pub rules: FingerprintRules,
    /// What comes after the last recorded answer.
    pub repeat: Repeat,
    /// Who has a sequence of its own.
    pub client_key: ClientKey,
    /// A request can name its session in this header field, so that test runs do not disturb each other.
    pub session_header: HeaderName,
    /// How many positions are remembered, over all sessions and clients.
    pub max_positions: usize,
    /// A position that was not used for this long may be forgotten.
    pub position_idle: Duration,
    /// How many records of one fingerprint take part in a sequence: the first in source order. Of
    /// [`Repeat::Latest`] the newest take part, however many there are.
    pub max_answers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: FingerprintRules::default(),
            repeat: Repeat::default(),
            client_key: ClientKey::default(),
            session_header: HeaderName::from_static("qproxy-session"),
            max_positions: 100_000,
            position_idle: Duration::from_secs(3600),
            max_answers: 1000,
        }
    }
}

/// A request, as far as matching goes.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Headers,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    sequence: u128,
    /// The fields of [`DECIDING`].
    deciding: Headers,
    /// Whether it asks for WebSocket.
    upgrades: bool,
}

impl Asked {
    pub(super) fn new(
        parts: &Parts,
        digest: Digest,
        bytes: u64,
        client: SocketAddr,
        config: &Config,
    ) -> Self {
        let host = parts.uri.authority().map_or_else(
            || parts.headers.get(http::header::HOST).map(|v| v.as_bytes()),
            |authority| Some(authority.as_str().as_bytes()),
        );
        Self {
            method: parts.method.as_str().to_owned(),
            host: String::from_utf8_lossy(host.unwrap_or_default()).into_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: if config.rules.headers.is_empty() {
                Headers::default()
            } else {
                Headers::from(&parts.headers)
            },
            digest,
            bytes,
            sequence: sequence_key(parts, client, config),
            deciding: deciding(&parts.headers),
            upgrades: parts.version == Version::HTTP_11
                && asks_for_web_socket(&Headers::from(&parts.headers)),
        }
    }

    pub(super) fn fingerprint(&self, rules: &FingerprintRules) -> Fingerprint {
        rules.fingerprint(&RequestView {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            body: self.digest,
        })
    }

    /// The field because of which a recorded response answers another question than this one.
    pub(super) fn other_question(
        &self,
        recorded: &Request,
        response: &Response,
    ) -> Option<&'static str> {
        if self.upgrades != asks_for_web_socket(&recorded.headers) {
            return Some("upgrade");
        }
        if response.status == 101 && !self.offers(response) {
            return Some("sec-websocket-protocol");
        }
        let fields: &[&'static str] = match response.status {
            206 | 416 => &["range"],
            304 => &["if-none-match", "if-modified-since"],
            _ => &[],
        };
        fields
            .iter()
            .copied()
            .find(|name| !self.same(recorded, name))
    }

    /// Whether the subprotocol that the recorded server chose is one of those that are offered.
    fn offers(&self, response: &Response) -> bool {
        let chosen = response.headers.first("sec-websocket-protocol");
        chosen.is_none_or(|chosen| lists(&self.deciding, "sec-websocket-protocol", chosen))
    }

    /// Whether a field of [`DECIDING`] has the recorded values.
    fn same(&self, recorded: &Request, name: &str) -> bool {
        self.deciding.all(name).eq(recorded.headers.all(name))
    }
}

/// Whether it is the request of a WebSocket handshake (RFC 6455 section 4.1).
fn asks_for_web_socket(headers: &Headers) -> bool {
    lists(headers, "connection", b"upgrade") && lists(headers, "upgrade", b"websocket")
}

/// Whether a field is a list that has this item.
fn lists(headers: &Headers, name: &str, item: &[u8]) -> bool {
    headers
        .all(name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(item))
}

fn deciding(headers: &HeaderMap) -> Headers {
    let mut found = Headers::default();
    for name in DECIDING {
        for value in headers.get_all(name) {
            let value = Bytes::copy_from_slice(value.as_bytes());
            found.push(Bytes::from_static(name.as_bytes()), value);
        }
    }
    found
}

/// Session and client in 128 bits, so that what a client sends takes no memory.
fn sequence_key(parts: &Parts, client: SocketAddr, config: &Config) -> u128 {
    let field = |name: &HeaderName| parts.headers.get(name).map(|value| value.as_bytes());
    let mut hash = XxHash3_128::new();
    let session = field(&config.session_header).unwrap_or_default();
    hash.write(&(session.len() as u64).to_le_bytes());
    hash.write(session);
    match &config.client_key {
        ClientKey::Address => hash.write(client.ip().to_canonical().to_string().as_bytes()),
        ClientKey::Header(name) => hash.write(field(name).unwrap_or_default()),
        ClientKey::Shared => {}
    }
    hash.finish_128()
}

/// Finds the exchange that answers a request.
pub(super) struct Matcher {
    store: Arc<dyn Store>,
    config: Config,
    positions: Mutex<Generations<(u128, Fingerprint), RecordId>>,
    metrics: Metrics,
}

impl Matcher {
    pub(super) fn new(store: Arc<dyn Store>, config: Config, metrics: Metrics) -> Self {
        let positions = Generations::new(config.max_positions, config.position_idle);
        Self {
            store,
            config,
            positions: Mutex::new(positions),
            metrics,
        }
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// Every client starts again with the first recorded answer.
    pub(super) fn restart(&self) {
        self.positions.lock().clear();
    }

    /// The exchange whose response is the answer; `None` where nothing recorded fits.
    pub(super) async fn find(
        &self,
        asked: &Asked,
        now: Instant,
    ) -> Result<Option<Box<Exchange>>, Error> {
        let fingerprint = asked.fingerprint(&self.config.rules);
        let ids = self.alike(asked).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let key = (asked.sequence, fingerprint);
        let start = match self.config.repeat {
            Repeat::Latest => 0,
            repeat => self.advance(key, &ids, repeat, now),
        };
        let mut best: Option<(Use, Box<Exchange>)> = None;
        let probes = (start..ids.len()).chain((0..start).rev()).take(MAX_PROBES);
        for id in probes.map(|at| ids[at]) {
            let Some(Record::Exchange(exchange)) = self.store.get(id).await? else {
                continue;
            };
            let Some(mut usefulness) = usefulness(&exchange, asked) else {
                continue;
            };
            if is_switch(&exchange) && !self.goes_on(&exchange).await? {
                usefulness = Use::Broken;
            }
            if best.as_ref().is_none_or(|(known, _)| usefulness > *known) {
                best = Some((usefulness, exchange));
            }
            if usefulness == Use::Full {
                break;
            }
        }
        let best = best.map(|(_, exchange)| exchange);
        if let Some(exchange) = &best
            && self.config.repeat != Repeat::Latest
            && exchange.id != ids[start]
        {
            self.positions.lock().put(key, exchange.id, now);
        }
        Ok(best)
    }

    /// All exchanges that take part, with the fingerprint of `asked`.
    pub(super) async fn alike(&self, asked: &Asked) -> Result<Vec<RecordId>, Error> {
        let fingerprint = asked.fingerprint(&self.config.rules);
        Ok(match self.config.repeat {
            // So many are looked at in any case; those behind them would take no part.
            Repeat::Latest => self.store.newest(fingerprint, MAX_PROBES).await?,
            Repeat::Last | Repeat::Loop => {
                let limit = self.config.max_answers;
                self.store.lookup(fingerprint, limit).await?
            }
        })
    }

    /// Whether what followed a handshake is there whole.
    async fn goes_on(&self, exchange: &Exchange) -> Result<bool, Error> {
        let Some(id) = exchange.stream else {
            return Ok(false);
        };
        match self.store.get(id).await {
            Ok(Some(Record::Stream(stream))) if web_socket::fit(&stream).is_ok() => {
                let missing = self
                    .store
                    .first_missing(id, Pieces::Segments, stream.batches);
                Ok(missing.await?.is_none())
            }
            Ok(_) | Err(store::Error::Sealed { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the next place of a sequence; two requests at the same time get two places.
    fn advance(
        &self,
        key: (u128, Fingerprint),
        ids: &[RecordId],
        repeat: Repeat,
        now: Instant,
    ) -> usize {
        let mut positions = self.positions.lock();
        let next = following(ids, positions.touch(key, now), repeat);
        let forgotten = positions.put(key, ids[next], now);
        self.metrics.positions_evicted.inc_by(forgotten as u64);
        next
    }
}

/// The place after `last` in `ids`, which is not empty.
fn following(ids: &[RecordId], last: Option<RecordId>, repeat: Repeat) -> usize {
    let Some(last) = last else {
        return 0;
    };
    let next = match ids.iter().position(|id| *id == last) {
        Some(at) => at + 1,
        // It was deleted or has expired: go on with what was recorded after it.
        None => ids.iter().position(|id| *id > last).unwrap_or(ids.len()),
    };
    match repeat {
        _ if next < ids.len() => next,
        Repeat::Loop => 0,
        Repeat::Last | Repeat::Latest => ids.len() - 1,
    }
}

/// How well an exchange serves as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// The proxy's own error, an exchange that was broken off, or a handshake without what followed it.
    Broken,
    /// A body of which only a part was kept, or in a coding that was not asked for.
    Partial,
    Full,
}

/// Whether the connection became a stream with this exchange.
fn is_switch(exchange: &Exchange) -> bool {
    let response = exchange.response.as_ref();
    response.is_some_and(|response| response.status == 101)
}

/// `None` where there is nothing to answer with, or the answer is about another question.
fn usefulness(exchange: &Exchange, asked: &Asked) -> Option<Use> {
    let response = exchange.response.as_ref();
    let response = response.filter(|r| r.status >= 200 || is_switch(exchange))?;
    if asked.other_question(&exchange.request, response).is_some() {
        return None;
    }
    let readable = asked.same(&exchange.request, "accept-encoding")
        || covers(&asked.deciding, &response.headers);
    Some(if exchange.outcome != Outcome::Ok {
        Use::Broken
    } else if response.body.truncated || !readable {
        Use::Partial
    } else {
        Use::Full
    })
}

/// Whether the `Accept-Encoding` of `asked` names every coding of a response with these fields.
fn covers(asked: &Headers, response: &Headers) -> bool {
    response
        .all("content-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
        .all(|coding| accepts(asked, coding).or_else(|| accepts(asked, b"*")) == Some(true))
}

/// What `Accept-Encoding` says about `coding` by name; a weight of 0 is a no.
fn accepts(asked: &Headers, coding: &[u8]) -> Option<bool> {
    asked
        .all("accept-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .find_map(|item| {
            let mut parts = item.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let named = parts.next()?.eq_ignore_ascii_case(coding);
            let weight = parts.find_map(|part| {
                let (name, value) = part.split_at_checked(2)?;
                name.eq_ignore_ascii_case(b"q=").then_some(value)
            });
            let refused = weight.is_some_and(|q| q.iter().all(|byte| matches!(byte, b'0' | b'.')));
            named.then_some(!refused)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u128]) -> Vec<RecordId> {
        numbers.iter().copied().map(RecordId::from_u128).collect()
    }

    fn walk(ids: &[RecordId], repeat: Repeat, steps: usize) -> Vec<u128> {
        let mut last = None;
        (0..steps)
            .map(|_| {
                last = Some(ids[following(ids, last, repeat)]);
                last.unwrap().as_u128()
            })
            .collect()
    }

    #[test]
    fn sequence_runs_in_order_and_then_repeats_as_told() {
        let ids = ids(&[3, 1, 2]);
        assert_eq!(walk(&ids, Repeat::Last, 5), [3, 1, 2, 2, 2]);
        assert_eq!(walk(&ids, Repeat::Loop, 5), [3, 1, 2, 3, 1]);
    }

    #[test]
    fn goes_on_behind_a_record_that_is_gone() {
        let gone = Some(RecordId::from_u128(5));
        assert_eq!(following(&ids(&[6, 7]), gone, Repeat::Last), 0);
        assert_eq!(following(&ids(&[2, 4, 7]), gone, Repeat::Last), 2);
        assert_eq!(following(&ids(&[2, 4]), gone, Repeat::Last), 1);
        assert_eq!(following(&ids(&[2, 4]), gone, Repeat::Loop), 0);
    }

    #[test]
    fn a_coding_is_covered_where_it_is_named_and_not_refused() {
        let of = |name: &'static str, value: &str| -> Headers {
            let value = Bytes::copy_from_slice(value.as_bytes());
            [(Bytes::from(name), value)].into_iter().collect()
        };
        for (asked, coding, yes) in [
            ("gzip, br", "gzip", true),
            ("br", "GZIP", false),
            ("GZip;q=0.5", "gzip", true),
            ("gzip; q=0.0, *", "gzip", false),
            ("*", "zstd", true),
            ("gzip", "gzip, br", false),
            ("", "identity", true),
            ("", "gzip", false),
        ] {
            let (asked, response) = (of("accept-encoding", asked), of("content-encoding", coding));
            assert_eq!(covers(&asked, &response), yes, "{asked:?} {coding}");
        }
        assert!(covers(&Headers::default(), &Headers::default()));
    }

    #[test]
    fn sessions_and_clients_have_sequences_of_their_own() {
        let config = Config::default();
        let key = |session: &str, client: &str, config: &Config| {
            let request = http::Request::builder().header("qproxy-session", session);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            sequence_key(&parts, client.parse().unwrap(), config)
        };
        let one = key("a", "10.0.0.1:1", &config);
        assert_eq!(
            one,
            key("a", "10.0.0.1:2", &config),
            "the port is no client"
        );
        assert_eq!(one, key("a", "[::ffff:10.0.0.1]:2", &config));
        assert_ne!(one, key("b", "10.0.0.1:1", &config));
        assert_ne!(one, key("a", "10.0.0.2:1", &config));
        let shared = Config {
            client_key: ClientKey::Shared,
            ..config
        };
        assert_eq!(
            key("a", "10.0.0.1:1", &shared),
            key("a", "10.0.0.2:1", &shared)
        );
    }
}
