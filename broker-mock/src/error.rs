//! Why a broker could not be started.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// A file of the TLS set-up cannot be read, or is no PEM of its kind.
    #[error("could not read a {what} from {path}")]
    TlsFile {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key cannot be used, or not together.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
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
