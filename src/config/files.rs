//! Whether the files that a configuration names are there and can be read.

use std::path::Path;

use super::problem::Problem;
use super::settings::{ClientAuth, KeySource, ListenerTls, Settings, UpstreamTls};

/// What is wrong with them. Whether a certificate is valid is for TLS to say.
pub(super) fn problems(settings: &Settings) -> Vec<Problem> {
    let tcp_key = |at: usize| match settings.tcp.len() {
        1 => "tcp".to_owned(),
        _ => format!("tcp[{at}]"),
    };
    let mut found = Vec::new();
    let mut look = |key: &str, path: Option<&Path>| {
        if let Some(path) = path
            && let Err(error) = std::fs::File::open(path).and_then(|file| file.metadata())
        {
            let message = format!("could not read `{}`: {error}", path.display());
            found.push(Problem::new(key, message));
        }
    };
    let mut tls = |key: &str, tls: Option<&ListenerTls>| {
        let Some(tls) = tls else { return };
        look(&format!("{key}.tls.tls_cert"), Some(&tls.files.cert));
        look(&format!("{key}.tls.tls_key"), Some(&tls.files.key));
        if let ClientAuth::Optional(ca) | ClientAuth::Required(ca) = &tls.clients {
            look(&format!("{key}.tls.client_ca"), Some(ca));
        }
    };
    if let Some(http) = &settings.http {
        tls("http", http.tls.as_ref());
    }
    for (at, tcp) in settings.tcp.iter().enumerate() {
        tls(&tcp_key(at), tcp.tls.as_ref());
    }
    if let Some(answer) = &settings.playback.answer {
        let key = if settings.mode.proxies() {
            "playback.http"
        } else {
            "http"
        };
        tls(key, answer.tls.as_ref());
    }
    for (at, tcp) in settings.playback.tcp.iter().enumerate() {
        let key = match settings.playback.tcp.len() {
            1 => "playback.tcp".to_owned(),
            _ => format!("playback.tcp[{at}]"),
        };
        tls(&key, tcp.tls.as_ref());
    }
    if let Some(broker) = &settings.broker {
        let listener = broker.tls.clone().map(|files| ListenerTls {
            files,
            clients: ClientAuth::None,
        });
        tls("broker", listener.as_ref());
    }
    let proxied = settings.http.as_ref();
    let forward = proxied.and_then(|http| http.forward_proxy.as_ref());
    let answer = settings.playback.answer.as_ref();
    for (key, files) in [
        (
            "http.forward_proxy.ca",
            forward.and_then(|forward| forward.ca.as_ref()),
        ),
        (
            if settings.mode.proxies() {
                "playback.http.ca"
            } else {
                "http.forward_proxy.ca"
            },
            answer.and_then(|answer| answer.ca.as_ref()),
        ),
    ] {
        if let Some(files) = files {
            look(&format!("{key}.cert"), Some(&files.cert));
            look(&format!("{key}.key"), Some(&files.key));
        }
    }
    look("mqtt.ca", settings.mqtt.ca.as_deref());
    for key in &settings.encryption {
        if let KeySource::File(path) = &key.source {
            look(&format!("{}.key_file", key.section), Some(path));
        }
    }
    let mut upstream = |key: &str, tls: &UpstreamTls| {
        look(&format!("{key}.upstream_ca"), tls.ca.as_deref());
        if let Some(identity) = &tls.identity {
            look(&format!("{key}.upstream_cert"), Some(&identity.cert));
            look(&format!("{key}.upstream_key"), Some(&identity.key));
        }
    };
    if let Some(http) = &settings.http {
        upstream("http", &http.upstream_tls);
    }
    for (at, tcp) in settings.tcp.iter().enumerate() {
        upstream(&tcp_key(at), &tcp.upstream_tls);
    }
    found
}
