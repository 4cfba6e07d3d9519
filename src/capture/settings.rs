//! What is copied and how much of it: the part of the config that can change while traffic flows.
//!
//! Rules are looked at on the proxy's path, so they are parsed once and match without allocation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HOST};

/// Live settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Whether anything is copied.
    pub enabled: bool,
    /// The share of exchanges that is copied, 0 to 1.
    pub sample: f64,
    /// What is kept of each body, in bytes; the rest is counted and digested only.
    pub max_body_bytes: u64,
    /// Where not empty: only what one of these matches is copied.
    pub include: Vec<Rule>,
    /// What one of these matches is not copied.
    pub exclude: Vec<Rule>,
    /// Header fields whose values are masked, lower case.
    pub redact_headers: Vec<Arc<str>>,
    /// JSON pointers (RFC 6901) into JSON bodies whose values are masked; `*` stands for any member or index.
    pub redact_json: Vec<Arc<str>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            sample: 1.0,
            max_body_bytes: 64 << 20,
            include: Vec::new(),
            exclude: Vec::new(),
            redact_headers: Vec::new(),
            redact_json: Vec::new(),
        }
    }
}

/// One rule: every part that is not empty must match, by one of its alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Methods, compared as they stand.
    pub methods: Vec<String>,
    /// Paths: with `*` a pattern over the whole path, otherwise a prefix that ends at a `/`.
    pub paths: Vec<Glob>,
    /// Hosts, without case; with `*` a pattern.
    pub hosts: Vec<Glob>,
    /// Statuses.
    pub statuses: Vec<StatusMatch>,
    /// How the response's media type starts, e.g. `image/`.
    pub content_types: Vec<String>,
}

/// A setting that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}")]
pub struct InvalidSetting {
    /// What was given.
    pub text: String,
    /// What was wanted.
    pub what: &'static str,
}

