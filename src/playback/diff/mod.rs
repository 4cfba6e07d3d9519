//! What differs between a recorded response and a replayed one.
//!
//! Pure: two snapshots in, a bounded list of differences out. Content codings are undone where the bytes differ;
//! what cannot be decoded is compared as bytes, with a note.

mod coding;
mod json;
mod text;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::record::{Digest, Headers};

pub(super) use json::escaped;

/// How much of a value a difference shows.
const VALUE_BYTES: usize = 200;
/// How much of a path it shows.
const PATH_BYTES: usize = 500;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Header fields that may differ, by name without case.
    pub ignore_headers: Vec<String>,
    /// JSON pointers (RFC 6901) that may differ with all beneath them; `*` stands for any one name or index.
    pub ignore_json: Vec<String>,
    /// Whether the values of cookies that are set may differ; their names are compared in any case.
    pub cookie_values: CookieValues,
    /// How many differences of one response are kept.
    pub max_differences: usize,
}

/// Whether a `Set-Cookie` may have another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CookieValues {
    /// It may: sessions differ from run to run.
    #[default]
    Ignored,
    /// It may not.
    Compared,
}

impl Default for Rules {
    fn default() -> Self {
        let ignored = [
            "date",
            "server",
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
        ];
        Self {
            ignore_headers: ignored.map(String::from).into(),
            ignore_json: Vec::new(),
            cookie_values: CookieValues::default(),
            max_differences: 100,
        }
    }
}

/// A response as far as it is compared.
#[derive(Debug, Clone)]
pub struct Snapshot<'a> {
    /// The status code.
    pub status: u16,
    /// Header fields.
    pub headers: &'a Headers,
    /// The content.
    pub content: Content,
}

/// The content of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Too large to be looked into.
    Digest {
        /// Of all bytes.
        digest: Digest,
        /// How many.
        bytes: u64,
    },
    /// Not known: only a part was kept.
    Unknown,
    /// There is none by rule (HEAD): what the head says of it is compared.
    None,
}

impl Content {
    const fn is_known(&self) -> bool {
        matches!(self, Self::Whole(_) | Self::Digest { .. })
    }

    fn digest(&self) -> Option<(Digest, u64)> {
        match self {
            Self::Whole(bytes) => Some((Digest::of(bytes), bytes.len() as u64)),
            Self::Digest { digest, bytes } => Some((*digest, *bytes)),
            Self::Unknown | Self::None => None,
        }
    }
}

/// Which part of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The status code.
    Status,
    /// A header field.
    Header,
    /// The content.
    Body,
    /// What the server said in a stream.
    Stream,
}

/// How it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Only in the replayed response.
    Added,
    /// Only in the recorded response.
    Removed,
    /// In both, with other values.
    Changed,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which part.
    pub part: Part,
    /// Where in it: empty for the status, a field's name, a JSON pointer, `line 3`, `byte 17`, `length`,
    /// `close`.
    pub path: String,
    /// How.
    pub change: Change,
    /// What was recorded, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// What came now, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<String>,
}

impl Difference {
    pub(super) fn new(
        part: Part,
        path: &str,
        recorded: Option<&str>,
        replayed: Option<&str>,
    ) -> Self {
        Self {
            part,
            path: path[..path.floor_char_boundary(PATH_BYTES)].to_owned(),
            change: match (recorded, replayed) {
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
                _ => Change::Changed,
            },
            recorded: recorded.map(shortened),
            replayed: replayed.map(shortened),
        }
    }

    /// The path with `*` for each index and line or byte number: what differences are grouped by.
    #[must_use]
    pub fn group(&self) -> String {
        let numeric = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !matches!(self.part, Part::Body | Part::Stream) {
            return self.path.clone();
        }
        if self.path.starts_with('/') {
            let segments = self.path.split('/');
            let general = segments.map(|s| if numeric(s) { "*" } else { s });
            return general.collect::<Vec<_>>().join("/");
        }
        match self.path.split_once(' ') {
            Some((kind, number)) if numeric(number) => format!("{kind} *"),
            _ => self.path.clone(),
        }
    }
}

/// The outcome of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What differs; empty where the responses are the same.
    pub differences: Vec<Difference>,
    /// Differences over the limit, which are not listed.
    pub more: usize,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differences.is_empty() && self.more == 0
    }
}

/// Differences in the making, up to a limit.
struct Found {
    comparison: Comparison,
    limit: usize,
}

impl Found {
    fn push(&mut self, difference: Difference) {
        if self.comparison.differences.len() < self.limit {
            self.comparison.differences.push(difference);
        } else {
            self.comparison.more += 1;
        }
    }

    fn note(&mut self, text: impl Into<String>) {
        self.comparison.notes.push(text.into());
    }
}

/// Compares two responses.
#[must_use]
pub fn compare(recorded: &Snapshot<'_>, replayed: &Snapshot<'_>, rules: &Rules) -> Comparison {
    let mut found = Found {
        comparison: Comparison::default(),
        limit: rules.max_differences,
    };
    if recorded.status != replayed.status {
        let (old, new) = (recorded.status.to_string(), replayed.status.to_string());
        found.push(Difference::new(Part::Status, "", Some(&old), Some(&new)));
    }
    let content_compared = recorded.content.is_known() && replayed.content.is_known();
    compare_headers(recorded, replayed, content_compared, rules, &mut found);
    if content_compared {
        compare_content(recorded, replayed, rules, &mut found);
    } else if recorded.content == Content::Unknown || replayed.content == Content::Unknown {
        found.note("body not compared: only a part of it was kept");
    }
    found.comparison
}

