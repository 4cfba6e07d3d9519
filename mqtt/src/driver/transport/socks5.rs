//! A tunnel through a SOCKS5 proxy (RFC 1928), with user and password (RFC 1929) where it wants them. Names go to
//! the proxy as they are: it resolves them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::transport::{Proxy, ProxyError};

const VERSION: u8 = 5;
const NO_CREDENTIALS: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
/// The version of the sub-negotiation of RFC 1929.
const CREDENTIALS_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for `server`; `authority` is the same as errors write it.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    server: (&str, u16),
    authority: String,
) -> Result<(), ProxyError> {
    let request = request(server)?;
    let talk = Talk { stream, proxy };
    let answer = talk
        .through(&request)
        .await
        .map_err(|failed| match failed {
            Failed::Io(error) => ProxyError::Closed {
                proxy: proxy.to_string(),
                server: authority.clone(),
                // An end of the stream needs no cause; the message says it.
                source: (error.kind() != io::ErrorKind::UnexpectedEof).then(|| Arc::new(error)),
            },
            Failed::Proxy(error) => error,
        })?;
    if answer == 0 {
        return Ok(());
    }
    Err(ProxyError::Refused {
        proxy: proxy.to_string(),
        server: authority,
        reason: meaning(answer),
    })
}

fn request((host, port): (&str, u16)) -> Result<Vec<u8>, ProxyError> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            let length = host.len();
            let short = u8::try_from(length).map_err(|_| ProxyError::NameTooLong { length })?;
            request.extend([NAME, short]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

fn meaning(code: u8) -> String {
    let text = match code {
        1 => "general failure",
        2 => "its rules do not allow it",
        3 => "network unreachable",
        4 => "host unreachable, or its name unknown",
        5 => "connection refused",
        6 => "the time to live ran out",
        7 => "it does not know CONNECT",
        8 => "it does not know this type of address",
        other => return format!("code {other}, which SOCKS5 does not define"),
    };
    text.to_owned()
}

enum Failed {
    Io(io::Error),
    Proxy(ProxyError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Talk<'a, S> {
    stream: &'a mut S,
    proxy: &'a Proxy,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    /// The code of the answer; 0 is success.
    async fn through(self, request: &[u8]) -> Result<u8, Failed> {
        self.agree().await?.ask(request).await
    }

    async fn agree(self) -> Result<Self, Failed> {
        let Self { stream, proxy } = self;
        let malformed = |what| {
            let proxy = proxy.to_string();
            Failed::Proxy(ProxyError::Malformed { proxy, what })
        };
        let greeting: &[u8] = match proxy.credentials() {
            None => &[VERSION, 1, NO_CREDENTIALS],
            Some(_) => &[VERSION, 2, NO_CREDENTIALS, USER_PASSWORD],
        };
        stream.write_all(greeting).await?;
        let mut chosen = [0; 2];
        // Byte by byte: one that speaks something else may never send a second one.
        stream.read_exact(&mut chosen[..1]).await?;
        if chosen[0] != VERSION {
            return Err(malformed("not version 5"));
        }
        stream.read_exact(&mut chosen[1..]).await?;
        match (chosen[1], proxy.credentials()) {
            (NO_CREDENTIALS, _) => {}
            (USER_PASSWORD, Some(credentials)) => {
                let mut message = vec![CREDENTIALS_VERSION];
                for part in [&credentials.user, &credentials.password] {
                    let length = u8::try_from(part.len()).expect("Proxy takes 255 bytes at most");
                    message.push(length);
                    message.extend(part.as_bytes());
                }
                stream.write_all(&message).await?;
                let mut verdict = [0; 2];
                stream.read_exact(&mut verdict).await?;
                if verdict[1] != 0 {
                    let proxy = proxy.to_string();
                    return Err(Failed::Proxy(ProxyError::CredentialsRefused { proxy }));
                }
            }
            (NO_METHOD, None) => {
                let proxy = proxy.to_string();
                return Err(Failed::Proxy(ProxyError::CredentialsWanted { proxy }));
            }
            (NO_METHOD, Some(_)) => {
                return Err(malformed("it takes neither a password nor none"));
            }
            _ => return Err(malformed("it chose a method that we did not offer")),
        }
        Ok(Self { stream, proxy })
    }

    async fn ask(self, request: &[u8]) -> Result<u8, Failed> {
        let Self { stream, proxy } = self;
        let malformed = |what| {
            let proxy = proxy.to_string();
            Failed::Proxy(ProxyError::Malformed { proxy, what })
        };
        stream.write_all(request).await?;
        let mut head = [0; 4];
        stream.read_exact(&mut head[..2]).await?;
        let [version, code, ..] = head;
        if version != VERSION {
            return Err(malformed("not version 5"));
        }
        if code != 0 {
            // Some proxies close right behind the code.
            return Ok(code);
        }
        stream.read_exact(&mut head[2..]).await?;
        let length = match head[3] {
            IPV4 => 4,
            IPV6 => 16,
            NAME => usize::from(stream.read_u8().await?),
            _ => return Err(malformed("an unknown type of address")),
        };
        // The address it is bound to, and the port: of no use to us.
        let mut bound = [0; 255 + 2];
        stream.read_exact(&mut bound[..length + 2]).await?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What the proxy hears of us, and what comes of its answers.
    async fn talk(
        proxy: &str,
        host: &str,
        answers: &[(usize, &[u8])],
    ) -> (Result<(), ProxyError>, Vec<Vec<u8>>) {
        let (mut near, mut far) = duplex(1024);
        let proxy: Proxy = proxy.parse().unwrap();
        let serve = async {
            let mut heard = Vec::new();
            for (expected, answer) in answers {
                let mut message = vec![0; *expected];
                if far.read_exact(&mut message).await.is_err() {
                    break;
                }
                heard.push(message);
                for byte in answer.iter() {
                    far.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            drop(far);
            heard
        };
        let ask = async {
            let result = ask(&mut near, &proxy, (host, 1883), format!("{host}:1883")).await;
            // Kept open until here, so that late answers find somebody.
            (result, near)
        };
        let ((result, _near), heard) = tokio::join!(ask, serve);
        (result, heard)
    }

    const BOUND: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 0, 80];

    #[tokio::test]
    async fn names_and_addresses_go_to_the_proxy_as_they_are() {
        let name = [&[5, 1, 0, 3, 6][..], b"broker", &[7, 91]].concat();
        let four = vec![5, 1, 0, 1, 10, 0, 0, 1, 7, 91];
        let mut six = vec![5, 1, 0, 4];
        six.extend([0; 15]);
        six.extend([1, 7, 91]);
        for (host, request) in [("broker", name), ("10.0.0.1", four), ("::1", six)] {
            let answers: [(usize, &[u8]); 2] = [(3, &[5, 0]), (request.len(), BOUND)];
            let (result, heard) = talk("socks5://p", host, &answers).await;
            result.unwrap();
            assert_eq!(heard, [vec![5, 1, 0], request]);
        }
        let long = "x".repeat(256);
        let (result, _) = talk("socks5://p", &long, &[]).await;
        assert!(matches!(
            result,
            Err(ProxyError::NameTooLong { length: 256 })
        ));
    }

    #[tokio::test]
    async fn credentials_are_sent_where_the_proxy_wants_them() {
        let answers: [(usize, &[u8]); 3] = [(4, &[5, 2]), (5, &[1, 0]), (13, BOUND)];
        let (result, heard) = talk("socks5://u:p@p", "broker", &answers).await;
        result.unwrap();
        assert_eq!(heard[0], [5, 2, 0, 2]);
        assert_eq!(heard[1], [1, 1, b'u', 1, b'p']);
    }

    #[tokio::test]
    async fn every_other_answer_is_an_error_that_names_proxy_and_reason() {
        let named = [5, 0, 0, 3, 4, b'n', b'a', b'm', b'e', 0, 80];
        let answers: [(usize, &[u8]); 2] = [(3, &[5, 0]), (13, &named)];
        let (result, _) = talk("socks5://p", "broker", &answers).await;
        result.unwrap();
        type Case<'a> = (&'a str, &'a [(usize, &'a [u8])], &'a str);
        let cases: [Case<'_>; 9] = [
            ("socks5://p", &[(3, &[5, 0xff])], "wants credentials"),
            (
                "socks5://u:v@p",
                &[(4, &[5, 2]), (5, &[1, 1])],
                "does not accept our user",
            ),
            (
                "socks5://u:v@p",
                &[(4, &[5, 0xff])],
                "neither a password nor none",
            ),
            ("socks5://p", &[(3, &[5, 2])], "did not offer"),
            (
                "socks5://p",
                &[(3, b"HTTP/1.1 400 Bad Request")],
                "not version 5",
            ),
            (
                "socks5://p",
                &[(3, &[5, 0]), (13, &[5, 2])],
                "broker:1883: its rules",
            ),
            ("socks5://p", &[(3, &[5, 0]), (13, &[5, 99])], "code 99"),
            (
                "socks5://p",
                &[(3, &[5, 0]), (13, &[5, 0, 0, 9])],
                "type of address",
            ),
            (
                "socks5://p",
                &[(3, &[5, 0]), (13, &[5, 0, 0])],
                "closed the connection",
            ),
        ];
        for (proxy, answers, expected) in cases {
            let (result, _) = talk(proxy, "broker", answers).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("socks5://p:1080"), "{error}");
        }
    }
}
