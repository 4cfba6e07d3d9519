//! Token carry-over: a value that was handed out in a recorded response is replaced, in later requests, by
//! the one that the target handed out in its place.
//!
//! Values are found in `Set-Cookie` and in JSON bodies, and replaced in `Authorization` and `Cookie`. A
//! request that uses a value still on its way waits until the exchange that hands it out is done; since a
//! request only ever waits for one that was read before it, there is no circle.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use crate::record::Headers;

/// Values that are longer are no tokens.
const MAX_VALUE_BYTES: usize = 16 * 1024;

/// What is carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// JSON fields that hold tokens: a name stands for that field at any depth, a pointer
    /// (`/data/session`, RFC 6901) for one place.
    pub fields: Vec<String>,
    /// Cookies whose values are left as they were recorded.
    pub keep_cookies: Vec<String>,
    /// How many values are remembered; the oldest is forgotten first. 0 carries nothing over.
    pub max_values: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            fields: ["token", "access_token", "id_token"]
                .map(String::from)
                .into(),
            keep_cookies: Vec::new(),
            max_values: 10_000,
        }
    }
}

/// Where a response hands out a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Cookie(String),
    Json(String),
}

/// A recorded value as later requests use it: a cookie with its name, or a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Used {
    Cookie(String, String),
    Token(String),
}

#[derive(Debug, Clone)]
enum State {
    /// The exchange that hands it out has been read, but is not done.
    Awaited,
    Known(String),
}

/// Head and content of a response, as far as values are looked for in them.
#[derive(Clone, Copy)]
pub(super) struct Handed<'a> {
    pub(super) headers: &'a Headers,
    pub(super) content: &'a [u8],
}

/// The values of one run.
pub(super) struct Carry {
    rules: Rules,
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
    states: HashMap<Used, State>,
    order: VecDeque<Used>,
}

impl Carry {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            table: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Announces what a recorded response hands out, before its request is sent.
    pub(super) fn expect(&self, recorded: Handed<'_>) {
        if self.rules.max_values == 0 {
            return;
        }
        let values = self.rules.values(recorded);
        if values.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        for (place, value) in values {
            let used = used_as(&place, value);
            if !table.states.contains_key(&used) {
                table.set(used, State::Awaited, self.rules.max_values);
            }
        }
    }

    /// Learns from the two responses to one request; gives the JSON pointers at which values were learned.
    pub(super) fn settle(&self, recorded: Handed<'_>, replayed: Handed<'_>) -> Vec<String> {
        if self.rules.max_values == 0 {
            return Vec::new();
        }
        let values = self.rules.values(recorded);
        if values.is_empty() {
            return Vec::new();
        }
        let new: HashMap<Place, String> = self.rules.values(replayed).into_iter().collect();
        let mut learned = Vec::new();
        {
            let mut table = self.table.lock();
            for (place, value) in values {
                let used = used_as(&place, value);
                match new.get(&place) {
                    Some(new) => {
                        table.set(used, State::Known(new.clone()), self.rules.max_values);
                        if let Place::Json(pointer) = place {
                            learned.push(pointer);
                        }
                    }
                    None => table.forget_awaited(&used),
                }
            }
        }
        self.changed.notify_waiters();
        learned
    }

    /// Nobody waits any longer for what this response was to hand out.
    pub(super) fn abandon(&self, recorded: Handed<'_>) {
        let values = self.rules.values(recorded);
        if values.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        for (place, value) in values {
            table.forget_awaited(&used_as(&place, value));
        }
        drop(table);
        self.changed.notify_waiters();
    }

    /// Forgets everything, e.g. between two rounds.
    pub(super) fn clear(&self) {
        *self.table.lock() = Table::default();
        self.changed.notify_waiters();
    }

    /// Waits until no value that `headers` use is on its way, at most so long.
    pub(super) async fn ready(&self, headers: &Headers, limit: Duration) {
        let uses = uses(headers);
        if uses.is_empty() {
            return;
        }
        let settled = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if !self.table.lock().awaits_any(&uses) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(limit, settled).await.is_err() {
            tracing::debug!("a value to carry over did not come in time");
        }
    }

    /// Replaces what is known; tells how many values.
    pub(super) fn apply(&self, headers: &mut Headers) -> u64 {
        let table = self.table.lock();
        if table.states.is_empty() {
            return 0;
        }
        let mut replaced = 0;
        headers.rewrite(|name, value| {
            let text = std::str::from_utf8(value).ok()?;
            let (new, count) = if name.eq_ignore_ascii_case(b"authorization") {
                table.in_authorization(text)?
            } else if name.eq_ignore_ascii_case(b"cookie") {
                table.in_cookies(text)?
            } else {
                return None;
            };
            replaced += count;
            Some(Bytes::from(new))
        });
        replaced
    }
}

