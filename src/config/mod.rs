//! `config.json`: its exact shape, and what it means.
//!
//! What the user typed ([`file`]) and what the program uses ([`Settings`]) are two sets of types: the first
//! refuses every key it does not know, the second has no value that is not usable. Settings are plain values
//! that know no other module; `app` turns them into each module's own limits.

mod file;
mod value;
mod error;
mod settings;
mod resolve;

use std::path::{Path, PathBuf};

pub use error::{Error, Problem};
pub use settings::{
    Address, Api, Auto, Capture, Compression, Fsync, Http, Miss, Mode, Mqtt, Peer, Playback,
    Repeat, Retention, Rule, Settings, Spool, Store, Tcp, TlsFiles,
};

/// The file that is read where nothing else is said.
pub const DEFAULT_PATH: &str = "config.json";

/// Environment variables that stand for secrets, which then need not be in the file.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("QPROXY_API_TOKEN", "api.token"),
    ("QPROXY_MQTT_APP_ID", "mqtt.app_id"),
    ("QPROXY_MQTT_TOKEN", "mqtt.token"),
];

/// Reads a file, with secrets from this process's environment; relative paths in it start at its folder.
///
/// # Errors
/// [`Error`], which names the file, the key, and the value seen.
pub fn load(path: &Path) -> Result<Settings, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    parse(&text, &folder, |name| std::env::var(name).ok()).map_err(|problems| Error::Invalid {
        path: path.to_owned(),
        problems,
    })
}

/// Reads the text of a file whose relative paths start at `folder`.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be read.
pub fn parse(
    text: &str,
    folder: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Settings, Vec<Problem>> {
    let file = file::read(text).map_err(|problem| vec![problem])?;
    resolve::settings(file, folder, &environment)
}

/// Looks at a file as [`load`] does, and at the files that it names.
///
/// # Errors
/// [`Error`], with every problem that was found.
pub fn check(path: &Path) -> Result<Settings, Error> {
    let settings = load(path)?;
    let problems = settings.missing_files();
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(Error::Invalid {
            path: path.to_owned(),
            problems,
        })
    }
}

#[cfg(test)]
mod tests;
