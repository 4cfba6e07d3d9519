//! One attempt to connect: name, TCP, proxy, TLS, WebSocket, CONNECT, CONNACK, all within one limit.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::codec::{self, ConnAck, Packet};
use crate::error::{ConfigError, ConnectError, TlsError};
use crate::options::MqttConfig;
use crate::session::Terms;
use crate::transport::WebSocketError;

use super::handshake::Opening;
use super::tls;
use super::transport::{self, LowWater, Route, Stage, Stream};

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) low_water: LowWater,
    /// What came right after CONNACK.
    pub(super) received: BytesMut,
    pub(super) terms: Terms,
}

/// `server` is the name and the port.
pub(super) async fn open(
    config: &MqttConfig,
    server: (&str, u16),
    opening: &Opening,
) -> Result<Connection, ConnectError> {
    let route = Route::new(server, config.proxy.as_ref());
    let mut stage = Stage::Resolving;
    let timeout = config.connect_timeout;
    let result = tokio::time::timeout(timeout, attempt(config, &route, opening, &mut stage)).await;
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
    opening: &Opening,
    stage: &mut Stage,
) -> Result<Connection, ConnectError> {
    let (mut stream, low_water) = transport::open(config, route, stage).await?;
    *stage = Stage::Connack;
    let mut buf = BytesMut::with_capacity(1024);
    codec::encode(&opening.connect_packet(config), config.protocol, &mut buf)
        .map_err(ConfigError::Connect)?;
    let sent = async {
        stream.write_all(&buf).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| closed(route, error))?;
    buf.clear();
    let connack = await_connack(&mut stream, &mut buf, route, config).await?;
    Ok(Connection {
        stream,
        low_water,
        received: buf,
        terms: opening.accepted(&connack, config.protocol)?,
    })
}

async fn await_connack(
    stream: &mut Stream,
    buf: &mut BytesMut,
    route: &Route<'_>,
    config: &MqttConfig,
) -> Result<ConnAck, ConnectError> {
    loop {
        let decoded = codec::decode(buf, config.max_packet_size, config.protocol);
        match decoded.map_err(ConnectError::Protocol)? {
            Some(Packet::ConnAck(connack)) => return Ok(connack),
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
