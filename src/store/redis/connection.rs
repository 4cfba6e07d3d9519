//! The one door to Redis: a single server or a cluster, the same to everything behind it.
//!
//! Both connections reconnect by themselves; a command that was under way when the link broke fails, and
//! whoever sent it sends it again.

use std::fmt;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, RedisError, RedisFuture,
    TlsCertificates, Value,
};

use super::{Config, InvalidConfig};
use crate::store::Error;

/// Where Redis is, with what it takes to log in; never printed whole.
#[derive(Clone)]
pub struct Server(Kind);

#[derive(Clone)]
enum Kind {
    Single(Box<ConnectionInfo>),
    Cluster(Vec<ConnectionInfo>),
}

impl Server {
    /// One server, by its URL: `redis://[user][:password@]host[:port][/db]`, `rediss://` for TLS.
    ///
    /// # Errors
    /// [`InvalidConfig::Url`] where it is none.
    pub fn single(url: &str) -> Result<Self, InvalidConfig> {
        parse(0, url).map(|info| Self(Kind::Single(Box::new(info))))
    }

    /// A cluster, by the URLs of some of its nodes; the rest is found out.
    ///
    /// # Errors
    /// [`InvalidConfig`] where there is none, or one is no URL.
    pub fn cluster<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidConfig> {
        let urls = urls.into_iter().enumerate();
        let nodes: Vec<_> = urls
            .map(|(at, url)| parse(at, url))
            .collect::<Result<_, _>>()?;
        if nodes.is_empty() {
            return Err(InvalidConfig::NoNode);
        }
        Ok(Self(Kind::Cluster(nodes)))
    }

    /// Into how many shards a new store is cut: a cluster's load is spread, a single server needs just one.
    pub(super) const fn usual_shards(&self) -> u16 {
        match self.0 {
            Kind::Single(_) => 1,
            Kind::Cluster(_) => 16,
        }
    }
}

/// The addresses, without credentials.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Single(info) => info.addr().fmt(f),
            Kind::Cluster(nodes) => {
                for (at, info) in nodes.iter().enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { "," }, info.addr())?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

fn parse(at: usize, url: &str) -> Result<ConnectionInfo, InvalidConfig> {
    // The library's messages name what is wrong, but never repeat the URL, which may hold a password.
    url.into_connection_info()
        .map_err(|source| InvalidConfig::Url { at, source })
}

/// A connection that all users of a store share; cheap to clone.
#[derive(Clone)]
pub(super) enum Door {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

/// What connects.
pub(super) enum Client {
    Single(Box<redis::Client>),
    Cluster(Box<ClusterClient>),
}

impl Client {
    /// Connects to nobody yet.
    pub(super) fn new(config: &Config) -> Result<Self, RedisError> {
        let certificates = config.ca_pem.clone().map(|root| TlsCertificates {
            client_tls: None,
            root_cert: Some(root),
        });
        match &config.server.0 {
            Kind::Single(info) => {
                let info = (**info).clone();
                let client = match certificates {
                    Some(certificates) => redis::Client::build_with_tls(info, certificates)?,
                    None => redis::Client::open(info)?,
                };
                Ok(Self::Single(Box::new(client)))
            }
            Kind::Cluster(nodes) => {
                let mut builder = ClusterClientBuilder::new(nodes.clone())
                    .connection_timeout(config.connection_timeout)
                    .response_timeout(config.response_timeout)
                    .retries(3);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                let client = builder.build()?;
                Ok(Self::Cluster(Box::new(client)))
            }
        }
    }
}

impl Door {
    pub(super) async fn open(client: Client, config: &Config) -> Result<Self, RedisError> {
        match client {
            Client::Single(client) => {
                let settings = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(config.connection_timeout))
                    .set_response_timeout(Some(config.response_timeout))
                    .set_max_delay(config.connection_timeout)
                    .set_number_of_retries(2);
                let manager = ConnectionManager::new_with_config(*client, settings).await?;
                Ok(Self::Single(manager))
            }
            Client::Cluster(client) => client.get_async_connection().await.map(Self::Cluster),
        }
    }
}

impl ConnectionLike for Door {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Whether it is of no use to try again with the same settings.
pub(super) fn refuses(error: &RedisError) -> bool {
    let code = |code: Option<&str>| matches!(code, Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    error.kind() == ErrorKind::AuthenticationFailed
        || error.kind() == ErrorKind::InvalidClientConfig
        || code(error.code())
}

/// What a failure means to the caller: out of room, or out of reach.
pub(super) fn failure(address: &str, error: RedisError) -> Error {
    // Of a pipeline's failures the first is enough; there may be one for each of a thousand commands.
    let first = error
        .clone()
        .into_server_errors()
        .and_then(|errors| errors.first().map(|(_, first)| first.clone()));
    let full = |code: &str| code == "OOM" || code == "MISCONF";
    match first {
        Some(first) if full(first.code()) => {
            let details = first.details().unwrap_or("no details given");
            Error::Full(format!("redis at {address}: {} {details}", first.code()))
        }
        Some(first) => Error::Unavailable {
            address: address.to_owned(),
            source: first.to_string().into(),
        },
        None => Error::Unavailable {
            address: address.to_owned(),
            source: Box::new(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_addresses_without_credentials() {
        let server = Server::single("rediss://me:secret@cache.example:6380/2").unwrap();
        assert_eq!(
            format!("{server} {server:?}"),
            "cache.example:6380 Server(cache.example:6380)"
        );
        let server = Server::cluster(["redis://:secret@a:1", "redis://b:2"]).unwrap();
        assert_eq!(server.to_string(), "a:1,b:2");
    }

    #[test]
    fn names_the_url_that_is_none_without_repeating_it() {
        let error = Server::cluster(["redis://a:1", "http://me:secret@b"]).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("number 2") && !text.contains("secret"),
            "{text}"
        );
        assert!(matches!(Server::cluster([]), Err(InvalidConfig::NoNode)));
    }
}
