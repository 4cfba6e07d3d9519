//! Why a broker could not be started.

use std::net::SocketAddr;

/// A broker that could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is reachable from other machines and anyone could connect.
    #[error(
        "refused to listen on {address}: other machines can reach it, so both app_id and token are required; \
         set both, or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A limit has a value with which no client could be served.
    #[error("limit {name} is {value}, must be {expected}")]
    Limit {
        /// The field of [`crate::Limits`].
        name: &'static str,
        /// What it was set to.
        value: u128,
        /// What is allowed.
        expected: &'static str,
    },
    /// The system refused the address (taken, not ours, no permission).
    #[error("could not listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
