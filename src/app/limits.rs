//! From settings to each module's own limits: what is not set keeps the module's default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

use super::error::Error;
use crate::capture::{self, Glob, StatusMatch};
use crate::config;
use crate::playback::{self, Ignore, IgnoreRule, MatchConfig, Repeat};
use crate::proxy;
use crate::record::{BodyMatch, Direction, FingerprintRules, Keyring, NodeId};
use crate::service_discovery::{self, Endpoint, Pool};
use crate::{spool, store};

/// The first address of a host; `key` is the section that names it.
pub(super) async fn resolve(key: &str, at: &config::Endpoint) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Resolve {
        key: format!("{key}.host"),
        host: at.host.clone(),
        source,
    };
    let found = tokio::net::lookup_host((at.host.as_str(), at.port)).await;
    let mut found = found.map_err(failed)?;
    found
        .next()
        .ok_or_else(|| failed(std::io::Error::other("the name has no address")))
}

/// The endpoints of a service.
pub(super) fn pool(
    key: &str,
    downstream: &[impl ToString],
    balance: config::Balance,
    metrics: &service_discovery::Metrics,
) -> Result<Arc<Pool>, Error> {
    let key = format!("{key}.downstream");
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in downstream {
        let endpoint = text.to_string().parse();
        endpoints.push(endpoint.map_err(|source| Error::Downstream {
            key: key.clone(),
            source,
        })?);
    }
    let config = service_discovery::Config {
        balance: match balance {
            config::Balance::RoundRobin => service_discovery::Balance::RoundRobin,
            config::Balance::LeastConnections => service_discovery::Balance::LeastConnections,
        },
        ..service_discovery::Config::default()
    };
    Pool::new(endpoints, &config, metrics.clone(), Instant::now())
        .map(Arc::new)
        .map_err(|error| Error::Setting {
            key,
            message: error.to_string(),
        })
}

pub(super) fn files(files: &config::TlsFiles) -> proxy::tls::Files {
    proxy::tls::Files {
        certificate: files.cert.clone(),
        key: files.key.clone(),
    }
}

fn client_auth(tls: Option<&config::ListenerTls>) -> proxy::tls::ClientAuth {
    match tls.map(|tls| &tls.clients) {
        None | Some(config::ClientAuth::None) => proxy::tls::ClientAuth::None,
        Some(config::ClientAuth::Optional(ca)) => proxy::tls::ClientAuth::Optional(ca.clone()),
        Some(config::ClientAuth::Required(ca)) => proxy::tls::ClientAuth::Required(ca.clone()),
    }
}

const fn proxy_protocol(required: bool) -> proxy::ProxyProtocol {
    if required {
        proxy::ProxyProtocol::Required
    } else {
        proxy::ProxyProtocol::Off
    }
}

const fn verify(tls: &config::UpstreamTls) -> proxy::tls::Verify {
    if tls.insecure_skip_verify {
        proxy::tls::Verify::Nothing
    } else {
        proxy::tls::Verify::Full
    }
}

pub(super) fn http(http: &config::HttpSettings, listen: SocketAddr) -> proxy::http::Config {
    let mut limits = proxy::http::Config::new(listen, http.service.as_str());
    limits.tls = http.tls.as_ref().map(|tls| files(&tls.files));
    limits.client_auth = client_auth(http.tls.as_ref());
    limits.proxy_protocol = proxy_protocol(http.proxy_protocol);
    limits.upstream_ca.clone_from(&http.upstream_tls.ca);
    limits.upstream_identity = http.upstream_tls.identity.as_ref().map(files);
    limits.upstream_verify = verify(&http.upstream_tls);
    limits.max_connections = http.max_connections;
    limits.connect_timeout = http.connect_timeout;
    limits.max_upstream_connections = http.max_upstream_connections;
    limits.response_timeout = http.response_timeout;
    limits.body_timeout = http.body_timeout;
    limits.write_timeout = http.write_timeout;
    limits.max_request_bytes = http.max_request_bytes;
    limits.tunnel_idle_timeout = http.tunnel_idle_timeout;
    limits.forward_proxy = http.forward_proxy.as_ref().map(forward_proxy);
    limits.forwarded = match http.forwarded {
        config::Forwarded::None => proxy::http::Forwarded::Off,
        config::Forwarded::XForwarded => proxy::http::Forwarded::On,
        config::Forwarded::Standard => proxy::http::Forwarded::Standard,
    };
    limits
}

