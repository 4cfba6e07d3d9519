//! TLS on the listener.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker_mock::{Broker, Config, Error, Limits, RunningBroker, Tls};
use bytes::BytesMut;
use qproxy_mqtt::codec::{self, Packet, Version};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client::{Client, PATIENCE, bytes_of, clean, eventually};
use crate::service::local;

/// A certificate for `localhost` in files of its own.
struct Files {
    tls: Tls,
    certificate: CertificateDer<'static>,
    _folder: tempfile::TempDir,
}

fn files() -> Files {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = Tls {
        certificate: write("cert.pem", made.cert.pem()),
        key: write("key.pem", made.signing_key.serialize_pem()),
    };
    Files {
        tls,
        certificate: made.cert.der().clone(),
        _folder: folder,
    }
}

async fn start(tls: Tls) -> RunningBroker {
    let config = Config {
        tls: Some(tls),
        limits: Limits {
            connect_timeout: Duration::from_millis(300),
            ..Limits::default()
        },
        ..Config::new(local())
    };
    Broker::bind(config).await.unwrap()
}

#[tokio::test]
async fn clients_speak_tls_and_this_machine_may_do_without() {
    let files = files();
    let broker = start(files.tls.clone()).await;
    let mut roots = RootCertStore::empty();
    roots.add(files.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(broker.local_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, socket).await.unwrap();
    let connect = bytes_of(&Packet::Connect(Box::new(clean("tls"))));
    stream.write_all(&connect).await.unwrap();
    let mut input = BytesMut::new();
    let answer = async {
        loop {
            if let Some(packet) = codec::decode(&mut input, 1_000, Version::V311).unwrap() {
                return packet;
            }
            assert!(stream.read_buf(&mut input).await.unwrap() > 0);
        }
    };
    let answer = timeout(PATIENCE, answer).await.expect("an answer");
    assert!(matches!(answer, Packet::ConnAck(ack) if !ack.code.is_error()));
    let mut plain = Client::clean(broker.local_addr(), "plain").await;
    plain.ping().await;
    assert_eq!(broker.stats().clients, 2);
}

#[tokio::test]
async fn handshakes_that_fail_or_never_begin_are_closed_and_counted() {
    let broker = start(files().tls).await;
    let mut garbled = Client::open(broker.local_addr()).await;
    garbled.send_raw(&[22, 3, 1, 0, 4, 9, 9, 9, 9]).await;
    let silent = Client::open(broker.local_addr()).await;
    eventually("both are closed", || {
        broker.stats().counters.handshake_errors == 2
    })
    .await;
    assert_eq!(broker.stats().connections, 0);
    drop((garbled, silent));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let files = files();
    let swapped = Tls {
        certificate: files.tls.key.clone(),
        key: files.tls.key.clone(),
    };
    let missing = Tls {
        key: "missing.pem".into(),
        ..files.tls.clone()
    };
    for (tls, name) in [(missing, "missing.pem"), (swapped, "TLS")] {
        let config = Config {
            tls: Some(tls),
            ..Config::new(local())
        };
        let error = Broker::bind(config).await.unwrap_err();
        assert!(matches!(error, Error::TlsFile { .. } | Error::Tls(_)));
        assert!(error.to_string().contains(name), "{error}");
    }
}
