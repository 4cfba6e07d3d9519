//! How connections begin and whom they trust: client certificates both ways, certificates that are renewed, the
//! PROXY protocol, and clients that take one kind of port for the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qproxy::capture::Capture;
use qproxy::proxy::tls::{ClientAuth, Files, Verify};
use qproxy::proxy::{Metrics, ProxyProtocol, http as http_proxy, tcp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::origin::{Origin, Peer, eventually, pool};
use super::{Proxy, local};
use crate::support::curl::{Answer, try_curl};

/// An authority of the test's own, and a folder for what it signs.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = folder.path().join("ca.pem");
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Certificate and key for `localhost` and 127.0.0.1, written to files called after `name`.
    fn sign(&self, name: &str) -> Files {
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            certificate: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// Runs curl beside the test's own tasks.
async fn ask(url: String, arguments: &[&str]) -> Result<Answer, String> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        try_curl(&url, &arguments)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn url(scheme: &str, proxy: &Proxy) -> String {
    format!(
        "{scheme}://localhost:{}/",
        proxy.running.local_addr().port()
    )
}

#[tokio::test]
async fn clients_show_a_certificate_where_one_is_required() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let origin = Origin::echo().await;
    let proxy = Proxy::with(origin.pool(), |config| {
        config.tls = Some(authority.sign("server"));
        config.client_auth = ClientAuth::Required(authority.certificate.clone());
    });
    let trust = ["--cacert", text(&authority.certificate)];
    let with = async |files: Option<Files>| {
        let mut arguments = trust.to_vec();
        if let Some(files) = &files {
            arguments.extend(["--cert", text(&files.certificate)]);
            arguments.extend(["--key", text(&files.key)]);
        }
        ask(url("https", &proxy), &arguments).await
    };
    assert_eq!(
        with(Some(authority.sign("friend"))).await.unwrap().status,
        200
    );
    let nothing = with(None).await.unwrap_err();
    assert!(nothing.contains("certificate required"), "{nothing}");
    let foreign = with(Some(stranger.sign("stranger"))).await.unwrap_err();
    assert!(foreign.contains("alert"), "{foreign}");
}

#[tokio::test]
async fn a_client_certificate_may_be_optional_and_is_checked_all_the_same() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(authority.sign("server"));
        config.client_auth = ClientAuth::Optional(authority.certificate.clone());
    });
    let trust = ["--cacert", text(&authority.certificate)];
    assert_eq!(ask(url("https", &proxy), &trust).await.unwrap().status, 200);
    let foreign = stranger.sign("stranger");
    let mut arguments = trust.to_vec();
    arguments.extend(["--cert", text(&foreign.certificate)]);
    arguments.extend(["--key", text(&foreign.key)]);
    let refused = ask(url("https", &proxy), &arguments).await.unwrap_err();
    assert!(refused.contains("alert"), "{refused}");
}

#[tokio::test]
async fn the_proxy_shows_its_certificate_to_an_upstream_that_asks() {
    let authority = Authority::new("ours");
    let upstream = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(authority.sign("upstream"));
        config.client_auth = ClientAuth::Required(authority.certificate.clone());
    });
    let endpoint = url("https", &upstream);
    let front = |identity: Option<Files>| {
        Proxy::with(pool(&[endpoint.trim_end_matches('/')]), |config| {
            config.upstream_ca = Some(authority.certificate.clone());
            config.upstream_identity = identity;
        })
    };
    let known = front(Some(authority.sign("proxy")));
    assert_eq!(ask(url("http", &known), &[]).await.unwrap().status, 200);
    let unknown = front(None);
    assert_eq!(ask(url("http", &unknown), &[]).await.unwrap().status, 502);
}

#[tokio::test]
async fn an_unknown_upstream_is_believed_only_where_checks_are_off() {
    let authority = Authority::new("nobody knows it");
    let upstream = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(authority.sign("upstream"));
    });
    let endpoint = url("https", &upstream);
    let front = |verify| {
        Proxy::with(pool(&[endpoint.trim_end_matches('/')]), |config| {
            config.upstream_verify = verify;
        })
    };
    let careful = ask(url("http", &front(Verify::Full)), &[]).await.unwrap();
    assert_eq!(
        (careful.status, careful.json()["failure"].as_str()),
        (502, Some("tls"))
    );
    let careless = front(Verify::Nothing);
    assert_eq!(ask(url("http", &careless), &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections_and_a_broken_one_does_not() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = old.sign("server");
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.tls = Some(files.clone());
    });
    let trusting = async |authority: &Authority| {
        let trust = ["--cacert", text(&authority.certificate)];
        ask(url("https", &proxy), &trust).await.is_ok()
    };
    assert!(trusting(&old).await && !trusting(&new).await);
    // A key that does not fit: what was there goes on.
    let renewed = new.sign("server");
    std::fs::copy(&renewed.key, &files.key).unwrap();
    let seen_broken = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        trusting(&old).await
    };
    for _ in 0..25 {
        assert!(seen_broken().await);
    }
    std::fs::copy(&renewed.certificate, &files.certificate).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !trusting(&new).await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the new one is not taken"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!trusting(&old).await);
}