fn forward_proxy(open: &config::ForwardProxySettings) -> proxy::http::ForwardProxy {
    let hosts = |hosts: &[String]| hosts.iter().map(|host| host.as_str().into()).collect();
    let ports = open.allowed_ports.iter();
    proxy::http::ForwardProxy {
        allowed_hosts: hosts(&open.allowed_hosts),
        allowed_ports: ports.map(|(first, last)| *first..=*last).collect(),
        credentials: open.credentials.as_ref().map(credentials),
        passthrough_hosts: hosts(&open.passthrough_hosts),
        authority: open.ca.as_ref().map(files),
        refused: if open.pass_through_refused {
            proxy::http::Refused::PassedThrough
        } else {
            proxy::http::Refused::Told
        },
        service: open.service.as_deref().map(Arc::from),
        max_hosts: open.max_hosts,
        idle_timeout: open.idle_timeout,
        ..proxy::http::ForwardProxy::default()
    }
}

fn credentials(text: &SecretString) -> proxy::http::Credentials {
    proxy::http::Credentials::new(text.expose_secret())
}

/// The services of a listener that have requests of their own.
pub(super) fn routes(
    http: &config::HttpSettings,
    metrics: &service_discovery::Metrics,
) -> Result<Vec<proxy::http::Route>, Error> {
    let route = |(at, route): (usize, &config::RouteSettings)| {
        let key = format!("http.routes[{at}]");
        Ok(proxy::http::Route {
            host: route.host.as_deref().map(Arc::from),
            path: route.path.as_str().into(),
            service: route.service.as_str().into(),
            pool: pool(
                &key,
                &route.downstream,
                config::Balance::RoundRobin,
                metrics,
            )?,
        })
    };
    http.routes.iter().enumerate().map(route).collect()
}

pub(super) fn answering(
    listen: SocketAddr,
    answer: &config::AnswerSettings,
) -> proxy::http::Config {
    let mut limits = proxy::http::Config::new(listen, "answer");
    let tls = answer.tls.as_ref();
    limits.tls = tls.map(|tls| files(&tls.files));
    limits.client_auth = client_auth(tls);
    limits.forward_proxy = answer.ca.as_ref().map(|ca| proxy::http::ForwardProxy {
        authority: Some(files(ca)),
        credentials: answer.credentials.as_ref().map(credentials),
        // Nothing goes out of it.
        allowed_ports: vec![1..=u16::MAX],
        ..proxy::http::ForwardProxy::default()
    });
    limits
}

pub(super) fn talking(tcp: &config::AnswerTcpSettings, listen: SocketAddr) -> proxy::tcp::Config {
    let mut limits = proxy::tcp::Config::new(listen, tcp.service.as_str());
    limits.tls = tcp.tls.as_ref().map(|tls| files(&tls.files));
    limits.client_auth = client_auth(tcp.tls.as_ref());
    limits.max_connections = tcp.max_connections;
    limits
}

pub(super) fn tcp(tcp: &config::TcpSettings, listen: SocketAddr) -> proxy::tcp::Config {
    let mut limits = proxy::tcp::Config::new(listen, tcp.service.as_str());
    limits.tls = tcp.tls.as_ref().map(|tls| files(&tls.files));
    limits.client_auth = client_auth(tcp.tls.as_ref());
    limits.proxy_protocol = proxy_protocol(tcp.proxy_protocol);
    limits.upstream_ca.clone_from(&tcp.upstream_tls.ca);
    limits.upstream_identity = tcp.upstream_tls.identity.as_ref().map(files);
    limits.upstream_verify = verify(&tcp.upstream_tls);
    limits.max_connections = tcp.max_connections;
    limits.connect_timeout = tcp.connect_timeout;
    limits.idle_timeout = tcp.idle_timeout;
    limits
}

