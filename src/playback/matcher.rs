//! Which recorded exchange answers a request.
//!
//! Same requests have the same fingerprint. Where several exchanges have it, they are given in the order in
//! which they were recorded, for each session and client on its own; [`Repeat`] says what comes after the
//! last. An exchange that is of less use (the proxy's own 502, a body of which only a part was kept, a 304 for
//! a client that holds no copy) is passed over while there is a better one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderName;
use http::request::Parts;
use parking_lot::Mutex;
use twox_hash::XxHash3_128;

use super::generations::Generations;
use super::{Error, Metrics};
use crate::record::{
    Digest, Exchange, Fingerprint, FingerprintRules, Headers, Outcome, Record, RecordId,
    RequestView,
};
use crate::store::Store;

/// How many records are looked at for one that is of full use.
const MAX_PROBES: usize = 32;

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
    /// How many records of one fingerprint take part.
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
    conditional: bool,
    ranged: bool,
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
        let has = |name: &str| parts.headers.contains_key(name);
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
            conditional: has("if-none-match") || has("if-modified-since"),
            ranged: has("range"),
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
        let ids = self
            .store
            .lookup(fingerprint, self.config.max_answers)
            .await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let key = (asked.sequence, fingerprint);
        let start = match self.config.repeat {
            Repeat::Latest => ids.len() - 1,
            repeat => self.advance(key, &ids, repeat, now),
        };
        let mut best: Option<(Use, Box<Exchange>)> = None;
        let probes = (start..ids.len()).chain((0..start).rev()).take(MAX_PROBES);
        for id in probes.map(|at| ids[at]) {
            let Some(Record::Exchange(exchange)) = self.store.get(id).await? else {
                continue;
            };
            let Some(usefulness) = usefulness(&exchange, asked) else {
                continue;
            };
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
    /// The proxy's own error, or an exchange that was broken off.
    Broken,
    /// A body of which only a part was kept, or an answer that fits another client's question.
    Partial,
    Full,
}

/// `None` where there is nothing to answer with.
fn usefulness(exchange: &Exchange, asked: &Asked) -> Option<Use> {
    let response = exchange.response.as_ref().filter(|r| r.status >= 200)?;
    Some(if exchange.outcome != Outcome::Ok {
        Use::Broken
    } else if response.body.truncated
        || (response.status == 304 && !asked.conditional)
        || (matches!(response.status, 206 | 416) && !asked.ranged)
    {
        Use::Partial
    } else {
        Use::Full
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
