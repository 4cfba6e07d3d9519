//! The text that a call is shown by: printable, short, and without what must stay secret.
//!
//! Masking does not parse SQL: dialects quote in too many ways. Where a statement names a secret, everything from the
//! first thing on that may be its value is left out. Too much masked is a nuisance, too little is a leak.

use std::sync::Arc;

use crate::record::Application;

/// What stands for a secret.
pub(super) const MASK: &str = "***";
/// Of a statement or an argument this much is looked at, bytes; more is never shown.
pub(super) const KEPT: usize = 1024;
/// How long a name or a version may be, bytes.
const NAME_BYTES: usize = 255;

/// What names a secret, in a statement or in the name of a column, a setting, a key.
const SECRETS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "identified",
    "secret",
    "token",
    "credential",
    "api_key",
    "apikey",
];

/// A call's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    text: Box<str>,
    /// Whether it names a secret, so that what is said about it may tell it.
    secret: bool,
}

impl Said {
    /// A text of ours.
    pub(super) fn plain(text: &str) -> Self {
        Self {
            text: shorten(text, Application::TEXT_BYTES, false).into(),
            secret: false,
        }
    }

    /// A statement, of which `kept` is all or the beginning.
    pub(super) fn statement(kept: &[u8], length: u64) -> Self {
        let cut = length > kept.len() as u64;
        let text = printable(kept);
        let (shown, secret) = veil(&text);
        Self {
            text: shorten(&shown, Application::TEXT_BYTES, cut).into(),
            secret: secret || cut,
        }
    }

    /// A text put together from parts that were looked at one by one.
    pub(super) fn assembled(text: &str, secret: bool, cut: bool) -> Self {
        Self {
            text: shorten(text, Application::TEXT_BYTES, cut).into(),
            secret,
        }
    }

    /// The same, as something else does it: `PREPARE ` before a statement.
    pub(super) fn behind(&self, verb: &str) -> Self {
        let text = format!("{verb} {}", self.text);
        Self {
            text: shorten(&text, Application::TEXT_BYTES, false).into(),
            secret: self.secret,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// What a server says went wrong with it: only the code where the rest may tell a secret.
    pub(super) fn error(&self, code: &str, message: &[u8]) -> Arc<str> {
        let message = printable(&message[..message.len().min(KEPT)]);
        let text = match (code.is_empty(), self.secret) {
            (_, true) => code.to_owned(),
            (true, false) => message,
            (false, false) => format!("{code} {message}"),
        };
        shorten(text.trim_end(), Application::TEXT_BYTES, false).into()
    }
}

/// A name or a version that a peer tells; `None` for an empty one.
pub(super) fn name(bytes: &[u8]) -> Option<Arc<str>> {
    let text = printable(&bytes[..bytes.len().min(KEPT)]);
    (!text.is_empty()).then(|| shorten(&text, NAME_BYTES, false).into())
}

/// Text without control characters; white space is a single space, and a byte that is no text `\x..`.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_whitespace() {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            } else if c.is_control() {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// At most `most` bytes of a text; what is left out leaves an ellipsis.
pub(super) fn shorten(text: &str, most: usize, cut: bool) -> String {
    if text.len() <= most && !cut {
        return text.to_owned();
    }
    let room = most - "…".len();
    format!(
        "{}…",
        &text[..text.floor_char_boundary(room.min(text.len()))]
    )
}

/// Whether a text names a secret.
pub(super) fn names_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    SECRETS.iter().any(|word| lower.contains(word))
}

/// A text without the secrets that it names, and whether it names any.
pub(super) fn veil(text: &str) -> (String, bool) {
    let lower = text.to_ascii_lowercase();
    let places = SECRETS.iter().flat_map(|word| {
        let found = lower.match_indices(word);
        found.map(|(at, word)| at + word.len())
    });
    let mut secret = false;
    let mut cut = None;
    for end in places {
        secret = true;
        let value = value_after(&lower, end);
        cut = match (cut, value) {
            (Some(cut), Some(value)) => Some(usize::min(cut, value)),
            (cut, value) => cut.or(value),
        };
    }
    let shown = match cut {
        Some(at) => format!("{}{MASK}", &text[..at]),
        None => text.to_owned(),
    };
    (without_userinfo(shown), secret)
}

/// Where the value begins of the secret whose name has a part that ends at `end`; `None` where there is none.
fn value_after(lower: &str, end: usize) -> Option<usize> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let rest = lower[end..].trim_start_matches(is_name).trim_start();
    let next = lower.len() - rest.len();
    if rest.starts_with(['=', ':']) {
        return Some(next + 1);
    }
    if rest.starts_with("to ") || rest.starts_with("by ") {
        return Some(next + 3);
    }
    let bytes = lower.as_bytes();
    (end..bytes.len()).find(|at| match bytes[*at] {
        b'\'' | b'"' => true,
        // `$1` is a parameter, `$$` and `$tag$` quote.
        b'$' => !bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        b'0' => bytes.get(at + 1) == Some(&b'x'),
        _ => false,
    })
}

