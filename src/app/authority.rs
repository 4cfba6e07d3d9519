//! The authority that a forward proxy decrypts with, before there is a proxy: made, handed out, checked.

use std::path::Path;

use super::error::Error;
use super::limits;
use crate::config::Settings;
use crate::proxy::{self, tls};

pub use crate::proxy::tls::NewAuthority;

/// The certificate of an authority alone, in DER.
///
/// # Errors
/// Where the file holds none, or one that is no authority.
pub fn authority_certificate(path: &Path) -> Result<Vec<u8>, proxy::Error> {
    tls::authority_certificate(path)
}

/// Looks whether every authority that is configured is one, is valid, and has its key beside it.
///
/// # Errors
/// [`Error`] with the key of the configuration and the file.
pub fn check_authorities(settings: &Settings) -> Result<(), Error> {
    let forward = settings.http.as_ref();
    let forward = forward.and_then(|http| http.forward_proxy.as_ref());
    let answer = settings.playback.answer.as_ref();
    let answers_in = match settings.mode.proxies() {
        true => "playback.http",
        false => "http",
    };
    let all = [
        ("http", forward.and_then(|forward| forward.ca.as_ref())),
        (answers_in, answer.and_then(|answer| answer.ca.as_ref())),
    ];
    for (key, files) in all {
        if let Some(files) = files {
            let checked = tls::check_authority(&limits::files(files));
            checked.map_err(|error| Error::proxy(key, error))?;
        }
    }
    Ok(())
}
