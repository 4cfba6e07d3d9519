//! The keys that the configuration names, read from where they lie.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::error::Error;
use crate::config::{KeySettings, KeySource};
use crate::record::{Key, Keyring};

/// A key's file is at most this long; what is longer is none, and may be without end.
const MAX_FILE: u64 = 4096;

/// The text of a new key.
#[must_use]
pub fn new_key() -> String {
    Key::generate()
}

/// Reads every key.
///
/// # Errors
/// [`Error::Setting`] with the key of the configuration and the file or variable; never with what stands there.
pub(super) fn read(settings: &[KeySettings]) -> Result<Arc<Keyring>, Error> {
    let keys: Result<Vec<Key>, Error> = settings.iter().map(one).collect();
    keys.map(|keys| Arc::new(Keyring::new(keys)))
}

fn one(key: &KeySettings) -> Result<Key, Error> {
    let (name, place, text) = match &key.source {
        KeySource::File(path) => {
            let text = content(path).map_err(|error| Error::Setting {
                key: format!("{}.key_file", key.section),
                message: format!("could not read `{}`: {error}", path.display()),
            })?;
            ("key_file", path.display().to_string(), text)
        }
        KeySource::Variable(variable) => {
            let text = std::env::var(variable).map_err(|_| Error::Setting {
                key: format!("{}.key_env", key.section),
                message: format!("there is no readable variable `{variable}` in the environment"),
            })?;
            ("key_env", variable.clone(), text.into())
        }
    };
    Key::parse(&key.id, text.expose_secret()).map_err(|error| Error::Setting {
        key: format!("{}.{name}", key.section),
        message: format!("`{place}` {error}"),
    })
}

fn content(path: &std::path::Path) -> std::io::Result<SecretString> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_string(&mut text)?;
    Ok(text.into())
}
