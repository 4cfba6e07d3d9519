//! TLS at the listener and towards the upstream, with certificates made for the test.

use std::path::PathBuf;
use std::sync::Arc;

use qproxy::capture::Capture;
use qproxy::proxy::{Metrics, http, tls::Files};
use qproxy::record::{Outcome, Protocol, UpstreamFailure};
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::http2_support::{self as http2, Http2};
use super::origin::{Origin, Peer, eventually, pool};
use super::{Proxy, local};

/// A certificate for `localhost` and its key, on disk.
struct Identity {
    _folder: TempDir,
    files: Files,
}

fn identity() -> Identity {
    identity_of(|_| {})
}

fn identity_of(change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    let files = Files {
        certificate: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    Identity {
        _folder: folder,
        files,
    }
}

fn connector(identity: &Identity) -> TlsConnector {
    connector_for(identity, &[])
}

/// A client that offers these protocols by ALPN.
fn connector_for(identity: &Identity, alpn: &[&str]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&identity.files.certificate).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

fn acceptor(identity: &Identity) -> TlsAcceptor {
    acceptor_for(identity, &[])
}

fn acceptor_for(identity: &Identity, alpn: &[&str]) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(&identity.files.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&identity.files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn https_clients_are_served_and_their_tls_is_recorded() {
    let identity = identity();
    let files = identity.files.clone();
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(files)
    });
    let socket = TcpStream::connect(proxy.running.local_addr())
        .await
        .unwrap();
    let stream = connector(&identity)
        .connect(localhost(), socket)
        .await
        .unwrap();
    let mut client = Peer::over(stream);
    let (head, body) = client
        .ask("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"hi"[..]));
    let facts = proxy.kept.exchange().await.tls.unwrap();
    assert_eq!(&*facts.version, "TLSv1.3");
    assert!(facts.cipher.starts_with("TLS_"), "{}", facts.cipher);
    assert_eq!(facts.server_name.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn alpn_decides_what_is_spoken_with_the_client() {
    let identity = identity();
    let files = identity.files.clone();
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(files)
    });
    let connect = async |alpn: &[&str]| {
        let address = proxy.running.local_addr();
        let socket = TcpStream::connect(address).await.unwrap();
        let connector = connector_for(&identity, alpn);
        connector.connect(localhost(), socket).await.unwrap()
    };
    let client = Http2::over(connect(&["h2", "http/1.1"]).await).await;
    let answer = client.get("https://localhost/2").await;
    assert_eq!(answer.status, 200);
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.protocol, Protocol::Http2);
    assert_eq!(exchange.tls.unwrap().alpn.as_deref(), Some("h2"));
    assert_eq!(&*exchange.request.target, "/2");
    let mut client = Peer::over(connect(&["http/1.1"]).await);
    let (head, _) = client.ask("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(head.status(), 200);
    // Prior knowledge is as good as ALPN where the client names nothing.
    let client = Http2::over(connect(&[]).await).await;
    assert_eq!(client.get("https://localhost/").await.status, 200);
}

/// An origin that speaks what ALPN agrees on, and says so.
async fn alpn_origin(identity: &Identity, alpn: &[&str]) -> Origin {
    let acceptor = acceptor_for(identity, alpn);
    Origin::start(move |number, socket| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return http2::serve(number, stream, |_, _| async {
                    hyper::Response::new(http2::full("h2"))
                })
                .await;
            }
            let mut peer = Peer::over(stream);
            while peer.head().await.is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh1")
                    .await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn alpn_decides_what_is_spoken_with_an_https_upstream() {
    let identity = identity();
    for (scheme, alpn, said) in [
        ("https", &["h2", "http/1.1"][..], Ok("h2")),
        ("https", &["http/1.1"], Ok("h1")),
        ("https", &[], Ok("h1")),
        ("h2", &["h2"], Ok("h2")),
        ("h2", &["http/1.1"], Err("tls")),
        ("h2", &[], Err("tls")),
    ] {
        let origin = alpn_origin(&identity, alpn).await;
        let endpoint = format!("{scheme}://localhost:{}", origin.address.port());
        let ca = identity.files.certificate.clone();
        let proxy = Proxy::with(pool(&[&endpoint]), |config| config.upstream_ca = Some(ca));
        let mut client = proxy.client().await;
        for _ in 0..3 {
            let (head, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let text = String::from_utf8(body.content).unwrap();
            match said {
                Ok(said) => assert_eq!((head.status(), &*text), (200, said), "{scheme} {alpn:?}"),
                Err(failure) => {
                    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(json["failure"], failure, "{scheme} {alpn:?}: {json}");
                }
            }
        }
        if said.is_ok() {
            assert_eq!(origin.connected(), 1, "{scheme} {alpn:?}");
        }
    }
}

#[tokio::test]
async fn plain_bytes_on_a_tls_port_end_that_connection_only() {
    let identity = identity();
    let files = identity.files.clone();
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(files)
    });
    let mut plain = proxy.client().await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = plain.rest().await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("speaks HTTPS"),
        "{answer}"
    );
    let socket = TcpStream::connect(proxy.running.local_addr())
        .await
        .unwrap();
    assert!(
        connector(&identity)
            .connect(localhost(), socket)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let origin = Origin::echo().await;
    let good = identity();
    let other = identity();
    let bind = |files: Files| {
        let mut config = http::Config::new(local(), "shop");
        config.tls = Some(files);
        let metrics = Metrics::default();
        http::bind(config, origin.pool(), Capture::disabled(), metrics)
            .unwrap_err()
            .chain()
    };
    let missing = PathBuf::from("/nowhere/cert.pem");
    let message = bind(Files {
        certificate: missing,
        ..good.files.clone()
    });
    assert!(
        message.starts_with("read certificate from /nowhere/cert.pem"),
        "{message}"
    );
    let message = bind(Files {
        certificate: good.files.key.clone(),
        ..good.files.clone()
    });
    assert!(message.contains("holds no certificate"), "{message}");
    let message = bind(Files {
        key: good.files.certificate.clone(),
        ..good.files.clone()
    });
    assert!(message.starts_with("read private key from "), "{message}");
    let message = bind(Files {
        key: other.files.key.clone(),
        ..good.files.clone()
    });
    assert!(message.starts_with("set up TLS"), "{message}");
}

async fn secure_origin(identity: &Identity) -> Origin {
    let acceptor = acceptor(identity);
    Origin::start(move |_, socket| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let mut peer = Peer::over(stream);
            while peer.head().await.is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
                    .await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_https_upstream_is_checked_against_its_authority() {
    let identity = identity();
    let origin = secure_origin(&identity).await;
    let endpoint = format!("https://localhost:{}", origin.address.port());
    let ca = identity.files.certificate.clone();
    let proxy = Proxy::with(pool(&[&endpoint]), |config| config.upstream_ca = Some(ca));
    let mut client = proxy.client().await;
    let (head, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"secret"[..]));
    let stranger = self::identity().files.certificate.clone();
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("ca.pem");
    // The folder of `stranger` is gone by now, so its authority is written anew.
    drop(stranger);
    let CertifiedKey { cert, .. } = generate_simple_self_signed(["other".to_owned()]).unwrap();
    std::fs::write(&wrong, cert.pem()).unwrap();
    let proxy = Proxy::with(pool(&[&endpoint]), |config| {
        config.upstream_ca = Some(wrong)
    });
    let (head, body) = proxy
        .client()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(head.status(), 502);
    let json: serde_json::Value = serde_json::from_slice(&body.content).unwrap();
    assert_eq!(json["failure"], "tls", "{json}");
}

/// What a client is told where TLS with this origin fails.
async fn tls_failure(endpoint: &str, ca: &Files) -> String {
    let ca = ca.certificate.clone();
    let proxy = Proxy::with(pool(&[endpoint]), |config| config.upstream_ca = Some(ca));
    let mut client = proxy.client().await;
    let (head, body) = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(head.status(), 502);
    let json: serde_json::Value = serde_json::from_slice(&body.content).unwrap();
    assert_eq!(json["failure"], "tls", "{json}");
    let outcome = proxy.kept.exchange().await.outcome;
    let failure = UpstreamFailure::Tls;
    assert!(matches!(outcome, Outcome::UpstreamFailed(it, _) if it == failure));
    json["detail"].as_str().unwrap().to_lowercase()
}

#[tokio::test]
async fn an_upstream_whose_certificate_has_expired_or_is_not_yet_valid_gives_502() {
    for (from, to, said) in [(2001, 2002, "expired"), (4001, 4002, "not valid yet")] {
        let identity = identity_of(|params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        });
        let origin = secure_origin(&identity).await;
        let endpoint = format!("https://localhost:{}", origin.address.port());
        let detail = tls_failure(&endpoint, &identity.files).await;
        assert!(detail.contains(said), "{detail}");
    }
}

#[tokio::test]
async fn an_upstream_of_another_name_gives_502() {
    let identity = identity();
    let origin = secure_origin(&identity).await;
    let endpoint = format!("https://127.0.0.1:{}", origin.address.port());
    let detail = tls_failure(&endpoint, &identity.files).await;
    assert!(detail.contains("not valid for name"), "{detail}");
}

#[tokio::test]
async fn an_upstream_that_does_not_know_the_name_it_is_asked_for_gives_502() {
    let identity = identity();
    let names = rustls::server::ResolvesServerCertUsingSni::new();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let origin = Origin::start(move |_, socket| {
        let acceptor = acceptor.clone();
        async move { assert!(acceptor.accept(socket).await.is_err()) }
    })
    .await;
    let endpoint = format!("https://localhost:{}", origin.address.port());
    tls_failure(&endpoint, &identity.files).await;
}

/// The listener has one certificate, which it shows whatever the name; whether that will do is the client's say.
#[tokio::test]
async fn a_client_that_asks_for_an_unknown_name_decides_for_itself() {
    let identity = identity();
    let files = identity.files.clone();
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(files)
    });
    let address = proxy.running.local_addr();
    let elsewhere = ServerName::try_from("elsewhere.test").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let strict = connector(&identity).connect(elsewhere, socket).await;
    let error = strict.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    let url = format!("https://elsewhere.test:{}/", address.port());
    let resolve = format!("elsewhere.test:{}:127.0.0.1", address.port());
    let lax = tokio::process::Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--insecure",
            "--resolve",
            &resolve,
        ])
        .args(["--write-out", "%{http_code}", "--data", "hi", &url])
        .output()
        .await
        .unwrap();
    assert_eq!(lax.stdout, b"hi200", "{lax:?}");
    let facts = proxy.kept.exchange().await.tls.unwrap();
    assert_eq!(facts.server_name.as_deref(), Some("elsewhere.test"));
}

#[tokio::test]
async fn tcp_clients_may_speak_tls_to_a_plain_downstream() {
    let identity = identity();
    let origin = Origin::echo().await;
    let (capture, kept) = super::origin::capture();
    let mut config = qproxy::proxy::tcp::Config::new(local(), "raw");
    config.tls = Some(identity.files.clone());
    let bound = qproxy::proxy::tcp::bind(config, origin.pool(), capture, Metrics::default());
    let running = bound.unwrap().serve();
    let socket = TcpStream::connect(running.local_addr()).await.unwrap();
    let stream = connector(&identity)
        .connect(localhost(), socket)
        .await
        .unwrap();
    let mut client = Peer::over(stream);
    let (head, _) = client
        .ask("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        .await;
    assert_eq!(head.status(), 200);
    tokio::io::AsyncWriteExt::shutdown(&mut client.socket)
        .await
        .unwrap();
    drop(client);
    let stream = kept.stream().await;
    assert_eq!(&*stream.tls.unwrap().version, "TLSv1.3");
    let plain = eventually("the copy is of the plain bytes", || {
        kept.segments()
            .into_iter()
            .find(|segment| segment.bytes.starts_with(b"POST / "))
    });
    plain.await;
}
