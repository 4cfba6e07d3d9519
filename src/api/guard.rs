//! Who may ask: the bearer token, the `Host` check against DNS rebinding, the `Origin` check for changes.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};

use super::error::Error;
use super::router::Shared;

/// How callers are told from strangers.
#[derive(Debug)]
pub(super) enum Guard {
    /// Whoever knows the token.
    Token(SecretString),
    /// Whoever is on this machine and calls it by one of these names (lower case, without port).
    Hosts(Vec<String>),
}

/// Whether a client can send it (RFC 6750 section 2.1, taken widely).
pub(super) fn is_usable_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

impl Guard {
    pub(super) fn new(token: Option<SecretString>, allowed: &[String], listen: IpAddr) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None => {
                let own = [
                    "localhost".to_owned(),
                    "127.0.0.1".to_owned(),
                    "::1".to_owned(),
                ];
                let configured = allowed
                    .iter()
                    .map(|name| host_name(name).to_ascii_lowercase());
                let listen = listen.to_string();
                Self::Hosts(own.into_iter().chain([listen]).chain(configured).collect())
            }
        }
    }

    /// The dashboard's own files hold nothing secret, and without them nobody could type the token in.
    pub(super) fn admits_to_page(&self, headers: &HeaderMap) -> Result<(), Error> {
        match self {
            Self::Token(_) => Ok(()),
            Self::Hosts(names) => check_host(names, headers),
        }
    }

    pub(super) fn admits(&self, method: &Method, headers: &HeaderMap) -> Result<(), Error> {
        match self {
            Self::Token(token) => check_token(token, headers)?,
            Self::Hosts(names) => check_host(names, headers)?,
        }
        if method.is_safe() {
            return Ok(());
        }
        check_origin(headers)
    }
}

/// Refuses whom the guard does not admit to the API.
pub(super) async fn api(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match shared.guard.admits(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_token(token: &SecretString, headers: &HeaderMap) -> Result<(), Error> {
    let sent = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, sent)| sent.trim_start_matches(' '));
    match sent {
        Some(sent) if equal(sent.as_bytes(), token.expose_secret().as_bytes()) => Ok(()),
        _ => Err(Error::Unauthorized),
    }
}

/// Compares in a time that depends on what was sent, never on how much of it is right.
fn equal(sent: &[u8], token: &[u8]) -> bool {
    let mut difference = u8::from(sent.len() != token.len());
    for (at, byte) in sent.iter().enumerate() {
        difference |= std::hint::black_box(byte ^ token[at % token.len()]);
    }
    std::hint::black_box(difference) == 0
}

fn check_host(names: &[String], headers: &HeaderMap) -> Result<(), Error> {
    // Without the field it is no browser (RFC 9112 section 3.2), and rebinding needs one.
    let Some(host) = headers.get(header::HOST) else {
        return Ok(());
    };
    let host = String::from_utf8_lossy(host.as_bytes());
    let name = host_name(&host);
    if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        Ok(())
    } else {
        Err(Error::Host(name.to_owned()))
    }
}

fn check_origin(headers: &HeaderMap) -> Result<(), Error> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    let authority = origin
        .to_str()
        .ok()
        .and_then(|value| value.split_once("://"));
    match (authority, host) {
        (Some((_, authority)), Some(host)) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Error::Origin),
    }
}

/// A `Host` value without its port and brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        // A bare IPv6 address, as it may stand in the configuration, has more than one colon.
        None if host.matches(':').count() > 1 => host,
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn headers(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    fn hosts(allowed: &[&str]) -> Guard {
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        Guard::new(None, &allowed, Ipv4Addr::new(127, 0, 0, 9).into())
    }

    #[test]
    fn token_must_be_equal_to_the_last_byte() {
        let guard = Guard::new(Some("s3cret".into()), &[], Ipv4Addr::LOCALHOST.into());
        let admits = |value: &str| {
            let fields = headers(&[(header::AUTHORIZATION, value)]);
            guard.admits(&Method::GET, &fields).is_ok()
        };
        assert!(admits("Bearer s3cret") && admits("bearer s3cret"));
        let wrong = [
            "Bearer s3cre",
            "Bearer s3crets",
            "Bearer s3cretS3cret",
            "Bearer ",
            "Bearer",
        ];
        assert!(wrong.iter().all(|value| !admits(value)));
        assert!(!admits("Basic s3cret") && !admits("Bearer s3crets3cret"));
        assert!(guard.admits(&Method::GET, &HeaderMap::new()).is_err());
    }

    #[test]
    fn only_own_names_are_a_host() {
        let guard = hosts(&["Proxy.internal", "fd00::1"]);
        let admits = |value: &str| {
            guard
                .admits(&Method::GET, &headers(&[(header::HOST, value)]))
                .is_ok()
        };
        for own in [
            "localhost:8090",
            "LOCALHOST",
            "127.0.0.1:1",
            "[::1]:8090",
            "127.0.0.9",
        ] {
            assert!(admits(own), "{own}");
        }
        assert!(admits("proxy.internal:80") && admits("[fd00::1]:8090"));
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil",
            "[::2]",
            "",
        ] {
            assert!(!admits(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_foreign_page_may_not_change_anything() {
        let guard = hosts(&[]);
        let admits = |method: &Method, origin: &str| {
            let fields = headers(&[(header::HOST, "localhost:8090"), (header::ORIGIN, origin)]);
            guard.admits(method, &fields).is_ok()
        };
        assert!(admits(&Method::DELETE, "http://localhost:8090"));
        assert!(!admits(&Method::DELETE, "http://evil.example"));
        assert!(!admits(&Method::POST, "null"));
        assert!(
            admits(&Method::GET, "http://evil.example"),
            "reading is held back by the browser"
        );
    }
}
