//! A tunnel through an HTTP proxy: CONNECT (RFC 9110, 9.3.6) with Basic credentials (RFC 7617).

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::transport::{Credentials, Proxy, ProxyError};

/// The longest head of an answer that is read, in bytes.
const MAX_HEAD: usize = 8 << 10;
/// As much of a status line as stands in an error, in characters.
const MAX_REASON: usize = 100;

/// Asks for `server`, which is written `host:port`. Afterwards the stream belongs to the two ends.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    server: &str,
) -> Result<(), ProxyError> {
    let closed = |source: Option<io::Error>| ProxyError::Closed {
        proxy: proxy.to_string(),
        server: server.to_owned(),
        source: source.map(Arc::new),
    };
    let malformed = |what| ProxyError::Malformed {
        proxy: proxy.to_string(),
        what,
    };
    let request = request(server, proxy.credentials());
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(|error| closed(Some(error)))?;
    let mut head = Vec::with_capacity(512);
    let end = loop {
        if let Some(end) = end_of_head(&head) {
            break end;
        }
        if head.len() >= MAX_HEAD {
            return Err(ProxyError::TooLong {
                proxy: proxy.to_string(),
                limit: MAX_HEAD,
            });
        }
        let room = (MAX_HEAD - head.len()) as u64;
        match (&mut *stream).take(room).read_buf(&mut head).await {
            Ok(0) => return Err(closed(None)),
            Ok(_) => {}
            Err(error) => return Err(closed(Some(error))),
        }
        if !starts_alike(&head, b"HTTP/1.") {
            return Err(malformed("no HTTP"));
        }
    };
    let (status, line) = status_line(&head).ok_or(malformed("no status line"))?;
    match status {
        // In MQTT, in TLS and in WebSocket the client speaks first: whatever came along is not from the server.
        200..=299 if head.len() > end => Err(malformed("data before we asked for any")),
        200..=299 => Ok(()),
        // Some say 401, which is for servers, where they do not accept a password.
        401 | 407 if proxy.credentials().is_none() => Err(ProxyError::CredentialsWanted {
            proxy: proxy.to_string(),
        }),
        401 | 407 => Err(ProxyError::CredentialsRefused {
            proxy: proxy.to_string(),
        }),
        _ => Err(ProxyError::Refused {
            proxy: proxy.to_string(),
            server: server.to_owned(),
            reason: line,
        }),
    }
}

fn request(server: &str, credentials: Option<&Credentials>) -> String {
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let basic = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
    }
    request.push_str("\r\n");
    request
}

fn end_of_head(head: &[u8]) -> Option<usize> {
    let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some(end + 4)
}

/// Whether the shorter one is the start of the other.
fn starts_alike(head: &[u8], wanted: &[u8]) -> bool {
    head.iter().zip(wanted).all(|(a, b)| a == b)
}

/// The status, and the line it stands in, fit to be printed.
fn status_line(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let line: String = String::from_utf8_lossy(line)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(MAX_REASON)
        .collect();
    let status = line.split(' ').nth(1).filter(|status| status.len() == 3);
    let status = status?.parse().ok()?;
    Some((status, line))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    async fn answered(
        proxy: &str,
        answer: &[u8],
        chunk: usize,
    ) -> (Result<(), ProxyError>, String) {
        let (mut near, mut far) = duplex(MAX_HEAD);
        let proxy: Proxy = proxy.parse().unwrap();
        let serve = async {
            let mut request = Vec::new();
            while end_of_head(&request).is_none() {
                far.read_buf(&mut request).await.unwrap();
            }
            for chunk in answer.chunks(chunk) {
                // The client may have heard enough.
                if far.write_all(chunk).await.is_err() {
                    break;
                }
            }
            drop(far);
            String::from_utf8(request).unwrap()
        };
        let ask = async {
            let result = ask(&mut near, &proxy, "broker:1883").await;
            drop(near);
            result
        };
        tokio::join!(ask, serve)
    }

    #[tokio::test]
    async fn asks_for_the_server_with_credentials_and_takes_any_success() {
        for chunk in [1, 7, 1000] {
            let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
            let (result, request) = answered("http://Aladdin:open%20sesame@p", answer, chunk).await;
            result.unwrap();
            let expected = "CONNECT broker:1883 HTTP/1.1\r\nHost: broker:1883\r\n\
                            Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
            assert_eq!(request, expected);
        }
    }

    #[tokio::test]
    async fn every_other_answer_is_an_error_that_names_proxy_and_reason() {
        let long = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 3 * MAX_HEAD]].concat();
        let cases: [(&str, &[u8], &str); 8] = [
            (
                "http://p",
                b"HTTP/1.1 403 Filtered\x07\r\n\r\n",
                "broker:1883: HTTP/1.1 403 Filtered?",
            ),
            (
                "http://p",
                b"HTTP/1.1 407 Who?\r\n\r\n",
                "wants credentials",
            ),
            (
                "http://u:v@p",
                b"HTTP/1.1 407 Who?\r\n\r\n",
                "does not accept our user",
            ),
            (
                "http://p",
                b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0",
                "data before we asked",
            ),
            ("http://p", b"\x05\xff", "no HTTP"),
            ("http://p", b"HTTP/1.1 OK\r\n\r\n", "no status line"),
            ("http://p", b"HTTP/1.1 200 OK\r\n", "closed the connection"),
            ("http://p", &long, "over 8192 bytes"),
        ];
        for (proxy, answer, expected) in cases {
            for chunk in [1, 4096] {
                let (result, _) = answered(proxy, answer, chunk).await;
                let error = result.unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
                assert!(error.contains("http://p:8080"), "{error}");
            }
        }
    }
}
