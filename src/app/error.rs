//! Why a node does not start, by the key that is to blame.

use crate::{api, capture, playback, proxy, service_discovery, spool, store, sync};

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
        source: std::io::Error,
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
    Broker(#[from] broker_mock::Error),
    /// The connection to the broker.
    #[error("peer")]
    Sync(#[from] sync::Error),
    /// Answering or live replay.
    #[error("playback")]
    Playback(#[from] playback::Error),
    /// The API.
    #[error("api")]
    Api(#[from] api::ServeError),
}
