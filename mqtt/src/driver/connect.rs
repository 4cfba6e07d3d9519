//! One attempt to connect: name, TCP, TLS, CONNECT, CONNACK, all within one limit.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::client::TlsStream;

use crate::codec::{self, Connect, Packet, ReasonCode, Text};
use crate::error::{ConfigError, ConnectError, TlsError};
use crate::options::MqttConfig;

use super::tls;

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Transport,
    /// What came right after CONNACK.
    pub(super) received: BytesMut,
    pub(super) session_present: bool,
}

/// TCP, bare or in TLS.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// `server` is the name and the port.
pub(super) async fn open(
    config: &MqttConfig,
    server: (&str, u16),
) -> Result<Connection, ConnectError> {
    let mut stage = "name resolution";
    let timeout = config.connect_timeout;
    let result = tokio::time::timeout(timeout, attempt(config, server, &mut stage)).await;
    result.unwrap_or(Err(ConnectError::Timeout { stage, timeout }))
}

async fn attempt(
    config: &MqttConfig,
    server: (&str, u16),
    stage: &mut &'static str,
) -> Result<Connection, ConnectError> {
    let (host, _) = server;
    let addresses = resolve(server).await?;
    *stage = "the TCP connection";
    let stream = reach(&addresses, config).await?;
    let mut stream = match &config.tls {
        None => Transport::Tcp(stream),
        Some(options) => {
            *stage = "the TLS handshake";
            Transport::Tls(Box::new(tls::connect(options, host, stream).await?))
        }
    };
    *stage = "the answer to CONNECT";
    let mut buf = BytesMut::with_capacity(1024);
    codec::encode(&connect_packet(config), codec::Version::V311, &mut buf)
        .map_err(ConfigError::Connect)?;
    stream
        .write_all(&buf)
        .await
        .map_err(|error| closed(host, error))?;
    stream.flush().await.map_err(|error| closed(host, error))?;
    buf.clear();
    let session_present =
        await_connack(&mut stream, &mut buf, host, config.max_packet_size).await?;
    Ok(Connection {
        stream,
        received: buf,
        session_present,
    })
}

async fn resolve(server: (&str, u16)) -> Result<Vec<SocketAddr>, ConnectError> {
    let failed = |source| ConnectError::Resolve {
        host: server.0.to_owned(),
        source,
    };
    let found = lookup_host(server).await;
    let addresses: Vec<_> = found
        .map_err(|error| failed(Some(Arc::new(error))))?
        .collect();
    if addresses.is_empty() {
        Err(failed(None))
    } else {
        Ok(addresses)
    }
}

/// Tries every address, each with its share of the time, so that a silent one does not hide the next.
async fn reach(addresses: &[SocketAddr], config: &MqttConfig) -> Result<TcpStream, ConnectError> {
    let share = config.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = None;
    for &address in addresses {
        let source = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it batches wait for acknowledgements; a system that cannot is no reason to give up.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        };
        last = Some(ConnectError::Tcp {
            address,
            source: Arc::new(source),
        });
    }
    Err(last.expect("resolve gives at least one address"))
}

fn connect_packet(config: &MqttConfig) -> Packet {
    Packet::Connect(Box::new(Connect {
        client_id: Text::from(config.client_id.as_str()),
        clean_session: config.clean_session,
        keep_alive: config.keep_alive,
        will: config.will.clone(),
        username: config.app_id.as_deref().map(Text::from),
        password: config
            .token
            .as_ref()
            .map(|token| Bytes::copy_from_slice(token.as_bytes())),
        properties: None,
        version: codec::Version::V311,
    }))
}

async fn await_connack(
    stream: &mut Transport,
    buf: &mut BytesMut,
    host: &str,
    max_packet_size: usize,
) -> Result<bool, ConnectError> {
    loop {
        match codec::decode(buf, max_packet_size, codec::Version::V311)
            .map_err(ConnectError::Protocol)?
        {
            Some(Packet::ConnAck(connack)) if connack.code == ReasonCode::Success => {
                return Ok(connack.session_present);
            }
            Some(Packet::ConnAck(connack)) => return Err(ConnectError::Refused(connack.code)),
            Some(_) => return Err(ConnectError::NotConnAck),
            None => {}
        }
        if stream
            .read_buf(buf)
            .await
            .map_err(|error| closed(host, error))?
            == 0
        {
            return Err(ConnectError::Closed(None));
        }
    }
}

/// With TLS 1.3 a server judges the client's certificate only after the handshake: then this is where we hear of it.
fn closed(host: &str, error: io::Error) -> ConnectError {
    match tls::explain(host, error) {
        TlsError::Io(error) => ConnectError::Closed(Some(error)),
        error => ConnectError::Tls(error),
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