impl Table {
    fn set(&mut self, used: Used, state: State, limit: usize) {
        if self.states.insert(used.clone(), state).is_none() {
            self.order.push_back(used);
            if self.order.len() > limit
                && let Some(oldest) = self.order.pop_front()
            {
                self.states.remove(&oldest);
            }
        }
    }

    /// The key keeps its place in the order, so that the order holds each key once.
    fn forget_awaited(&mut self, used: &Used) {
        if matches!(self.states.get(used), Some(State::Awaited)) {
            self.states.remove(used);
            self.order.retain(|known| known != used);
        }
    }

    fn awaits_any(&self, uses: &[Used]) -> bool {
        uses.iter()
            .any(|used| matches!(self.states.get(used), Some(State::Awaited)))
    }

    fn known(&self, used: &Used) -> Option<&str> {
        match self.states.get(used)? {
            State::Known(value) => Some(value),
            State::Awaited => None,
        }
    }

    fn in_authorization(&self, text: &str) -> Option<(String, u64)> {
        let (scheme, token) = split_authorization(text);
        let new = self.known(&Used::Token(token.to_owned()))?;
        Some((format!("{scheme}{new}"), 1))
    }

    fn in_cookies(&self, text: &str) -> Option<(String, u64)> {
        let mut replaced = 0;
        let cookies: Vec<String> = text
            .split(';')
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let (name, value) = (name.trim(), value.trim());
                let cookie = Used::Cookie(name.to_owned(), value.to_owned());
                let new = self
                    .known(&cookie)
                    .or_else(|| self.known(&Used::Token(value.to_owned())));
                match new {
                    Some(new) => {
                        replaced += 1;
                        format!("{name}={new}")
                    }
                    None => pair.trim().to_owned(),
                }
            })
            .collect();
        (replaced > 0).then(|| (cookies.join("; "), replaced))
    }
}

impl Rules {
    /// Every value that a response hands out, with its place.
    fn values(&self, handed: Handed<'_>) -> Vec<(Place, String)> {
        let mut found = Vec::new();
        for cookie in handed.headers.all("set-cookie") {
            let Ok(text) = std::str::from_utf8(cookie) else {
                continue;
            };
            let pair = text.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let (name, value) = (name.trim(), value.trim());
            if self.keep_cookies.iter().any(|keep| keep == name) {
                continue;
            }
            push(&mut found, Place::Cookie(name.to_owned()), value);
        }
        if let Some(json) = self.json(handed) {
            self.json_values(&json, &mut String::new(), &mut found);
            for pointer in self.fields.iter().filter(|field| field.starts_with('/')) {
                if let Some(value) = json.pointer(pointer).and_then(Value::as_str) {
                    push(&mut found, Place::Json(pointer.clone()), value);
                }
            }
        }
        found
    }

    /// The content where it is JSON and can hold one of the fields at all.
    fn json(&self, handed: Handed<'_>) -> Option<Value> {
        let kind = handed.headers.first("content-type")?;
        if !super::diff::is_json(kind) {
            return None;
        }
        let text = std::str::from_utf8(handed.content).ok()?;
        let named = |field: &String| field.rsplit('/').next().is_some_and(|n| text.contains(n));
        self.fields.iter().any(named).then_some(())?;
        serde_json::from_str(text).ok()
    }

    fn json_values(&self, value: &Value, at: &mut String, found: &mut Vec<(Place, String)>) {
        let here = at.len();
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    at.push('/');
                    at.push_str(&super::diff::escaped(name));
                    match value {
                        Value::String(text) if self.fields.contains(name) => {
                            push(found, Place::Json(at.clone()), text);
                        }
                        _ => self.json_values(value, at, found),
                    }
                    at.truncate(here);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    at.push('/');
                    at.push_str(&index.to_string());
                    self.json_values(value, at, found);
                    at.truncate(here);
                }
            }
            _ => {}
        }
    }
}

fn push(found: &mut Vec<(Place, String)>, place: Place, value: &str) {
    if !value.is_empty() && value.len() <= MAX_VALUE_BYTES {
        found.push((place, value.to_owned()));
    }
}

fn used_as(place: &Place, value: String) -> Used {
    match place {
        Place::Cookie(name) => Used::Cookie(name.clone(), value),
        Place::Json(_) => Used::Token(value),
    }
}

