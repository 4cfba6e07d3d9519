//! Whether the files that a configuration names are there and can be read.

use std::path::Path;

use super::problem::Problem;
use super::settings::{Settings, TlsFiles};

/// What is wrong with them. Whether a certificate is valid is for TLS to say, at start.
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
    let mut tls = |key: &str, files: Option<&TlsFiles>| {
        look(
            &format!("{key}.tls.tls_cert"),
            files.map(|files| files.cert.as_path()),
        );
        look(
            &format!("{key}.tls.tls_key"),
            files.map(|files| files.key.as_path()),
        );
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
    if let Some(broker) = &settings.broker {
        tls("broker", broker.tls.as_ref());
    }
    look("mqtt.ca", settings.mqtt.ca.as_deref());
    if let Some(http) = &settings.http {
        look("http.upstream_ca", http.upstream_ca.as_deref());
    }
    for (at, tcp) in settings.tcp.iter().enumerate() {
        let key = format!("{}.upstream_ca", tcp_key(at));
        look(&key, tcp.upstream_ca.as_deref());
    }
    found
}
