//! Why a node does not start, by the key that is to blame, and what to do about it.

use std::io;
use std::net::SocketAddr;

use crate::{api, capture, playback, proxy, segment, service_discovery, spool, store, sync};

/// A node that did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host name that leads nowhere.
    #[error("{key}: could not look up `{host}`")]
    Resolve {
        /// The key.
        key: String,
        /// The host.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An address on which it cannot listen.
    #[error("{key}: could not listen on {address}")]
    Listen {
        /// The section of the listener.
        key: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A value that its module refuses.
    #[error("{key}: {message}")]
    Setting {
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// A service's endpoints.
    #[error("{key}")]
    Downstream {
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        source: service_discovery::InvalidEndpoint,
    },
    /// A proxy's listener.
    #[error("{key}")]
    Proxy {
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        source: proxy::Error,
    },
    /// Capture.
    #[error("capture")]
    Capture(#[from] capture::Error),
    /// The recorder's disk queue.
    #[error("spool.path")]
    Spool(#[from] spool::Error),
    /// The embedded store.
    #[error("store.path")]
    Store(#[from] store::Error),
    /// The Redis store.
    #[error("store.redis")]
    Redis(#[from] store::redis::OpenError),
    /// The embedded broker.
    #[error("broker")]
    Broker(#[source] broker_mock::Error),
    /// The connection to the broker.
    #[error("peer")]
    Sync(#[from] sync::Error),
    /// Answering or live replay.
    #[error("playback")]
    Playback(#[from] playback::Error),
    /// The API.
    #[error("api")]
    Api(#[source] api::ServeError),
}

impl Error {
    /// A proxy that did not start; `key` is its section.
    pub(super) fn proxy(key: impl Into<String>, error: proxy::Error) -> Self {
        let key = key.into();
        match error {
            proxy::Error::Bind { address, source } => Self::Listen {
                key,
                address,
                source,
            },
            source => Self::Proxy {
                key: match &source {
                    proxy::Error::Pem { what, .. }
                    | proxy::Error::EmptyPem { what, .. }
                    | proxy::Error::BadCertificate { what, .. } => {
                        let (authority, file) = (authority_key(&key), file_key(what));
                        let in_authority = file == "cert" || file == "key";
                        let section = if in_authority { &authority } else { &key };
                        format!("{section}.{file}")
                    }
                    proxy::Error::Authority { .. } => authority_key(&key),
                    _ => key,
                },
                source,
            },
        }
    }

    /// Whether what is written in the configuration can never work, as opposed to what is in its way now.
    #[must_use]
    pub const fn is_misconfiguration(&self) -> bool {
        match self {
            Self::Setting { .. }
            | Self::Downstream { .. }
            | Self::Proxy { .. }
            | Self::Capture(capture::Error::Limit { .. })
            | Self::Spool(spool::Error::MaxBytes { .. } | spool::Error::Node { .. })
            | Self::Redis(store::redis::OpenError::Config(_))
            | Self::Broker(_)
            | Self::Playback(_)
            | Self::Api(_) => true,
            Self::Resolve { .. }
            | Self::Listen { .. }
            | Self::Capture(_)
            | Self::Spool(_)
            | Self::Store(_)
            | Self::Redis(_)
            | Self::Sync(_) => false,
        }
    }

    /// What the operator can do, where that is not plain from the message.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Listen { key, source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => Some(format!(
                    "stop what uses that port, or set another `{key}.port`"
                )),
                io::ErrorKind::AddrNotAvailable => {
                    Some(format!("set `{key}.host` to an address of this machine"))
                }
                io::ErrorKind::PermissionDenied => Some(format!(
                    "set `{key}.port` to one over 1023, or give the process the right to use that one"
                )),
                _ => None,
            },
            Self::Resolve { key, .. } => Some(format!("correct `{key}`, or the name service")),
            Self::Spool(spool::Error::Log(segment)) => disk_advice("spool.path", segment),
            Self::Spool(spool::Error::State { .. }) => {
                Some("make room there, or set another `spool.path`".to_owned())
            }
            Self::Spool(spool::Error::Node { kept, .. }) => Some(format!(
                "set `node` back to `{kept}` until they are sent, or move that folder away, or set another \
                 `spool.path`"
            )),
            Self::Store(store::Error::Full(_)) => {
                Some("make room there, or set another `store.path`".to_owned())
            }
            Self::Store(store::Error::Io { source, .. })
                if source.kind() != io::ErrorKind::Other =>
            {
                Some(writable("store.path"))
            }
            Self::Redis(store::redis::OpenError::Refused(_)) => {
                Some("correct user and password in the URL, or the ACL there".to_owned())
            }
            _ => None,
        }
    }
}

/// Where the authority of a listener stands.
fn authority_key(section: &str) -> String {
    match section {
        "http" => "http.forward_proxy.ca".to_owned(),
        section => format!("{section}.ca"),
    }
}

/// The key, in a listener's section or its authority's, of the file that holds `what`.
fn file_key(what: &str) -> &'static str {
    match what {
        "authority's certificate" => "cert",
        "authority's key" => "key",
        "certificate" => "tls.tls_cert",
        "private key" => "tls.tls_key",
        "client CA certificate" => "tls.client_ca",
        "upstream client certificate" => "upstream_cert",
        "upstream client key" => "upstream_key",
        _ => "upstream_ca",
    }
}

fn writable(key: &str) -> String {
    format!("set `{key}` to a directory that this user can write to")
}

fn disk_advice(key: &str, error: &segment::Error) -> Option<String> {
    match error {
        segment::Error::Full { .. } => Some(format!("make room there, or set another `{key}`")),
        segment::Error::Io { .. } => Some(writable(key)),
        // It says so itself.
        _ => None,
    }
}

impl From<broker_mock::Error> for Error {
    fn from(error: broker_mock::Error) -> Self {
        match error {
            broker_mock::Error::Bind { address, source } => Self::Listen {
                key: "broker".to_owned(),
                address,
                source,
            },
            other => Self::Broker(other),
        }
    }
}

impl From<api::ServeError> for Error {
    fn from(error: api::ServeError) -> Self {
        match error {
            api::ServeError::Bind { address, source } => Self::Listen {
                key: "api".to_owned(),
                address,
                source,
            },
            other @ api::ServeError::Config(_) => Self::Api(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_of_another_node_is_a_misconfiguration_that_says_what_to_do() {
        let error = Error::Spool(spool::Error::Node {
            node: crate::record::NodeId::new("az2").unwrap(),
            kept: "az1".to_owned(),
            unsent: 7,
            dir: "data/spool".into(),
        });
        assert!(error.is_misconfiguration());
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            source,
            "node is `az2`, but 7 unsent items of node `az1` wait in data/spool"
        );
        let advice = error.advice().unwrap();
        for word in ["`node` back to `az1`", "move that folder", "`spool.path`"] {
            assert!(advice.contains(word), "{advice}");
        }
    }

    #[test]
    fn a_refused_address_names_the_key_and_what_to_do() {
        let listen = |kind: io::ErrorKind| Error::Listen {
            key: "tcp[1]".to_owned(),
            address: ([127, 0, 0, 1], 80).into(),
            source: kind.into(),
        };
        let cases = [
            (io::ErrorKind::AddrInUse, "another `tcp[1].port`"),
            (io::ErrorKind::AddrNotAvailable, "`tcp[1].host`"),
            (io::ErrorKind::PermissionDenied, "over 1023"),
        ];
        for (kind, word) in cases {
            let advice = listen(kind).advice().unwrap();
            assert!(advice.contains(word), "{advice}");
        }
        let error = listen(io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            "tcp[1]: could not listen on 127.0.0.1:80"
        );
        assert!(!error.is_misconfiguration());
    }
}
