//! What can end a part of the bus, by what the caller can do about it.

use crate::{spool, store};

/// A part of the bus that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings of the connection cannot work, or another client took it over.
    #[error("MQTT connection `{client_id}` to {server} cannot go on")]
    Mqtt {
        /// The client id.
        client_id: String,
        /// `host:port`.
        server: String,
        /// What the client said.
        #[source]
        source: Box<qproxy_mqtt::Error>,
    },
    /// The spool cannot be read.
    #[error("could not read the spool")]
    Spool(#[from] spool::Error),
    /// What the store has settled cannot be read.
    #[error("could not read from the store what is settled")]
    Store(#[from] store::Error),
    /// The server refused a subscription that is needed.
    #[error("MQTT server {server} refused the subscription to {filter}; check its access list")]
    Refused {
        /// `host:port`.
        server: String,
        /// The filter.
        filter: String,
    },
}

/// Why a recorder did not take a request to send again.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// The request is not one.
    #[error("not a request to send again: {0}")]
    Invalid(String),
    /// Enough is being sent again already.
    #[error("busy with what others asked for; ask again later")]
    Busy,
    /// The spool cannot be read.
    #[error("could not read the spool")]
    Spool(#[from] spool::Error),
    /// The publisher has stopped.
    #[error("this node does not publish")]
    Stopped,
}

/// An error with all its sources on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
