//! Which service a request is for, by its host and the beginning of its path.
//!
//! The first route that fits is taken; what fits none is for the listener's own service. Paths are compared as
//! they came, segment by segment and undecoded: a route is no access control.

use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;

use crate::service_discovery::Pool;

/// Requests that go to a service of their own.
#[derive(Debug, Clone)]
pub struct Route {
    /// The host without its port, or `*.` and a domain for every host under it; `None` for any.
    pub host: Option<Arc<str>>,
    /// What the path begins with, up to the end of a segment; `/` for any.
    pub path: Arc<str>,
    /// The service's name in records and topics.
    pub service: Arc<str>,
    /// Its endpoints.
    pub pool: Arc<Pool>,
}

impl Route {
    /// Whether a request is for this service.
    pub(super) fn takes(&self, head: &Parts) -> bool {
        let host = || host(head).unwrap_or_default();
        fits_path(&self.path, head.uri.path())
            && self
                .host
                .as_deref()
                .is_none_or(|wanted| fits_host(wanted, host()))
    }
}

/// The host that a request names, with its port.
fn host(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str().rsplit('@').next().unwrap_or_default()),
        None => head.headers.get(HOST)?.to_str().ok(),
    }
}

/// Whether a host, with or without its port, is the one that is wanted: by name, `*.` and a domain, or `*`.
pub(super) fn fits_host(wanted: &str, host: &str) -> bool {
    let end = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(bracket) => bracket + 2,
        None => host.rfind(':').unwrap_or(host.len()),
    };
    let host = host[..end].trim_end_matches('.');
    match wanted.strip_prefix('*') {
        Some(domain) => {
            let start = host
                .len()
                .checked_sub(domain.len())
                .filter(|start| *start > 0);
            start
                .and_then(|start| host.get(start..))
                .is_some_and(|end| end.eq_ignore_ascii_case(domain))
        }
        None => host.eq_ignore_ascii_case(wanted),
    }
}

fn fits_path(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || prefix.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_up_to_the_end_of_a_segment() {
        for (prefix, path, fits) in [
            ("/", "/anything", true),
            ("/", "*", true),
            ("/api", "/api", true),
            ("/api", "/api/", true),
            ("/api/", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api", "/", false),
            ("/api", "/API", false),
        ] {
            assert_eq!(fits_path(prefix, path), fits, "{prefix} {path}");
        }
    }

    #[test]
    fn a_host_fits_without_case_and_port() {
        for (wanted, host, fits) in [
            ("shop.test", "SHOP.test:81", true),
            ("shop.test", "shop.test.", true),
            ("shop.test", "a.shop.test", false),
            ("*.shop.test", "a.SHOP.test:1", true),
            ("*.shop.test", "a.b.shop.test", true),
            ("*.shop.test", "shop.test", false),
            ("*.shop.test", ".shop.test", false),
            ("*.shop.test", "xshop.test", false),
            ("[::1]", "[::1]:80", true),
            ("[::1]", "[::2]:80", false),
            ("*.é", "x", false),
            ("*", "x:1", true),
            ("*", "[::1]:1", true),
        ] {
            assert_eq!(fits_host(wanted, host), fits, "{wanted} {host}");
        }
    }
}