fn compare_headers(
    recorded: &Snapshot<'_>,
    replayed: &Snapshot<'_>,
    content_compared: bool,
    rules: &Rules,
    found: &mut Found,
) {
    let (old, new) = (
        fields(recorded.headers, content_compared, rules),
        fields(replayed.headers, content_compared, rules),
    );
    let text = |values: &Vec<String>| values.join(", ");
    for (name, values) in &old {
        match new.get(name) {
            None => found.push(Difference::new(
                Part::Header,
                name,
                Some(&text(values)),
                None,
            )),
            Some(others) if others != values => {
                let (old, new) = (text(values), text(others));
                found.push(Difference::new(Part::Header, name, Some(&old), Some(&new)));
            }
            Some(_) => {}
        }
    }
    for (name, values) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        found.push(Difference::new(
            Part::Header,
            name,
            None,
            Some(&text(values)),
        ));
    }
}

/// The values of each compared field, by its name in lower case.
fn fields(
    headers: &Headers,
    content_compared: bool,
    rules: &Rules,
) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers.iter() {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let ignored = rules
            .ignore_headers
            .iter()
            .any(|i| i.eq_ignore_ascii_case(&name));
        if ignored || (content_compared && name == "content-length") || name.starts_with("qproxy-")
        {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        let shown = match (name.as_str(), rules.cookie_values) {
            ("set-cookie", CookieValues::Ignored) => value.split('=').next().unwrap_or_default(),
            _ => value.trim(),
        };
        let shown = shown.to_owned();
        fields.entry(name).or_default().push(shown);
    }
    fields
}

fn compare_content(
    recorded: &Snapshot<'_>,
    replayed: &Snapshot<'_>,
    rules: &Rules,
    found: &mut Found,
) {
    let (old, new) = match (&recorded.content, &replayed.content) {
        (Content::Whole(old), Content::Whole(new)) => (old, new),
        (old, new) => return compare_digests(old, new, found),
    };
    if old == new {
        return;
    }
    let coding = |side: &Snapshot<'_>| {
        let coding = side.headers.first("content-encoding").cloned();
        coding.filter(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    };
    let (old_coding, new_coding) = (coding(recorded), coding(replayed));
    let undone = |coding: &Option<Bytes>, content: &Bytes| match coding {
        None => Some(content.clone()),
        Some(coding) => coding::decoded(coding, content).map(Bytes::from),
    };
    let kind = recorded.headers.first("content-type");
    match (undone(&old_coding, old), undone(&new_coding, new)) {
        (Some(old), Some(new)) => compare_decoded(&old, &new, kind, rules, found),
        _ => {
            let coding = old_coding.or(new_coding).unwrap_or_default();
            let coding = shortened(&String::from_utf8_lossy(&coding));
            found.note(format!(
                "body compared as bytes: cannot undo content-encoding {coding}"
            ));
            text::compare_bytes(old, new, found);
        }
    }
}

fn compare_decoded(old: &[u8], new: &[u8], kind: Option<&Bytes>, rules: &Rules, found: &mut Found) {
    if old == new {
        return;
    }
    if kind.is_some_and(|kind| is_json(kind))
        && let (Ok(old), Ok(new)) = (serde_json::from_slice(old), serde_json::from_slice(new))
    {
        return json::compare(&old, &new, &rules.ignore_json, found);
    }
    match (std::str::from_utf8(old), std::str::from_utf8(new)) {
        (Ok(old), Ok(new)) => text::compare_lines(old, new, found),
        _ => text::compare_bytes(old, new, found),
    }
}

fn compare_digests(old: &Content, new: &Content, found: &mut Found) {
    let (Some((old, old_bytes)), Some((new, new_bytes))) = (old.digest(), new.digest()) else {
        return;
    };
    if old == new {
        return;
    }
    found.note("body compared by its digest: it is larger than what is looked into");
    if old_bytes == new_bytes {
        let hex = |digest: Digest| format!("{:032x}", u128::from_be_bytes(*digest.as_be_bytes()));
        let (old, new) = (hex(old), hex(new));
        found.push(Difference::new(
            Part::Body,
            "digest",
            Some(&old),
            Some(&new),
        ));
    } else {
        let (old, new) = (format!("{old_bytes} bytes"), format!("{new_bytes} bytes"));
        found.push(Difference::new(
            Part::Body,
            "length",
            Some(&old),
            Some(&new),
        ));
    }
}

/// Whether a `Content-Type` is JSON (RFC 8259, RFC 6839 section 3.1).
pub(super) fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || essence == b"text/json" || essence.ends_with(b"+json")
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(VALUE_BYTES);
    let ellipsis = if end < text.len() { "…" } else { "" };
    format!("{}{ellipsis}", &text[..end])
}

#[cfg(test)]
mod tests;
