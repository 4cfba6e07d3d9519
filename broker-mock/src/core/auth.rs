//! The check of user name (app id) and password (token).

use bytes::Bytes;
use qproxy_mqtt::codec::Text;
use secrecy::{ExposeSecret, SecretString};

use crate::Config;

/// What a client must know to come in.
#[derive(Debug)]
pub(super) struct Door {
    app_id: Option<String>,
    token: Option<SecretString>,
}

impl Door {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            app_id: config.app_id.clone(),
            token: config.token.clone(),
        }
    }

    /// Both are always compared, so that the time taken does not tell which was wrong.
    pub(super) fn admits(&self, username: Option<&Text>, password: Option<&Bytes>) -> bool {
        let app_id = self
            .app_id
            .as_ref()
            .is_none_or(|wanted| same(wanted.as_bytes(), username.map(Text::as_bytes)));
        let token = self.token.as_ref().is_none_or(|wanted| {
            same(
                wanted.expose_secret().as_bytes(),
                password.map(|given| &**given),
            )
        });
        app_id & token
    }
}

/// Compares in a time that depends only on the length of what was given.
fn same(wanted: &[u8], given: Option<&[u8]>) -> bool {
    let given_bytes = given.unwrap_or_default();
    let mut difference = usize::from(given.is_none()) | (wanted.len() ^ given_bytes.len());
    for (index, byte) in given_bytes.iter().enumerate() {
        let expected = wanted.get(index).copied().unwrap_or_default();
        difference |= usize::from(byte ^ expected);
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_all_bytes_and_the_length() {
        assert!(same(b"secret", Some(b"secret")));
        for wrong in [
            &b"secre"[..],
            b"secrets",
            b"Secret",
            b"secreT",
            b"",
            b"secret\0",
        ] {
            assert!(!same(b"secret", Some(wrong)), "{wrong:?}");
        }
        assert!(!same(b"secret", None));
        assert!(same(b"", Some(b"")));
        assert!(!same(b"", None));
    }

    #[test]
    fn each_part_that_is_configured_must_be_right() {
        let door = Door::new(&Config {
            app_id: Some("shop".into()),
            token: Some("t".into()),
            ..Config::default()
        });
        let (name, token) = (Text::from("shop"), Bytes::from_static(b"t"));
        assert!(door.admits(Some(&name), Some(&token)));
        assert!(!door.admits(Some(&name), None));
        assert!(!door.admits(None, Some(&token)));
        assert!(!door.admits(Some(&"x".into()), Some(&token)));
        assert!(Door::new(&Config::default()).admits(None, None));
    }
}