/// Masks what stands before the `@` of an address, `scheme://user:word@host`.
fn without_userinfo(mut text: String) -> String {
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let start = from + found + 3;
        let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '/');
        let end = text[start..].find(ends).map_or(text.len(), |at| start + at);
        from = start;
        if let Some(at) = text[start..end].rfind('@') {
            text.replace_range(start..start + at, MASK);
            from = start + MASK.len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(statement: &str) -> String {
        let said = Said::statement(statement.as_bytes(), statement.len() as u64);
        said.as_str().to_owned()
    }

    #[test]
    fn statements_are_one_line_of_printable_text() {
        assert_eq!(
            shown("SELECT *\n\t FROM  tea\r\n"),
            "SELECT * FROM tea",
            "white space"
        );
        assert_eq!(
            printable(b"a\0b\xffc\x1b[2J \xc2\x9b"),
            "a\\x00b\\xffc\\x1b[2J \\x9b"
        );
        assert_eq!(shown("SELECT 'grün'"), "SELECT 'grün'");
    }

    #[test]
    fn long_statements_are_cut_at_a_character() {
        let long = "é".repeat(Application::TEXT_BYTES);
        let text = shown(&long);
        assert!(text.len() <= Application::TEXT_BYTES && text.ends_with("é…"));
        let said = Said::statement(b"SELECT 1", 5000);
        assert_eq!(said.as_str(), "SELECT 1…", "there was more");
    }

    #[test]
    fn secrets_in_statements_never_show() {
        for statement in [
            "ALTER USER ada PASSWORD 'hunter2'",
            "alter role ada with encrypted password E'hunter2' valid until 'x'",
            "CREATE USER 'a'@'%' IDENTIFIED BY 'hunter2' REPLACE 'hunter2'",
            "CREATE USER a IDENTIFIED VIA ed25519 USING PASSWORD('hunter2')",
            "CREATE USER a IDENTIFIED WITH caching_sha2_password AS 0x68756e74657232hunter2",
            "SET PASSWORD = PASSWORD(\"hunter2\")",
            "SET PASSWORD FOR 'bob'@'%' = 'hunter2'",
            "CHANGE MASTER TO MASTER_USER='r', MASTER_PASSWORD='hunter2'",
            "CREATE USER MAPPING FOR b SERVER s OPTIONS (user 'b', password 'hunter2')",
            "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2' PUBLICATION p",
            "SELECT dblink('host=h user=u passwd = hunter2')",
            "SELECT dblink('postgresql://u:hunter2@h/d')",
            "-- don't\nALTER USER x PASSWORD /* it's */ 'hunter2'",
            "/*! ALTER USER x IDENTIFIED BY 'hunter2' */",
            "ALTER USER x PASSWORD $$hunter2$$",
            "ALTER USER x PASSWORD $q$hunter2$q$",
            "INSERT INTO u (name, password) VALUES ('ada', 'hunter2')",
            "UPDATE u SET api_key = hunter2",
            "SET my.secret TO hunter2",
            "INSERT INTO j VALUES ('{\"token\": \"hunter2\"}')",
            "ALTER USER x PASSWORD 'hunter2",
        ] {
            let text = shown(statement);
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains(MASK), "{text}");
        }
    }

    #[test]
    fn statements_that_only_name_a_column_stay_readable() {
        let statement = "SELECT name, password_hash FROM users WHERE id = $1";
        assert_eq!(shown(statement), statement);
    }

    #[test]
    fn an_error_tells_no_more_than_the_statement() {
        let error = |said: &Said| said.error("42601", b"near \"hunter2\"");
        let open = Said::statement(b"SELEKT hunter2", 14);
        assert_eq!(&*error(&open), "42601 near \"hunter2\"");
        let secret = Said::statement(b"ALTER USER x PASSWURD hunter2 -- password", 41);
        assert_eq!(&*error(&secret), "42601");
        // What was not looked at may have named a secret.
        assert_eq!(&*error(&Said::statement(b"SELEKT", 5000)), "42601");
    }
}
