//! From settings to each module's own limits: what is not set keeps the module's default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Error;
use crate::capture::{self, Glob, StatusMatch};
use crate::config;
use crate::playback::{self, MatchConfig, Repeat};
use crate::proxy;
use crate::record::{BodyMatch, FingerprintRules, NodeId};
use crate::segment::Fsync;
use crate::service_discovery::{self, Endpoint, Pool};
use crate::{spool, store};

const FSYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The first address of a host.
pub(super) async fn resolve(address: &config::Address) -> Result<SocketAddr, Error> {
    let failed = |source| Error::Resolve {
        key: address.key.replace(".port", ".host"),
        host: address.host.clone(),
        source,
    };
    let mut found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(failed)?;
    found
        .next()
        .ok_or_else(|| failed(std::io::Error::other("the name has no address")))
}

/// The endpoints of a service.
pub(super) fn pool(
    key: &str,
    downstream: &[String],
    metrics: &service_discovery::Metrics,
) -> Result<Arc<Pool>, Error> {
    let key = format!("{key}.downstream");
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in downstream {
        let endpoint = text.parse();
        endpoints.push(endpoint.map_err(|source| Error::Downstream {
            key: key.clone(),
            source,
        })?);
    }
    let config = service_discovery::Config::default();
    Pool::new(endpoints, &config, metrics.clone(), Instant::now())
        .map(Arc::new)
        .map_err(|error| Error::Setting {
            key,
            message: error.to_string(),
        })
}

fn tls(files: &config::TlsFiles) -> proxy::tls::Files {
    proxy::tls::Files {
        certificate: files.certificate.clone(),
        key: files.private_key.clone(),
    }
}

pub(super) fn http(http: &config::Http, listen: SocketAddr) -> proxy::http::Config {
    let mut limits = proxy::http::Config::new(listen, http.service.as_str());
    limits.tls = http.tls.as_ref().map(tls);
    limits.upstream_ca.clone_from(&http.upstream_ca);
    if !http.preserve_host {
        limits.host = proxy::http::Host::Upstream;
    }
    if http.forwarded {
        limits.forwarded = proxy::http::Forwarded::On;
    }
    set(&mut limits.max_connections, http.max_connections);
    set(&mut limits.max_head_bytes, http.max_head_bytes.map(size));
    set(&mut limits.head_timeout, http.idle_timeout);
    set(&mut limits.connect_timeout, http.connect_timeout);
    set(&mut limits.response_timeout, http.response_timeout);
    set(&mut limits.body_timeout, http.body_timeout);
    limits
}

pub(super) fn answering(
    listen: SocketAddr,
    files: Option<&config::TlsFiles>,
) -> proxy::http::Config {
    let mut limits = proxy::http::Config::new(listen, "answer");
    limits.tls = files.map(tls);
    limits
}

pub(super) fn tcp(tcp: &config::Tcp, listen: SocketAddr) -> proxy::tcp::Config {
    let mut limits = proxy::tcp::Config::new(listen, tcp.service.as_str());
    limits.tls = tcp.tls.as_ref().map(tls);
    limits.upstream_ca.clone_from(&tcp.upstream_ca);
    set(&mut limits.max_connections, tcp.max_connections);
    set(&mut limits.idle_timeout, tcp.idle_timeout);
    set(&mut limits.connect_timeout, tcp.connect_timeout);
    limits
}

pub(super) fn capture(node: NodeId, typed: &config::Capture) -> Result<capture::Config, Error> {
    let mut limits = capture::Config::new(node);
    set(&mut limits.queue_bytes, typed.queue_bytes.map(size));
    set(&mut limits.max_stream_bytes, typed.max_stream_bytes);
    let settings = &mut limits.settings;
    settings.enabled = typed.enabled;
    settings.sample = typed.sample;
    set(&mut settings.max_body_bytes, typed.max_body_bytes);
    settings.include = rules(&typed.include)?;
    settings.exclude = rules(&typed.exclude)?;
    let lower = |name: &String| Arc::from(name.to_ascii_lowercase());
    settings.redact_headers = typed.redact_headers.iter().map(lower).collect();
    settings.redact_json = typed
        .redact_json
        .iter()
        .map(|path| Arc::from(path.as_str()))
        .collect();
    Ok(limits)
}