pub(super) fn capture(
    node: NodeId,
    settings: &config::Settings,
    keys: &Arc<Keyring>,
) -> Result<capture::Config, Error> {
    let typed = &settings.capture;
    let max_message_bytes = settings.mqtt.max_message_bytes;
    let mut limits = capture::Config::new(node);
    limits.keys = Arc::clone(keys);
    limits.queue_bytes = typed.queue_bytes;
    limits.max_stream_bytes = typed.max_stream_bytes;
    limits.max_message_bytes = max_message_bytes;
    // A chunk has to fit a message, with what stands beside it.
    limits.chunk_bytes = limits
        .chunk_bytes
        .min(max_message_bytes.saturating_sub(1024));
    limits.inline_bytes = limits.inline_bytes.min(limits.chunk_bytes);
    let settings = &mut limits.settings;
    settings.enabled = typed.enabled;
    settings.sample = typed.sample;
    settings.max_body_bytes = typed.max_body_bytes;
    settings.include = rules("capture.include", &typed.include)?;
    settings.exclude = rules("capture.exclude", &typed.exclude)?;
    let lower = |name: &String| Arc::from(name.to_ascii_lowercase());
    settings.redact_headers = typed.redact_headers.iter().map(lower).collect();
    settings.redact_json = typed
        .redact_json
        .iter()
        .map(|path| Arc::from(path.as_str()))
        .collect();
    Ok(limits)
}

fn rules(key: &str, typed: &[config::Rule]) -> Result<Vec<capture::Rule>, Error> {
    let rule = |(at, rule): (usize, &config::Rule)| -> Result<capture::Rule, Error> {
        let globs = |texts: &[String]| texts.iter().map(|text| Glob::from(text.as_str())).collect();
        let mut statuses: Vec<StatusMatch> = Vec::new();
        for text in &rule.statuses {
            let status = text
                .parse()
                .map_err(|error: capture::InvalidSetting| Error::Setting {
                    key: format!("{key}[{at}].statuses"),
                    message: error.to_string(),
                });
            statuses.push(status?);
        }
        Ok(capture::Rule {
            methods: rule.methods.clone(),
            paths: globs(&rule.paths),
            hosts: globs(&rule.hosts),
            statuses,
            content_types: rule.content_types.clone(),
        })
    };
    typed.iter().enumerate().map(rule).collect()
}

pub(super) fn spool(node: NodeId, typed: &config::SpoolSettings) -> spool::Config {
    let mut limits = spool::Config::new(typed.path.clone(), node);
    limits.max_bytes = typed.max_bytes;
    limits.max_age = typed.max_age.unwrap_or(Duration::MAX);
    limits
}

pub(super) fn embedded(
    path: PathBuf,
    retention: &config::RetentionSettings,
) -> store::embedded::Config {
    let mut limits = store::embedded::Config::new(path);
    limits.max_age = retention.max_age;
    limits.max_bytes = retention.max_bytes;
    limits
}

pub(super) fn redis(
    server: store::redis::Server,
    options: &config::RedisOptions,
    retention: &config::RetentionSettings,
) -> Result<store::redis::Config, Error> {
    let mut limits = store::redis::Config::new(server);
    limits.prefix.clone_from(&options.prefix);
    limits.max_age = retention.max_age;
    limits.max_bytes = retention.max_bytes;
    if let Some(path) = &options.ca {
        let pem = std::fs::read(path).map_err(|error| Error::Setting {
            key: "store.redis_ca".to_owned(),
            message: format!("could not read {}: {error}", path.display()),
        })?;
        limits.ca_pem = Some(pem);
    }
    Ok(limits)
}

