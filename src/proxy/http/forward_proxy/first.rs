//! The first bytes of a tunnel: what the client begins with decides what is done with it.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::super::super::detect::Rewound;
use super::super::super::dial::{H2, HTTP1};
use super::super::super::stream::Stream;
use super::super::super::tls::Hello;

/// The protocols that are offered to clients, and to whose TLS it is listened.
pub(super) const OFFERED: &[&[u8]] = &[H2, HTTP1];
/// The first byte of a TLS record that begins a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// The longest beginning that is read before it is decided, in bytes.
const MAX_FIRST: usize = 64 << 10;
/// Words of HTTP that no other protocol's client begins with, and HTTP/2's preface.
const METHODS: [&[u8]; 12] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
    b"PROPFIND ",
    b"REPORT ",
    b"PRI * HTTP/2",
];

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TLS, asking for a name or none; whether HTTP may be in it.
    Tls(Option<Arc<str>>, Speaks),
    Http,
    Other,
}

/// What a client would speak under TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP, or it does not say.
    Http,
    /// Something else.
    Other,
}

/// What a connection begins with; `None` where more bytes are needed.
fn kind(bytes: &[u8]) -> Option<Kind> {
    let first = *bytes.first()?;
    if first == TLS_HANDSHAKE {
        return match Hello::read(bytes, OFFERED) {
            Hello::Whole {
                server_name,
                speaks,
            } => {
                let speaks = match speaks {
                    true => Speaks::Http,
                    false => Speaks::Other,
                };
                Some(Kind::Tls(server_name, speaks))
            }
            Hello::None => Some(Kind::Other),
            Hello::Incomplete if bytes.len() < MAX_FIRST => None,
            Hello::Incomplete => Some(Kind::Other),
        };
    }
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Some(Kind::Http);
    }
    let open = METHODS.iter().any(|method| method.starts_with(bytes));
    (!open).then_some(Kind::Other)
}

/// A connection whose first bytes were read, and stay.
pub(super) struct Seen {
    bytes: BytesMut,
    stream: Stream,
    ended: bool,
}

impl Seen {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            bytes: BytesMut::new(),
            stream,
            ended: false,
        }
    }

    /// Reads until there is something; an end counts. Cancel safe.
    pub(super) async fn more(&mut self) -> io::Result<()> {
        self.bytes.reserve(4096);
        self.ended |= self.stream.read_buf(&mut self.bytes).await? == 0;
        Ok(())
    }

    /// What it begins with, as soon as that is clear; `None` where it ends without a byte. Cancel safe.
    pub(super) async fn kind(&mut self) -> io::Result<Option<Kind>> {
        loop {
            if let Some(kind) = kind(&self.bytes) {
                return Ok(Some(kind));
            }
            if self.ended {
                return Ok((!self.bytes.is_empty()).then_some(Kind::Other));
            }
            self.more().await?;
        }
    }

    /// Whether nothing has come yet, not even the end.
    pub(super) fn is_silent(&self) -> bool {
        self.bytes.is_empty() && !self.ended
    }

    /// The connection with its first bytes in front again.
    pub(super) fn rewound(self) -> Rewound<Stream> {
        Rewound::new(self.bytes, self.stream)
    }

    /// The same as a stream like any other.
    pub(super) fn into_stream(self) -> Stream {
        if self.bytes.is_empty() {
            return self.stream;
        }
        Stream::Within(Box::new(self.rewound()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_its_first_word() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"G", None),
            (b"GET", None),
            (b"GET ", Some(Kind::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Kind::Http)),
            (b"PRI * X", Some(Kind::Other)),
            (b"EHLO mail", Some(Kind::Other)),
            (b"SSH-2.0-x", Some(Kind::Other)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Kind::Other)),
            (b"PING\r\n", Some(Kind::Other)),
            (&[0, 0, 0, 8], Some(Kind::Other)),
            (&[22], None),
            (&[22, 3, 1, 2, 0], None),
        ] {
            assert_eq!(kind(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_beginning_that_has_no_end_is_decided_all_the_same() {
        let mut bytes = vec![22, 3, 1, 0xff, 0xff];
        bytes.resize(MAX_FIRST - 1, 0);
        assert_eq!(kind(&bytes), None);
        bytes.push(0);
        assert_eq!(kind(&bytes), Some(Kind::Other));
    }
}
