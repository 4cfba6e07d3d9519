//! Real HTTP servers on port 0: a service to replay against, and a listener that answers from the records.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use qproxy::playback::{Answerer, Target};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) type Reply = Response<Full<Bytes>>;
type Handler = dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// A request that a service has seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) connection: u64,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// A service; stops when dropped.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Service {
    /// Answers with what `handler` gives.
    pub(crate) async fn start<F>(handler: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, handler)
    }

    pub(crate) fn on<F>(
        listener: TcpListener,
        handler: impl Fn(Seen) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let handler: Arc<Handler> = Arc::new(move |seen| Box::pin(handler(seen)));
        let mut tasks = JoinSet::new();
        let log = seen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let count = AtomicU64::new(0);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (log, handler) = (log.clone(), handler.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let (log, handler) = (log.clone(), handler.clone());
                        async move { serve(request, number, &log, &*handler).await }
                    });
                    // A client that goes away is none of the service's business.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            _tasks: tasks,
        }
    }

    pub(crate) fn target(&self) -> Target {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Every request so far, in the order in which they were answered.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn serve(
    request: Request<Incoming>,
    connection: u64,
    log: &Mutex<Vec<Seen>>,
    handler: &Handler,
) -> Result<Reply, hyper::Error> {
    let (parts, body) = request.into_parts();
    let seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
        connection,
    };
    let reply = handler(seen.clone()).await;
    log.lock().push(seen);
    Ok(reply)
}

/// A plain-text reply.
pub(crate) fn text(body: &str) -> Reply {
    Response::builder()
        .header("content-type", "text/plain")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

/// A JSON reply.
pub(crate) fn json(body: &str) -> Reply {
    Response::builder()
        .header("content-type", "application/json")
        .body(Full::from(body.to_owned()))
        .unwrap()
}

/// A listener that answers from the records; stops when dropped.
pub(crate) struct Player {
    pub(crate) address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _tasks: JoinSet<()>,
}

impl Player {
    pub(crate) async fn start(answerer: Answerer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answerer = Arc::new(answerer);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, client) = listener.accept().await.unwrap();
                let answerer = answerer.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answerer = answerer.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            let answer = answerer.answer(&parts, body, client).await;
                            Ok::<_, std::convert::Infallible>(answer.response)
                        }
                    });
                    // An answer that is broken off ends the connection with an error, as it should.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            _tasks: tasks,
        }
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> http::request::Builder {
        let uri = format!("http://{}{target}", self.address);
        Request::builder().method(method).uri(uri)
    }

    /// Head and stream of an answer.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    /// A whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let (parts, body) = self.open(request).await.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    pub(crate) async fn get(&self, target: &str) -> Response<Bytes> {
        self.send(self.request("GET", target).body(Full::default()).unwrap())
            .await
    }

    pub(crate) async fn get_text(&self, target: &str) -> String {
        String::from_utf8(self.get(target).await.into_body().to_vec()).unwrap()
    }
}

/// Waits until `condition` holds, at most ten seconds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(waited.is_ok(), "never happened: {what}");
}