/// Every value that a request uses.
fn uses(headers: &Headers) -> Vec<Used> {
    let mut uses = Vec::new();
    let texts = |name| {
        headers
            .all(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
    };
    for text in texts("authorization") {
        uses.push(Used::Token(split_authorization(text).1.to_owned()));
    }
    for pair in texts("cookie").flat_map(|text| text.split(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        uses.push(Used::Token(value.clone()));
        uses.push(Used::Cookie(name, value));
    }
    uses
}

/// `Bearer abc` as `Bearer ` and `abc`; a value without a scheme is all token.
fn split_authorization(text: &str) -> (&str, &str) {
    match text.find(' ') {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        fields
            .iter()
            .map(|(n, v)| (Bytes::from(*n), Bytes::from(*v)))
            .collect()
    }

    fn login(carry: &Carry, old: &'static str, new: &'static str) -> Vec<String> {
        let json = headers(&[("content-type", "application/json")]);
        let body = |token: &str| format!(r#"{{"user":[{{"access_token":"{token}"}}]}}"#);
        let (old, new) = (body(old), body(new));
        carry.settle(
            Handed {
                headers: &json,
                content: old.as_bytes(),
            },
            Handed {
                headers: &json,
                content: new.as_bytes(),
            },
        )
    }

    #[test]
    fn replaces_tokens_and_cookies_and_nothing_else() {
        let carry = Carry::new(Rules::default());
        assert_eq!(login(&carry, "old", "new"), ["/user/0/access_token"]);
        let old = headers(&[("set-cookie", "sid=1; Path=/"), ("Set-Cookie", "x=1")]);
        let new = headers(&[("set-cookie", "sid=2; Secure")]);
        let handed = |headers| Handed {
            headers,
            content: b"",
        };
        carry.settle(handed(&old), handed(&new));
        let mut request = headers(&[
            ("Authorization", "Bearer old"),
            ("Cookie", "sid=1; other=1; x=1; t=old"),
            ("X-Token", "old"),
        ]);
        assert_eq!(carry.apply(&mut request), 3);
        let expected = headers(&[
            ("Authorization", "Bearer new"),
            ("Cookie", "sid=2; other=1; x=1; t=new"),
            ("X-Token", "old"),
        ]);
        assert_eq!(request, expected);
        carry.clear();
        assert_eq!(carry.apply(&mut request), 0);
    }

    #[test]
    fn a_pointer_names_one_place() {
        let rules = Rules {
            fields: vec!["/data/key".into()],
            ..Rules::default()
        };
        let json = headers(&[("content-type", "application/json; charset=utf-8")]);
        let values = rules.values(Handed {
            headers: &json,
            content: br#"{"data":{"key":"k1"},"key":"k2","token":"t"}"#,
        });
        assert_eq!(values, [(Place::Json("/data/key".into()), "k1".to_owned())]);
    }

    #[test]
    fn remembers_no_more_than_its_limit() {
        let carry = Carry::new(Rules {
            max_values: 10,
            ..Rules::default()
        });
        let json = headers(&[("content-type", "application/json")]);
        for n in 0..1000 {
            let old = format!(r#"{{"token":"old{n}"}}"#);
            let handed = |content| Handed {
                headers: &json,
                content,
            };
            carry.expect(handed(old.as_bytes()));
            if n % 3 == 0 {
                carry.abandon(handed(old.as_bytes()));
            } else {
                carry.settle(handed(old.as_bytes()), handed(br#"{"token":"new"}"#));
            }
            let table = carry.table.lock();
            assert!(table.states.len() <= 10 && table.order.len() == table.states.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_value_on_its_way_but_not_for_ever() {
        let carry = std::sync::Arc::new(Carry::new(Rules::default()));
        let json = headers(&[("content-type", "application/json")]);
        let recorded = Handed {
            headers: &json,
            content: br#"{"user":[{"access_token":"old"}]}"#,
        };
        let request = headers(&[("Authorization", "Bearer old")]);
        let limit = Duration::from_secs(5);
        let start = tokio::time::Instant::now();
        carry.expect(recorded);
        carry.ready(&request, limit).await;
        assert_eq!(start.elapsed(), limit, "nobody answers");
        let waiting = tokio::spawn({
            let (carry, request) = (carry.clone(), request.clone());
            async move { carry.ready(&request, limit).await }
        });
        tokio::task::yield_now().await;
        login(&carry, "old", "new");
        waiting.await.unwrap();
        assert_eq!(start.elapsed(), limit, "woken at once");
    }
}
