//! `encryption`: which keys there are and where their bytes lie. The bytes are read at start, not here.

use std::path::PathBuf;

use super::file::Encryption;
use super::resolve::Resolver;
use super::settings::{KeySettings, KeySource};

impl Resolver {
    /// The keys, the one to write with first.
    pub(super) fn keys(&mut self, typed: Option<Encryption>) -> Vec<KeySettings> {
        let Some(typed) = typed else {
            return Vec::new();
        };
        let mut keys: Vec<KeySettings> = Vec::new();
        let first = (typed.key_id, typed.key_file, typed.key_env);
        let mut all = vec![("encryption".to_owned(), first)];
        for (at, old) in typed.old_keys.unwrap_or_default().into_iter().enumerate() {
            let section = format!("encryption.old_keys[{at}]");
            all.push((section, (old.key_id, old.key_file, old.key_env)));
        }
        for (section, (id, file, variable)) in all {
            let key = self.key(section, id, file, variable);
            if let Some(twin) = keys.iter().find(|other| other.id == key.id) {
                let message = format!(
                    "`{}` is the name of the key of `{}` too",
                    key.id, twin.section
                );
                self.wrong(format!("{}.key_id", key.section), message);
            }
            keys.push(key);
        }
        keys
    }

    fn key(
        &mut self,
        section: String,
        id: Option<String>,
        file: Option<PathBuf>,
        variable: Option<String>,
    ) -> KeySettings {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let id = id.unwrap_or_default();
        if !(1..=64).contains(&id.len()) || !id.bytes().all(legal) {
            let message = format!("`{id}` must be 1 to 64 of A-Z a-z 0-9 _ - .");
            self.wrong(format!("{section}.key_id"), message);
        }
        let source = match (file, variable) {
            (Some(path), None) => KeySource::File(path),
            (None, Some(name)) => KeySource::Variable(name),
            (file, _) => {
                let message = "needs one of `key_file` and `key_env`: where the key is";
                self.wrong(section.clone(), message);
                KeySource::File(file.unwrap_or_default())
            }
        };
        KeySettings {
            section,
            id,
            source,
        }
    }
}
