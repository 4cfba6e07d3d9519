//! Connections to a target: for bytes, or HTTP/1.1, one request at a time, each in the order in which it was given.
//!
//! A request is sent again only where the first attempt cannot have had an effect: nothing of it went out,
//! or its method is idempotent and a kept connection turned out to be closed (RFC 9110 section 9.2.2,
//! RFC 9112 section 9.3.1).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::stored::BodyError;
use super::{Error, Scheme, Target, fields};
use crate::record::Headers;

/// The content of a request to a target.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// No connection: nothing was sent.
    #[error("could not connect to {target}")]
    Connect {
        target: String,
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The connection of a stream broke.
    #[error("the connection broke")]
    Cut(#[source] io::Error),
}

/// A connection, with or without TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Makes connections to one target.
#[derive(Clone)]
pub(super) struct Connector {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    /// For https, `tls` is used where it is given, else the platform's roots are trusted.
    pub(super) fn new(
        target: Target,
        tls: Option<Arc<rustls::ClientConfig>>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let tls = match target.scheme() {
            Scheme::Http | Scheme::Tcp => None,
            Scheme::Https | Scheme::Tls => Some(tls_for(&target, tls)?),
        };
        Ok(Self {
            target,
            tls,
            timeout,
        })
    }

    pub(super) const fn target(&self) -> &Target {
        &self.target
    }

    /// A connection for HTTP.
    async fn connect(&self) -> Result<Link, SendError> {
        let link = async {
            match &self.tls {
                None => Link::over(self.dial().await?).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), self.dial().await?).await?;
                    Link::over(stream).await
                }
            }
        };
        self.in_time(link).await
    }

    /// A connection for bytes.
    pub(super) async fn raw(&self) -> Result<Box<dyn Duplex>, SendError> {
        let open = async {
            let stream: Box<dyn Duplex> = match &self.tls {
                None => Box::new(self.dial().await?),
                Some((connector, name)) => {
                    Box::new(connector.connect(name.clone(), self.dial().await?).await?)
                }
            };
            Ok(stream)
        };
        self.in_time(open).await
    }

    /// Sends a request that asks for another protocol, over a connection of its own. Gives the head of the answer, and
    /// that connection where the answer is a 101.
    pub(super) async fn upgrade(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(Response<()>, Option<Box<dyn Duplex>>), SendError> {
        let io = TokioIo::new(self.raw().await?);
        let handshake = http1::handshake(io).await;
        let (mut sender, connection) = handshake.map_err(SendError::Broken)?;
        let driver = tokio::spawn(async move {
            // The sender sees the same error.
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to target ended");
            }
        });
        let _driver = AbortOnDropHandle::new(driver);
        let mut response = sender
            .send_request(request)
            .await
            .map_err(SendError::Broken)?;
        let upgrade = hyper::upgrade::on(&mut response);
        let head = response.map(|_| ());
        if head.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok((head, None));
        }
        let connection = upgrade.await.map_err(SendError::Broken)?;
        Ok((head, Some(Box::new(TokioIo::new(connection)))))
    }

    async fn in_time<T>(
        &self,
        opening: impl Future<Output = io::Result<T>>,
    ) -> Result<T, SendError> {
        let failed = |source| SendError::Connect {
            target: self.target.to_string(),
            source,
        };
        tokio::time::timeout(self.timeout, opening)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.target.host(), self.target.port())).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn tls_for(
    target: &Target,
    config: Option<Arc<rustls::ClientConfig>>,
) -> Result<(TlsConnector, ServerName<'static>), Error> {
    let failed = |source| Error::Tls {
        target: target.to_string(),
        source,
    };
    let name = ServerName::try_from(target.host().to_owned()).map_err(|_| Error::Target {
        text: target.to_string(),
        rule: "its host is no name that a certificate can have",
    })?;
    let config = match config {
        Some(config) => config,
        None => {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_platform_verifier())
                .map_err(failed)?;
            Arc::new(config.with_no_client_auth())
        }
    };
    Ok((TlsConnector::from(config), name))
}

