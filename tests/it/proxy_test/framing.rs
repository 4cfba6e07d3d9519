//! Requests that two servers could read in two ways: each is answered with 400, its connection ends, and what
//! stands behind it is never a request. And how answers reach clients that are not done asking.

use qproxy::record::Outcome;
use tokio::io::AsyncWriteExt;

use super::Proxy;
use super::origin::{Origin, Peer, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends the bytes, whole and byte by byte: 400, the end of the connection, and nothing smuggled.
async fn refused(bytes: &str) {
    let (origin, seen) = Origin::fixed(OK).await;
    let proxy = Proxy::start(origin.pool());
    for frame in [bytes.len(), 1] {
        let mut client = proxy.client().await;
        for part in bytes.as_bytes().chunks(frame) {
            client.send_bytes(part).await;
            tokio::task::yield_now().await;
        }
        client.send(SMUGGLED).await;
        let answer = client.rest().await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.starts_with("HTTP/1.1 400"),
            "{bytes:?} by {frame}: {text:?}"
        );
        assert_eq!(
            text.matches("HTTP/1.1").count(),
            1,
            "{bytes:?} by {frame}: {text:?}"
        );
    }
    let seen = seen.lock().unwrap();
    assert!(
        seen.iter().all(|head| !head.contains("smuggled")),
        "{bytes:?}: {seen:?}"
    );
}

macro_rules! vectors {
    ($($name:ident: $bytes:expr;)+) => {$(
        #[tokio::test]
        async fn $name() {
            refused($bytes).await;
        }
    )+};
}

vectors! {
    a_length_beside_chunks_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    chunks_beside_a_length_are_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n";
    the_same_length_twice_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx";
    two_lengths_are_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\nxx";
    a_list_of_lengths_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx";
    a_length_with_a_sign_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx";
    a_length_beyond_all_numbers_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nx";
    chunked_twice_in_one_field_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n";
    chunked_twice_in_two_fields_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    the_identity_coding_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n";
    identity_before_chunked_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n";
    an_unknown_coding_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n";
    a_space_before_the_colon_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n";
    a_space_before_the_first_field_is_refused:
        "GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n";
    a_folded_field_is_refused:
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n";
    a_field_folded_with_a_tab_is_refused:
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n";
    a_bare_line_feed_in_a_head_is_refused:
        "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n";
    a_head_that_ends_with_bare_line_feeds_is_refused:
        "GET / HTTP/1.1\nHost: a\n\n";
    a_bare_carriage_return_in_a_head_is_refused:
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n";
    a_field_without_a_colon_is_refused:
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n";
    a_chunk_size_that_is_no_number_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    a_chunk_size_with_a_prefix_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n";
    a_negative_chunk_size_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n";
    a_chunk_size_beyond_all_numbers_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n";
    a_chunk_size_that_ends_with_a_bare_line_feed_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n";
    a_chunk_longer_than_its_size_is_refused:
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n";
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_ends_the_connection_after_its_answer() {
    let (origin, seen) = Origin::fixed(OK).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let bad =
        "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    client
        .send(&format!(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n{bad}{SMUGGLED}"
        ))
        .await;
    let answer = client.rest().await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with(OK), "{text}");
    assert!(text[OK.len()..].starts_with("HTTP/1.1 400"), "{text}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn the_record_has_the_names_of_a_request_in_their_order_and_case() {
    let (origin, _) = Origin::fixed(OK).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let fields = "X-B: 1\r\nhost: a\r\nX-a: 2\r\nx-B: 3\r\nACCEPT: \r\n";
    for _ in 0..2 {
        client
            .ask(&format!("GET /?q HTTP/1.1\r\n{fields}\r\n"))
            .await;
    }
    let exchanges = eventually("two records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 2)
    });
    for exchange in exchanges.await {
        assert_eq!(&*exchange.request.target, "/?q");
        let told: String = exchange
            .request
            .headers
            .iter()
            .map(|(name, value)| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                format!("{}: {}\r\n", text(name), text(value))
            })
            .collect();
        assert_eq!(told, fields);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_early_with_a_close_always_reaches_the_client() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        peer.send(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        )
        .await;
        // Closed with content unread: the rest of it is answered with a reset.
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    for round in 0..40 {
        let client = proxy.client().await;
        let (read, mut write) = client.socket.into_split();
        let sending = tokio::spawn(async move {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n";
            let _ = write.write_all(head.as_bytes()).await;
            for _ in 0..80 {
                if write.write_all(&[7; 100_000]).await.is_err() {
                    break;
                }
            }
            write
        });
        let mut client = Peer::over(tokio::io::join(read, tokio::io::sink()));
        let head = client
            .head()
            .await
            .unwrap_or_else(|| panic!("no answer in round {round}"));
        assert_eq!(head.status(), 413, "round {round}");
        assert_eq!(client.body(&head).await.content, b"big", "round {round}");
        drop(sending.await);
    }
    let exchanges = eventually("all records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 40)
    });
    for exchange in exchanges.await {
        assert_eq!(exchange.response.unwrap().status, 413);
        assert_eq!(exchange.outcome, Outcome::Ok);
    }
}

#[tokio::test]
async fn bytes_that_come_before_an_upgrade_is_granted_belong_to_the_tunnel() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        peer.head().await;
        tokio::task::yield_now().await;
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
        )
        .await;
        let said = peer.rest().await;
        peer.send_bytes(&said).await;
    })
    .await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    // Not HTTP, and longer than a read.
    let early = "early\nbirds\0\r".repeat(10_000);
    client
        .send(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n{early}"
        ))
        .await;
    assert_eq!(client.head().await.unwrap().status(), 101);
    client.send(" and late").await;
    client.socket.shutdown().await.unwrap();
    assert_eq!(client.rest().await, format!("{early} and late").as_bytes());
}

#[tokio::test]
async fn requests_behind_a_refused_upgrade_are_served_and_looked_at() {
    let (origin, seen) = Origin::fixed(OK).await;
    let proxy = Proxy::start(origin.pool());
    let mut client = proxy.client().await;
    let upgrade = "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    let plain = "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(&format!("{upgrade}{upgrade}{plain}")).await;
    for _ in 0..3 {
        let head = client.head().await.unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(client.body(&head).await.content, b"ok");
    }
    assert_eq!(seen.lock().unwrap().len(), 3);
    client
        .send("POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 400);
}
