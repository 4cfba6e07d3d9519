//! A client's first words under TLS, read without answering: whom it asks for, and what it wants to speak.

use std::sync::Arc;

use rustls::server::Acceptor;

/// Content type, version and length in front of each TLS record (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Hello {
    /// More bytes are needed.
    Incomplete,
    /// It only looks like TLS.
    None,
    /// It is whole.
    Whole {
        /// Whom the client asks for (RFC 6066 section 3).
        server_name: Option<Arc<str>>,
        /// Whether it would speak a protocol of `alpn`, or names none.
        speaks: bool,
    },
}

impl Hello {
    /// Reads the beginning of a connection; `alpn` are the protocols that are looked for (RFC 7301).
    pub(in super::super) fn read(bytes: &[u8], alpn: &[&[u8]]) -> Self {
        let Some([_, _, _, high, low]) = bytes.first_chunk::<RECORD_HEADER>() else {
            return Self::Incomplete;
        };
        // A client that sends byte by byte is not read anew with each of them.
        if bytes.len() < RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low])) {
            return Self::Incomplete;
        }
        let (mut acceptor, mut rest) = (Acceptor::default(), bytes);
        while !rest.is_empty() {
            if acceptor.read_tls(&mut rest).is_err() {
                return Self::None;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let speaks = match hello.alpn() {
                        Some(mut offered) => offered.any(|name| alpn.contains(&name)),
                        None => true,
                    };
                    return Self::Whole {
                        server_name: hello.server_name().map(Arc::from),
                        speaks,
                    };
                }
                Ok(None) => {}
                Err(_) => return Self::None,
            }
        }
        Self::Incomplete
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The first bytes of a client that asks for `name` and offers `alpn`.
    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_prefix_is_incomplete_and_the_whole_tells_name_and_protocol() {
        let http: &[&[u8]] = &[b"h2", b"http/1.1"];
        for (name, alpn, expected, speaks) in [
            (
                "shop.test",
                &["h2", "http/1.1"][..],
                Some("shop.test"),
                true,
            ),
            ("shop.test", &["imap"], Some("shop.test"), false),
            ("127.0.0.1", &[], None, true),
        ] {
            let bytes = hello(name, alpn);
            for end in 0..bytes.len() {
                assert_eq!(Hello::read(&bytes[..end], http), Hello::Incomplete, "{end}");
            }
            let whole = Hello::Whole {
                server_name: expected.map(Arc::from),
                speaks,
            };
            assert_eq!(Hello::read(&bytes, http), whole);
        }
    }

    #[test]
    fn garbage_that_begins_like_tls_is_none() {
        let mut bytes = hello("shop.test", &[]);
        bytes[5] = 77;
        assert_eq!(Hello::read(&bytes, &[]), Hello::None);
        assert_eq!(Hello::read(&[22, 3, 1, 0, 0], &[]), Hello::None);
        assert_eq!(Hello::read(&[22, 9, 9, 0, 1, 0], &[]), Hello::None);
    }
}
