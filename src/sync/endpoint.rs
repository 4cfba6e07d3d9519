//! The MQTT server on which both sides meet: where it is, and how to say what is wrong with it.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;

use qproxy_mqtt::codec::{ReasonCode, Version};
use qproxy_mqtt::error::{ConnectError, TlsError};
use qproxy_mqtt::options::{MqttConfig, Proxy, TlsOptions, Transport};
use secrecy::{ExposeSecret, SecretString};

/// Where the server is and who we are to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
    /// Travels as MQTT user name.
    pub app_id: Option<String>,
    /// Travels as MQTT password.
    pub token: Option<SecretString>,
    /// Which version is spoken.
    pub protocol: Version,
    /// Keep alive in seconds.
    pub keep_alive: u16,
    /// What carries the packets.
    pub transport: Transport,
    /// The proxy before the server.
    pub proxy: Option<Proxy>,
}

/// TLS towards the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate chain and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Protocols to offer.
    pub alpn: Vec<String>,
}

impl Tls {
    /// Whether the files can be used, as of now: each connection reads them again.
    ///
    /// # Errors
    /// What a connection would fail with before it says anything to the server.
    pub fn check(&self) -> Result<(), TlsError> {
        self.options().check()
    }

    fn options(&self) -> TlsOptions {
        TlsOptions {
            ca: self.ca.clone(),
            client_certificate: self.client_certificate.clone(),
            server_name: None,
            alpn: self.alpn.clone(),
        }
    }
}

impl Endpoint {
    /// MQTT 3.1.1 over plain TCP without credentials, keep alive 30 s.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            tls: None,
            app_id: None,
            token: None,
            protocol: Version::V311,
            keep_alive: 30,
            transport: Transport::default(),
            proxy: None,
        }
    }

    /// The client library's settings for one connection.
    #[must_use]
    pub(super) fn client_config(&self, client_id: String) -> MqttConfig {
        let token = self.token.as_ref();
        MqttConfig {
            client_id,
            host: self.host.clone(),
            port: self.port,
            protocol: self.protocol,
            keep_alive: self.keep_alive,
            app_id: self.app_id.clone(),
            token: token.map(|token| token.expose_secret().to_owned()),
            tls: self.tls.as_ref().map(Tls::options),
            transport: self.transport.clone(),
            proxy: self.proxy.clone(),
            ..MqttConfig::default()
        }
    }

    /// One line for a failed attempt: what failed, where, and what to look at.
    #[must_use]
    pub fn explain(&self, error: &ConnectError) -> String {
        let mut line = format!("MQTT server {self}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            source = cause.source();
        }
        if let Some(hint) = hint(error, self.tls.is_some()) {
            line.push_str("; ");
            line.push_str(hint);
        }
        line
    }
}

fn hint(error: &ConnectError, tls: bool) -> Option<&'static str> {
    match error {
        ConnectError::Resolve { .. } => Some("check `peer.host`"),
        ConnectError::Tcp { .. } => Some("is the server running, and `peer.port` right?"),
        ConnectError::Refused(said) => match said.reason {
            ReasonCode::BadCredentials | ReasonCode::NotAuthorized => {
                Some("check `mqtt.app_id` and `mqtt.token`")
            }
            _ => None,
        },
        ConnectError::Tls(TlsError::Alpn { .. }) => Some("check `mqtt.alpn`"),
        ConnectError::Tls(_) => Some("check `peer.tls` and `mqtt.ca`"),
        ConnectError::Closed { .. } | ConnectError::Protocol(_) if !tls => {
            Some("does the server expect TLS there (`peer.tls`)?")
        }
        ConnectError::Closed { .. } | ConnectError::Protocol(_) => Some("is that an MQTT port?"),
        ConnectError::Proxy(_) => Some("check `mqtt.proxy`"),
        ConnectError::WebSocket(_) => Some("check `mqtt.transport` and `mqtt.path`"),
        _ => None,
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn says_where_and_what_to_look_at() {
        let endpoint = Endpoint::new("broker", 1883);
        let refused = ConnectError::Refused(ReasonCode::BadCredentials.into());
        let line = endpoint.explain(&refused);
        assert!(
            line.contains("broker:1883") && line.contains("mqtt.token"),
            "{line}"
        );
        let unknown = ConnectError::Resolve {
            host: "broker".into(),
            source: Some(Arc::new(std::io::Error::other("no such name"))),
        };
        let line = endpoint.explain(&unknown);
        assert!(
            line.contains("no such name") && line.contains("peer.host"),
            "{line}"
        );
    }

    #[test]
    fn a_token_does_not_print() {
        let endpoint = Endpoint {
            token: Some("hunter2".to_owned().into()),
            ..Endpoint::new("::1", 1)
        };
        assert!(!format!("{endpoint:?}{endpoint}").contains("hunter2"));
        assert_eq!(endpoint.to_string(), "[::1]:1");
    }
}
