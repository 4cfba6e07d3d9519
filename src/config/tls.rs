//! What the `tls` of a listener and the TLS keys towards upstreams come to.

use std::path::PathBuf;

use super::file::Tls;
use super::resolve::Resolver;
use super::settings::{ClientAuth, ListenerTls, TlsFiles, UpstreamTls};

/// The keys of a proxy's section that concern TLS with its upstreams.
pub(super) struct UpstreamForm {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) insecure_skip_verify: Option<bool>,
}

impl Resolver {
    pub(super) fn tls(&mut self, key: &str, form: Option<Tls>) -> Option<ListenerTls> {
        let form = form?;
        for (name, given) in [("tls_cert", &form.tls_cert), ("tls_key", &form.tls_key)] {
            if given.is_none() {
                self.wrong(format!("{key}.tls.{name}"), "is missing");
            }
        }
        let clients = match (form.client_auth.as_deref(), form.client_ca) {
            (None, None) => ClientAuth::None,
            (None | Some("required"), Some(ca)) => ClientAuth::Required(ca),
            (Some("optional"), Some(ca)) => ClientAuth::Optional(ca),
            (Some("required" | "optional"), None) => {
                let message = "is missing: `client_auth` needs the authority that clients' certificates are by";
                self.wrong(format!("{key}.tls.client_ca"), message);
                ClientAuth::None
            }
            (Some(other), _) => {
                let message = format!("`{other}` must be required or optional");
                self.wrong(format!("{key}.tls.client_auth"), message);
                ClientAuth::None
            }
        };
        Some(ListenerTls {
            files: TlsFiles {
                cert: form.tls_cert?,
                key: form.tls_key?,
            },
            clients,
        })
    }

    pub(super) fn upstream_tls(&mut self, key: &str, form: UpstreamForm) -> UpstreamTls {
        let insecure_skip_verify = form.insecure_skip_verify.unwrap_or(false);
        if insecure_skip_verify && form.ca.is_some() {
            let message = "stands beside `upstream_ca`, which would not be looked at: keep one";
            self.wrong(format!("{key}.insecure_skip_verify"), message);
        }
        let identity = match (form.cert, form.key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (given, _) => {
                let missing = if given.is_some() { "key" } else { "cert" };
                let message = "is missing: a client certificate and its key belong together";
                self.wrong(format!("{key}.upstream_{missing}"), message);
                None
            }
        };
        UpstreamTls {
            ca: form.ca,
            identity,
            insecure_skip_verify,
        }
    }
}
