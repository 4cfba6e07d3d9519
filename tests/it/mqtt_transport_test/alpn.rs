//! The protocols that TLS offers.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use qproxy::mqtt_client::error::{ConnectError, TlsError};
use qproxy::mqtt_client::options::TlsOptions;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{chain, refusal, to};
use crate::support::certificates;
use crate::support::certificates::TlsFiles;
use crate::support::process::Process;
use crate::support::{free_port, soon};

fn offering(files: &TlsFiles, port: u16, alpn: &[&str]) -> MqttConfig {
    MqttConfig {
        tls: Some(TlsOptions {
            ca: Some(files.ca.clone()),
            alpn: alpn.iter().map(ToString::to_string).collect(),
            ..TlsOptions::default()
        }),
        ..to("localhost", port)
    }
}

fn acceptor(certificate: &Path, key: &Path, protocol: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn the_server_chooses_among_the_protocols_that_are_offered() {
    let directory = TempDir::new().unwrap();
    let files = certificates::make(directory.path(), "ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor(&files.certificate, &files.key, "mqtt");
    let client = MqttClient::new(offering(&files, port, &["x-amzn-mqtt-ca", "mqtt"]));
    let serve = async {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let mut connect = [0; 64];
        assert!(stream.read(&mut connect).await.unwrap() > 0);
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        stream.flush().await.unwrap();
        (stream, chosen)
    };
    let (connected, (_stream, chosen)) = tokio::join!(client.connect(), serve);
    connected.unwrap();
    assert_eq!(chosen.as_deref(), Some(&b"mqtt"[..]));
}

#[tokio::test]
async fn a_server_with_none_of_the_protocols_is_told_from_one_with_bad_certificates() {
    let directory = TempDir::new().unwrap();
    let files = certificates::make(directory.path(), "ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = acceptor(&files.certificate, &files.key, "h2");
    let serve = async {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        acceptor.accept(stream).await.map(drop)
    };
    let (error, accepted) = tokio::join!(refusal(offering(&files, port, &["mqtt"])), serve);
    assert!(accepted.is_err());
    let alpn = matches!(&error, ConnectError::Tls(TlsError::Alpn { .. }));
    assert!(alpn && chain(&error).contains("`alpn`"), "{error:?}");
}

#[tokio::test]
async fn openssl_sees_the_protocols_too() {
    let directory = TempDir::new().unwrap();
    let files = certificates::make(directory.path(), "ours");
    let port = free_port();
    let mut command = Command::new("openssl");
    command
        .args([
            "s_server",
            "-alpn",
            "x-amzn-mqtt-ca",
            "-accept",
            &port.to_string(),
        ])
        .arg("-cert")
        .arg(&files.certificate)
        .arg("-key")
        .arg(&files.key);
    let mut server = Process::start(&mut command, "openssl");
    server.expect_line("`ACCEPT`", |line| line.contains("ACCEPT").then_some(()));
    let client = MqttClient::new(offering(&files, port, &["x-amzn-mqtt-ca"]));
    let connecting = tokio::spawn(async move { client.connect().await });
    let seen = tokio::task::spawn_blocking(move || {
        server.expect_line("the protocol", |line| {
            line.contains("ALPN protocols selected: x-amzn-mqtt-ca")
                .then_some(())
        });
    });
    soon("openssl", seen).await.unwrap();
    connecting.abort();
}
