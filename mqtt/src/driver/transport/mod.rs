//! The way to a stream that MQTT can be spoken on: TCP, a proxy, TLS and WebSocket, each around the one before.

mod http_connect;
mod low_water;
mod socks5;
mod tcp;
#[cfg(feature = "websocket")]
mod websocket;

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ConnectError;
use crate::options::MqttConfig;
use crate::transport::{Proxy, ProxyKind, Transport};

use super::tls;

pub(in crate::driver) use low_water::{LowWater, Tcp};

/// Whatever carries the bytes. A call through the table costs nothing beside the system call behind it.
pub(in crate::driver) trait Wire:
    AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Wire for T {}

pub(in crate::driver) type Stream = Box<dyn Wire>;

/// Where an attempt goes, and through what; prints as both.
#[derive(Debug, Clone, Copy)]
pub(in crate::driver) struct Route<'a> {
    server: (&'a str, u16),
    proxy: Option<&'a Proxy>,
}

impl<'a> Route<'a> {
    pub(in crate::driver) fn new(server: (&'a str, u16), proxy: Option<&'a Proxy>) -> Self {
        Self { server, proxy }
    }

    pub(in crate::driver) fn host(&self) -> &'a str {
        self.server.0
    }

    /// `host:port` as URLs and HTTP write it.
    fn authority(&self) -> String {
        let (host, port) = self.server;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.authority())?;
        match self.proxy {
            None => Ok(()),
            Some(proxy) => write!(formatter, " through {proxy}"),
        }
    }
}

/// What an attempt is at, for the time-out that ends it.
#[derive(Debug, Clone, Copy)]
pub(in crate::driver) enum Stage {
    Resolving,
    Connecting,
    ResolvingProxy,
    ConnectingToProxy,
    Proxy,
    Tls,
    #[cfg(feature = "websocket")]
    WebSocket,
    Connack,
}

impl Stage {
    pub(in crate::driver) fn name(self) -> &'static str {
        match self {
            Self::Resolving => "name resolution",
            Self::Connecting => "the TCP connection",
            Self::ResolvingProxy => "name resolution of the proxy",
            Self::ConnectingToProxy => "the TCP connection to the proxy",
            Self::Proxy => "the answer of the proxy",
            Self::Tls => "the TLS handshake",
            #[cfg(feature = "websocket")]
            Self::WebSocket => "the WebSocket handshake",
            Self::Connack => "the answer to CONNECT",
        }
    }
}

/// Everything below MQTT.
pub(in crate::driver) async fn open(
    config: &MqttConfig,
    route: &Route<'_>,
    stage: &mut Stage,
) -> Result<(Stream, LowWater), ConnectError> {
    let timeout = config.connect_timeout;
    let tcp = match route.proxy {
        None => tcp::connect(route.server, route.to_string(), timeout, stage).await?,
        Some(proxy) => {
            *stage = Stage::ResolvingProxy;
            let name = format!("the proxy {proxy}");
            let mut tcp = tcp::connect(proxy.address(), name, timeout, stage).await?;
            *stage = Stage::Proxy;
            match proxy.kind() {
                ProxyKind::Http => http_connect::ask(&mut tcp, proxy, &route.authority()).await?,
                ProxyKind::Socks5 => {
                    let server = route.authority();
                    socks5::ask(&mut tcp, proxy, route.server, server).await?;
                }
            }
            tcp
        }
    };
    let (tcp, low_water) = Tcp::new(tcp);
    let stream: Stream = match &config.tls {
        None => Box::new(tcp),
        Some(options) => {
            *stage = Stage::Tls;
            Box::new(tls::connect(options, route.host(), tcp).await?)
        }
    };
    match &config.transport {
        Transport::Tcp => Ok((stream, low_water)),
        #[cfg(feature = "websocket")]
        Transport::WebSocket(options) => {
            *stage = Stage::WebSocket;
            let limit = config.max_packet_size;
            let socket = websocket::connect(options, route, limit, stream).await?;
            Ok((Box::new(socket), low_water))
        }
    }
}
