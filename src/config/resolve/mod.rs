//! From what is typed to what is used: defaults, the rules of the modes, and everything that cannot be.
//!
//! Each section of the file has a file of its own here; what they share, and what spans sections, is below.

mod http;
mod tcp;
mod bus;
mod store;
mod capture;
mod playback;
mod api;

use std::path::PathBuf;
use std::time::Duration;

use super::file::{File, OneOrMany};
use super::problem::{Problem, Problems};
use super::settings::{Endpoint, Mode, RetentionSettings, Settings, SpoolSettings, StoreSettings};
use super::transport::WaySettings;
use super::units::{Limit, Size, Span};
use super::{Environment, target};

const LOOPBACK: &str = "127.0.0.1";
const HTTP_PORT: u16 = 8080;
const PEER_PORT: u16 = 8084;
const API_PORT: u16 = 8090;
const ANSWER_PORT: u16 = 8092;
const DATA: &str = "data";

impl File {
    /// Decides every value.
    ///
    /// # Errors
    /// [`Problems`] with everything that is wrong.
    pub fn resolve(self, environment: &Environment) -> Result<Settings, Problems> {
        let mut resolver = Resolver::default();
        let settings = resolver.settings(self, environment);
        if resolver.problems.is_empty() {
            Ok(settings)
        } else {
            Err(Problems::new(resolver.problems))
        }
    }
}

/// Collects what is wrong, and goes on with a value that is never used.
#[derive(Default)]
pub(super) struct Resolver {
    problems: Vec<Problem>,
}

impl Resolver {
    pub(super) fn wrong(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(key, message));
    }

    fn settings(&mut self, file: File, environment: &Environment) -> Settings {
        let mode = file.mode;
        let unused = unused(&file);
        let (http, answer) = self.listeners(&file);
        let tcp = self.tcp(mode, file.tcp);
        if mode.proxies() && http.is_none() && tcp.is_empty() {
            let message = format!(
                "mode {} needs `http` or `tcp`: what to stand in front of",
                mode.as_str()
            );
            self.wrong("http", message);
        }
        let way = WaySettings::resolve(&file.mqtt, file.peer.as_ref(), &mut self.problems);
        let mqtt = self.mqtt(file.mqtt, way, &file.sync, environment);
        let (peer, broker) = self.meeting_point(mode, file.peer, file.broker, &mqtt);
        let incomplete_after = span(file.store.incomplete_after, 600);
        let store = self.store(file.store, environment);
        if mqtt.group.is_some() && matches!(store, StoreSettings::Embedded { .. }) {
            let message = "is for players that fill one Redis together: set `store.redis`";
            self.wrong("sync.group", message);
        }
        let spool = file.spool;
        let data = match &store {
            StoreSettings::Embedded { path, .. } => path.clone(),
            _ => PathBuf::from(DATA),
        };
        Settings {
            mode,
            node: self.node(file.node),
            http,
            tcp,
            peer,
            broker,
            mqtt,
            store,
            incomplete_after,
            spool: SpoolSettings {
                path: spool.path.unwrap_or_else(|| data.join("spool")),
                max_bytes: self.at_least("spool.max_bytes", spool.max_bytes, 4 << 30, 1 << 20),
                max_age: limit(spool.max_age, Span(hours(24))).map(|span| span.0),
            },
            capture: self.capture(file.capture),
            encryption: self.keys(file.encryption),
            playback: self.playback(file.playback, answer),
            api: self.api(file.api, environment),
            retention: RetentionSettings {
                max_age: limit(file.retention.max_age, Span(hours(24))).map(|span| span.0),
                max_bytes: limit(file.retention.max_bytes, Size(10 << 30)).map(|size| size.0),
            },
            unused,
        }
    }

    fn node(&mut self, name: Option<String>) -> String {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        match name {
            Some(name) if (1..=64).contains(&name.len()) && name.bytes().all(legal) => name,
            Some(name) => {
                self.wrong(
                    "node",
                    format!("`{name}` must be 1 to 64 of A-Z a-z 0-9 _ -"),
                );
                name
            }
            None => {
                let name = host_name().unwrap_or_default();
                let name = name
                    .bytes()
                    .map(|b| if legal(b) { char::from(b) } else { '-' });
                let name: String = name.take(64).collect();
                if name.is_empty() {
                    "node".to_owned()
                } else {
                    name
                }
            }
        }
    }

    fn listen(
        &mut self,
        key: &str,
        host: Option<String>,
        port: Option<u16>,
        default: u16,
    ) -> Endpoint {
        let host = host.unwrap_or_else(|| LOOPBACK.to_owned());
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if !target::is_host(bare) && bare.parse::<std::net::Ipv6Addr>().is_err() {
            self.wrong(
                format!("{key}.host"),
                format!("`{host}` is no host name or address"),
            );
        }
        Endpoint {
            host: bare.to_owned(),
            port: port.unwrap_or(default),
        }
    }

    /// A list that must not be empty, each with the key that names it.
    fn texts(&mut self, key: &str, list: Option<OneOrMany<String>>) -> Vec<(String, String)> {
        let list = list.map(|list| list.0).unwrap_or_default();
        match list.as_slice() {
            [] => {
                self.wrong(key, "is missing: name at least one");
                Vec::new()
            }
            [one] => vec![(key.to_owned(), one.clone())],
            _ => list
                .into_iter()
                .enumerate()
                .map(|(at, one)| (format!("{key}[{at}]"), one))
                .collect(),
        }
    }

    fn origin(&mut self, key: &str, text: &str) -> Option<String> {
        target::http_origin(text)
            .map_err(|message| self.wrong(key, message))
            .ok()
    }

    fn service(&mut self, key: &str, name: Option<String>, default: String) -> String {
        let name = name.unwrap_or(default);
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            self.wrong(
                key,
                format!("`{}` must be 1 to 64 bytes of text", name.escape_debug()),
            );
        }
        name
    }

    fn connections(&mut self, key: &str, count: Option<u32>) -> usize {
        let count = count.unwrap_or(10_000);
        if count == 0 {
            self.wrong(key, "`0` would let nobody in");
        }
        count as usize
    }

    fn at_least(&mut self, key: &str, size: Option<Size>, default: u64, least: u64) -> u64 {
        let bytes = size.map_or(default, |size| size.0);
        if bytes < least {
            self.wrong(key, format!("`{bytes}` must be at least {least} bytes"));
        }
        bytes
    }
}

