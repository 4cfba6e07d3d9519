//! What a client speaks, told by its first bytes: HTTP/2 begins with a fixed preface, HTTP/1.1 cannot.
//!
//! Where TLS has agreed on a protocol by ALPN nothing is looked at. The bytes that were looked at go on to
//! whoever reads next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::dial::{H2, Spoken};

/// What every HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most heads fit in it, so that looking costs no read of its own.
const FIRST_READ: usize = 1024;

/// A stream that gives the bytes that were looked at once more.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    first: Bytes,
    io: S,
}

/// Waits until it is clear what a client speaks; `None` where it leaves before that.
pub(super) async fn http<S>(
    mut io: S,
    agreed: Option<&[u8]>,
) -> io::Result<Option<(Rewound<S>, Spoken)>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if agreed == Some(H2) {
        let first = Bytes::new();
        return Ok(Some((Rewound { first, io }, Spoken::Http2)));
    }
    let mut first = BytesMut::with_capacity(FIRST_READ);
    loop {
        if io.read_buf(&mut first).await? == 0 {
            if first.is_empty() {
                return Ok(None);
            }
            // Not even a preface: HTTP/1.1 knows best what to say of a head that breaks off.
            return Ok(Some((Rewound::new(first, io), Spoken::Http1)));
        }
        let length = first.len().min(PREFACE.len());
        if first[..length] != PREFACE[..length] {
            return Ok(Some((Rewound::new(first, io), Spoken::Http1)));
        }
        if length == PREFACE.len() {
            return Ok(Some((Rewound::new(first, io), Spoken::Http2)));
        }
    }
}

impl<S> Rewound<S> {
    pub(super) fn new(first: BytesMut, io: S) -> Self {
        let first = first.freeze();
        Self { first, io }
    }

    /// What has not been given again yet, and the stream.
    pub(super) fn into_parts(self) -> (Bytes, S) {
        (self.first, self.io)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..length]);
        self.first.advance(length);
        if self.first.is_empty() {
            // Gives the memory back.
            self.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is made of `bytes` that come in two parts, and what can be read afterwards.
    async fn detect(bytes: &[u8], split: usize) -> Option<(Spoken, Vec<u8>)> {
        let (mut client, server) = tokio::io::duplex(4096);
        let (one, two) = bytes.split_at(split);
        client.write_all(one).await.unwrap();
        let detecting = tokio::spawn(http(server, None));
        tokio::task::yield_now().await;
        client.write_all(two).await.unwrap();
        drop(client);
        let (mut stream, spoken) = detecting.await.unwrap().unwrap()?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        Some((spoken, all))
    }

    #[tokio::test]
    async fn every_split_of_the_first_bytes_is_told_apart_and_given_on() {
        for (bytes, spoken) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest"[..], Spoken::Http2),
            (b"GET / HTTP/1.1\r\n\r\n", Spoken::Http1),
            (b"PROPFIND / HTTP/1.1\r\n\r\n", Spoken::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Spoken::Http1),
            (b"PRI", Spoken::Http1),
        ] {
            for split in 0..bytes.len() {
                assert_eq!(detect(bytes, split).await, Some((spoken, bytes.to_vec())));
            }
        }
        assert_eq!(detect(b"", 0).await, None);
    }

    #[tokio::test]
    async fn what_alpn_agreed_on_needs_no_look() {
        let (_client, server) = tokio::io::duplex(16);
        let (_, spoken) = http(server, Some(b"h2")).await.unwrap().unwrap();
        assert_eq!(spoken, Spoken::Http2);
    }
}
