//! HTTP/2 around a proxy under test: a client that shows its streams, and origins that speak it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::origin::{Origin, PATIENCE};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A response that came over HTTP/2.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// A client's connection; its streams can be held one by one through `send`.
pub struct Http2 {
    pub send: SendRequest<Bytes>,
    pub connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// With prior knowledge (RFC 9113 section 3.3).
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub async fn over<S>(socket: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::set_up(&h2::client::Builder::new(), socket).await
    }

    pub async fn set_up<S>(settings: &h2::client::Builder, socket: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = settings.handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        Self { send, connection }
    }

    /// Sends a request with its content whole, and reads the response whole.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Answer, h2::Error> {
        let asking = async {
            let mut send = self.send.clone().ready().await?;
            let (head, body) = request.into_parts();
            let ended = body.is_empty();
            let (response, mut content) =
                send.send_request(Request::from_parts(head, ()), ended)?;
            if !ended {
                content.send_data(body, true)?;
            }
            read(response.await?).await
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.expect("nothing came for too long")
    }

    pub async fn get(&self, url: &str) -> Answer {
        let request = Request::get(url).body(Bytes::new()).unwrap();
        self.ask(request).await.unwrap()
    }
}

/// Reads what follows a head.
pub async fn read(response: Response<h2::RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut content) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = content.data().await {
        let data = data?;
        content.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        trailers: content.trailers().await?,
    })
}

/// Serves HTTP/2 with prior knowledge; the number counts connections from 0.
pub async fn origin<F, T>(answer: F) -> Origin
where
    F: Fn(usize, Request<Incoming>) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = Response<Body>> + Send + 'static,
{
    Origin::start(move |number, socket| {
        let answer = answer.clone();
        async move { serve(number, socket, answer).await }
    })
    .await
}

/// Serves one connection.
pub async fn serve<S, F, T>(number: usize, socket: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(usize, Request<Incoming>) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(number, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// Content and trailers.
pub fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = futures_util::stream::iter(frames.into_iter().map(Ok));
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Answers with the request's content, and `x-echo` of its trailers.
pub async fn echo(_: usize, request: Request<Incoming>) -> Response<Body> {
    let collected = request.into_body().collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    let mut all = vec![Frame::data(collected.to_bytes())];
    all.extend(trailers.map(Frame::trailers));
    Response::new(frames(all))
}
