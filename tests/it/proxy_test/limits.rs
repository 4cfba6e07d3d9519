//! A limit on the content of requests: what is over it gets 413, and the record says so.

use bytes::Bytes;
use http::Request;
use qproxy::record::{Exchange, Outcome};

use super::Proxy;
use super::http2_support::{Http2, read};
use super::origin::{Origin, PATIENCE, eventually};

const LIMIT: u64 = 8;

async fn limited() -> (Proxy, Origin) {
    let origin = Origin::echo().await;
    let proxy = Proxy::with(origin.pool(), |config| {
        config.max_request_bytes = Some(LIMIT);
    });
    (proxy, origin)
}

fn refused(exchange: &Exchange) {
    let Outcome::ClientError(why) = &exchange.outcome else {
        panic!("{:?}", exchange.outcome);
    };
    assert!(why.contains("over the limit of 8 bytes"), "{why}");
    assert_eq!(exchange.response.as_ref().unwrap().status, 413);
    assert!(exchange.request.body.bytes <= LIMIT);
}

#[tokio::test]
async fn a_length_over_the_limit_gets_413_and_never_reaches_the_upstream() {
    let (proxy, origin) = limited().await;
    let mut client = proxy.client().await;
    // Not even asked for.
    let (head, content) = client
        .ask("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        .await;
    assert_eq!(
        (head.status(), head.value("connection")),
        (413, Some("close"))
    );
    let json: serde_json::Value = serde_json::from_slice(&content.content).unwrap();
    assert_eq!(json["error"], "bad_request");
    assert_eq!(client.rest().await, b"", "the connection is closed");
    refused(&proxy.kept.exchange().await);
    assert_eq!(origin.connected(), 0);
}

#[tokio::test]
async fn content_up_to_the_limit_passes() {
    let (proxy, _origin) = limited().await;
    let mut client = proxy.client().await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n5\r\n45678\r\n0\r\n\r\n",
    ] {
        let (head, content) = client.ask(request).await;
        assert_eq!(
            (head.status(), &content.content[..]),
            (200, &b"12345678"[..])
        );
    }
}

#[tokio::test]
async fn chunks_that_go_over_the_limit_get_413_and_the_upstream_sees_no_end() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut peer = super::origin::Peer::over(socket);
            if let Some(head) = peer.head().await {
                let content = peer.body(&head).await;
                let _ = told.send((content.content.len(), content.whole));
            }
        }
    })
    .await;
    let proxy = Proxy::with(origin.pool(), |config| {
        config.max_request_bytes = Some(LIMIT);
    });
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
        .await;
    eventually("the first chunk has passed", || {
        (proxy.capture.stats().waiting_bytes > 0).then_some(())
    })
    .await;
    let (head, _) = client.ask("5\r\n67890\r\n0\r\n\r\n").await;
    assert_eq!(
        (head.status(), head.value("connection")),
        (413, Some("close"))
    );
    let exchange = proxy.kept.exchange().await;
    refused(&exchange);
    assert!(exchange.request.body.truncated);
    let (length, whole) = seen.recv().await.unwrap();
    assert!(length <= 5 && !whole, "{length} {whole}");
}

#[tokio::test]
async fn an_offer_to_upgrade_is_no_way_around_the_limit() {
    let (proxy, _origin) = limited().await;
    let mut client = proxy.client().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (head, _) = client
        .ask(&format!("{head}5\r\n12345\r\n5\r\n67890\r\n0\r\n\r\n"))
        .await;
    assert_eq!(head.status(), 413);
    refused(&proxy.kept.exchange().await);
}

#[tokio::test]
async fn a_stream_that_goes_over_the_limit_gets_413_and_its_neighbours_are_served() {
    let (proxy, _origin) = limited().await;
    let client = Http2::connect(proxy.running.local_addr()).await;
    // Its length is not told, so that only what comes shows that it is too long.
    let mut send = client.send.clone().ready().await.unwrap();
    let post = Request::post("http://a/long").body(()).unwrap();
    let (response, mut content) = send.send_request(post, false).unwrap();
    content
        .send_data(Bytes::from_static(b"12345"), false)
        .unwrap();
    content
        .send_data(Bytes::from_static(b"67890"), false)
        .unwrap();
    let answer = tokio::time::timeout(PATIENCE, response).await.unwrap();
    assert_eq!(read(answer.unwrap()).await.unwrap().status, 413);
    assert_eq!(client.get("http://a/").await.status, 200);
    let exchanges = eventually("both are recorded", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 2)
    });
    let exchanges = exchanges.await;
    let long = exchanges.iter().find(|e| &*e.request.target == "/long");
    refused(long.unwrap());
}

#[tokio::test]
async fn an_answer_that_began_before_the_limit_was_passed_breaks_off_by_the_clients_fault() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = super::origin::Peer::over(socket);
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun")
            .await;
        peer.rest().await;
    })
    .await;
    let proxy = Proxy::with(origin.pool(), |config| {
        config.max_request_bytes = Some(LIMIT);
    });
    let mut client = proxy.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status(), 200);
    client.send("5\r\n67890\r\n").await;
    assert!(b"begun".starts_with(&client.rest().await), "it breaks off");
    let exchange = proxy.kept.exchange().await;
    assert!(
        matches!(&exchange.outcome, Outcome::ClientError(why) if why.contains("over the limit")),
        "{:?}",
        exchange.outcome
    );
    assert!(exchange.request.body.truncated);
}
