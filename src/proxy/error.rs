//! What can go wrong on a proxy's way, and whose fault it is: that picks status, log level and metric label.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;

use crate::record::{Outcome, UpstreamFailure};

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client sent what cannot be served, or left.
    Client,
    /// The upstream failed.
    Upstream,
    /// The proxy itself: its config, or a limit.
    Proxy,
}

/// Why a proxy could not start, or an exchange could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A limit that makes no sense.
    #[error("proxy limit `{name}` must be {wanted}")]
    Limit {
        /// Its name.
        name: &'static str,
        /// What is allowed.
        wanted: &'static str,
    },
    /// A certificate or key file cannot be read.
    #[error("read {what} from {}", path.display())]
    Pem {
        /// Certificate, key or CA.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file without what it should hold.
    #[error("{} holds no {what}", path.display())]
    EmptyPem {
        /// Certificate, key or CA.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate that is none.
    #[error("use {what} from {}", path.display())]
    BadCertificate {
        /// CA or client CA.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<rustls::Error>,
    },
    /// The authorities for client certificates cannot be used.
    #[error("set up the check of client certificates")]
    ClientAuth(#[source] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit each other or TLS.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    /// The operating system's trusted certificates, or those of a CA file, cannot be used.
    #[error("set up TLS towards the upstream")]
    UpstreamTls(#[source] rustls::Error),

    /// A request that no server has to take.
    #[error("{0}")]
    Request(&'static str),
    /// What a reverse proxy does not do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The request's content broke off or is malformed.
    #[error("read the request's content")]
    RequestBody(#[source] hyper::Error),
    /// The request's content is longer than it may be.
    #[error("the request's content is over the limit of {limit} bytes")]
    LargeRequest {
        /// `max_request_bytes`.
        limit: u64,
    },
    /// The client stopped sending in mid-content, while the upstream waited for more.
    #[error("the client did not go on with the request's content in time")]
    SlowRequest,

    /// No connection to the upstream.
    #[error("connect to {upstream}")]
    Connect {
        /// The upstream.
        upstream: Arc<str>,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// No TLS with the upstream.
    #[error("agree on TLS with {upstream}")]
    Handshake {
        /// The upstream.
        upstream: Arc<str>,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The upstream has all the connections that it may have.
    #[error("no more connections to {upstream} are allowed, and {why}")]
    Busy {
        /// The upstream.
        upstream: Arc<str>,
        /// What became of the wait for one of them.
        why: &'static str,
    },
    /// The upstream took too long.
    #[error("{upstream} did not {what} in time")]
    Timeout {
        /// The upstream.
        upstream: Arc<str>,
        /// What it was to do.
        what: &'static str,
    },
    /// The upstream broke off.
    #[error("{upstream} closed the connection before its response was complete")]
    Reset {
        /// The upstream.
        upstream: Arc<str>,
        /// The reason.
        #[source]
        source: hyper::Error,
    },
    /// The upstream does not speak HTTP.
    #[error("{upstream} sent what is not HTTP")]
    Protocol {
        /// The upstream.
        upstream: Arc<str>,
        /// The reason.
        #[source]
        source: hyper::Error,
    },
}

impl Error {
    /// Sorts what hyper's client reports.
    pub(super) fn from_exchange(source: hyper::Error, upstream: &Arc<str>) -> Self {
        let upstream = Arc::clone(upstream);
        if source.is_user() {
            Self::RequestBody(source)
        } else if source.is_parse() || breaks_http2(&source) {
            Self::Protocol { upstream, source }
        } else {
            Self::Reset { upstream, source }
        }
    }

    /// Who is at fault.
    #[must_use]
    pub const fn side(&self) -> Side {
        match self {
            Self::Request(_)
            | Self::Unsupported(_)
            | Self::RequestBody(_)
            | Self::LargeRequest { .. }
            | Self::SlowRequest => Side::Client,
            Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Timeout { .. }
            | Self::Reset { .. }
            | Self::Protocol { .. } => Side::Upstream,
            _ => Side::Proxy,
        }
    }

    /// In which way the upstream failed, where it did.
    #[must_use]
    pub const fn upstream_failure(&self) -> Option<UpstreamFailure> {
        match self {
            Self::Connect { .. } => Some(UpstreamFailure::Connect),
            Self::Handshake { .. } => Some(UpstreamFailure::Tls),
            Self::Timeout { .. } => Some(UpstreamFailure::Timeout),
            Self::Reset { .. } => Some(UpstreamFailure::Reset),
            Self::Protocol { .. } => Some(UpstreamFailure::Protocol),
            _ => None,
        }
    }

    /// Which upstream it was, where it was one.
    #[must_use]
    pub const fn upstream(&self) -> Option<&Arc<str>> {
        match self {
            Self::Connect { upstream, .. }
            | Self::Handshake { upstream, .. }
            | Self::Busy { upstream, .. }
            | Self::Timeout { upstream, .. }
            | Self::Reset { upstream, .. }
            | Self::Protocol { upstream, .. } => Some(upstream),
            _ => None,
        }
    }

    /// The status that the client is answered with (RFC 9110 section 15).
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Request(_) | Self::RequestBody(_) => StatusCode::BAD_REQUEST,
            Self::LargeRequest { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Reset { .. }
            | Self::Protocol { .. } => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code that a gRPC client is told in place of the status.
    #[must_use]
    pub const fn grpc_status(&self) -> u32 {
        match self {
            // CANCELLED
            Self::RequestBody(_) => 1,
            // DEADLINE_EXCEEDED
            Self::Timeout { .. } | Self::SlowRequest => 4,
            // RESOURCE_EXHAUSTED
            Self::LargeRequest { .. } => 8,
            // UNIMPLEMENTED
            Self::Unsupported(_) => 12,
            // UNAVAILABLE
            Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Busy { .. }
            | Self::Reset { .. }
            | Self::Protocol { .. } => 14,
            // INTERNAL, as gRPC's own mapping has it for 400
            _ => 13,
        }
    }

    /// How the record says that it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self.upstream_failure(), self) {
            (Some(failure), _) => Outcome::UpstreamFailed(failure, self.chain().into()),
            (None, Self::RequestBody(source)) if !is_malformed(source) => Outcome::ClientClosed,
            (None, _) if self.side() == Side::Client => Outcome::ClientError(self.chain().into()),
            (None, _) => Outcome::ProxyClosed(self.chain().into()),
        }
    }

    /// The message with all its causes.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Whether a request's content is not framed as it should be, rather than broken off.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether it is our side that found the peer's HTTP/2 wrong (RFC 9113 section 5.4).
fn breaks_http2(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let Some(cause) = cause.and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
        return false;
    };
    let ended = [h2::Reason::NO_ERROR, h2::Reason::CANCEL];
    let wrong = cause
        .reason()
        .is_some_and(|reason| !ended.contains(&reason));
    wrong && !cause.is_remote()
}
