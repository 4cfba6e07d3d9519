//! What is measured against and served by: an origin, and the least that a hyper reverse proxy can be.
//!
//! The bare proxies have a pooled HTTP/1.1 client, the allocator and the TLS set-up of `qproxy`, and look at nothing:
//! no time-outs, limits, counters or hop-by-hop fields.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::Iter;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::bind;

/// The size of the body at `/large`.
pub(super) const LARGE_BYTES: usize = 1 << 30;

/// The sizes of the bodies at other paths.
const SIZES: [(&str, usize); 2] = [("/64KiB", 64 << 10), ("/1MiB", 1 << 20)];

/// Answers 1 KiB to everything but `/64KiB`, `/1MiB`, and `/large`, which has a gigabyte.
pub(super) async fn origin() {
    let content = |length| Bytes::from(vec![b'x'; length]);
    let small = content(1024);
    let sized = Arc::new(SIZES.map(|(path, length)| (path, content(length))));
    let listener = bind().await;
    loop {
        let socket = nodelay(listener.accept().await.unwrap().0);
        let (small, sized) = (small.clone(), Arc::clone(&sized));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let path = request.uri().path();
                let found = sized.iter().find(|(name, _)| *name == path);
                let body = match found {
                    Some((_, content)) => Either::Left(Full::new(content.clone())),
                    None if path == "/large" => large(),
                    None => Either::Left(Full::new(small.clone())),
                };
                let response = Response::builder().header("content-type", "text/plain");
                let response = response.body(body).unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

type Frames = std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>;

fn large() -> Either<Full<Bytes>, StreamBody<Iter<Frames>>> {
    let frame = Bytes::from(vec![b'x'; 64 << 10]);
    let frames: Vec<_> = (0..LARGE_BYTES / frame.len())
        .map(|_| Ok(Frame::data(frame.clone())))
        .collect();
    Either::Right(StreamBody::new(futures_util::stream::iter(frames)))
}

fn nodelay(socket: TcpStream) -> TcpStream {
    let _ = socket.set_nodelay(true);
    socket
}

/// Where a bare proxy forwards to, and with what.
#[derive(Clone)]
struct Upstream {
    client: Client<HttpConnector, Incoming>,
    authority: Arc<str>,
}

impl Upstream {
    fn new(port: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            authority: format!("127.0.0.1:{port}").into(),
        }
    }

    fn forward(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Incoming>, hyper_util::client::legacy::Error>> + Send + use<>
    {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        *request.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(&*self.authority)
            .path_and_query(path)
            .build()
            .unwrap();
        *request.version_mut() = Version::HTTP_11;
        self.client.request(request)
    }

    async fn http1(self, io: impl Read + Write + Unpin) {
        let service = service_fn(move |request| self.forward(request));
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }

    async fn http2(self, io: impl Read + Write + Unpin) {
        let service = service_fn(move |request| self.forward(request));
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    }
}

pub(super) async fn bare_http1(port: String) {
    let (listener, upstream) = (bind().await, Upstream::new(&port));
    loop {
        let socket = nodelay(listener.accept().await.unwrap().0);
        tokio::spawn(upstream.clone().http1(TokioIo::new(socket)));
    }
}

pub(super) async fn bare_http2(port: String) {
    let (listener, upstream) = (bind().await, Upstream::new(&port));
    loop {
        let socket = nodelay(listener.accept().await.unwrap().0);
        tokio::spawn(upstream.clone().http2(TokioIo::new(socket)));
    }
}

/// HTTP/1.1 or HTTP/2, as is agreed on under TLS.
pub(super) async fn bare_tls(port: String, folder: PathBuf) {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&folder)));
    let (listener, upstream) = (bind().await, Upstream::new(&port));
    loop {
        let socket = nodelay(listener.accept().await.unwrap().0);
        let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            match http2 {
                true => upstream.http2(io).await,
                false => upstream.http1(io).await,
            }
        });
    }
}

/// What `qproxy` sets up for a listener with the same files.
fn tls(folder: &Path) -> rustls::ServerConfig {
    let (certificate, key) = identity(folder);
    let chain = CertificateDer::pem_file_iter(certificate).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                chain.map(Result::unwrap).collect(),
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// A certificate and its key in a folder; made where they are not there.
pub(super) fn identity(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !key.exists() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    }
    (certificate, key)
}
