//! What stands around a proxy under test: origins that behave and origins that do not, a client that shows
//! every byte, and an outlet that keeps what was captured.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use qproxy::capture::{self, Capture, Encoded, Outlet, OutletError};
use qproxy::record::{Epoch, Exchange, Item, NodeId, Record, Segment, Stream, wire};
use qproxy::service_discovery::{self, Pool};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An origin whose connections are each handled by a closure; the number counts connections from 0.
pub struct Origin {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Origin {
    pub async fn start<F, T>(handle: F) -> Self
    where
        F: Fn(usize, TcpStream) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(handle(number, socket));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// Answers every request with the same bytes, however often asked; keeps the heads it saw.
    pub async fn fixed(answer: &'static str) -> (Self, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let origin = Self::start(move |_, socket| {
            let log = Arc::clone(&log);
            async move {
                let mut peer = Peer::over(socket);
                while let Some(head) = peer.head().await {
                    log.lock().unwrap().push(head.text.clone());
                    peer.body(&head).await;
                    peer.send(answer).await;
                }
            }
        })
        .await;
        (origin, seen)
    }

    /// Answers with the request's content, framed as the request was.
    pub async fn echo() -> Self {
        Self::start(|_, socket| async move {
            let mut peer = Peer::over(socket);
            while let Some(head) = peer.head().await {
                if head.value("expect").is_some() {
                    peer.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                let body = peer.body(&head).await.content;
                let length = body.len();
                peer.send(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
                ))
                .await;
                peer.send_bytes(&body).await;
            }
        })
        .await
    }

    pub fn connected(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn pool(&self) -> Arc<Pool> {
        pool(&[&format!("http://{}", self.address)])
    }
}

pub fn pool(endpoints: &[&str]) -> Arc<Pool> {
    let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
    let config = service_discovery::Config::default();
    let metrics = service_discovery::Metrics::default();
    Arc::new(Pool::new(endpoints, &config, metrics, Instant::now()).unwrap())
}

/// An address that refuses connections.
pub async fn refused() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A head as it came.
#[derive(Debug, Clone)]
pub struct Head {
    pub text: String,
}

impl Head {
    pub fn value(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn status(&self) -> u16 {
        self.text.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[derive(Debug, Default)]
pub struct Content {
    pub content: Vec<u8>,
    pub trailers: String,
    /// Whether it ended as its framing says.
    pub whole: bool,
}

/// One end of a connection, client's or origin's, byte by byte.
pub struct Peer<S = TcpStream> {
    pub socket: S,
    read: Vec<u8>,
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn over(socket: S) -> Self {
        Self {
            socket,
            read: Vec::new(),
        }
    }

    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    /// A peer that has gone is no failure of the test: it looks at what comes of it.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
        let _ = self.socket.flush().await;
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.read));
        matches!(read.await.expect("nothing came for too long"), Ok(n) if n > 0)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.read.split_off(length);
        std::mem::replace(&mut self.read, rest)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line = self.take(at + 2);
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next head; `None` where the connection ended first.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.take(at + 4);
                return Some(Head {
                    text: String::from_utf8_lossy(&head[..at]).into_owned(),
                });
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The content that the head announces.
    pub async fn body(&mut self, head: &Head) -> Content {
        let mut content = Content::default();
        if head.value("transfer-encoding").is_some() {
            while let Some(line) = self.line().await {
                let length = usize::from_str_radix(line.trim(), 16).unwrap();
                if length == 0 {
                    while let Some(line) = self.line().await {
                        content.whole |= line.is_empty();
                        if line.is_empty() {
                            return content;
                        }
                        content.trailers += &line;
                    }
                    return content;
                }
                while self.read.len() < length + 2 {
                    if !self.more().await {
                        return content;
                    }
                }
                content.content.extend(self.take(length));
                self.take(2);
            }
            return content;
        }
        let length = head
            .value("content-length")
            .map_or(0, |v| v.parse().unwrap());
        content.whole = true;
        while self.read.len() < length {
            if !self.more().await {
                content.whole = false;
                break;
            }
        }
        content.content = self.take(length.min(self.read.len()));
        content
    }

    /// Sends a request and reads the response.
    pub async fn ask(&mut self, request: &str) -> (Head, Content) {
        self.send(request).await;
        let head = self.head().await.expect("a response");
        let content = self.body(&head).await;
        (head, content)
    }

    /// The next so many bytes; fewer where the connection ends before.
    pub async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length && self.more().await {}
        self.take(length.min(self.read.len()))
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }
}

/// Keeps what was captured.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<Bytes>>>);

impl Outlet for Kept {
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn append(&mut self, batch: &[Encoded]) -> Result<(), OutletError> {
        let payloads = batch.iter().map(|encoded| encoded.payload.clone());
        self.0.lock().unwrap().extend(payloads);
        Ok(())
    }
}

impl Kept {
    pub fn items(&self) -> Vec<Item> {
        let payloads = self.0.lock().unwrap();
        payloads
            .iter()
            .map(|payload| wire::decode(payload).unwrap())
            .collect()
    }

    pub fn exchanges(&self) -> Vec<Exchange> {
        let records = self.items().into_iter().filter_map(|item| match item {
            Item::Record(Record::Exchange(exchange)) => Some(*exchange),
            _ => None,
        });
        records.collect()
    }

    pub fn streams(&self) -> Vec<Stream> {
        let records = self.items().into_iter().filter_map(|item| match item {
            Item::Record(Record::Stream(stream)) => Some(*stream),
            _ => None,
        });
        records.collect()
    }

    pub fn segments(&self) -> Vec<Segment> {
        let batches = self.items().into_iter().filter_map(|item| match item {
            Item::Segments(batch) => Some(batch.segments),
            _ => None,
        });
        batches.flatten().collect()
    }

    /// The first exchange that is recorded.
    pub async fn exchange(&self) -> Exchange {
        eventually("an exchange is recorded", || {
            self.exchanges().into_iter().next()
        })
        .await
    }

    /// The first stream that is recorded.
    pub async fn stream(&self) -> Stream {
        eventually("a stream is recorded", || self.streams().into_iter().next()).await
    }
}

pub fn capture_config() -> capture::Config {
    capture::Config::new(NodeId::new("rec").unwrap())
}

pub fn capture() -> (Capture, Kept) {
    let kept = Kept::default();
    let outlet = Box::new(kept.clone());
    let capture = Capture::start(capture_config(), capture::Metrics::default(), outlet).unwrap();
    (capture, kept)
}

/// Awaits a future, but not for ever.
pub async fn soon<F: Future>(future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("not within {PATIENCE:?}"))
}

/// Polls until there is a value.
pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