/// A text, or a pattern in which each `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl From<&str> for Glob {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Glob {
    fn is_pattern(&self) -> bool {
        self.0.contains('*')
    }

    /// Matches the whole text, without ASCII case.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, t));
                    p += 1;
                }
                Some(c) if c.eq_ignore_ascii_case(&text[t]) => {
                    p += 1;
                    t += 1;
                }
                _ => match retry {
                    Some((after, from)) => {
                        retry = Some((after, from + 1));
                        (p, t) = (after, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|c| *c == b'*')
    }

    fn matches_path(&self, path: &str) -> bool {
        if self.is_pattern() {
            return self.matches(path);
        }
        let prefix = self.0.trim_end_matches('/');
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// A status, `404`, or a class of them, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusMatch {
    /// This one.
    Exact(u16),
    /// All of a hundred.
    Class(u16),
}

impl StatusMatch {
    fn matches(self, status: u16) -> bool {
        match self {
            Self::Exact(exact) => exact == status,
            Self::Class(class) => class == status / 100,
        }
    }
}

impl FromStr for StatusMatch {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSetting {
            text: text.to_owned(),
            what: "status such as `404` or `5xx`",
        };
        let (digits, class) = match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            Some(digit) => (digit, true),
            None => (text, false),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        match (class, digits.parse::<u16>()) {
            (true, Ok(class @ 1..=9)) => Ok(Self::Class(class)),
            (false, Ok(status @ 100..=999)) => Ok(Self::Exact(status)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for StatusMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl Rule {
    fn matches_request(&self, method: &str, host: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m == method))
            && (self.hosts.is_empty() || self.hosts.iter().any(|h| h.matches(host)))
            && (self.paths.is_empty() || self.paths.iter().any(|p| p.matches_path(path)))
    }

    fn needs_response(&self) -> bool {
        !self.statuses.is_empty() || !self.content_types.is_empty()
    }

    fn matches_response(&self, status: u16, content_type: &str) -> bool {
        let starts = |prefix: &String| {
            content_type
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        (self.statuses.is_empty() || self.statuses.iter().any(|s| s.matches(status)))
            && (self.content_types.is_empty() || self.content_types.iter().any(starts))
    }
}

/// The parts of a request that rules look at.
pub(super) struct RequestParts<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
}

impl Settings {
    fn has_rules(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// Whether the exchange may be kept, judged by the request alone: only a sure no is a no.
    pub(super) fn may_keep_request(&self, head: &http::request::Parts) -> bool {
        if !self.has_rules() {
            return true;
        }
        let host = head
            .uri
            .authority()
            .map_or_else(|| text(&head.headers, &HOST), http::uri::Authority::as_str);
        let method = head.method.as_str();
        let path = head.uri.path();
        let matches = |rule: &Rule| rule.matches_request(method, host, path);
        let included = self.include.is_empty() || self.include.iter().any(matches);
        let excluded = |rule: &Rule| !rule.needs_response() && matches(rule);
        included && !self.exclude.iter().any(excluded)
    }

    /// Whether the exchange is kept, now that the response's head is known.
    pub(super) fn keeps(&self, request: &RequestParts<'_>, status: u16, head: &HeaderMap) -> bool {
        if !self.has_rules() {
            return true;
        }
        let content_type = text(head, &CONTENT_TYPE);
        let matches = |rule: &Rule| {
            rule.matches_request(request.method, request.host, request.path)
                && rule.matches_response(status, content_type)
        };
        (self.include.is_empty() || self.include.iter().any(matches))
            && !self.exclude.iter().any(matches)
    }

    /// Whether rules look at exchanges at all.
    pub(super) fn judges(&self) -> bool {
        self.has_rules()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str) -> http::request::Parts {
        let request = http::Request::builder().method(method).uri(uri);
        request
            .header("host", "Shop.test")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    #[test]
    fn globs_match_runs_and_prefixes_end_at_a_slash() {
        for (pattern, path, yes) in [
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/", "/anything", true),
            ("*.png", "/a/b.png", true),
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/d", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbx", false),
        ] {
            assert_eq!(
                Glob::from(pattern).matches_path(path),
                yes,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn only_a_sure_no_drops_before_the_response() {
        let images = Rule {
            content_types: vec!["image/".into()],
            ..Rule::default()
        };
        let health = Rule {
            paths: vec!["/health".into()],
            ..Rule::default()
        };
        let settings = Settings {
            exclude: vec![images, health],
            ..Settings::default()
        };
        assert!(settings.may_keep_request(&head("GET", "/logo")));
        assert!(!settings.may_keep_request(&head("GET", "/health/live")));
        let mut answer = HeaderMap::new();
        answer.insert(CONTENT_TYPE, "Image/png".parse().unwrap());
        let parts = RequestParts {
            method: "GET",
            host: "",
            path: "/logo",
        };
        assert!(!settings.keeps(&parts, 200, &answer));
        answer.insert(CONTENT_TYPE, "text/html".parse().unwrap());
        assert!(settings.keeps(&parts, 200, &answer));
    }

    #[test]
    fn include_by_status_waits_for_the_response() {
        let failures = Rule {
            statuses: vec!["5xx".parse().unwrap(), "404".parse().unwrap()],
            hosts: vec!["shop.*".into()],
            ..Rule::default()
        };
        let settings = Settings {
            include: vec![failures],
            ..Settings::default()
        };
        assert!(settings.may_keep_request(&head("GET", "/")));
        let parts = RequestParts {
            method: "GET",
            host: "shop.test",
            path: "/",
        };
        let keeps = |status| settings.keeps(&parts, status, &HeaderMap::new());
        assert!(keeps(503) && keeps(404) && !keeps(200));
    }

    #[test]
    fn refuses_what_is_no_status() {
        for bad in ["", "xx", "0xx", "99", "1000", "+20", "4x", "é"] {
            assert!(bad.parse::<StatusMatch>().is_err(), "{bad}");
        }
    }
}
