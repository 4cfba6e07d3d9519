//! Clients that are slow on purpose, to hold what they were given for as long as they can.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use qproxy::record::Outcome;

use super::Proxy;
use super::http2_support::{Http2, read};
use super::origin::{Origin, PATIENCE, Peer, eventually};

/// What an HTTP/2 client says first: the preface and empty SETTINGS (RFC 9113 section 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// HEADERS on stream 1 that announce more than is sent, and whose block would go on in CONTINUATION frames.
const PART_OF_A_HEAD: &[u8] = b"\0\x40\0\x01\x01\0\0\0\x01\x82\x86";

/// Sends a byte every now and then until the connection ends.
async fn drips(mut client: Peer, byte: &[u8]) -> Vec<u8> {
    let dripping = async {
        loop {
            let next = tokio::time::timeout(Duration::from_millis(10), client.rest());
            match next.await {
                Ok(rest) => return rest,
                Err(_) => client.send_bytes(byte).await,
            }
        }
    };
    let dripped = tokio::time::timeout(PATIENCE, dripping).await;
    dripped.expect("the connection ends")
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_however_often_a_byte_of_it_comes() {
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.head_timeout = Duration::from_millis(200);
    });
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    let rest = drips(client, b"x").await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"));
    let mut client = proxy.client().await;
    client.send_bytes(HELLO).await;
    client.send_bytes(PART_OF_A_HEAD).await;
    drips(client, &[0x40]).await;
    assert!(proxy.kept.exchanges().is_empty());
}

#[tokio::test]
async fn a_slow_first_line_and_a_slow_preface_are_cut() {
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.head_timeout = Duration::from_millis(200);
    });
    for start in [&b"G"[..], &HELLO[..10], HELLO] {
        let mut client = proxy.client().await;
        client.send_bytes(start).await;
        client.rest().await;
    }
}

#[tokio::test]
async fn a_stream_that_stalls_in_mid_upload_gets_408_and_its_neighbours_are_served() {
    let proxy = Proxy::with(Origin::echo().await.pool(), |config| {
        config.response_timeout = Duration::from_millis(200);
    });
    let client = Http2::connect(proxy.running.local_addr()).await;
    let post = Request::post("http://a/slow").body(()).unwrap();
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut content) = send.send_request(post, false).unwrap();
    content
        .send_data(Bytes::from_static(b"half"), false)
        .unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("http://a/fast").await.status, 200);
    }
    let answer = tokio::time::timeout(PATIENCE, response).await.unwrap();
    let answer = read(answer.unwrap()).await.unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(client.get("http://a/fast").await.status, 200);
    let exchanges = eventually("all are recorded", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 5)
    });
    let slow = exchanges
        .await
        .into_iter()
        .find(|e| &*e.request.target == "/slow");
    let slow = slow.unwrap();
    assert!(
        matches!(slow.outcome, Outcome::ClientError(_)),
        "{:?}",
        slow.outcome
    );
    assert!(slow.request.body.truncated);
}
