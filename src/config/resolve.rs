//! From what was typed to what is used: defaults, and the rules that go over several keys.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::error::Problem;
use super::file::{self, File};
use super::settings::{
    Address, Api, Auto, Capture, Compression, Fsync, Http, Miss, Mode, Mqtt, Peer, Playback,
    Repeat, Retention, Rule, Settings, Spool, Store, Tcp, TlsFiles,
};
use super::value::Many;

const LOOPBACK: &str = "127.0.0.1";
const API_PORT: u16 = 8090;
const ANSWER_PORT: u16 = 8092;
const BROKER_PORT: u16 = 8084;
const DEFAULT_FOLDER: &str = "data";
/// Under the 1,000 messages that brokers queue for a client by default.
const WINDOW_MESSAGES: u64 = 500;
const MAX_WINDOW_MESSAGES: u64 = 65_535;
const RETENTION_AGE: std::time::Duration = std::time::Duration::from_hours(24);
const RETENTION_BYTES: u64 = 10 << 30;

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

struct Resolver<'a> {
    folder: &'a Path,
    environment: Environment<'a>,
    problems: Vec<Problem>,
}

pub(super) fn settings(
    file: File,
    folder: &Path,
    environment: Environment<'_>,
) -> Result<Settings, Vec<Problem>> {
    let mut resolver = Resolver {
        folder,
        environment,
        problems: Vec::new(),
    };
    let settings = resolver.resolve(file);
    if resolver.problems.is_empty() {
        Ok(settings)
    } else {
        Err(resolver.problems)
    }
}

