//! The HTTP API of a node and the dashboard that stands on it.
//!
//! It shows and deletes records, tells how the node fares, and starts replays. It takes no part in recording:
//! when it is slow or down, traffic and capture do not notice. What it needs of the rest of the node comes in
//! through [`Parts`]: a store where there is one, and two small traits that `app` implements.
//!
//! Whoever reaches the API reads recorded traffic. So a public address is refused without a token, and on a
//! loopback address the `Host` field is checked, or any web page could read records by DNS rebinding.

mod server;
mod stall;
mod router;
mod guard;
mod params;
mod records;
mod bodies;
mod status;
mod resources;
mod events;
mod replays;
mod backups;
pub mod dto;
mod error;
mod metrics;
mod pages;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::metrics::Registry;
use crate::store::Store;
use crate::store::embedded::Backups;

pub use error::{Error, InvalidConfig, ServeError};
pub use events::Events;
pub use metrics::Metrics;
pub use replays::{Pace, ReplayRefused, ReplayRequest, Replays};
pub use server::{Running, serve};
pub use status::{Sections, StatusSource};

/// Where the API listens, who may use it, and its limits.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address; a public one needs a token. Default 127.0.0.1:8090.
    pub listen: SocketAddr,
    /// What a client must send as `Authorization: Bearer`; none by default.
    pub token: Option<SecretString>,
    /// `Host` names that are accepted beside the loopback ones where there is no token.
    pub allowed_hosts: Vec<String>,
    /// Open connections; more wait in the system's accept queue. Default 256.
    pub max_connections: usize,
    /// Bytes of a request's content. Default 1 MiB.
    pub max_body_bytes: usize,
    /// Bytes of a request's head. Default 32 KiB.
    pub max_head_bytes: usize,
    /// How long a request's head may take, and how long a connection may be idle. Default 30 s.
    pub head_timeout: Duration,
    /// How long an answer may take to begin. Default 30 s.
    pub request_timeout: Duration,
    /// How long a client may take nothing of an answer before it is cut off. Default 30 s.
    pub stall_timeout: Duration,
    /// Event streams at once. Default 32.
    pub max_event_streams: usize,
    /// How long the pieces of a record may be late before it is called incomplete. Default 10 min.
    pub incomplete_after: Duration,
    /// How long open requests may go on at shutdown. Default 5 s.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8090)),
            token: None,
            allowed_hosts: Vec::new(),
            max_connections: 256,
            max_body_bytes: 1 << 20,
            max_head_bytes: 32 << 10,
            head_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            max_event_streams: 32,
            incomplete_after: Duration::from_secs(600),
            grace: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Checks what could be dangerous or could not work.
    ///
    /// # Errors
    /// [`InvalidConfig`] for a public address without a token, an empty token, and limits of zero.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        match &self.token {
            None if !self.listen.ip().to_canonical().is_loopback() => {
                return Err(InvalidConfig::PublicWithoutToken(self.listen));
            }
            Some(token) if !guard::is_usable_token(token.expose_secret()) => {
                return Err(InvalidConfig::UnusableToken);
            }
            _ => {}
        }
        let limits = [
            ("max_connections", self.max_connections),
            ("max_body_bytes", self.max_body_bytes),
            ("max_event_streams", self.max_event_streams),
        ];
        match limits.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(InvalidConfig::Zero(name)),
            None if self.max_head_bytes < 8192 => {
                Err(InvalidConfig::SmallHead(self.max_head_bytes))
            }
            None => Ok(()),
        }
    }
}

/// What the API needs of the rest of the node.
#[derive(Clone)]
pub struct Parts {
    /// Where the records are; `None` on a node that keeps none (Record, Forward).
    pub store: Option<Arc<dyn Store>>,
    /// How the node fares.
    pub status: Arc<dyn StatusSource>,
    /// Who makes backups of it; `None` where the store has tools of its own for that.
    pub backups: Option<Arc<Backups>>,
    /// Who replays; `None` on a node that cannot.
    pub replays: Option<Arc<dyn Replays>>,
    /// What was stored just now.
    pub events: Events,
    /// The page behind `/metrics`.
    pub registry: Arc<Registry>,
    /// The API's own counters, as registered in `registry`.
    pub metrics: Metrics,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, token: Option<&str>) -> Config {
        Config {
            listen: listen.parse().unwrap(),
            token: token.map(SecretString::from),
            ..Config::default()
        }
    }

    #[test]
    fn a_public_address_needs_a_token() {
        for loopback in [
            "127.0.0.1:0",
            "127.8.8.8:1",
            "[::1]:0",
            "[::ffff:127.0.0.1]:0",
        ] {
            assert!(config(loopback, None).check().is_ok(), "{loopback}");
        }
        for public in ["0.0.0.0:8090", "[::]:8090", "192.0.2.1:80"] {
            let error = config(public, None).check().unwrap_err().to_string();
            assert!(
                error.contains(public) && error.contains("api.token"),
                "{error}"
            );
            assert!(config(public, Some("s3cret")).check().is_ok());
        }
    }

    #[test]
    fn a_token_that_no_header_could_carry_is_refused() {
        for bad in ["", "with space", "line\nbreak", "é"] {
            assert!(config("127.0.0.1:0", Some(bad)).check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_of_zero_are_refused_by_name() {
        let broken = Config {
            max_event_streams: 0,
            ..Config::default()
        };
        let error = broken.check().unwrap_err().to_string();
        assert!(error.contains("max_event_streams"), "{error}");
    }

    #[test]
    fn a_printed_config_does_not_show_the_token() {
        let printed = format!("{:?}", config("127.0.0.1:0", Some("s3cret")));
        assert!(!printed.contains("s3cret"), "{printed}");
    }
}
