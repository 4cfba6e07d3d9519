//! curl, the client.

use std::process::Command;

/// What curl saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Lower-cased names, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks for `url` with more arguments; panics where curl fails.
pub fn curl(url: &str, arguments: &[&str]) -> Answer {
    try_curl(url, arguments).unwrap_or_else(|error| panic!("curl {url} {arguments:?}: {error}"))
}

/// Asks for `url` with more arguments; the error is curl's.
pub fn try_curl(url: &str, arguments: &[&str]) -> Result<Answer, String> {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--globoff"])
        .arg("--dump-header")
        .arg(&head)
        .arg("--output")
        .arg(&body)
        .args(arguments)
        .arg(url)
        .output()
        .unwrap_or_else(|error| panic!("cannot run curl: {error}. Install curl"));
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let head = String::from_utf8_lossy(&std::fs::read(head).unwrap()).into_owned();
    // The last head counts: interim responses stand before it.
    let last = head
        .trim_end()
        .rsplit("\r\n\r\n")
        .next()
        .unwrap_or_default();
    let mut lines = last.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    // Asked for a head alone, curl writes it where content would go.
    let body = match arguments.contains(&"--head") {
        true => Vec::new(),
        false => std::fs::read(body).unwrap_or_default(),
    };
    Ok(Answer {
        status: status.ok_or("no status line")?,
        headers,
        body,
    })
}
