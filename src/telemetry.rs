//! Logs: structured, to standard error, for people or for machines.
//!
//! `QPROXY_LOG` (or `RUST_LOG`) filters, `info` by default; `QPROXY_LOG_FORMAT=json` writes one JSON object
//! per line. Captured payloads and secrets never go here.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directives such as `info,qproxy::proxy=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: Format,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter.
    #[error("`{filter}` is no log filter; write something like info,qproxy::proxy=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What the parser says.
        #[source]
        source: ParseError,
    },
    /// The format.
    #[error("QPROXY_LOG_FORMAT is `{0}`; it must be text or json")]
    Format(String),
    /// Somebody else has started it.
    #[error("logging is set up already")]
    Twice(#[from] TryInitError),
}

impl Config {
    /// What this process's environment asks for.
    ///
    /// # Errors
    /// [`Error::Format`] for a format that is none.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let text = |name| variable(name).filter(|value| !value.is_empty());
        let filter = text("QPROXY_LOG").or_else(|| text("RUST_LOG"));
        let format = match text("QPROXY_LOG_FORMAT").as_deref() {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(Error::Format(other.to_owned())),
        };
        Ok(Self {
            filter: filter.unwrap_or_else(|| "info".to_owned()),
            format,
        })
    }

    fn parsed_filter(&self) -> Result<EnvFilter, Error> {
        EnvFilter::try_new(&self.filter).map_err(|source| Error::Filter {
            filter: self.filter.clone(),
            source,
        })
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`Error`] where the filter is none, or logging was started before.
pub fn init(config: &Config) -> Result<(), Error> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.parsed_filter()?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        Format::Text => builder.finish().try_init()?,
        Format::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_lookup(|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn own_variables_win_and_empty_ones_count_for_nothing() {
        assert_eq!(config(&[]).unwrap().filter, "info");
        assert_eq!(config(&[("RUST_LOG", "warn")]).unwrap().filter, "warn");
        let both = config(&[("RUST_LOG", "warn"), ("QPROXY_LOG", "debug")]).unwrap();
        assert_eq!((both.filter.as_str(), both.format), ("debug", Format::Text));
        assert_eq!(config(&[("QPROXY_LOG", "")]).unwrap().filter, "info");
        let json = config(&[("QPROXY_LOG_FORMAT", "json")]).unwrap();
        assert_eq!(json.format, Format::Json);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = config(&[("QPROXY_LOG_FORMAT", "xml")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("xml"), "{error}");
        let bad = config(&[("RUST_LOG", "qproxy=loud")]).unwrap();
        assert!(
            bad.parsed_filter()
                .unwrap_err()
                .to_string()
                .contains("qproxy=loud")
        );
    }
}
