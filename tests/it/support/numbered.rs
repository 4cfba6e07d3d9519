//! Numbered requests over kept-alive connections, and an origin that answers them: for counting what arrives.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::node::Node;

/// Answers `GET /n/{number}` with the number, for as long as the test runs.
pub struct Origin {
    pub port: u16,
    pub answered: Arc<AtomicU64>,
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::new(AtomicU64::new(0));
        let count = answered.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let count = count.clone();
                std::thread::spawn(move || Self::serve(socket, &count));
            }
        });
        Self { port, answered }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn serve(socket: TcpStream, count: &AtomicU64) {
        let _ = socket.set_nodelay(true);
        let mut writer = socket.try_clone().unwrap();
        let mut reader = BufReader::new(socket);
        while let Some(first) = read_head(&mut reader) {
            let number = first
                .split(' ')
                .nth(1)
                .and_then(|path| path.rsplit('/').next());
            let body = number.unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            count.fetch_add(1, Ordering::Relaxed);
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// The first line of a head, once its empty line is there; `None` at the end.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut first = String::new();
    if reader.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(first);
        }
    }
}

/// One client that asks for number after number until told to stop.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u64, Instant)>>,
    pub answered: Arc<AtomicU64>,
    /// Requests that were not answered with 200 and the number.
    pub failed: Arc<AtomicU64>,
}

impl Traffic {
    /// Starts asking at `address`, with `pause` after each answer, from number `first` on.
    pub fn start(address: &str, first: u64, pause: Duration) -> Self {
        Self::start_padded(address, first, pause, 0)
    }

    /// Starts asking at a rate: one request begins `every` so often, however long an answer takes, and catches up
    /// where one took longer.
    pub fn start_paced(address: &str, first: u64, every: Duration) -> Self {
        let mut due = Instant::now();
        let wait = move || {
            due += every;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        };
        Self::run(address, first, wait, 0)
    }

    /// [`Traffic::start`] with a header field of `padding` bytes in each request.
    pub fn start_padded(address: &str, first: u64, pause: Duration, padding: usize) -> Self {
        Self::run(address, first, move || std::thread::sleep(pause), padding)
    }

    fn run(
        address: &str,
        first: u64,
        mut wait: impl FnMut() + Send + 'static,
        padding: usize,
    ) -> Self {
        let (stop, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let failed = Arc::new(AtomicU64::new(0));
        let (stopped, count, address) = (stop.clone(), answered.clone(), address.to_owned());
        let failures = failed.clone();
        let fields = match padding {
            0 => String::new(),
            _ => format!("x-padding: {}\r\n", "x".repeat(padding)),
        };
        let thread = std::thread::spawn(move || {
            let mut done = Vec::new();
            let mut connection = None;
            let mut number = first;
            while !stopped.load(Ordering::Relaxed) {
                match ask(&mut connection, &address, number, &fields) {
                    Some(()) => {
                        done.push((number, Instant::now()));
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    // Whether a request that broke off was recorded cannot be known: its number is not used again.
                    None => {
                        connection = None;
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
                number += 1;
                wait();
            }
            done
        });
        Self {
            stop,
            thread,
            answered,
            failed,
        }
    }

    /// Stops; gives the numbers that were answered, and when.
    pub fn finish(self) -> Vec<(u64, Instant)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn ask(
    connection: &mut Option<BufReader<TcpStream>>,
    address: &str,
    number: u64,
    fields: &str,
) -> Option<()> {
    if connection.is_none() {
        let socket = TcpStream::connect(address).ok()?;
        socket.set_nodelay(true).ok()?;
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        *connection = Some(BufReader::new(socket));
    }
    let reader = connection.as_mut()?;
    let request = format!("GET /n/{number} HTTP/1.1\r\nhost: origin\r\n{fields}\r\n");
    reader.get_mut().write_all(request.as_bytes()).ok()?;
    let mut status = String::new();
    reader.read_line(&mut status).ok()?;
    let mut length = 0_usize;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    (status.contains(" 200 ") && body == number.to_string().as_bytes()).then_some(())
}

/// How often each number is stored on a node.
pub fn stored_numbers(node: &Node) -> HashMap<u64, u32> {
    let mut stored = HashMap::new();
    let mut cursor = String::new();
    loop {
        let page = node
            .api(&format!("/api/records?limit=1000{cursor}"), &[])
            .json();
        for record in page["records"].as_array().unwrap() {
            let number = record["target"].as_str().unwrap().trim_start_matches("/n/");
            *stored.entry(number.parse().unwrap()).or_default() += 1;
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return stored,
        }
    }
}