impl Resolver<'_> {
    fn resolve(&mut self, file: File) -> Settings {
        let mode = match file.mode {
            file::Mode::Record => Mode::Record,
            file::Mode::Playback => Mode::Playback,
            file::Mode::Standalone => Mode::Standalone,
            file::Mode::Forward => Mode::Forward,
        };
        let fsync = fsync(file.store.fsync);
        let data = self.path(
            file.store
                .path
                .clone()
                .unwrap_or_else(|| DEFAULT_FOLDER.into()),
        );
        let http_tls = file.http.as_ref().and_then(|http| http.tls.as_ref());
        let answer = self.answer(
            mode,
            file.http.as_ref(),
            file.playback.http.as_ref(),
            http_tls,
        );
        let http = file
            .http
            .filter(|_| mode.proxies())
            .map(|http| self.http(http));
        let tcp = self.tcp(mode, file.tcp);
        if mode.proxies() && http.is_none() && tcp.is_empty() {
            self.wrong(
                "http",
                format!(
                    "mode {} needs `http` or `tcp`: what to stand in front of",
                    mode.as_str()
                ),
            );
        }
        let (peer, broker) = self.meeting_point(mode, file.peer, file.broker);
        let spool = Spool {
            path: file
                .spool
                .path
                .map_or_else(|| data.join("spool"), |path| self.path(path)),
            max_bytes: file.spool.max_bytes.map(|size| size.0),
            max_age: file.spool.max_age.map(|span| span.0),
            fsync,
        };
        Settings {
            mode,
            node: self.node(file.node),
            http,
            tcp,
            peer,
            broker,
            mqtt: self.mqtt(file.mqtt),
            store: self.store(file.store, &data, fsync),
            spool,
            capture: self.capture(file.capture),
            playback: self.playback(file.playback, answer),
            api: self.api(file.api),
            retention: Retention {
                max_age: Some(file.retention.max_age.map_or(RETENTION_AGE, |span| span.0)),
                max_bytes: Some(
                    file.retention
                        .max_bytes
                        .map_or(RETENTION_BYTES, |size| size.0),
                ),
            },
        }
    }

    fn wrong(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(key, message));
    }

    fn path(&self, path: PathBuf) -> PathBuf {
        if path.is_absolute() {
            path
        } else {
            self.folder.join(path)
        }
    }

    fn secret(&self, name: &str, typed: Option<SecretString>) -> Option<SecretString> {
        (self.environment)(name).map(SecretString::from).or(typed)
    }

    fn node(&mut self, typed: Option<String>) -> String {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if let Some(name) = typed {
            if !(1..=64).contains(&name.len()) || !name.chars().all(legal) {
                self.wrong(
                    "node",
                    format!("`{name}` must be 1 to 64 of A-Z a-z 0-9 _ -"),
                );
            }
            return name;
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name: String = host
            .trim()
            .chars()
            .map(|c| if legal(c) { c } else { '-' })
            .take(64)
            .collect();
        if name.is_empty() {
            "qproxy".to_owned()
        } else {
            name
        }
    }

    fn tls(&self, key: &str, files: &file::TlsFiles) -> TlsFiles {
        TlsFiles {
            key: key.to_owned(),
            certificate: self.path(files.tls_cert.clone()),
            private_key: self.path(files.tls_key.clone()),
        }
    }

    fn service(&mut self, key: &str, typed: Option<String>, default: &str) -> String {
        let name = typed.unwrap_or_else(|| default.to_owned());
        if name.is_empty() || name.len() > 64 {
            self.wrong(
                format!("{key}.service"),
                format!("`{name}` must have 1 to 64 bytes"),
            );
        }
        name
    }

    fn http(&mut self, http: file::Http) -> Http {
        let downstream = http.downstream.map(|Many(list)| list).unwrap_or_default();
        if downstream.is_empty() {
            self.wrong(
                "http.downstream",
                "is missing: the service's URL, such as http://localhost:8081",
            );
        }
        Http {
            listen: address("http", http.host, http.port),
            downstream,
            service: self.service("http", http.service, "http"),
            tls: http.tls.map(|files| self.tls("http.tls", &files)),
            upstream_ca: http.upstream_ca.map(|path| self.path(path)),
            preserve_host: http.preserve_host.unwrap_or(true),
            forwarded: http.forwarded.unwrap_or(false),
            max_connections: http.max_connections,
            max_head_bytes: http.max_head_bytes.map(|size| size.0),
            idle_timeout: http.idle_timeout.map(|span| span.0),
            connect_timeout: http.connect_timeout.map(|span| span.0),
            response_timeout: http.response_timeout.map(|span| span.0),
            body_timeout: http.body_timeout.map(|span| span.0),
        }
    }

    fn tcp(&mut self, mode: Mode, typed: Option<Many<file::Tcp>>) -> Vec<Tcp> {
        let list = typed.map(|Many(list)| list).unwrap_or_default();
        let single = list.len() == 1;
        let mut proxies = Vec::new();
        for (at, tcp) in list.into_iter().enumerate() {
            let key = if single {
                "tcp".to_owned()
            } else {
                format!("tcp[{at}]")
            };
            if tcp.downstream.0.is_empty() {
                self.wrong(
                    format!("{key}.downstream"),
                    "is empty: at least one host:port",
                );
            }
            proxies.push(Tcp {
                service: self.service(&key, tcp.service, &format!("tcp-{}", tcp.port)),
                listen: address(&key, tcp.host, tcp.port),
                downstream: tcp.downstream.0,
                tls: tcp.tls.map(|files| self.tls(&format!("{key}.tls"), &files)),
                upstream_ca: tcp.upstream_ca.map(|path| self.path(path)),
                max_connections: tcp.max_connections,
                idle_timeout: tcp.idle_timeout.map(|span| span.0),
                connect_timeout: tcp.connect_timeout.map(|span| span.0),
            });
        }
        if mode.proxies() { proxies } else { Vec::new() }
    }

    /// Where requests are answered: in mode Playback `http` itself, unless `playback.http` stands there too.
    fn answer(
        &mut self,
        mode: Mode,
        http: Option<&file::Http>,
        playback: Option<&file::Answering>,
        http_tls: Option<&file::TlsFiles>,
    ) -> Option<(Address, Option<TlsFiles>)> {
        if !mode.plays() {
            if playback.is_some() {
                self.wrong(
                    "playback.http",
                    format!("mode {} answers nothing", mode.as_str()),
                );
            }
            return None;
        }
        if let Some(answering) = playback {
            let tls = answering
                .tls
                .as_ref()
                .map(|files| self.tls("playback.http.tls", files));
            return Some((
                address("playback.http", answering.host.clone(), answering.port),
                tls,
            ));
        }
        match (mode, http) {
            (Mode::Playback, Some(http)) => {
                let tls = http_tls.map(|files| self.tls("http.tls", files));
                Some((address("http", http.host.clone(), http.port), tls))
            }
            _ => Some((address("playback.http", None, ANSWER_PORT), None)),
        }
    }

    /// The broker: somebody's, or this node's own.
    fn meeting_point(
        &mut self,
        mode: Mode,
        peer: Option<file::Peer>,
        broker: Option<file::Address>,
    ) -> (Option<Peer>, Option<Address>) {
        let peer = peer.map(|peer| Peer {
            host: peer.host,
            port: peer.port,
            tls: peer.tls,
        });
        let broker = broker.map(|broker| address("broker", broker.host, broker.port));
        match (mode, &peer, &broker) {
            (Mode::Forward, ..) => (None, None),
            (Mode::Record, None, None) => {
                let message = "mode Record needs the MQTT endpoint that both sides meet on: \
                               {\"host\": …, \"port\": …}, or `broker` to run one here";
                self.wrong("peer", message);
                (None, None)
            }
            (Mode::Playback | Mode::Standalone, None, None) => {
                (None, Some(address("broker", None, BROKER_PORT)))
            }
            _ => (peer, broker),
        }
    }

    fn mqtt(&mut self, mqtt: file::Mqtt) -> Mqtt {
        let root = mqtt.root.unwrap_or_else(|| "qproxy".to_owned());
        if root.is_empty() || root.starts_with('$') || root.contains(['+', '#', '\0']) {
            self.wrong(
                "mqtt.root",
                format!("`{root}` cannot start a topic: no + # and no $ in front"),
            );
        }
        if let Some(protocol) = mqtt.protocol.filter(|protocol| protocol != "3.1.1") {
            self.wrong(
                "mqtt.protocol",
                format!("`{protocol}` is not spoken: only 3.1.1 is"),
            );
        }
        let window_messages = mqtt.window_messages.unwrap_or(WINDOW_MESSAGES);
        if !(1..=MAX_WINDOW_MESSAGES).contains(&window_messages) {
            let message = format!("{window_messages} must be from 1 to {MAX_WINDOW_MESSAGES}");
            self.wrong("mqtt.window_messages", message);
        }
        let app_id = (self.environment)("QPROXY_MQTT_APP_ID").or(mqtt.app_id);
        let token = self.secret("QPROXY_MQTT_TOKEN", mqtt.token);
        if token.is_some() && app_id.is_none() {
            self.wrong(
                "mqtt.app_id",
                "is missing: MQTT allows no password without a user name",
            );
        }
        Mqtt {
            root,
            app_id,
            token,
            ca: mqtt.ca.map(|path| self.path(path)),
            compression: match mqtt.compression {
                None | Some(file::Compression::None) => Compression::None,
                Some(file::Compression::Lz4) => Compression::Lz4,
                Some(file::Compression::Zstd) => Compression::Zstd,
            },
            window_messages,
        }
    }

    fn store(&mut self, store: file::Store, data: &Path, fsync: Fsync) -> Store {
        let prefix = store.prefix.unwrap_or_else(|| "qproxy".to_owned());
        match (store.redis, store.redis_cluster) {
            (Some(_), Some(_)) => {
                self.wrong(
                    "store.redis_cluster",
                    "cannot stand beside `store.redis`: take one",
                );
            }
            (Some(url), None) => return Store::Redis { url, prefix },
            (None, Some(urls)) if urls.is_empty() => {
                self.wrong(
                    "store.redis_cluster",
                    "is empty: the URL of at least one node",
                );
            }
            (None, Some(urls)) => return Store::RedisCluster { urls, prefix },
            (None, None) => {}
        }
        Store::Embedded {
            path: data.join("records"),
            fsync,
        }
    }

    fn capture(&mut self, capture: file::Capture) -> Capture {
        let sample = capture.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            self.wrong("capture.sample", format!("{sample} must be from 0 to 1"));
        }
        for (at, pointer) in capture.redact.json.iter().enumerate() {
            if !pointer.starts_with('/') {
                let key = format!("capture.redact.json[{at}]");
                self.wrong(
                    key,
                    format!("`{pointer}` must be a JSON pointer such as /user/password"),
                );
            }
        }
        Capture {
            enabled: capture.enabled.unwrap_or(true),
            sample,
            max_body_bytes: capture.max_body_bytes.map(|size| size.0),
            max_stream_bytes: capture.max_stream_bytes.map(|size| size.0),
            queue_bytes: capture.queue_bytes.map(|size| size.0),
            include: rules("capture.include", capture.include),
            exclude: rules("capture.exclude", capture.exclude),
            redact_headers: capture.redact.headers,
            redact_json: capture.redact.json,
        }
    }

    fn playback(
        &mut self,
        playback: file::Playback,
        answer: Option<(Address, Option<TlsFiles>)>,
    ) -> Playback {
        let allowed = ["127.0.0.1", "localhost", "::1"].map(String::from).to_vec();
        Playback {
            answer,
            miss: match playback.miss {
                None | Some(file::Miss::Explain) => Miss::Explain,
                Some(file::Miss::PassThrough(url)) => Miss::PassThrough(url),
            },
            repeat: match playback.repeat {
                None | Some(file::Repeat::Last) => Repeat::Last,
                Some(file::Repeat::Loop) => Repeat::Loop,
                Some(file::Repeat::Latest) => Repeat::Latest,
            },
            match_host: playback.match_host.unwrap_or(false),
            match_body: playback.match_body.unwrap_or(true),
            match_headers: playback.match_headers,
            ignore_query: playback.ignore_query,
            auto: playback.auto.map(|auto| Auto {
                target: auto.target,
                concurrency: auto.concurrency,
            }),
            allowed_targets: playback.allowed_targets.unwrap_or(allowed),
        }
    }

    fn api(&mut self, api: file::Api) -> Api {
        let token = self.secret("QPROXY_API_TOKEN", api.token);
        if token
            .as_ref()
            .is_some_and(|token| token.expose_secret().is_empty())
        {
            self.wrong("api.token", "is empty: leave it out, or set one");
        }
        Api {
            listen: address("api", api.host, api.port.unwrap_or(API_PORT)),
            token,
            allowed_hosts: api.allowed_hosts,
        }
    }
}

