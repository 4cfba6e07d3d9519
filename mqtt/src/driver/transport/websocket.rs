//! MQTT in WebSocket messages (section 6), as a stream of bytes: where a message begins and ends says nothing about
//! packets, as [MQTT-6.0.0-2] has it. Pings are answered as messages are read.
//!
//! What goes out is copied: a client has to mask its payloads (RFC 6455, 5.3), so that nothing can leave from where
//! it lies.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{
    CapacityError, Error as Tungstenite, ProtocolError, SubProtocolError,
};
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::http::{self, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};

use crate::error::ConnectError;
use crate::transport::{WebSocketError, WebSocketOptions};

use super::super::connect::closed;
use super::{Route, Stream};

/// The name of MQTT among the subprotocols [MQTT-6.0.0-3].
const SUBPROTOCOL: &str = "mqtt";
/// The most bytes in one message of ours.
const MESSAGE_BYTES: usize = 64 << 10;
/// A server may put many packets into one message: so many bytes are taken also where no packet may be that large.
const MIN_LIMIT: usize = 64 << 10;
/// Bytes read ahead.
const READ_BYTES: usize = 16 << 10;

/// See the module.
pub(super) struct Socket {
    inner: WebSocketStream<Stream>,
    /// What is left of the message read last.
    rest: Bytes,
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Socket").finish_non_exhaustive()
    }
}

pub(super) async fn connect(
    options: &WebSocketOptions,
    route: &Route<'_>,
    max_packet_size: usize,
    stream: Stream,
) -> Result<Socket, ConnectError> {
    let limit = Some(max_packet_size.max(MIN_LIMIT));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        // Each message goes to the socket at once: the driver has batched already.
        .write_buffer_size(0)
        .max_message_size(limit)
        .max_frame_size(limit);
    let request = request(options, route)?;
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    match opened {
        Ok((inner, _)) => Ok(Socket {
            inner,
            rest: Bytes::new(),
        }),
        Err(error) => Err(refused(error, options, route)),
    }
}

fn request(options: &WebSocketOptions, route: &Route<'_>) -> Result<Request, ConnectError> {
    let authority = route.authority();
    let not_legal = |error: http::Error| {
        ConnectError::WebSocket(WebSocketError::Handshake {
            server: route.to_string(),
            reason: format!("its name cannot stand in a request: {error}"),
        })
    };
    let mut request = Request::builder()
        .uri(format!("ws://{authority}{}", options.path()))
        .header("Host", authority)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .body(())
        .map_err(not_legal)?;
    let headers = request.headers_mut();
    for (name, value) in options.headers() {
        headers.append(name, value.clone());
    }
    headers.insert(
        "Sec-WebSocket-Protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(request)
}

fn refused(error: Tungstenite, options: &WebSocketOptions, route: &Route<'_>) -> ConnectError {
    let (server, path) = (route.to_string(), options.shown_path().to_owned());
    let chosen = |chosen| WebSocketError::Subprotocol {
        server: server.clone(),
        path: path.clone(),
        chosen,
    };
    let error = match error {
        Tungstenite::Io(error) => return closed(route, error),
        Tungstenite::Http(answer) => {
            let status = answer.status().as_u16();
            let hint = hint(status);
            WebSocketError::Status {
                server,
                path,
                status,
                hint,
            }
        }
        Tungstenite::Protocol(ProtocolError::SecWebSocketSubProtocolError(error)) => match error {
            SubProtocolError::NoSubProtocol => chosen("no subprotocol"),
            _ => chosen("another subprotocol than `mqtt`"),
        },
        Tungstenite::Protocol(ProtocolError::HandshakeIncomplete) => {
            return ConnectError::Closed {
                server,
                source: None,
            };
        }
        error => WebSocketError::Handshake {
            server,
            reason: error.to_string(),
        },
    };
    ConnectError::WebSocket(error)
}

fn hint(status: u16) -> &'static str {
    match status {
        200..=299 | 404 | 405 | 426 => "is the path right?",
        300..=399 => "it points elsewhere, and redirections are not followed",
        401 | 403 => "it wants other credentials; is a header missing?",
        400 => "is it a WebSocket that speaks the subprotocol `mqtt`?",
        502..=504 => "what stands before the broker does not reach it",
        _ => "see the log of the server",
    }
}

/// What ended an open WebSocket.
fn broken(error: Tungstenite) -> io::Error {
    match error {
        Tungstenite::Io(error) => error,
        Tungstenite::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let limit = max_size;
            WebSocketError::TooLarge { size, limit }.into_io()
        }
        Tungstenite::ConnectionClosed | Tungstenite::AlreadyClosed => {
            io::ErrorKind::ConnectionAborted.into()
        }
        // The other side is gone without a close frame: to MQTT the plain end of the stream.
        Tungstenite::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        error => WebSocketError::Protocol(error.to_string()).into_io(),
    }
}

/// The end of the stream, with its reason where the server gave one.
fn closed_by(frame: Option<CloseFrame>) -> io::Result<()> {
    match frame {
        None => Ok(()),
        Some(CloseFrame {
            code: CloseCode::Normal | CloseCode::Away,
            ..
        }) => Ok(()),
        Some(CloseFrame { code, reason }) => Err(WebSocketError::Closed {
            code: code.into(),
            reason: reason.to_string(),
        }
        .into_io()),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            let message = match ready!(Pin::new(&mut this.inner).poll_next(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    let error = broken(error);
                    let ended = error.kind() == io::ErrorKind::UnexpectedEof;
                    return Poll::Ready(if ended { Ok(()) } else { Err(error) });
                }
            };
            match message {
                Message::Binary(bytes) => this.rest = bytes,
                Message::Text(_) => return Poll::Ready(Err(WebSocketError::Text.into_io())),
                Message::Close(frame) => return Poll::Ready(closed_by(frame)),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let count = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..count]);
        this.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    /// Everything that was batched goes into one message. Only when the one before has left is the next one taken,
    /// so that no more than one waits here.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut self.get_mut().inner;
        ready!(Pin::new(&mut *inner).poll_ready(context)).map_err(broken)?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut message = BytesMut::with_capacity(total.min(MESSAGE_BYTES));
        for slice in slices {
            let room = MESSAGE_BYTES - message.len();
            message.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let count = message.len();
        let message = Message::Binary(message.freeze());
        Pin::new(inner).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner)
            .poll_flush(context)
            .map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner)
            .poll_close(context)
            .map_err(broken)
    }
}
