//! How the bytes of MQTT get to the peer: `mqtt.transport`, `mqtt.path`, `mqtt.alpn` and `mqtt.proxy`.
//!
//! What a proxy's address has to look like is for the MQTT client to say.

use secrecy::SecretString;
use serde::Deserialize;

use super::file::{Mqtt, PeerForm};
use super::problem::Problem;

/// Where the WebSocket is unless `mqtt.path` says otherwise.
const PATH: &str = "/mqtt";

/// What `mqtt.transport` can say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportForm {
    /// TCP, or with `peer.tls` TLS.
    #[default]
    Tcp,
    /// WebSocket, or with `peer.tls` secure WebSocket.
    WebSocket,
}

/// The way to the peer.
#[derive(Debug, Clone, Default)]
pub struct WaySettings {
    /// The path of the WebSocket, where it is one.
    pub websocket: Option<String>,
    /// Protocols that TLS offers.
    pub alpn: Vec<String>,
    /// The proxy before it; its address may hold a password.
    pub proxy: Option<SecretString>,
}

impl WaySettings {
    /// What is wrong goes to `problems`.
    pub(super) fn resolve(
        form: &Mqtt,
        peer: Option<&PeerForm>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut wrong = |key: &str, message: &str| problems.push(Problem::new(key, message));
        let transport = form.transport.unwrap_or_default();
        let alpn = form.alpn.clone().unwrap_or_default();
        let websocket = match (transport, &form.path) {
            (TransportForm::WebSocket, path) => Some(path.clone().unwrap_or(PATH.to_owned())),
            (TransportForm::Tcp, None) => None,
            (TransportForm::Tcp, Some(_)) => {
                wrong(
                    "mqtt.path",
                    "has no meaning without `\"transport\": \"websocket\"`",
                );
                None
            }
        };
        if let Some(path) = &websocket {
            let legal = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            if !path.starts_with('/') || !legal {
                let message = format!(
                    "`{path}` has to start with `/` and to consist of visible ASCII characters"
                );
                wrong("mqtt.path", &message);
            }
        }
        if !alpn.is_empty() && peer.is_none_or(|peer| peer.tls != Some(true)) {
            wrong(
                "mqtt.alpn",
                "has no meaning without `\"tls\": true` in `peer`",
            );
        }
        if let Some(protocol) = alpn.iter().find(|it| !(1..=255).contains(&it.len())) {
            wrong(
                "mqtt.alpn",
                &format!("`{protocol}` does not have 1 to 255 bytes"),
            );
        }
        if peer.is_none() {
            // The own broker listens for plain TCP, and on this machine.
            if websocket.is_some() {
                wrong("mqtt.transport", "`websocket` needs a `peer`");
            }
            if form.proxy.is_some() {
                wrong("mqtt.proxy", "needs a `peer`");
            }
        }
        Self {
            websocket,
            alpn,
            proxy: form.proxy.clone(),
        }
    }

    /// What a URL to the peer starts with.
    pub(super) fn scheme(&self, tls: bool) -> &'static str {
        match (&self.websocket, tls) {
            (None, false) => "mqtt",
            (None, true) => "mqtts",
            (Some(_), false) => "ws",
            (Some(_), true) => "wss",
        }
    }
}