/// What stands in the file and means nothing in its mode.
fn unused(file: &File) -> Vec<&'static str> {
    let mode = file.mode;
    let downstream = file
        .http
        .as_ref()
        .is_some_and(|http| http.downstream.is_some());
    let meets = file.peer.is_some() || file.broker.is_some();
    let candidates = [
        ("http.downstream", mode == Mode::Playback && downstream),
        ("tcp", mode == Mode::Playback && file.tcp.is_some()),
        (
            "playback.http",
            !mode.plays() && file.playback.http.is_some(),
        ),
        (
            "playback.auto",
            !mode.plays() && file.playback.auto.is_some(),
        ),
        ("peer/broker", mode == Mode::Forward && meets),
    ];
    candidates
        .into_iter()
        .filter(|(_, unused)| *unused)
        .map(|(key, _)| key)
        .collect()
}

fn lower_case(names: Option<Vec<String>>) -> Vec<String> {
    names
        .unwrap_or_default()
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .collect()
}

fn limit<T>(given: Option<Limit<T>>, default: T) -> Option<T> {
    given.unwrap_or(Limit::Of(default)).get()
}

fn span(given: Option<Span>, default_seconds: u64) -> Duration {
    given.map_or(Duration::from_secs(default_seconds), |span| span.0)
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// This machine's name, as far as it can be had without asking the C library.
fn host_name() -> Option<String> {
    let file = |path| std::fs::read_to_string(path).ok();
    let name = file("/proc/sys/kernel/hostname")
        .or_else(|| file("/etc/hostname"))
        .or_else(|| std::env::var("HOSTNAME").ok())?;
    Some(name.trim().to_owned())
}
