//! `api`: who may ask this node what.

use secrecy::ExposeSecret;

use crate::config::Environment;
use crate::config::file::Api;
use crate::config::settings::ApiSettings;

use super::{API_PORT, Resolver};

impl Resolver {
    pub(super) fn api(&mut self, form: Api, environment: &Environment) -> ApiSettings {
        let listen = self.listen("api", form.host, form.port, API_PORT);
        let token = environment.api_token.clone().or(form.token);
        if token.is_none() && !listen.is_loopback() {
            let message = format!(
                "the API on `{listen}` could be reached by others: set `api.token`, or listen on 127.0.0.1"
            );
            self.wrong("api.host", message);
        }
        if token.as_ref().is_some_and(|token| {
            let token = token.expose_secret();
            token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic())
        }) {
            self.wrong(
                "api.token",
                "must be one or more visible ASCII characters without spaces",
            );
        }
        ApiSettings {
            listen,
            token,
            allowed_hosts: form.allowed_hosts.unwrap_or_default(),
        }
    }
}
