//! Two JSON values, compared by path.

use std::borrow::Cow;

use serde_json::{Number, Value};

use super::{Difference, Found, Part};

/// Adds what differs, each with its JSON pointer; what `ignore` names is passed over.
pub(super) fn compare(old: &Value, new: &Value, ignore: &[String], found: &mut Found) {
    let mut walk = Walk {
        ignore: ignore
            .iter()
            .map(|p| p.split('/').skip(1).collect())
            .collect(),
        at: Vec::new(),
        found,
    };
    walk.values(Some(old), Some(new));
}

/// A name as it stands in a JSON pointer (RFC 6901 section 3).
pub(in crate::playback) fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        name.replace('~', "~0").replace('/', "~1").into()
    } else {
        name.into()
    }
}

struct Walk<'a> {
    ignore: Vec<Vec<&'a str>>,
    at: Vec<String>,
    found: &'a mut Found,
}

impl Walk<'_> {
    /// Recursion is bounded by the depth that the JSON reader accepts.
    fn values(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if self.is_ignored() {
            return;
        }
        match (old, new) {
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                for (name, value) in old {
                    self.step(&escaped(name), Some(value), new.get(name));
                }
                for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                    self.step(&escaped(name), None, Some(value));
                }
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => {
                for index in 0..old.len().max(new.len()) {
                    self.step(&index.to_string(), old.get(index), new.get(index));
                }
            }
            (Some(Value::Number(old)), Some(Value::Number(new))) if same_number(old, new) => {}
            (old, new) if old == new => {}
            (old, new) => self.differs(old, new),
        }
    }

    fn step(&mut self, name: &str, old: Option<&Value>, new: Option<&Value>) {
        self.at.push(name.to_owned());
        self.values(old, new);
        self.at.pop();
    }

    fn differs(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let path = format!("/{}", self.at.join("/"));
        let text = |value: &Value| value.to_string();
        let (old, new) = (old.map(text), new.map(text));
        let difference = Difference::new(Part::Body, &path, old.as_deref(), new.as_deref());
        self.found.push(difference);
    }

    fn is_ignored(&self) -> bool {
        let covers = |pattern: &Vec<&str>| {
            pattern.len() == self.at.len()
                && pattern
                    .iter()
                    .zip(&self.at)
                    .all(|(p, s)| *p == "*" || p == s)
        };
        self.ignore.iter().any(covers)
    }
}

/// 1 and 1.0 are one number (RFC 8259 section 6 leaves it to the reader); large integers are exact.
fn same_number(old: &Number, new: &Number) -> bool {
    let whole = |n: &Number| n.is_i64() || n.is_u64();
    old == new || (!(whole(old) && whole(new)) && old.as_f64() == new.as_f64())
}
