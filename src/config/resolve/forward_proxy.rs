//! `http.forward_proxy`: for whom, to where, and what is decrypted.

use std::net::Ipv6Addr;

use secrecy::ExposeSecret;

use crate::config::Environment;
use crate::config::file::{Authority, ForwardProxy};
use crate::config::settings::{Endpoint, ForwardProxySettings, TlsFiles};
use crate::config::target;

use super::{Resolver, span};

const KEY: &str = "http.forward_proxy";
/// What other ports under 1024 are for - mail, remote shells - is not what a proxy of web traffic is for.
const PORTS: [(u16, u16); 3] = [(80, 80), (443, 443), (1024, u16::MAX)];
const HOSTS: u32 = 1000;

impl Resolver {
    pub(super) fn forward_proxy(
        &mut self,
        form: Option<ForwardProxy>,
        listen: &Endpoint,
        environment: &Environment,
    ) -> Option<ForwardProxySettings> {
        let form = form?;
        let credentials = environment.proxy_credentials.clone().or(form.credentials);
        if let Some(text) = &credentials {
            let text = text.expose_secret();
            let (user, _) = text.split_once(':').unwrap_or_default();
            if user.is_empty() || text.chars().any(char::is_control) {
                let key = format!("{KEY}.credentials");
                self.wrong(key, "must be a user name and a password: user:password");
            }
        }
        if credentials.is_none() && form.allowed_hosts.is_none() && !listen.is_loopback() {
            let message = format!(
                "is missing: through a proxy on `{listen}` others could reach anything that this machine can. Name the \
                 hosts, or set `{KEY}.credentials`, or write [\"*\"] for any host"
            );
            self.wrong(format!("{KEY}.allowed_hosts"), message);
        }
        if form.allowed_hosts.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(format!("{KEY}.allowed_hosts"), "lets nobody through");
        }
        if form.allowed_ports.as_ref().is_some_and(Vec::is_empty) {
            self.wrong(format!("{KEY}.allowed_ports"), "lets nobody through");
        }
        let max_hosts = form.max_hosts.unwrap_or(HOSTS);
        if !(1..=100_000).contains(&max_hosts) {
            let message = format!("`{max_hosts}` must be from 1 to 100000");
            self.wrong(format!("{KEY}.max_hosts"), message);
        }
        let ports = form.allowed_ports.map(|ports| {
            let each = ports.into_iter().map(|ports| (ports.first, ports.last));
            each.collect()
        });
        Some(ForwardProxySettings {
            allowed_hosts: self.hosts("allowed_hosts", form.allowed_hosts),
            allowed_ports: ports.unwrap_or_else(|| PORTS.to_vec()),
            credentials,
            passthrough_hosts: self.hosts("passthrough_hosts", form.passthrough_hosts),
            pass_through_refused: form.pass_through_refused.unwrap_or(false),
            ca: self.authority(&format!("{KEY}.ca"), form.ca),
            service: form
                .service
                .map(|name| self.service(&format!("{KEY}.service"), Some(name), String::new())),
            max_hosts: max_hosts as usize,
            idle_timeout: span(form.idle_timeout, 3600),
        })
    }

    /// Certificate and key of an authority.
    pub(super) fn authority(&mut self, key: &str, form: Option<Authority>) -> Option<TlsFiles> {
        let form = form?;
        for (name, given) in [("cert", &form.cert), ("key", &form.key)] {
            if given.is_none() {
                self.wrong(format!("{key}.{name}"), "is missing");
            }
        }
        Some(TlsFiles {
            cert: form.cert?,
            key: form.key?,
        })
    }

    fn hosts(&mut self, name: &str, list: Option<Vec<String>>) -> Vec<String> {
        let list = list.unwrap_or_default().into_iter().enumerate();
        let hosts = list.map(|(at, host)| {
            let host = host.to_ascii_lowercase();
            if host != "*" && !is_pattern(&host) {
                let message = format!(
                    "`{host}` must be a host without its port, `*.` and a domain, or `*` for any host"
                );
                self.wrong(format!("{KEY}.{name}[{at}]"), message);
            }
            host
        });
        hosts.collect()
    }
}

/// A host without its port, or `*.` and a domain.
pub(super) fn is_pattern(text: &str) -> bool {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let inner = bare
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    target::is_host(bare) || inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}
