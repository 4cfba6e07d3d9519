//! A recorded HTTP exchange.

use std::sync::Arc;

use super::{Body, ConnectionId, Flow, Headers, Origin, RecordId, Stream};

/// What was spoken between client and proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1; written `http`.
    Http1,
    /// HTTP/2; written `h2`.
    Http2,
    /// gRPC over HTTP/2; written `grpc`.
    Grpc,
    /// WebSocket; written `ws`.
    WebSocket,
    /// Plain TCP, or TCP under a TLS that the proxy ended; written `tcp`.
    Tcp,
}

impl Protocol {
    /// The name used in topics, JSON, and MessagePack.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Http2 => "h2",
            Self::Grpc => "grpc",
            Self::WebSocket => "ws",
            Self::Tcp => "tcp",
        }
    }

    /// The inverse of [`Protocol::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Http1,
            Self::Http2,
            Self::Grpc,
            Self::WebSocket,
            Self::Tcp,
        ]
        .into_iter()
        .find(|protocol| protocol.as_str() == name)
    }
}

/// Anything that is listed, kept and played back under one id.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An HTTP exchange.
    Exchange(Box<Exchange>),
    /// A TCP or WebSocket stream's summary.
    Stream(Box<Stream>),
}

impl Record {
    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        match self {
            Self::Exchange(exchange) => exchange.id,
            Self::Stream(stream) => stream.id,
        }
    }

    /// The record's place in its recorder's sequence.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Exchange(exchange) => &exchange.origin,
            Self::Stream(stream) => &stream.origin,
        }
    }

    /// The exchange, where it is one.
    #[must_use]
    pub fn as_exchange(&self) -> Option<&Exchange> {
        match self {
            Self::Exchange(exchange) => Some(exchange),
            Self::Stream(_) => None,
        }
    }
}

/// One request and what was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its name.
    pub id: RecordId,
    /// Its place in the recorder's sequence.
    pub origin: Origin,
    /// The service in front of which the proxy stands.
    pub service: Arc<str>,
    /// What was spoken.
    pub protocol: Protocol,
    /// The client connection it came on.
    pub connection: ConnectionId,
    /// The client's address, `ip:port`.
    pub client: Arc<str>,
    /// The upstream's address as configured, `scheme://host:port`; `None` where none was chosen.
    pub upstream: Option<Arc<str>>,
    /// The client's TLS, where the listener ended one.
    pub tls: Option<TlsFacts>,
    /// When the request's head was read, and how long each part took.
    pub timing: Timing,
    /// What was asked.
    pub request: Request,
    /// What the client was answered; `None` where it left before.
    pub response: Option<Response>,
    /// How its content flowed.
    pub flow: Flow,
    /// The stream that followed, where the exchange ended in an upgrade and the stream was copied.
    pub stream: Option<RecordId>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was masked, e.g. `header:authorization`, `json:/user/password`.
    pub redactions: Vec<Arc<str>>,
}

/// A request as it came from the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The method, e.g. `GET` (RFC 9110 section 9).
    pub method: Arc<str>,
    /// The request target as sent (RFC 9112 section 3.2), e.g. `/items?page=2`.
    pub target: Arc<str>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    pub version: Arc<str>,
    /// Header fields.
    pub headers: Headers,
    /// Content.
    pub body: Body,
    /// Trailer fields.
    pub trailers: Headers,
}

impl Request {
    /// Host and port from the `Host` field or an absolute target; empty where there is neither.
    #[must_use]
    pub fn host(&self) -> &str {
        Target(&self.target).host(&self.headers)
    }

    /// The target without scheme, authority and query.
    #[must_use]
    pub fn path(&self) -> &str {
        Target(&self.target).path()
    }

    /// The query without its `?`; empty where there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        Target(&self.target).query()
    }
}

/// The parts of a request target in origin or absolute form (RFC 9112 section 3.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a>(pub(crate) &'a str);

impl<'a> Target<'a> {
    /// Host and port of an absolute target, else from the `Host` field.
    pub(crate) fn host(self, headers: &'a Headers) -> &'a str {
        match self.split() {
            (Some(authority), _) => authority,
            (None, _) => headers
                .first("host")
                .and_then(|host| std::str::from_utf8(host).ok())
                .unwrap_or_default(),
        }
    }

    pub(crate) fn path(self) -> &'a str {
        self.split().1
    }

