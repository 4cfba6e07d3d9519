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
            "is missing".clone_into(&mut message);
        } else if is_secret(&key) {
            // The reader's message would show the value.
            "has the wrong type: it must be text, or a list of texts for `redis_cluster`"
                .clone_into(&mut message);
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
    name == "token" || name.starts_with("redis")
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
    fn distance_counts_slips() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
