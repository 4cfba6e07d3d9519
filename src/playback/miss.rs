//! Why nothing recorded fits a request: the nearest records, and what differs.
//!
//! Looks at the newest summaries only, and reads them from the store at most once in a second however many
//! misses there are, so that a client gone astray costs little.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;

use super::matcher::Asked;
use super::{Error, report::display};
use crate::record::{BodyMatch, Exchange, FingerprintRules, Record, RecordId, Request, Target};
use crate::store::{self, Query, Store, Summary};

/// How many near records are shown.
const SHOWN: usize = 5;
/// How many differences are shown of each.
const DIFFERENCES: usize = 10;
/// How long one look at the store serves.
const FRESH: Duration = Duration::from_secs(1);
/// How much of a value is shown.
const VALUE_BYTES: usize = 120;

/// The body of the answer to a request that nothing recorded fits.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    error: &'static str,
    request: Question,
    nearest: Vec<Near>,
    /// How many of the newest records were looked at.
    scanned: usize,
    hint: String,
}

#[derive(Debug, Serialize)]
struct Question {
    method: String,
    target: String,
    host: String,
    body_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Near {
    #[serde(serialize_with = "display")]
    id: RecordId,
    method: Arc<str>,
    target: Arc<str>,
    status: Option<u16>,
    differs: Vec<String>,
}

/// How near a record is; the greater the nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// So many path segments out of a hundred are the same.
    SimilarPath(usize),
    /// The path is the same, the method is not.
    OtherMethod,
    /// Method and path are the same; so many query parameters differ (fewer is nearer).
    OtherContent(std::cmp::Reverse<usize>),
}

/// Explains misses.
pub(super) struct Explainer {
    store: Arc<dyn Store>,
    rules: FingerprintRules,
    scan: usize,
    newest: Mutex<Option<(Instant, Arc<Vec<Summary>>)>>,
}

impl Explainer {
    /// Looks at the `scan` newest records.
    pub(super) fn new(store: Arc<dyn Store>, rules: FingerprintRules, scan: usize) -> Self {
        Self {
            store,
            rules,
            scan,
            newest: Mutex::new(None),
        }
    }