fn behind_a_balancer(config: &mut http_proxy::Config) {
    config.proxy_protocol = ProxyProtocol::Required;
}

#[tokio::test]
async fn the_proxy_protocol_tells_who_the_client_is() {
    let proxy = Proxy::with(Origin::echo().await.pool(), behind_a_balancer);
    let address = proxy.running.local_addr();
    // Version 1 as curl sends it: its own address.
    let answer = ask(
        url("http", &proxy).replace("localhost", "127.0.0.1"),
        &["--haproxy-protocol"],
    );
    assert_eq!(answer.await.unwrap().status, 200);
    let recorded = proxy.kept.exchange().await.client;
    assert!(recorded.starts_with("127.0.0.1:"), "{recorded}");
    for (header, client) in [
        (
            &b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n"[..],
            "203.0.113.7:4711",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 4712 80\r\n",
            "[2001:db8::7]:4712",
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\xc0\0\x02\x01\x12\x69\0\x50",
            "203.0.113.8:4713",
        ),
    ] {
        let before = proxy.kept.exchanges().len();
        let mut socket = TcpStream::connect(address).await.unwrap();
        // Byte by byte: it may come in as many pieces as the network likes.
        for byte in header {
            socket.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut peer = Peer::over(socket);
        let (head, _) = peer.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(head.status(), 200);
        let seen = eventually("it is recorded", || {
            proxy.kept.exchanges().get(before).cloned()
        });
        assert_eq!(&*seen.await.client, client);
    }
}

#[tokio::test]
async fn a_balancer_that_names_nobody_is_the_client_itself() {
    let proxy = Proxy::with(Origin::echo().await.pool(), behind_a_balancer);
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x03\x04\0\0",
    ] {
        let mut socket = TcpStream::connect(proxy.running.local_addr())
            .await
            .unwrap();
        let own = socket.local_addr().unwrap().to_string();
        socket.write_all(header).await.unwrap();
        let before = proxy.kept.exchanges().len();
        let (head, _) = Peer::over(socket)
            .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        assert_eq!(head.status(), 200);
        let seen = eventually("it is recorded", || {
            proxy.kept.exchanges().get(before).cloned()
        });
        assert_eq!(&*seen.await.client, own);
    }
}

#[tokio::test]
async fn connections_without_a_sound_proxy_protocol_header_are_closed() {
    let origin = Origin::echo().await;
    let proxy = Proxy::with(origin.pool(), behind_a_balancer);
    let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
    let huge = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(),
        &[0; 70_000],
    ]
    .concat();
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(),
        b"PROXY TCP4 203.0.113.7 nonsense\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 99999\r\nGET /",
        long.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x91\x11\0\x0caaaaaaaaaaaa",
        &huge,
    ] {
        let mut socket = TcpStream::connect(proxy.running.local_addr())
            .await
            .unwrap();
        // It may be closed in mid-write.
        let _ = socket.write_all(garbage).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert_eq!(answer, b"", "{}", String::from_utf8_lossy(garbage));
    }
    assert_eq!(proxy.kept.exchanges().len(), 0);
}

#[tokio::test]
async fn a_tcp_listener_takes_the_proxy_protocol_in_front_of_tls() {
    let authority = Authority::new("ours");
    let (capture, kept) = super::origin::capture();
    let mut config = tcp::Config::new(local(), "raw");
    config.tls = Some(authority.sign("server"));
    config.proxy_protocol = ProxyProtocol::Required;
    let origin = Origin::echo().await;
    let bound = tcp::bind(config, origin.pool(), capture, Metrics::default());
    let running = bound.unwrap().serve();
    let address = format!("https://localhost:{}/", running.local_addr().port());
    let trust = [
        "--haproxy-protocol",
        "--cacert",
        text(&authority.certificate),
    ];
    assert_eq!(ask(address, &trust).await.unwrap().status, 200);
    let stream = kept.stream().await;
    assert_eq!(
        stream.tls.unwrap().server_name.as_deref(),
        Some("localhost")
    );
}

#[tokio::test]
async fn tls_on_a_plain_port_is_answered_with_an_alert() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let refused = ask(url("https", &proxy), &["--insecure"])
        .await
        .unwrap_err();
    assert!(refused.contains("alert unexpected message"), "{refused}");
    assert_eq!(ask(url("http", &proxy), &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_unusable_authority_for_clients_is_named() {
    let authority = Authority::new("ours");
    let server = authority.sign("server");
    let mut config = http_proxy::Config::new(local(), "shop");
    config.tls = Some(server.clone());
    config.client_auth = ClientAuth::Required(server.key.clone());
    let origin = Origin::echo().await;
    let bound = http_proxy::bind(
        config,
        origin.pool(),
        Capture::disabled(),
        Metrics::default(),
    );
    let message = bound.unwrap_err().chain();
    assert!(
        message.contains("holds no client CA certificate") && message.contains("server.key"),
        "{message}"
    );
}