fn address(key: &str, host: Option<String>, port: u16) -> Address {
    let host = host.unwrap_or_else(|| LOOPBACK.to_owned());
    Address {
        key: format!("{key}.port"),
        host,
        port,
    }
}

fn fsync(typed: Option<file::Fsync>) -> Fsync {
    match typed {
        None | Some(file::Fsync::Interval) => Fsync::Interval,
        Some(file::Fsync::Always) => Fsync::Always,
        Some(file::Fsync::Never) => Fsync::Never,
    }
}

fn rules(key: &str, typed: Vec<file::Rule>) -> Vec<Rule> {
    let texts = |many: Option<Many<String>>| many.map(|Many(list)| list).unwrap_or_default();
    let numbered = typed.into_iter().enumerate();
    let rule = |(at, rule): (usize, file::Rule)| Rule {
        key: format!("{key}[{at}]"),
        methods: texts(rule.methods),
        paths: texts(rule.paths),
        hosts: texts(rule.hosts),
        statuses: rule
            .statuses
            .map(|Many(list)| list)
            .unwrap_or_default()
            .into_iter()
            .map(|status| match status {
                file::Status::Number(number) => number.to_string(),
                file::Status::Text(text) => text,
            })
            .collect(),
        content_types: texts(rule.content_types),
    };
    numbered.map(rule).collect()
}
