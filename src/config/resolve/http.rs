//! `http`, its routes, and the listener that answers.

use crate::config::file::{File, Http, RouteForm};
use crate::config::settings::{AnswerSettings, Forwarded, HttpSettings, Mode, RouteSettings};
use crate::config::target;
use crate::config::tls::UpstreamForm;
use crate::config::units::Limit;

use super::{ANSWER_PORT, HTTP_PORT, Resolver, span};

impl Resolver {
    /// `http` is the proxy, but in mode Playback the listener that answers; `playback.http` always answers.
    pub(super) fn listeners(
        &mut self,
        file: &File,
    ) -> (Option<HttpSettings>, Option<AnswerSettings>) {
        let http = file.http.clone();
        let answer = file.playback.http.clone();
        match file.mode {
            Mode::Playback => {
                if let (Some(_), Some(_)) = (&http, &answer) {
                    let message = "stands beside `http`, which is the same listener in mode Playback: keep one";
                    self.wrong("playback.http", message);
                }
                let (key, host, port, tls) = match (http, answer) {
                    (Some(http), _) => ("http", http.host, http.port, http.tls),
                    (None, Some(answer)) => ("playback.http", answer.host, answer.port, answer.tls),
                    (None, None) => return (None, None),
                };
                let listen = self.listen(key, host, port, HTTP_PORT);
                (
                    None,
                    Some(AnswerSettings {
                        listen,
                        tls: self.tls(key, tls),
                    }),
                )
            }
            Mode::Standalone => {
                let answer = answer.unwrap_or_default();
                let listen = self.listen("playback.http", answer.host, answer.port, ANSWER_PORT);
                let tls = self.tls("playback.http", answer.tls);
                (self.http(http), Some(AnswerSettings { listen, tls }))
            }
            Mode::Record | Mode::Forward => (self.http(http), None),
        }
    }

    fn http(&mut self, form: Option<Http>) -> Option<HttpSettings> {
        let form = form?;
        let mut downstream = Vec::new();
        for (key, text) in self.texts("http.downstream", form.downstream) {
            match target::downstream_origin(&text) {
                Ok(origin) => downstream.push(origin),
                Err(message) => self.wrong(key, message),
            }
        }
        let service = self.service("http.service", form.service, "http".to_owned());
        let routes = form.routes.unwrap_or_default().into_iter().enumerate();
        Some(HttpSettings {
            listen: self.listen("http", form.host, form.port, HTTP_PORT),
            downstream,
            forwarded: form.forwarded.unwrap_or(Forwarded::None),
            routes: routes
                .map(|(at, route)| self.route(&format!("http.routes[{at}]"), route, &service))
                .collect(),
            service,
            tls: self.tls("http", form.tls),
            proxy_protocol: form.proxy_protocol.unwrap_or(false),
            upstream_tls: self.upstream_tls(
                "http",
                UpstreamForm {
                    ca: form.upstream_ca,
                    cert: form.upstream_cert,
                    key: form.upstream_key,
                    insecure_skip_verify: form.insecure_skip_verify,
                },
            ),
            max_connections: self.connections("http.max_connections", form.max_connections),
            max_upstream_connections: form
                .max_upstream_connections
                .map(|count| self.connections("http.max_upstream_connections", Some(count))),
            connect_timeout: span(form.connect_timeout, 5),
            response_timeout: span(form.response_timeout, 60),
            body_timeout: span(form.body_timeout, 300),
            write_timeout: span(form.write_timeout, 60),
            max_request_bytes: form
                .max_request_bytes
                .and_then(Limit::get)
                .map(|size| size.0),
        })
    }

    fn route(&mut self, key: &str, form: RouteForm, service: &str) -> RouteSettings {
        if form.host.is_none() && form.path.is_none() {
            self.wrong(key, "needs `host` or `path`: which requests it takes");
        }
        let host = form.host.map(|host| host.to_ascii_lowercase());
        let bare = host
            .as_deref()
            .map(|host| host.strip_prefix("*.").unwrap_or(host));
        let bracketed = |host: &str| {
            let inner = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        };
        if let Some(bare) = bare.filter(|host| !target::is_host(host) && !bracketed(host)) {
            let message = format!("`{bare}` must be a host without its port, or `*.` and a domain");
            self.wrong(format!("{key}.host"), message);
        }
        let path = form.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.contains(['?', '#']) {
            self.wrong(
                format!("{key}.path"),
                format!("`{path}` must begin with a slash, and have no query"),
            );
        }
        let mut downstream = Vec::new();
        for (key, text) in self.texts(&format!("{key}.downstream"), form.downstream) {
            match target::downstream_origin(&text) {
                Ok(origin) => downstream.push(origin),
                Err(message) => self.wrong(key, message),
            }
        }
        RouteSettings {
            host,
            path,
            downstream,
            service: self.service(&format!("{key}.service"), form.service, service.to_owned()),
        }
    }
}