pub(super) fn fingerprint_rules(playback: &config::PlaybackSettings) -> FingerprintRules {
    let matching = &playback.matching;
    FingerprintRules {
        host: matching.host,
        ignore_query: matching.ignore_query.clone(),
        headers: matching.headers.clone(),
        body: match matching.body {
            config::BodyMatch::Exact => BodyMatch::Exact,
            config::BodyMatch::Ignore => BodyMatch::Ignore,
        },
    }
}

pub(super) fn answerer(settings: &config::Settings) -> Result<playback::AnswerConfig, Error> {
    let typed = &settings.playback;
    let miss = match &typed.miss {
        config::Miss::Explain => playback::Miss::Explain,
        config::Miss::PassThrough(url) => {
            playback::Miss::PassThrough(target("playback.upstream", url)?)
        }
    };
    let matching = MatchConfig {
        rules: fingerprint_rules(typed),
        repeat: repeat(typed.repeat),
        ..MatchConfig::default()
    };
    Ok(playback::AnswerConfig {
        miss,
        matching,
        delay: delay(typed.delay),
        web_socket: playback::WebSocketConfig {
            disclosure: disclosure(settings),
            ..playback::WebSocketConfig::default()
        },
        ..playback::AnswerConfig::default()
    })
}

const fn repeat(typed: config::Repeat) -> Repeat {
    match typed {
        config::Repeat::Last => Repeat::Last,
        config::Repeat::Loop => Repeat::Loop,
        config::Repeat::Latest => Repeat::Latest,
    }
}

const fn delay(typed: config::Delay) -> playback::Delay {
    match typed {
        config::Delay::None => playback::Delay::None,
        config::Delay::AsRecorded => playback::Delay::AsRecorded,
        config::Delay::Fixed(time) => playback::Delay::Fixed(time),
    }
}

/// How the clients of one of `playback.tcp` are answered; `key` is its section.
pub(super) fn talker(
    key: &str,
    tcp: &config::AnswerTcpSettings,
    settings: &config::Settings,
) -> Result<playback::TalkConfig, Error> {
    let rule = |(at, rule): (usize, &config::IgnoreSetting)| match rule {
        config::IgnoreSetting::Bytes(range) => {
            Ok(IgnoreRule::range(Direction::Client, range.clone()))
        }
        config::IgnoreSetting::Pattern(pattern) => {
            let read = IgnoreRule::pattern(Direction::Client, pattern);
            read.map_err(|error| Error::Setting {
                key: match tcp.ignore.len() {
                    1 => format!("{key}.ignore.pattern"),
                    _ => format!("{key}.ignore[{at}].pattern"),
                },
                message: error.to_string(),
            })
        }
    };
    let rules: Result<Vec<_>, _> = tcp.ignore.iter().enumerate().map(rule).collect();
    let mut limits = playback::TalkConfig::new(tcp.service.as_str());
    limits.ignore = Ignore::from(rules?);
    limits.delay = delay(settings.playback.delay);
    limits.repeat = repeat(settings.playback.repeat);
    limits.idle_timeout = tcp.idle_timeout;
    limits.disclosure = disclosure(settings);
    Ok(limits)
}

/// Whether bytes of records may stand in logs and in the status.
fn disclosure(settings: &config::Settings) -> playback::Disclosure {
    match settings.encryption.is_empty() {
        true => playback::Disclosure::Shown,
        false => playback::Disclosure::Withheld,
    }
}

/// Where replayed requests go.
pub(super) fn target(key: &str, url: &str) -> Result<playback::Target, Error> {
    url.parse()
        .map_err(|error: playback::Error| Error::Setting {
            key: key.to_owned(),
            message: error.to_string(),
        })
}

pub(super) fn replay(typed: &config::PlaybackSettings) -> playback::ReplayConfig {
    playback::ReplayConfig {
        allowed_targets: playback::AllowedTargets::new(&typed.allowed_targets),
        ..playback::ReplayConfig::default()
    }
}