    pub(crate) fn query(self) -> &'a str {
        self.0.split_once('?').map_or("", |(_, query)| query)
    }

    /// Authority and path. A target that begins with `/` has no authority, whatever stands in its query.
    fn split(self) -> (Option<&'a str>, &'a str) {
        let target = self.0.split('?').next().unwrap_or_default();
        match target.split_once("://") {
            Some((scheme, rest)) if !scheme.starts_with('/') => {
                let at = rest.find('/').unwrap_or(rest.len());
                let path = if at < rest.len() { &rest[at..] } else { "/" };
                (Some(&rest[..at]), path)
            }
            _ => (None, target),
        }
    }
}

/// A response as it went to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The status code, 100 to 999.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Content.
    pub body: Body,
    /// Trailer fields.
    pub trailers: Headers,
    /// Interim responses (1xx) that came first: status and fields.
    pub informational: Vec<(u16, Headers)>,
}

/// Wall and monotonic times of an exchange or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Start by the recorder's wall clock, microseconds since the Unix epoch.
    pub started_us: i64,
    /// Start by the recorder's monotonic clock, microseconds since its epoch began.
    pub monotonic_us: u64,
    /// From start to the end of the request's content, microseconds.
    pub request_end_us: Option<u64>,
    /// From start to the response's head, microseconds.
    pub first_byte_us: Option<u64>,
    /// From start to the end of it all, microseconds.
    pub end_us: u64,
}

/// What is known of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFacts {
    /// Protocol version, e.g. `TLSv1.3`.
    pub version: Arc<str>,
    /// Cipher suite by its IANA name.
    pub cipher: Arc<str>,
    /// The name the client asked for (RFC 6066 section 3).
    pub server_name: Option<Arc<str>>,
    /// The protocol agreed on by ALPN (RFC 7301).
    pub alpn: Option<Arc<str>>,
}

/// How an exchange or a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Both sides ended as the protocol has it.
    Ok,
    /// The client went away first.
    ClientClosed,
    /// The upstream failed.
    UpstreamFailed(UpstreamFailure, Arc<str>),
    /// The request was not one that a server has to take (RFC 9112 section 9.6, say), with what was wrong.
    ClientError(Arc<str>),
    /// The proxy ended it, e.g. at shutdown or a time limit.
    ProxyClosed(Arc<str>),
}

impl Outcome {
    /// The name used in JSON, MessagePack and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientClosed => "client_closed",
            Self::UpstreamFailed(..) => "upstream_failed",
            Self::ClientError(_) => "client_error",
            Self::ProxyClosed(_) => "proxy_closed",
        }
    }
}

/// In which way an upstream failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamFailure {
    /// No connection: refused, unreachable, name unknown.
    Connect,
    /// Its TLS was not acceptable.
    Tls,
    /// It did not answer in time.
    Timeout,
    /// It broke off.
    Reset,
    /// What it sent is not HTTP.
    Protocol,
}

impl UpstreamFailure {
    /// The name used in JSON, MessagePack and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
        }
    }

    /// The inverse of [`UpstreamFailure::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Connect,
            Self::Tls,
            Self::Timeout,
            Self::Reset,
            Self::Protocol,
        ]
        .into_iter()
        .find(|failure| failure.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart_in_both_forms() {
        let mut headers = Headers::default();
        headers.push("Host".into(), "h".into());
        for (target, host, path, query) in [
            ("/a?b=1", "h", "/a", "b=1"),
            ("/go?to=http://x/y", "h", "/go", "to=http://x/y"),
            ("/http://x/y", "h", "/http://x/y", ""),
            ("http://up:1/a?b", "up:1", "/a", "b"),
            ("http://up?b=/c", "up", "/", "b=/c"),
            ("*", "h", "*", ""),
        ] {
            let taken = Target(target);
            assert_eq!(taken.host(&headers), host, "{target}");
            assert_eq!((taken.path(), taken.query()), (path, query), "{target}");
        }
    }
}