    pub(super) async fn explain(&self, asked: &Asked, now: Instant) -> Result<Explanation, Error> {
        let newest = self.newest(now).await?;
        let mut nearest = Vec::new();
        for summary in rank(asked, &newest, &self.rules) {
            let recorded = match self.store.get(summary.id).await {
                Ok(Some(Record::Exchange(exchange))) => exchange,
                Ok(_) | Err(store::Error::Sealed { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            nearest.push(near(asked, &recorded, &self.rules));
        }
        Ok(Explanation {
            error: "no recorded answer",
            hint: hint(asked, &nearest, &newest),
            request: Question {
                method: asked.method.clone(),
                target: asked.target(),
                host: asked.host.clone(),
                body_bytes: asked.bytes,
            },
            scanned: newest.len(),
            nearest,
        })
    }

    /// The newest summaries, at most a second old.
    async fn newest(&self, now: Instant) -> Result<Arc<Vec<Summary>>, Error> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < FRESH;
        // Held while the store is read, so that misses at the same time share one look.
        let mut newest = self.newest.lock().await;
        if let Some((at, found)) = &*newest
            && fresh(at)
        {
            return Ok(found.clone());
        }
        let mut found = Vec::new();
        let mut query = Query::default();
        while found.len() < self.scan {
            query.limit = (self.scan - found.len()).min(500);
            let page = self.store.list(&query).await?;
            found.extend(page.items);
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        let found = Arc::new(found);
        // A look that found nothing is not kept: the first record must show up at once.
        *newest = (!found.is_empty()).then(|| (now, found.clone()));
        Ok(found)
    }
}

impl Asked {
    fn target(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }
}

/// The nearest summaries, nearest first, one of each method and target.
fn rank<'a>(asked: &Asked, newest: &'a [Summary], rules: &FingerprintRules) -> Vec<&'a Summary> {
    let mut scored: Vec<(Nearness, &Summary)> = newest
        .iter()
        .filter_map(|summary| Some((nearness(asked, summary, rules)?, summary)))
        .collect();
    // Stable: of equally near ones the newest stays first.
    scored.sort_by_key(|(nearness, _)| std::cmp::Reverse(*nearness));
    let mut seen = BTreeSet::new();
    scored
        .into_iter()
        .filter(|(_, summary)| seen.insert((&*summary.method, &*summary.target)))
        .map(|(_, summary)| summary)
        .take(SHOWN)
        .collect()
}

fn nearness(asked: &Asked, summary: &Summary, rules: &FingerprintRules) -> Option<Nearness> {
    if summary.method.is_empty() || summary.sealed.is_some() {
        return None;
    }
    let (path, query) = path_and_query(&summary.target);
    if path == asked.path {
        return Some(if *summary.method == *asked.method {
            let differing = query_differences(&asked.query, query, rules).len();
            Nearness::OtherContent(std::cmp::Reverse(differing))
        } else {
            Nearness::OtherMethod
        });
    }
    let share = shared_segments(&asked.path, path);
    (share >= 50).then_some(Nearness::SimilarPath(share))
}

fn path_and_query(target: &str) -> (&str, &str) {
    let target = Target(target);
    (target.path(), target.query())
}

/// How many of a hundred path segments are the same, by place.
fn shared_segments(one: &str, other: &str) -> usize {
    let segments = |path: &str| path.split('/').filter(|s| !s.is_empty()).count();
    let longest = segments(one).max(segments(other)).max(1);
    let (one, other) = (one.trim_matches('/'), other.trim_matches('/'));
    let same = one
        .split('/')
        .zip(other.split('/'))
        .filter(|(a, b)| a == b && !a.is_empty())
        .count();
    same * 100 / longest
}

fn near(asked: &Asked, recorded: &Exchange, rules: &FingerprintRules) -> Near {
    let request = &recorded.request;
    let mut differs = differences(asked, request, rules);
    if differs.is_empty() {
        // The rules say that it is the same, and yet it was not found: it has no response, or one to another
        // question, or the store was filled under other rules.
        let other_question = recorded
            .response
            .as_ref()
            .map(|response| asked.other_question(&recorded.request, response));
        differs.push(match other_question {
            None => "it was recorded without a response".to_owned(),
            Some(Some(name)) => format!("header: {name}, on which the recorded answer depends"),
            Some(None) => "nothing under these rules: it was stored under other rules".to_owned(),
        });
    }
    differs.truncate(DIFFERENCES);
    Near {
        id: recorded.id,
        method: request.method.clone(),
        target: shortened(&request.target).into(),
        status: recorded.response.as_ref().map(|response| response.status),
        differs,
    }
}

fn differences(asked: &Asked, request: &Request, rules: &FingerprintRules) -> Vec<String> {
    let mut differs = Vec::new();
    if *request.method != *asked.method {
        differs.push(format!(
            "method: {}, recorded {}",
            asked.method, request.method
        ));
    }
    if rules.host && !request.host().eq_ignore_ascii_case(&asked.host) {
        differs.push(format!("host: {}, recorded {}", asked.host, request.host()));
    }
    if request.path() != asked.path {
        let (asked, recorded) = (shortened(&asked.path), shortened(request.path()));
        differs.push(format!("path: {asked}, recorded {recorded}"));
    }
    differs.extend(query_differences(&asked.query, request.query(), rules));
    for name in &rules.headers {
        let asked: Vec<_> = asked.headers.all(name).collect();
        let recorded: Vec<_> = request.headers.all(name).collect();
        if asked != recorded {
            differs.push(format!("header: {name}"));
        }
    }
    if rules.body != BodyMatch::Ignore && request.body.digest != asked.digest {
        let recorded = request.body.bytes;
        differs.push(format!(
            "body: {} bytes, recorded {recorded} bytes",
            asked.bytes
        ));
    }
    differs
}

/// What differs between two queries, as sentences.
fn query_differences(asked: &str, recorded: &str, rules: &FingerprintRules) -> Vec<String> {
    let (asked, recorded) = (pairs(asked, rules), pairs(recorded, rules));
    let mut differs = Vec::new();
    let names: BTreeSet<&str> = asked
        .iter()
        .chain(&recorded)
        .map(|(n, _)| n.as_str())
        .collect();
    for name in names {
        let values = |pairs: &[(String, String)]| -> Vec<String> {
            let of_name = pairs.iter().filter(|(n, _)| n == name);
            of_name.map(|(_, value)| value.clone()).collect()
        };
        let (asked, recorded) = (values(&asked), values(&recorded));
        if asked == recorded {
            continue;
        }
        let show = |values: &[String]| shortened(&values.join(",")).to_owned();
        differs.push(match (asked.is_empty(), recorded.is_empty()) {
            (false, true) => format!("query: {name}={}, recorded without", show(&asked)),
            (true, _) => format!("query: without {name}, recorded {name}={}", show(&recorded)),
            (false, false) => {
                let (asked, recorded) = (show(&asked), show(&recorded));
                format!("query: {name}={asked}, recorded {name}={recorded}")
            }
        });
    }
    differs
}

fn pairs(query: &str, rules: &FingerprintRules) -> Vec<(String, String)> {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .filter(|(name, _)| !rules.ignore_query.contains(name))
        .collect()
}

fn hint(asked: &Asked, nearest: &[Near], newest: &[Summary]) -> String {
    let scanned = newest.len();
    let Some(first) = nearest.first() else {
        let mut closed = newest
            .iter()
            .filter_map(|summary| summary.sealed.as_deref());
        return if let Some(key) = closed.next() {
            format!(
                "{} of the newest {scanned} records are sealed and cannot answer: key \"{key}\" is not known here, or was \
                 not when they were stored",
                closed.count() + 1
            )
        } else if scanned == 0 {
            "the store holds no record yet: send traffic through a recorder first".to_owned()
        } else {
            format!(
                "none of the newest {scanned} records is like it: was this path ever recorded, and does the \
                 retention still hold it?"
            )
        };
    };
    let only = |kind: &str| first.differs.iter().all(|text| text.starts_with(kind));
    if *first.method != *asked.method {
        "the path was recorded with another method".to_owned()
    } else if only("query:") {
        "if the differing query parameters do not matter, ignore them in the matching rules"
            .to_owned()
    } else if only("body:") {
        "if the body does not matter, switch it off in the matching rules".to_owned()
    } else if only("path:") {
        "only similar paths were recorded".to_owned()
    } else {
        "see what differs from the nearest records".to_owned()
    }
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::MatchConfig;
    use crate::record::{Digest, Epoch, NodeId, Origin, Sequence};

    fn asked(method: &str, target: &str) -> Asked {
        let request = http::Request::builder().method(method).uri(target);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let client = "127.0.0.1:1".parse().unwrap();
        Asked::new(&parts, Digest::of(b""), 0, client, &MatchConfig::default())
    }

    fn summary(id: u128, method: &str, target: &str) -> Summary {
        Summary {
            id: RecordId::from_u128(id),
            origin: Origin {
                node: NodeId::new("n").unwrap(),
                epoch: Epoch(1),
                seq: Sequence(1),
            },
            service: "shop".into(),
            protocol: "http".into(),
            method: method.into(),
            host: "shop".into(),
            target: target.into(),
            status: Some(200),
            outcome: "ok".into(),
            started_us: 0,
            duration_us: 0,
            request_bytes: 0,
            response_bytes: 0,
            sealed: None,
        }
    }

    fn ranked(asked: &Asked, newest: &[Summary]) -> Vec<u128> {
        let rules = FingerprintRules::default();
        let ranked = rank(asked, newest, &rules);
        ranked.iter().map(|s| s.id.as_u128()).collect()
    }

    #[test]
    fn nearest_is_other_content_then_other_method_then_similar_path() {
        let newest = [
            summary(1, "GET", "/health"),
            summary(2, "GET", "/items/8"),
            summary(3, "POST", "/items/7"),
            summary(4, "GET", "/items/7?page=2&size=3"),
            summary(5, "GET", "/items/7?page=2"),
            summary(6, "GET", "/items/7?page=2"),
            summary(7, "", "/items/7"),
        ];
        assert_eq!(
            ranked(&asked("GET", "/items/7?page=1"), &newest),
            [5, 4, 3, 2]
        );
    }

    #[test]
    fn says_which_query_parameter_differs() {
        let rules = FingerprintRules {
            ignore_query: vec!["ts".into()],
            ..FingerprintRules::default()
        };
        let differs = query_differences("page=1&a=1&ts=1", "page=2&b=%41&ts=2", &rules);
        assert_eq!(
            differs,
            [
                "query: a=1, recorded without",
                "query: without b, recorded b=A",
                "query: page=1, recorded page=2"
            ]
        );
        assert!(query_differences("x=1&y=2", "y=2&x=%31", &rules).is_empty());
    }

    #[test]
    fn an_empty_store_and_a_strange_path_get_hints_of_their_own() {
        let asked = asked("GET", "/a");
        assert!(hint(&asked, &[], &[]).contains("holds no record"));
        let mut newest = vec![summary(1, "GET", "/a"); 7];
        assert!(hint(&asked, &[], &newest).contains("newest 7 records"));
        newest[0].sealed = Some("k".into());
        let closed = hint(&asked, &[], &newest);
        assert!(
            closed.contains("1 of the newest 7") && closed.contains("\"k\""),
            "{closed}"
        );
        assert_eq!(shared_segments("/", "/"), 0);
        assert_eq!(shared_segments("/a/b/c", "/a/x/c"), 66);
    }
}
