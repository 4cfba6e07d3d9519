//! `tcp`: one listener or a list of them.

use crate::config::file::{OneOrMany, Tcp};
use crate::config::settings::{Mode, TcpSettings};
use crate::config::target;
use crate::config::tls::UpstreamForm;

use super::{Resolver, span};

impl Resolver {
    pub(super) fn tcp(&mut self, mode: Mode, forms: Option<OneOrMany<Tcp>>) -> Vec<TcpSettings> {
        let forms = forms
            .map(|forms| forms.0)
            .filter(|_| mode.proxies())
            .unwrap_or_default();
        let many = forms.len() > 1;
        let mut all: Vec<TcpSettings> = Vec::new();
        for (at, form) in forms.into_iter().enumerate() {
            let key = if many {
                format!("tcp[{at}]")
            } else {
                "tcp".to_owned()
            };
            let tcp = self.tcp_listener(&key, form);
            if all.iter().any(|other| other.service == tcp.service) {
                self.wrong(
                    format!("{key}.service"),
                    format!("`{}` stands twice", tcp.service),
                );
            }
            all.push(tcp);
        }
        all
    }

    fn tcp_listener(&mut self, key: &str, form: Tcp) -> TcpSettings {
        let mut downstream = Vec::new();
        for (key, text) in self.texts(&format!("{key}.downstream"), form.downstream) {
            match target::endpoint(&text) {
                Ok(endpoint) => downstream.push(endpoint),
                Err(message) => self.wrong(key, message),
            }
        }
        if form.port.is_none() {
            self.wrong(format!("{key}.port"), "is missing");
        }
        let listen = self.listen(key, form.host, form.port, 0);
        let service = format!("tcp-{}", listen.port);
        TcpSettings {
            service: self.service(&format!("{key}.service"), form.service, service),
            listen,
            downstream,
            balance: form.balance.unwrap_or_default(),
            tls: self.tls(key, form.tls),
            proxy_protocol: form.proxy_protocol.unwrap_or(false),
            upstream_tls: self.upstream_tls(
                key,
                UpstreamForm {
                    ca: form.upstream_ca,
                    cert: form.upstream_cert,
                    key: form.upstream_key,
                    insecure_skip_verify: form.insecure_skip_verify,
                },
            ),
            max_connections: self
                .connections(&format!("{key}.max_connections"), form.max_connections),
            connect_timeout: span(form.connect_timeout, 5),
            idle_timeout: span(form.idle_timeout, 3600),
        }
    }
}
