//! From what is typed to what is used: defaults, the rules of the modes, and everything that cannot be.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::file::{Api, Capture, File, Http, OneOrMany, Playback, RouteForm, RuleForm, Store, Tcp};
use super::problem::{Problem, Problems};
use super::settings::{
    AnswerSettings, ApiSettings, Auto, BodyMatch, BrokerSettings, CaptureSettings, Compression,
    Delay, Endpoint, Forwarded, HttpSettings, MatchSettings, Miss, Mode, MqttSettings, MqttVersion,
    Peer, PlaybackSettings, RedisOptions, Repeat, RetentionSettings, RouteSettings, Rule, Settings,
    SpoolSettings, StoreSettings, TcpSettings,
};
use super::tls::UpstreamForm;
use super::transport::WaySettings;
use super::units::{Limit, Size, Span};
use super::{Environment, target};

const LOOPBACK: &str = "127.0.0.1";
const HTTP_PORT: u16 = 8080;
const PEER_PORT: u16 = 8084;
const API_PORT: u16 = 8090;
const ANSWER_PORT: u16 = 8092;
const DATA: &str = "data";
/// The largest message that MQTT can carry is 256 MiB; brokers take far less.
const MAX_MESSAGE: std::ops::RangeInclusive<u64> = 4096..=16 << 20;

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
        let store = self.store(file.store, environment);
        if mqtt.group.is_some() && matches!(store, StoreSettings::Embedded { .. }) {
            let message = "is for players that fill one Redis together: set `store.redis`";
            self.wrong("sync.group", message);
        }
        let spool = file.spool;
        let data = match &store {
            StoreSettings::Embedded { path } => path.clone(),
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
            spool: SpoolSettings {
                path: spool.path.unwrap_or_else(|| data.join("spool")),
                max_bytes: self.at_least("spool.max_bytes", spool.max_bytes, 4 << 30, 1 << 20),
                max_age: limit(spool.max_age, Span(hours(24))).map(|span| span.0),
            },
            capture: self.capture(file.capture),
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

    /// `http` is the proxy, but in mode Playback the listener that answers; `playback.http` always answers.
    fn listeners(&mut self, file: &File) -> (Option<HttpSettings>, Option<AnswerSettings>) {
        let http = file.http.clone();
        let answer = file.playback.http.clone();
        match file.mode {
            Mode::Playback => {
                if let (Some(_), Some(_)) = (&http, &answer) {
                    let message = "stands beside `http`, which is the same listener in mode Playback: keep one";
                    self.wrong("playback.http", message);
                }
                let (key, host, port, tls) = match (http, answer) {
                    (Some(http), _) => ("http", http.host, http.port, http.tls),
                    (None, Some(answer)) => ("playback.http", answer.host, answer.port, answer.tls),
                    (None, None) => return (None, None),
                };
                let listen = self.listen(key, host, port, HTTP_PORT);
                (
                    None,
                    Some(AnswerSettings {
                        listen,
                        tls: self.tls(key, tls),
                    }),
                )
            }
            Mode::Standalone => {
                let answer = answer.unwrap_or_default();
                let listen = self.listen("playback.http", answer.host, answer.port, ANSWER_PORT);
                let tls = self.tls("playback.http", answer.tls);
                (self.http(http), Some(AnswerSettings { listen, tls }))
            }
            Mode::Record | Mode::Forward => (self.http(http), None),
        }
    }

    fn http(&mut self, form: Option<Http>) -> Option<HttpSettings> {
        let form = form?;
        let mut downstream = Vec::new();
        for (key, text) in self.texts("http.downstream", form.downstream) {
            match target::downstream_origin(&text) {
                Ok(origin) => downstream.push(origin),
                Err(message) => self.wrong(key, message),
            }
        }
        let service = self.service("http.service", form.service, "http".to_owned());
        let routes = form.routes.unwrap_or_default().into_iter().enumerate();
        Some(HttpSettings {
            listen: self.listen("http", form.host, form.port, HTTP_PORT),
            downstream,
            forwarded: form.forwarded.unwrap_or(Forwarded::None),
            routes: routes
                .map(|(at, route)| self.route(&format!("http.routes[{at}]"), route, &service))
                .collect(),
            service,
            tls: self.tls("http", form.tls),
            proxy_protocol: form.proxy_protocol.unwrap_or(false),
            upstream_tls: self.upstream_tls(
                "http",
                UpstreamForm {
                    ca: form.upstream_ca,
                    cert: form.upstream_cert,
                    key: form.upstream_key,
                    insecure_skip_verify: form.insecure_skip_verify,
                },
            ),
            max_connections: self.connections("http.max_connections", form.max_connections),
            max_upstream_connections: form
                .max_upstream_connections
                .map(|count| self.connections("http.max_upstream_connections", Some(count))),
            connect_timeout: span(form.connect_timeout, 5),
            response_timeout: span(form.response_timeout, 60),
            body_timeout: span(form.body_timeout, 300),
            write_timeout: span(form.write_timeout, 60),
        })
    }

    fn route(&mut self, key: &str, form: RouteForm, service: &str) -> RouteSettings {
        if form.host.is_none() && form.path.is_none() {
            self.wrong(key, "needs `host` or `path`: which requests it takes");
        }
        let host = form.host.map(|host| host.to_ascii_lowercase());
        let bare = host
            .as_deref()
            .map(|host| host.strip_prefix("*.").unwrap_or(host));
        let bracketed = |host: &str| {
            let inner = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
        };
        if let Some(bare) = bare.filter(|host| !target::is_host(host) && !bracketed(host)) {
            let message = format!("`{bare}` must be a host without its port, or `*.` and a domain");
            self.wrong(format!("{key}.host"), message);
        }
        let path = form.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.contains(['?', '#']) {
            self.wrong(
                format!("{key}.path"),
                format!("`{path}` must begin with a slash, and have no query"),
            );
        }
        let mut downstream = Vec::new();
        for (key, text) in self.texts(&format!("{key}.downstream"), form.downstream) {
            match target::downstream_origin(&text) {
                Ok(origin) => downstream.push(origin),
                Err(message) => self.wrong(key, message),
            }
        }
        RouteSettings {
            host,
            path,
            downstream,
            service: self.service(&format!("{key}.service"), form.service, service.to_owned()),
        }
    }

    fn tcp(&mut self, mode: Mode, forms: Option<OneOrMany<Tcp>>) -> Vec<TcpSettings> {
        let forms = forms
            .map(|forms| forms.0)
            .filter(|_| mode.proxies())
            .unwrap_or_default();
        let many = forms.len() > 1;
        let mut all: Vec<TcpSettings> = Vec::new();
        for (at, form) in forms.into_iter().enumerate() {
            let key = if many {
                format!("tcp[{at}]")
            } else {
                "tcp".to_owned()
            };
            let tcp = self.tcp_listener(&key, form);
            if all.iter().any(|other| other.service == tcp.service) {
                self.wrong(
                    format!("{key}.service"),
                    format!("`{}` stands twice", tcp.service),
                );
            }
            all.push(tcp);
        }
        all
    }

    fn tcp_listener(&mut self, key: &str, form: Tcp) -> TcpSettings {
        let mut downstream = Vec::new();
        for (key, text) in self.texts(&format!("{key}.downstream"), form.downstream) {
            match target::endpoint(&text) {
                Ok(endpoint) => downstream.push(endpoint),
                Err(message) => self.wrong(key, message),
            }
        }
        if form.port.is_none() {
            self.wrong(format!("{key}.port"), "is missing");
        }
        let listen = self.listen(key, form.host, form.port, 0);
        let service = format!("tcp-{}", listen.port);
        TcpSettings {
            service: self.service(&format!("{key}.service"), form.service, service),
            listen,
            downstream,
            balance: form.balance.unwrap_or_default(),
            tls: self.tls(key, form.tls),
            proxy_protocol: form.proxy_protocol.unwrap_or(false),
            upstream_tls: self.upstream_tls(
                key,
                UpstreamForm {
                    ca: form.upstream_ca,
                    cert: form.upstream_cert,
                    key: form.upstream_key,
                    insecure_skip_verify: form.insecure_skip_verify,
                },
            ),
            max_connections: self
                .connections(&format!("{key}.max_connections"), form.max_connections),
            connect_timeout: span(form.connect_timeout, 5),
            idle_timeout: span(form.idle_timeout, 3600),
        }
    }

    /// The MQTT endpoint on which nodes meet.
    fn meeting_point(
        &mut self,
        mode: Mode,
        peer: Option<super::file::PeerForm>,
        broker: Option<super::file::Broker>,
        mqtt: &MqttSettings,
    ) -> (Option<Peer>, Option<BrokerSettings>) {
        if mode == Mode::Forward {
            return (None, None);
        }
        let peer = peer.map(|form| {
            let host = form.host.unwrap_or_else(|| {
                self.wrong("peer.host", "is missing");
                String::new()
            });
            let endpoint = self.listen("peer", Some(host), form.port, PEER_PORT);
            if endpoint.port == 0 {
                self.wrong("peer.port", "`0` is no port to connect to");
            }
            Peer {
                endpoint,
                tls: form.tls.unwrap_or(false),
            }
        });
        let default = (mode.plays() && peer.is_none()).then(super::file::Broker::default);
        let broker = broker.or(default).map(|form| {
            let listen = self.listen("broker", form.host, form.port, PEER_PORT);
            if !listen.is_loopback() && (mqtt.app_id.is_none() || mqtt.token.is_none()) {
                let message = format!(
                    "the broker on `{listen}` could be reached by others: set `mqtt.app_id` and `mqtt.token`, \
                     or listen on 127.0.0.1"
                );
                self.wrong("broker.host", message);
            }
            let tls = self.broker_tls(form.tls);
            BrokerSettings { listen, tls }
        });
        if mode == Mode::Record && peer.is_none() && broker.is_none() {
            let message = "is missing: mode Record needs the MQTT endpoint to send to (or `broker`, to run it here)";
            self.wrong("peer", message);
        }
        (peer, broker)
    }

    fn mqtt(
        &mut self,
        form: super::file::Mqtt,
        way: WaySettings,
        sync: &super::file::Sync,
        environment: &Environment,
    ) -> MqttSettings {
        let root = form.root.unwrap_or_else(|| "qproxy".to_owned());
        let level = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=64).contains(&root.len()) || !root.bytes().all(level) {
            self.wrong(
                "mqtt.root",
                format!("`{root}` must be one topic level of A-Z a-z 0-9 _ -, at most 64"),
            );
        }
        let keep_alive = span(form.keep_alive, 60);
        if !(1..=65_535).contains(&keep_alive.as_secs()) {
            self.wrong("mqtt.keep_alive", "must be from 1s to 65535s");
        }
        let window = sync.window_messages.unwrap_or(500);
        if window == 0 {
            self.wrong("sync.window_messages", "`0` would let nothing through");
        }
        if let Some(group) = sync.group.as_ref()
            && (!(1..=64).contains(&group.len()) || !group.bytes().all(level))
        {
            let message = format!("`{group}` must be 1 to 64 of A-Z a-z 0-9 _ -");
            self.wrong("sync.group", message);
        }
        let message = sync.max_message_bytes.unwrap_or(Size(60 << 10)).0;
        if !MAX_MESSAGE.contains(&message) {
            self.wrong(
                "sync.max_message_bytes",
                format!("`{message}` must be from 4KiB to 16MiB"),
            );
        }
        let token = environment.mqtt_token.clone().or(form.token);
        let app_id = environment.mqtt_app_id.clone().or(form.app_id);
        if token.is_some() && app_id.is_none() {
            self.wrong(
                "mqtt.app_id",
                "is missing: MQTT takes no `mqtt.token` without it",
            );
        }
        MqttSettings {
            root,
            protocol: form.protocol.unwrap_or(MqttVersion::V311),
            app_id,
            token,
            ca: form.ca,
            way,
            compression: form.compression.unwrap_or(Compression::None),
            keep_alive,
            window_messages: window as usize,
            group: sync.group.clone(),
            max_message_bytes: usize::try_from(message).unwrap_or(usize::MAX),
        }
    }

    fn store(&mut self, form: Store, environment: &Environment) -> StoreSettings {
        let redis = environment.redis_url.clone().or(form.redis);
        let options = RedisOptions {
            prefix: form.redis_prefix.unwrap_or_else(|| "qproxy".to_owned()),
            ca: form.redis_ca,
        };
        let url = |resolver: &mut Self, key: &str, url: &SecretString| {
            let text = url.expose_secret();
            if !["redis://", "rediss://"]
                .iter()
                .any(|scheme| text.starts_with(scheme))
            {
                resolver.wrong(key, "must start with redis:// or rediss://");
            }
        };
        match (form.path, redis, form.redis_cluster) {
            (path, None, None) => StoreSettings::Embedded {
                path: path.unwrap_or_else(|| PathBuf::from(DATA)),
            },
            (None, Some(redis), None) => {
                url(self, "store.redis", &redis);
                StoreSettings::Redis {
                    url: redis,
                    options,
                }
            }
            (None, None, Some(urls)) => {
                if urls.is_empty() {
                    self.wrong("store.redis_cluster", "is empty: name at least one node");
                }
                urls.iter()
                    .for_each(|node| url(self, "store.redis_cluster", node));
                StoreSettings::RedisCluster { urls, options }
            }
            _ => {
                self.wrong(
                    "store",
                    "only one of `path`, `redis` and `redis_cluster` can be given",
                );
                StoreSettings::Embedded {
                    path: PathBuf::new(),
                }
            }
        }
    }

    fn capture(&mut self, form: Capture) -> CaptureSettings {
        let sample = form.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            self.wrong("capture.sample", format!("`{sample}` must be from 0 to 1"));
        }
        let redact = form.redact.unwrap_or_default();
        let pointers = redact.json.unwrap_or_default();
        for (at, pointer) in pointers.iter().enumerate() {
            if !pointer.starts_with('/') {
                let message = format!("`{pointer}` must be a JSON pointer such as /user/password");
                self.wrong(format!("capture.redact.json[{at}]"), message);
            }
        }
        let queue = self.at_least("capture.queue_bytes", form.queue_bytes, 32 << 20, 1 << 20);
        CaptureSettings {
            enabled: form.enabled.unwrap_or(true),
            sample,
            max_body_bytes: form.max_body_bytes.map_or(64 << 20, |size| size.0),
            max_stream_bytes: form.max_stream_bytes.map_or(64 << 20, |size| size.0),
            queue_bytes: usize::try_from(queue).unwrap_or(usize::MAX),
            include: rules(form.include),
            exclude: rules(form.exclude),
            redact_headers: lower_case(redact.headers),
            redact_json: pointers,
        }
    }

    fn playback(&mut self, form: Playback, answer: Option<AnswerSettings>) -> PlaybackSettings {
        let upstream = form
            .upstream
            .and_then(|text| self.origin("playback.upstream", &text));
        let miss = match (form.miss.as_deref().unwrap_or("explain"), upstream) {
            ("explain", _) => Miss::Explain,
            ("pass_through", Some(upstream)) => Miss::PassThrough(upstream),
            ("pass_through", None) => {
                self.wrong(
                    "playback.upstream",
                    "is missing: `miss` is `pass_through`, but where to?",
                );
                Miss::Explain
            }
            (other, _) => {
                self.wrong(
                    "playback.miss",
                    format!("`{other}` must be explain or pass_through"),
                );
                Miss::Explain
            }
        };
        let delay = match form.delay.as_deref().unwrap_or("none") {
            "none" => Delay::None,
            "as_recorded" => Delay::AsRecorded,
            text => match <Span as super::units::Written>::from_text(text) {
                Some(span) => Delay::Fixed(span.0),
                None => {
                    let message =
                        format!("`{text}` must be none, as_recorded, or a time such as 200ms");
                    self.wrong("playback.delay", message);
                    Delay::None
                }
            },
        };
        let matching = form.r#match.unwrap_or_default();
        let default_targets = || {
            vec![
                LOOPBACK.to_owned(),
                "localhost".to_owned(),
                "[::1]".to_owned(),
            ]
        };
        PlaybackSettings {
            answer,
            miss,
            auto: form
                .auto
                .and_then(|text| self.origin("playback.auto", &text))
                .map(Auto),
            allowed_targets: form.allowed_targets.unwrap_or_else(default_targets),
            repeat: form.repeat.unwrap_or(Repeat::Last),
            delay,
            matching: MatchSettings {
                host: matching.host.unwrap_or(false),
                ignore_query: matching.ignore_query.unwrap_or_default(),
                headers: lower_case(matching.headers),
                body: matching.body.unwrap_or(BodyMatch::Exact),
            },
        }
    }

    fn api(&mut self, form: Api, environment: &Environment) -> ApiSettings {
        let listen = self.listen("api", form.host, form.port, API_PORT);
        let token = environment.api_token.clone().or(form.token);
        if token.is_none() && !listen.is_loopback() {
            let message = format!(
                "the API on `{listen}` could be reached by others: set `api.token`, or listen on 127.0.0.1"
            );
            self.wrong("api.host", message);
        }
        if token.as_ref().is_some_and(|token| {
            let token = token.expose_secret();
            token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic())
        }) {
            self.wrong(
                "api.token",
                "must be one or more visible ASCII characters without spaces",
            );
        }
        ApiSettings {
            listen,
            token,
            allowed_hosts: form.allowed_hosts.unwrap_or_default(),
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

fn rules(forms: Option<Vec<RuleForm>>) -> Vec<Rule> {
    let rule = |form: RuleForm| Rule {
        methods: form.methods.unwrap_or_default(),
        paths: form.paths.unwrap_or_default(),
        hosts: form.hosts.unwrap_or_default(),
        statuses: form
            .statuses
            .unwrap_or_default()
            .into_iter()
            .map(|status| status.0)
            .collect(),
        content_types: form.content_types.unwrap_or_default(),
    };
    forms.unwrap_or_default().into_iter().map(rule).collect()
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