/// One connection; closed when dropped.
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    used: bool,
    _driver: AbortOnDropHandle<()>,
}

impl Link {
    async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> io::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // The sender sees the same error.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to target ended");
            }
        });
        Ok(Self {
            sender,
            used: false,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}

/// A place to send requests from, one after the other, over one connection while it lasts.
pub(super) struct Lane {
    connector: Arc<Connector>,
    link: Option<Link>,
}

impl Lane {
    pub(super) const fn new(connector: Arc<Connector>) -> Self {
        Self {
            connector,
            link: None,
        }
    }

    /// Sends what `build` makes and waits for the head of the response.
    ///
    /// The caller drops the lane's connection with [`Lane::reset`] where it does not read the whole response.
    pub(super) async fn send(
        &mut self,
        build: impl Fn() -> Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let mut again = true;
        loop {
            let mut link = self.usable().await?;
            let request = build();
            let idempotent = request.method().is_idempotent();
            match link.sender.try_send_request(request).await {
                Ok(response) => {
                    link.used = true;
                    self.link = Some(link);
                    return Ok(response);
                }
                Err(mut failure) => {
                    let unsent = failure.take_message().is_some();
                    if again && link.used && (unsent || idempotent) {
                        again = false;
                        continue;
                    }
                    return Err(SendError::Broken(failure.into_error()));
                }
            }
        }
    }

    /// Gives the connection up.
    pub(super) fn reset(&mut self) {
        self.link = None;
    }

    /// The kept connection where it still stands, else a new one.
    async fn usable(&mut self) -> Result<Link, SendError> {
        if let Some(mut link) = self.link.take()
            && link.sender.ready().await.is_ok()
        {
            return Ok(link);
        }
        self.connector.connect().await
    }
}

/// Sends requests on to a live service, each over a connection of its own.
pub(super) struct PassThrough {
    connector: Arc<Connector>,
    timeout: Duration,
}

impl PassThrough {
    pub(super) fn new(connector: Connector, timeout: Duration) -> Self {
        Self {
            connector: Arc::new(connector),
            timeout,
        }
    }

    pub(super) async fn send(
        &self,
        parts: &Parts,
        content: Vec<Bytes>,
    ) -> Result<
        Response<impl http_body::Body<Data = Bytes, Error = hyper::Error> + Send + use<>>,
        SendError,
    > {
        let length: usize = content.iter().map(Bytes::len).sum();
        let build = || {
            let mut request = Request::new(body_of(content.clone()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = origin_form(&parts.uri);
            *request.headers_mut() = fields::passed_on(&Headers::from(&parts.headers)).0;
            let headers = request.headers_mut();
            headers.remove(header::EXPECT);
            if length > 0 || headers.contains_key(header::CONTENT_LENGTH) {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
            headers.insert(header::HOST, host_of(self.connector.target()));
            request
        };
        let mut lane = Lane::new(self.connector.clone());
        let mut response = tokio::time::timeout(self.timeout, lane.send(build))
            .await
            .unwrap_or(Err(SendError::Timeout))?;
        // RFC 9112 section 6.3: chunks override a length, which is wrong for the decoded content.
        if response.headers().contains_key(header::TRANSFER_ENCODING) {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        *response.headers_mut() = fields::passed_on(&Headers::from(response.headers())).0;
        // The connection lives as long as the body is read.
        Ok(response.map(|body| {
            body.map_frame(move |frame| {
                let _open = &lane;
                frame
            })
        }))
    }
}

/// The `Host` of a target.
pub(super) fn host_of(target: &Target) -> HeaderValue {
    HeaderValue::try_from(target.authority()).expect("a target was parsed from a URI")
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

fn body_of(content: Vec<Bytes>) -> RequestBody {
    let frames = stream::iter(content.into_iter().map(|bytes| Ok(Frame::data(bytes))));
    StreamBody::new(frames).boxed_unsync()
}
