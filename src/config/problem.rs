//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, such as `http.tls.tls_cert`; empty for the file as a whole.
    pub key: String,
    /// What is wrong with it, and the value seen.
    pub message: String,
    /// Line and column, from 1, where the JSON itself is at fault.
    pub place: Option<(usize, usize)>,
}

impl Problem {
    /// A problem with the value of a key.
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            place: None,
        }
    }

    /// A problem that the JSON reader found at `path` (`.` for the root).
    pub(super) fn of_json(path: &str, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let mut message = text.strip_suffix(&place).unwrap_or(&text).to_owned();
        let mut key = if path == "." {
            String::new()
        } else {
            path.to_owned()
        };
        if let Some((unknown, known)) = unknown_field(&message) {
            // The path of an unknown key may or may not end in the key itself.
            if key != unknown && !key.ends_with(&format!(".{unknown}")) {
                key = if key.is_empty() {
                    unknown.clone()
                } else {
                    format!("{key}.{unknown}")
                };
            }
            message = match nearest(&unknown, &known) {
                Some(near) => format!("is not a known key; did you mean `{near}`?"),
                None => format!("is not a known key; there are {}", known.join(", ")),
            };
        } else if let Some(name) = quoted(&message, "missing field `") {
            key = if key.is_empty() {
                name
            } else {
                format!("{key}.{name}")
            };
            message = match key.as_str() {
                "mode" => "is missing: it must be Record, Playback, Standalone or Forward",
                _ => "is missing",
            }
            .to_owned();
        } else if is_secret(&key) {
            // The reader's message would show the value.
            "has the wrong type: it must be text, or a list of texts for `redis_cluster`"
                .clone_into(&mut message);
        } else {
            message = in_plain_words(&message);
        }
        Self {
            key,
            message,
            place: Some((error.line(), error.column())),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    file: Option<PathBuf>,
    list: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(list: Vec<Problem>) -> Self {
        Self { file: None, list }
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "; name another one with CONFIG_PATH",
            _ => "",
        };
        let message = format!("could not read the configuration: {error}{hint}");
        Self::new(vec![Problem::new("", message)]).in_file(path)
    }

    pub(super) fn in_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// Each of them, in the order of the keys.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

/// One line for each problem, `file: line 3, column 7: `key`: what`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.list.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            if let Some(file) = &self.file {
                write!(f, "{}: ", file.display())?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// Whether the value of a key must not be shown.
fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or_default();
    matches!(name, "token" | "credentials") || name.starts_with("redis")
}

/// The names in serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let unknown = quoted(message, "unknown field `")?;
    let known = message.split("expected").nth(1).unwrap_or_default();
    let known = known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    Some((unknown, known))
}

/// The reader's message without the names of this program's types.
fn in_plain_words(message: &str) -> String {
    let Some((seen, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    if let Some(unknown) = quoted(seen, "unknown variant `") {
        let mut names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        // A name that is taken in small letters as well is told once.
        names.dedup_by(|next, kept| next.eq_ignore_ascii_case(kept));
        let last = names.pop().unwrap_or_default();
        return match names.as_slice() {
            [] => format!("`{unknown}` must be {last}"),
            others => format!("`{unknown}` must be {} or {last}", others.join(", ")),
        };
    }
    let expected = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        name if name.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{seen}, expected {expected}")
}

fn quoted(message: &str, before: &str) -> Option<String> {
    let rest = message.strip_prefix(before)?;
    rest.split('`').next().map(str::to_owned)
}

/// The known name that is at most two slips of the hand, and at most half its length, away.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let close = known
        .iter()
        .map(|candidate| (distance(name, candidate), candidate));
    close
        .filter(|(slips, candidate)| *slips <= 2 && slips * 2 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate.as_str())
}

/// Insertions, deletions and replacements between two texts (Levenshtein), without ASCII case.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_where_it_is_near() {
        let known = ["host", "port", "downstream"].map(str::to_owned);
        assert_eq!(nearest("prot", &known), Some("port"));
        assert_eq!(nearest("Port", &known), Some("port"));
        assert_eq!(nearest("downsteam", &known), Some("downstream"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn types_of_the_program_are_not_told() {
        let cases = [
            (
                "invalid type: map, expected u16",
                "invalid type: map, expected a whole number from 0 to 65535",
            ),
            (
                "invalid type: integer `1`, expected struct Http",
                "invalid type: integer `1`, expected an object",
            ),
            (
                "unknown variant `x`, expected one of `Record`, `record`, `Play`, `play`",
                "`x` must be Record or Play",
            ),
            ("unknown variant `x`, expected `lz4`", "`x` must be lz4"),
            ("EOF while parsing", "EOF while parsing"),
        ];
        for (said, plain) in cases {
            assert_eq!(in_plain_words(said), plain);
        }
    }

    #[test]
    fn distance_counts_slips() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