fn rules(typed: &[config::Rule]) -> Result<Vec<capture::Rule>, Error> {
    let rule = |rule: &config::Rule| -> Result<capture::Rule, Error> {
        let globs = |texts: &[String]| texts.iter().map(|text| Glob::from(text.as_str())).collect();
        let mut statuses: Vec<StatusMatch> = Vec::new();
        for text in &rule.statuses {
            statuses.push(text.parse().map_err(|error: capture::InvalidSetting| {
                Error::Setting {
                    key: format!("{}.statuses", rule.key),
                    message: error.to_string(),
                }
            })?);
        }
        Ok(capture::Rule {
            methods: rule.methods.clone(),
            paths: globs(&rule.paths),
            hosts: globs(&rule.hosts),
            statuses,
            content_types: rule.content_types.clone(),
        })
    };
    typed.iter().map(rule).collect()
}

const fn fsync(typed: config::Fsync) -> Fsync {
    match typed {
        config::Fsync::Always => Fsync::Always,
        config::Fsync::Interval => Fsync::Interval(FSYNC_INTERVAL),
        config::Fsync::Never => Fsync::Never,
    }
}

pub(super) fn spool(node: NodeId, typed: &config::Spool) -> spool::Config {
    let mut limits = spool::Config::new(typed.path.clone(), node);
    set(&mut limits.max_bytes, typed.max_bytes);
    set(&mut limits.max_age, typed.max_age);
    limits.fsync = fsync(typed.fsync);
    limits
}

pub(super) fn embedded(
    path: PathBuf,
    typed: config::Fsync,
    retention: &config::Retention,
) -> store::embedded::Config {
    let mut limits = store::embedded::Config::new(path);
    limits.max_age = retention.max_age;
    limits.max_bytes = retention.max_bytes;
    limits.fsync = fsync(typed);
    limits
}

pub(super) fn redis(
    server: store::redis::Server,
    prefix: &str,
    retention: &config::Retention,
) -> store::redis::Config {
    let mut limits = store::redis::Config::new(server);
    prefix.clone_into(&mut limits.prefix);
    limits.max_age = retention.max_age;
    limits.max_bytes = retention.max_bytes;
    limits
}

pub(super) fn fingerprint_rules(playback: &config::Playback) -> FingerprintRules {
    FingerprintRules {
        host: playback.match_host,
        ignore_query: playback.ignore_query.clone(),
        headers: playback.match_headers.clone(),
        body: if playback.match_body {
            BodyMatch::Exact
        } else {
            BodyMatch::Ignore
        },
    }
}

pub(super) fn answerer(typed: &config::Playback) -> Result<playback::AnswerConfig, Error> {
    let miss = match &typed.miss {
        config::Miss::Explain => playback::Miss::Explain,
        config::Miss::PassThrough(url) => {
            playback::Miss::PassThrough(target("playback.miss.pass_through", url)?)
        }
    };
    let matching = MatchConfig {
        rules: fingerprint_rules(typed),
        repeat: match typed.repeat {
            config::Repeat::Last => Repeat::Last,
            config::Repeat::Loop => Repeat::Loop,
            config::Repeat::Latest => Repeat::Latest,
        },
        ..MatchConfig::default()
    };
    Ok(playback::AnswerConfig {
        miss,
        matching,
        ..playback::AnswerConfig::default()
    })
}

/// Where replayed requests go.
pub(super) fn target(key: &str, url: &str) -> Result<playback::Target, Error> {
    url.parse()
        .map_err(|error: playback::Error| Error::Setting {
            key: key.to_owned(),
            message: error.to_string(),
        })
}

pub(super) fn replay(typed: &config::Playback) -> playback::ReplayConfig {
    playback::ReplayConfig {
        allowed_targets: playback::AllowedTargets::new(&typed.allowed_targets),
        ..playback::ReplayConfig::default()
    }
}

fn set<T>(limit: &mut T, typed: Option<T>) {
    if let Some(typed) = typed {
        *limit = typed;
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
