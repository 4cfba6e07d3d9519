//! What was spoken on a stream: which protocol, between whom, and which calls were made.
//!
//! A list with limits, so that a stream of any length has a record of bounded size; past them the count goes on.

use std::sync::Arc;

/// The protocol of a stream, as far as its bytes tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Application {
    /// `redis`, `postgresql`, `mysql`, `http`, `h2`, `tls`; a text, since a later recorder may know others.
    pub protocol: Arc<str>,
    /// Who asked for what.
    pub facts: Facts,
    /// How many calls were made, listed or not.
    pub count: u64,
    /// The first [`Application::LISTED`] of them.
    pub calls: Vec<Call>,
    /// Whether calls may have gone unseen: bytes were not kept, or did not read as this protocol any more.
    pub broken: bool,
}

impl Application {
    /// How many calls are listed one by one.
    pub const LISTED: usize = 100;
    /// How long a call's text and a server's error may be, bytes.
    pub const TEXT_BYTES: usize = 200;

    /// The texts of the listed calls, one after another, at least as much as `most` bytes of them.
    #[must_use]
    pub fn line(&self, most: usize) -> String {
        let mut line = String::new();
        for call in &self.calls {
            if !line.is_empty() {
                line.push_str("; ");
            }
            line.push_str(&call.text);
            if line.len() >= most {
                break;
            }
        }
        line
    }
}

/// What both sides said of themselves before the first call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// As whom the client logged in.
    pub user: Option<Arc<str>>,
    /// The database it asked for.
    pub database: Option<Arc<str>>,
    /// What the server says that it is.
    pub server_version: Option<Arc<str>>,
    /// Whether both sides went over to TLS: what followed cannot be read here.
    pub encrypted: bool,
    /// The name that the client asked for in that TLS (RFC 6066 section 3).
    pub server_name: Option<Arc<str>>,
    /// The protocols that it offered there (RFC 7301).
    pub alpn: Vec<Arc<str>>,
}

/// One thing that the client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// From the stream's start to its first byte, microseconds.
    pub offset_us: u64,
    /// What was asked: printable, cut at [`Application::TEXT_BYTES`], secrets masked.
    pub text: Arc<str>,
    /// What came of it; `None` where no answer was seen.
    pub answer: Option<Answer>,
}

/// How a server answered a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// From the call's first byte to the answer's first byte, microseconds.
    pub after_us: u64,
    /// What the server says went wrong; `None` where nothing did.
    pub error: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_the_calls_that_fit_and_the_one_that_is_cut() {
        let call = |text: &str| Call {
            offset_us: 0,
            text: text.into(),
            answer: None,
        };
        let application = Application {
            calls: vec![call("SET tea"), call("GET tea"), call("PING")],
            ..Application::default()
        };
        assert_eq!(application.line(100), "SET tea; GET tea; PING");
        assert_eq!(application.line(10), "SET tea; GET tea");
        assert_eq!(Application::default().line(10), "");
    }
}
