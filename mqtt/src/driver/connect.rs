//! One attempt to connect: name, TCP, proxy, TLS, WebSocket, CONNECT, CONNACK, all within one limit.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::codec::{self, Connect, Packet, ReasonCode, Text};
use crate::error::{ConfigError, ConnectError, TlsError};
use crate::options::MqttConfig;
use crate::transport::WebSocketError;

use super::tls;
use super::transport::{self, Route, Stage, Stream};

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// What came right after CONNACK.
    pub(super) received: BytesMut,
    pub(super) session_present: bool,
}

/// `server` is the name and the port.
pub(super) async fn open(
    config: &MqttConfig,
    server: (&str, u16),
) -> Result<Connection, ConnectError> {
    let route = Route::new(server, config.proxy.as_ref());
    let mut stage = Stage::Resolving;
    let timeout = config.connect_timeout;
    let result = tokio::time::timeout(timeout, attempt(config, &route, &mut stage)).await;
    result.unwrap_or_else(|_| {
        Err(ConnectError::Timeout {
            server: route.to_string(),
            stage: stage.name(),
            timeout,
        })
    })
}

async fn attempt(
    config: &MqttConfig,
    route: &Route<'_>,
    stage: &mut Stage,
) -> Result<Connection, ConnectError> {
    let mut stream = transport::open(config, route, stage).await?;
    *stage = Stage::Connack;
    let mut buf = BytesMut::with_capacity(1024);
    codec::encode(&connect_packet(config), codec::Version::V311, &mut buf)
        .map_err(ConfigError::Connect)?;
    let sent = async {
        stream.write_all(&buf).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| closed(route, error))?;
    buf.clear();
    let session_present =
        await_connack(&mut stream, &mut buf, route, config.max_packet_size).await?;
    Ok(Connection {
        stream,
        received: buf,
        session_present,
    })
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
    stream: &mut Stream,
    buf: &mut BytesMut,
    route: &Route<'_>,
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
        let read = stream.read_buf(buf).await;
        if read.map_err(|error| closed(route, error))? == 0 {
            return Err(ConnectError::Closed {
                server: route.to_string(),
                source: None,
            });
        }
    }
}

/// With TLS 1.3 a server judges the client's certificate only after the handshake: then this is where we hear of it.
pub(super) fn closed(route: &Route<'_>, error: io::Error) -> ConnectError {
    if let Some(error) = WebSocketError::from_io(&error) {
        return ConnectError::WebSocket(error);
    }
    match tls::explain(route.host(), error) {
        TlsError::Io { source, .. } => ConnectError::Closed {
            server: route.to_string(),
            source: Some(source),
        },
        error => ConnectError::Tls(error),
    }
}
