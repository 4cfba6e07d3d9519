//! Who may ask a forward proxy, and for what. Pure.

use std::sync::Arc;

use http::header::PROXY_AUTHORIZATION;
use http::uri::Authority;
use http::{HeaderMap, Uri};

use super::super::super::Error;
use super::super::routes::fits_host;
use super::ForwardProxy;
use crate::service_discovery::{Endpoint, Scheme};

/// What the operator has granted.
pub(super) struct Access {
    config: ForwardProxy,
}

impl Access {
    pub(super) fn new(config: &ForwardProxy) -> Self {
        let config = config.clone();
        Self { config }
    }

    /// Whether the client has shown what it has to.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        let Some(wanted) = &self.config.credentials else {
            return Ok(());
        };
        let mut shown = headers.get_all(PROXY_AUTHORIZATION).iter();
        match (shown.next(), shown.next()) {
            (Some(field), None) if wanted.fit(field.as_bytes()) => Ok(()),
            _ => Err(Error::Credentials),
        }
    }

    /// Whether a target may be asked for.
    pub(super) fn allow(&self, target: &Endpoint) -> Result<(), Error> {
        let denied = |why| {
            Err(Error::Denied {
                target: target.authority().into(),
                why,
            })
        };
        let hosts = &self.config.allowed_hosts;
        if !hosts.is_empty() && !names(hosts, target) {
            return denied("`http.forward_proxy.allowed_hosts` does not name its host");
        }
        let mut ports = self.config.allowed_ports.iter();
        if !ports.any(|ports| ports.contains(&target.port())) {
            return denied("`http.forward_proxy.allowed_ports` does not name its port");
        }
        Ok(())
    }

    /// Whether the operator has named this very host, and not just a pattern.
    pub(super) fn names_in_full(&self, target: &Endpoint) -> bool {
        let mut hosts = self.config.allowed_hosts.iter();
        let authority = target.authority();
        hosts.any(|host| !host.starts_with('*') && fits_host(host, &authority))
    }

    /// Whether the tunnel is not to be looked into.
    pub(super) fn passes_through(&self, target: &Endpoint) -> bool {
        names(&self.config.passthrough_hosts, target)
    }

    /// The same by the name that the client asks for under TLS.
    pub(super) fn passes_through_name(&self, name: &str) -> bool {
        let hosts = &self.config.passthrough_hosts;
        hosts.iter().any(|host| fits_host(host, name))
    }
}

fn names(hosts: &[Arc<str>], target: &Endpoint) -> bool {
    let authority = target.authority();
    hosts.iter().any(|host| fits_host(host, &authority))
}

/// Where a CONNECT wants to go: a host and a port, and nothing else (RFC 9110 section 9.3.6).
pub(super) fn connect_target(uri: &Uri) -> Result<Endpoint, Error> {
    let wrong = Error::Request("the target of CONNECT is not host:port (RFC 9110 section 9.3.6)");
    let Some(authority) = uri.authority().filter(|authority| has_port(authority)) else {
        return Err(wrong);
    };
    endpoint(Scheme::Https, authority.as_str()).ok_or(wrong)
}

/// Where a request with an absolute target, or one over HTTP/2, wants to go.
pub(super) fn absolute_target(scheme: &str, authority: &str) -> Result<Endpoint, Error> {
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Error::Unsupported(
            "targets other than http:// are reached through a tunnel: use CONNECT",
        ));
    }
    // What stands before an @ is not sent on (RFC 9110 section 4.2.4).
    let authority = authority.rsplit('@').next().unwrap_or_default();
    endpoint(Scheme::Http, authority).ok_or(Error::Request("the target's authority is no host"))
}

fn endpoint(scheme: Scheme, authority: &str) -> Option<Endpoint> {
    let lower = authority.to_ascii_lowercase();
    format!("{}://{lower}", scheme.as_str()).parse().ok()
}

fn has_port(authority: &Authority) -> bool {
    authority.port_u16().is_some()
}

#[cfg(test)]
mod tests {
    use super::super::Credentials;
    use super::*;

    fn access(change: impl FnOnce(&mut ForwardProxy)) -> Access {
        let mut config = ForwardProxy::default();
        change(&mut config);
        Access::new(&config)
    }

    fn to(text: &str) -> Endpoint {
        connect_target(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn hosts_and_ports_are_those_that_were_granted() {
        let open = access(|_| {});
        for (target, allowed) in [
            ("shop.test:443", true),
            ("shop.test:80", true),
            ("shop.test:1024", true),
            ("shop.test:65535", true),
            ("shop.test:25", false),
            ("shop.test:22", false),
        ] {
            assert_eq!(open.allow(&to(target)).is_ok(), allowed, "{target}");
        }
        let some = access(|config| {
            config.allowed_hosts = vec!["*.shop.test".into(), "[::1]".into(), "bank.test".into()];
            config.allowed_ports = vec![443..=443];
        });
        for (target, allowed) in [
            ("a.shop.test:443", true),
            ("A.Shop.Test:443", true),
            ("bank.test:443", true),
            ("[::1]:443", true),
            ("shop.test:443", false),
            ("bank.test.evil.test:443", false),
            ("bank.test:444", false),
        ] {
            assert_eq!(some.allow(&to(target)).is_ok(), allowed, "{target}");
        }
        assert!(some.names_in_full(&to("bank.test:443")));
        assert!(!some.names_in_full(&to("a.shop.test:443")));
    }

    #[test]
    fn targets_of_connect_are_a_host_and_a_port() {
        assert_eq!(to("Shop.Test:443").authority(), "shop.test:443");
        assert_eq!(to("[::1]:8443").authority(), "[::1]:8443");
        for bad in [
            "shop.test",
            "me@shop.test:443",
            "http://shop.test:443/",
            "/x",
            "shop.test:0",
        ] {
            let Ok(uri) = bad.parse() else { continue };
            let target = connect_target(&uri);
            assert!(bad.starts_with("http") || target.is_err(), "{bad}");
        }
        assert!(connect_target(&"a,b:443".parse().unwrap()).is_err());
    }

    #[test]
    fn absolute_targets_are_http_and_lose_their_user() {
        let target = absolute_target("HTTP", "me:pw@Shop.test").unwrap();
        assert_eq!(target.to_string(), "http://shop.test:80");
        assert_eq!(
            absolute_target("https", "shop.test").unwrap_err().status(),
            501
        );
        assert_eq!(absolute_target("http", "").unwrap_err().status(), 400);
    }

    #[test]
    fn credentials_are_asked_for_once_and_shown_once() {
        let open = access(|_| {});
        let closed = access(|config| config.credentials = Some(Credentials::new("me:pw")));
        let good = "Basic bWU6cHc=".parse::<http::HeaderValue>().unwrap();
        let mut headers = HeaderMap::new();
        assert!(open.admit(&headers).is_ok());
        assert_eq!(closed.admit(&headers).unwrap_err().status(), 407);
        headers.append(PROXY_AUTHORIZATION, good.clone());
        assert!(closed.admit(&headers).is_ok());
        headers.append(PROXY_AUTHORIZATION, good);
        assert!(closed.admit(&headers).is_err());
    }
}
