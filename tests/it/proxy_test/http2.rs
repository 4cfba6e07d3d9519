//! HTTP/2 on the client's side, on the upstream's, and on both.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Frame;
use qproxy::record::{Outcome, Protocol};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::Proxy;
use super::http2_support::{self as http2, Http2, frames, full};
use super::origin::{Origin, PATIENCE, Peer, eventually, pool};

fn url(path: &str) -> String {
    format!("http://shop.test{path}")
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(url(path)).body(body.into()).unwrap()
}

/// The pool of an origin that speaks HTTP/2 with prior knowledge.
fn h2c(origin: &Origin) -> Arc<qproxy::service_discovery::Pool> {
    pool(&[&format!("h2c://{}", origin.address)])
}

async fn client(proxy: &Proxy) -> Http2 {
    Http2::connect(proxy.running.local_addr()).await
}

#[tokio::test]
async fn both_versions_are_served_on_one_port_and_recorded_as_what_they_are() {
    let proxy = Proxy::start(Origin::echo().await.pool());
    let mut old = proxy.client().await;
    let new = client(&proxy).await;
    let (head, body) = old
        .ask("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1")
        .await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"1"[..]));
    let answer = new.ask(post("/2", "22")).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"22"[..])
    );
    let exchanges = eventually("two records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 2)
    });
    let mut spoken: Vec<_> = exchanges
        .await
        .iter()
        .map(|e| {
            (
                e.protocol,
                e.request.version.to_string(),
                e.request.target.to_string(),
            )
        })
        .collect();
    spoken.sort_by_key(|(_, _, target)| target.clone());
    assert_eq!(
        spoken,
        [
            (Protocol::Http1, "HTTP/1.1".to_owned(), "/1".to_owned()),
            (Protocol::Http2, "HTTP/2".to_owned(), "/2".to_owned()),
        ]
    );
}

#[tokio::test]
async fn an_http2_request_reaches_an_http1_upstream_in_its_form() {
    let (origin, seen) =
        Origin::fixed("HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = Proxy::start(origin.pool());
    let request = Request::get(url("/a%20b?x=1"))
        .header("cookie", "a=1")
        .header("x-one", "1")
        .header("cookie", "b=2")
        .body(Bytes::new())
        .unwrap();
    let answer = client(&proxy).await.ask(request).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"ok"[..])
    );
    assert!(!answer.headers.contains_key("connection") && !answer.headers.contains_key("x-hop"));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    let head = seen.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET /a%20b?x=1 HTTP/1.1\r\n"), "{head}");
    for line in ["host: shop.test", "cookie: a=1; b=2", "x-one: 1"] {
        assert!(head.lines().any(|seen| seen == line), "{line} in {head}");
    }
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.request.host(), "shop.test");
    assert_eq!(
        exchange.request.headers.first("cookie").unwrap(),
        "a=1; b=2"
    );
    assert_eq!(exchange.outcome, Outcome::Ok);
}

#[tokio::test]
async fn an_http1_request_reaches_an_http2_upstream_in_its_form() {
    let seen: Arc<Mutex<Vec<http::request::Parts>>> = Arc::default();
    let log = Arc::clone(&seen);
    let origin = http2::origin(move |_, request| {
        let log = Arc::clone(&log);
        async move {
            log.lock().unwrap().push(request.into_parts().0);
            Response::builder()
                .header("x-two", "2")
                .body(full("hello"))
                .unwrap()
        }
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let mut client = proxy.client().await;
    let request = "GET /x?y HTTP/1.1\r\nHost: shop.test:81\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nX-Own: 1\r\n\r\n";
    let (head, body) = client.ask(request).await;
    assert_eq!((head.status(), &body.content[..]), (200, &b"hello"[..]));
    assert_eq!(head.value("x-two"), Some("2"));
    let seen = seen.lock().unwrap().remove(0);
    assert_eq!(seen.version, Version::HTTP_2);
    assert_eq!(seen.uri.to_string(), "http://shop.test:81/x?y");
    let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["te", "x-own"]);
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.protocol, Protocol::Http1);
    assert_eq!(
        exchange.upstream.as_deref(),
        Some(&*format!("h2c://{}", origin.address))
    );
}

#[tokio::test]
async fn content_and_trailers_pass_both_ways_over_http2() {
    let origin = http2::origin(http2::echo).await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    let mut send = client.send.clone().ready().await.unwrap();
    let request = Request::post(url("/"))
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut content) = send.send_request(request, false).unwrap();
    for part in ["one ", "two ", "three"] {
        content.send_data(part.into(), false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "13".parse().unwrap());
    content.send_trailers(trailers).unwrap();
    let answer = http2::read(response.await.unwrap()).await.unwrap();
    assert_eq!(answer.body, b"one two three");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "13");
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.request.trailers.first("x-sum").unwrap(), "13");
    let response = exchange.response.unwrap();
    assert_eq!(response.trailers.first("x-sum").unwrap(), "13");
    assert_eq!(response.body.inline, "one two three");
}

#[tokio::test]
async fn methods_and_statuses_without_content_end_with_their_head() {
    let origin = http2::origin(|_, request| async move {
        let response = Response::builder();
        match *request.method() {
            Method::HEAD => response.header("content-length", "1000").body(full("")),
            _ => response.status(204).body(full("")),
        }
        .unwrap()
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let mut old = proxy.client().await;
    old.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = old.head().await.unwrap();
    assert_eq!(
        (head.status(), head.value("content-length")),
        (200, Some("1000"))
    );
    let (head, _) = old.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(head.status(), 204);
    let new = client(&proxy).await;
    let head = Request::head(url("/")).body(Bytes::new()).unwrap();
    let answer = new.ask(head).await.unwrap();
    assert_eq!(answer.headers["content-length"], "1000");
    assert!(answer.body.is_empty());
    assert_eq!(new.get(&url("/")).await.status, 204);
}

/// Answers each request when the gate has a permit for it; tells how many it has begun.
async fn gated() -> (Origin, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (Arc::clone(&gate), Arc::clone(&begun));
    let origin = http2::origin(move |number, _| {
        let (wait, count) = (Arc::clone(&wait), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            wait.acquire().await.unwrap().forget();
            Response::new(full(number.to_string()))
        }
    })
    .await;
    (origin, gate, begun)
}

#[tokio::test]
async fn exchanges_share_connections_upstream_up_to_the_limit() {
    let (origin, gate, begun) = gated().await;
    let proxy = Proxy::with(h2c(&origin), |config| config.max_upstream_streams = 10);
    let client = client(&proxy).await;
    let asked = join_all((0..25).map(|_| async { client.get(&url("/")).await }));
    let opened = async {
        eventually("all have begun", || {
            (begun.load(Ordering::SeqCst) == 25).then_some(())
        })
        .await;
        gate.add_permits(25);
    };
    let (answers, ()) = tokio::join!(asked, opened);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(origin.connected(), 3);
    gate.add_permits(10);
    for _ in 0..10 {
        assert_eq!(client.get(&url("/")).await.status, 200);
    }
    assert_eq!(origin.connected(), 3, "what is there is used again");
}

#[tokio::test]
async fn a_burst_of_first_requests_makes_one_connection() {
    let origin = http2::origin(http2::echo).await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    let asked = join_all((0..50).map(|n| client.ask(post("/", n.to_string()))));
    for (n, answer) in asked.await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().body, n.to_string().as_bytes());
    }
    assert_eq!(origin.connected(), 1);
}

#[tokio::test]
async fn a_client_may_have_only_so_many_streams_open() {
    let (origin, gate, begun) = gated().await;
    let proxy = Proxy::with(h2c(&origin), |config| config.max_client_streams = 4);
    let client = client(&proxy).await;
    // The first answer comes after the server's settings.
    gate.add_permits(1);
    client.get(&url("/")).await;
    assert_eq!(client.send.current_max_send_streams(), 4);
    let asked = join_all((0..12).map(|_| async { client.get(&url("/")).await }));
    let held = async {
        eventually("four have begun", || {
            (begun.load(Ordering::SeqCst) == 5).then_some(())
        })
        .await;
        gate.add_permits(12);
    };
    let (answers, ()) = tokio::join!(asked, held);
    assert_eq!(answers.len(), 12);
}

#[tokio::test]
async fn a_head_over_the_limit_gets_431_over_http2() {
    let origin = http2::origin(http2::echo).await;
    let proxy = Proxy::with(h2c(&origin), |config| config.max_head_bytes = 8192);
    let client = client(&proxy).await;
    let request = Request::get(url("/"))
        .header("x-long", "x".repeat(10_000))
        .body(Bytes::new())
        .unwrap();
    assert_eq!(client.ask(request).await.unwrap().status, 431);
    assert_eq!(client.get(&url("/")).await.status, 200);
    assert_eq!(origin.connected(), 1);
}

#[tokio::test]
async fn a_host_beside_another_authority_is_refused() {
    let origin = http2::origin(http2::echo).await;
    let proxy = Proxy::start(h2c(&origin));
    let request = Request::get(url("/"))
        .header("host", "other.test")
        .body(Bytes::new())
        .unwrap();
    let answer = client(&proxy).await.ask(request).await.unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(origin.connected(), 0);
    let exchange = proxy.kept.exchange().await;
    assert!(matches!(exchange.outcome, Outcome::ClientError(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection_and_no_other() {
    let (origin, gate, begun) = gated().await;
    let proxy = Proxy::start(h2c(&origin));
    let quiet = client(&proxy).await;
    let mut rude = client(&proxy).await;
    let mut sent = 0;
    let ended = loop {
        let Ok(mut send) = rude.send.clone().ready().await else {
            break true;
        };
        let request = Request::get(url("/")).body(()).unwrap();
        let Ok((response, mut content)) = send.send_request(request, false) else {
            break true;
        };
        content.send_reset(Reason::CANCEL);
        drop(response);
        sent += 1;
        if sent == 200_000 {
            break false;
        }
    };
    assert!(ended, "{sent} requests were taken and reset");
    let ended = (&mut rude.connection).await.unwrap();
    let reason = ended.err().and_then(|error| error.reason());
    assert!(
        matches!(reason, None | Some(Reason::ENHANCE_YOUR_CALM)),
        "{reason:?}"
    );
    gate.add_permits(begun.load(Ordering::SeqCst) + 1);
    assert_eq!(quiet.get(&url("/")).await.status, 200);
}

#[tokio::test]
async fn a_stream_whose_client_gives_no_window_is_reset() {
    let origin = http2::origin(|_, _| async { Response::new(full(vec![1; 1 << 20])) }).await;
    let proxy = Proxy::with(h2c(&origin), |config| {
        config.write_timeout = Duration::from_millis(50);
    });
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(0);
    let socket = TcpStream::connect(proxy.running.local_addr())
        .await
        .unwrap();
    let client = Http2::set_up(&settings, socket).await;
    let mut send = client.send.clone().ready().await.unwrap();
    let request = Request::get(url("/")).body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let mut content = response.await.unwrap().into_body();
    let data = tokio::time::timeout(PATIENCE, content.data()).await;
    let error = data.expect("the stream ends").unwrap().unwrap_err();
    assert!(error.is_reset(), "{error}");
    let exchange = proxy.kept.exchange().await;
    assert_eq!(exchange.outcome, Outcome::ClientClosed);
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_up_the_upstream_and_not_memory() {
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let origin = http2::origin(move |_, _| {
        let count = Arc::clone(&count);
        async move {
            let parts = futures_util::stream::iter((0..1000).map(move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Frame::data(Bytes::from(vec![7; 100_000])))
            }));
            Response::new(BodyExt::boxed_unsync(http_body_util::StreamBody::new(
                parts,
            )))
        }
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    let mut send = client.send.clone().ready().await.unwrap();
    let request = Request::get(url("/")).body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    let mut before = 0;
    let held = eventually("the origin is held up", || {
        let now = given.load(Ordering::SeqCst);
        let held = now > 0 && now == before;
        before = now;
        held.then_some(now)
    });
    // Windows of 64 KiB and 1 MiB and the buffers of the sockets, out of 100 MB.
    assert!(held.await < 300, "{before} of 1000");
    let answer = http2::read(response).await.unwrap();
    assert_eq!(answer.body.len(), 100_000_000);
    assert_eq!(proxy.kept.exchange().await.outcome, Outcome::Ok);
}

#[tokio::test]
async fn a_client_that_resets_its_stream_cancels_it_upstream() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, socket| {
        let told = told.clone();
        async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let told = told.clone();
                tokio::spawn(async move {
                    let _ = told.send(None);
                    let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    let _ = told.send(reason.ok());
                });
            }
        }
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    let mut send = client.send.clone().ready().await.unwrap();
    let request = Request::get(url("/")).body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    assert_eq!(heard.recv().await.unwrap(), None);
    drop(response);
    assert_eq!(heard.recv().await.unwrap(), Some(Reason::CANCEL));
    let exchange = proxy.kept.exchange().await;
    assert_eq!(
        (exchange.outcome, exchange.response),
        (Outcome::ClientClosed, None)
    );
}

/// Answers one request per connection and then says GOAWAY, refusing the streams that come after it.
async fn goes_away_after_each() -> Origin {
    Origin::start(|number, socket| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut answered = 0;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if answered > 0 {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            answered += 1;
            tokio::spawn(async move {
                let mut content = request.into_body();
                let mut length = 0;
                while let Some(Ok(data)) = content.data().await {
                    length += data.len();
                    let _ = content.flow_control().release_capacity(data.len());
                }
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                let _ = body.send_data(format!("{number} {length}").into(), true);
            });
        }
    })
    .await
}

#[tokio::test]
async fn a_post_that_was_refused_unread_is_sent_again() {
    let origin = goes_away_after_each().await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    for number in 0..3 {
        let answer = client.ask(post("/", "hello")).await.unwrap();
        assert_eq!(
            (
                answer.status.as_u16(),
                String::from_utf8(answer.body).unwrap()
            ),
            (200, format!("{number} 5"))
        );
    }
    let exchanges = eventually("three records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == 3)
    });
    for exchange in exchanges.await {
        assert_eq!(exchange.request.body.inline, "hello");
        assert_eq!(exchange.outcome, Outcome::Ok);
    }
}

#[tokio::test]
async fn a_post_that_may_have_been_seen_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let origin = Origin::start(move |_, socket| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                match count.fetch_add(1, Ordering::SeqCst) {
                    0 => drop(respond.send_response(Response::new(()), true)),
                    _ => respond.send_reset(Reason::INTERNAL_ERROR),
                }
            }
        }
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    assert_eq!(client.ask(post("/", "1")).await.unwrap().status, 200);
    assert_eq!(client.ask(post("/", "2")).await.unwrap().status, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_survive_an_upstream_that_goes_away_in_good_order() {
    let origin = Origin::start(|_, socket| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut answered = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            answered += 1;
            if answered == 5 {
                connection.graceful_shutdown();
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            let _ = body.send_data("ok".into(), true);
        }
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    for number in 0..40 {
        let answer = client.ask(post("/", number.to_string())).await.unwrap();
        assert_eq!(answer.body, b"ok", "request {number}");
    }
    assert!(origin.connected() >= 7, "{}", origin.connected());
}

#[tokio::test]
async fn what_an_http2_upstream_does_wrong_is_told_apart() {
    let answer = async |raw: &'static [u8]| {
        let origin = Origin::start(move |_, socket| async move {
            let mut peer = Peer::over(socket);
            peer.send_bytes(raw).await;
            peer.rest().await;
        })
        .await;
        let proxy = Proxy::with(h2c(&origin), |config| {
            config.response_timeout = Duration::from_millis(200);
        });
        let (head, body) = proxy
            .client()
            .await
            .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let json: serde_json::Value = serde_json::from_slice(&body.content).unwrap();
        (head.status(), json["failure"].as_str().unwrap().to_owned())
    };
    let garbage = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answer(garbage).await, (502, "protocol".to_owned()));
    assert_eq!(answer(b"").await, (504, "timeout".to_owned()));
    // An empty SETTINGS frame, and no answer.
    let settings = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    assert_eq!(answer(settings).await, (504, "timeout".to_owned()));
}

#[tokio::test]
async fn an_http2_upstream_that_breaks_off_is_seen_by_the_client_as_broken_off() {
    let origin = Origin::start(|_, socket| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data("half".into(), false).unwrap();
            tokio::spawn(async move {
                // The data goes out first.
                tokio::time::sleep(Duration::from_millis(20)).await;
                body.send_reset(Reason::INTERNAL_ERROR);
            });
        }
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let error = client(&proxy)
        .await
        .ask(post("/", ""))
        .await
        .expect_err("the stream is reset");
    assert!(error.is_reset(), "{error}");
    let (_, content) = proxy
        .client()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert!(!content.whole);
    assert_eq!(content.content, b"half");
    let exchange = proxy.kept.exchange().await;
    assert!(matches!(exchange.outcome, Outcome::UpstreamFailed(..)));
    assert!(exchange.response.unwrap().body.truncated);
}

#[tokio::test]
async fn an_upstream_that_answers_no_ping_is_given_up() {
    let origin = Origin::start(|_, socket| async move {
        let mut peer = Peer::over(socket);
        // Settings, and their acknowledgement; then silence.
        peer.send_bytes(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0])
            .await;
        peer.rest().await;
    })
    .await;
    let proxy = Proxy::with(h2c(&origin), |config| {
        config.ping_after = Duration::from_millis(50);
        config.ping_timeout = Duration::from_millis(50);
    });
    let answer = client(&proxy).await.get(&url("/")).await;
    assert_eq!(answer.status, 502);
}

#[tokio::test]
async fn a_connection_without_streams_is_told_to_go() {
    let origin = http2::origin(http2::echo).await;
    let proxy = Proxy::with(h2c(&origin), |config| {
        config.head_timeout = Duration::from_millis(50);
    });
    let client = client(&proxy).await;
    assert_eq!(client.get(&url("/")).await.status, 200);
    let ended = tokio::time::timeout(PATIENCE, client.connection).await;
    ended.expect("the connection ends").unwrap().unwrap();
    // One that never says anything beyond the preface goes as well.
    let mut silent = proxy.client().await;
    silent.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    silent.rest().await;
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    let (origin, gate, begun) = gated().await;
    let proxy = Proxy::start(h2c(&origin));
    let address = proxy.running.local_addr();
    let client = client(&proxy).await;
    let (told, mut hears) = watch::channel(false);
    let (answer, drained) = tokio::join!(client.get("http://shop.test/"), async {
        eventually("the request is in flight", || {
            (begun.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        let draining = tokio::spawn(proxy.running.shutdown(PATIENCE));
        eventually("new clients are refused", || {
            std::net::TcpStream::connect(address).is_err().then_some(())
        })
        .await;
        told.send_replace(true);
        gate.add_permits(1);
        draining.await.unwrap()
    });
    hears.wait_for(|told| *told).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"0"[..]));
    assert_eq!(drained.aborted, 0);
    assert!(client.send.clone().ready().await.is_err());
}

#[tokio::test]
async fn after_the_grace_period_streams_are_closed() {
    let (origin, _gate, begun) = gated().await;
    let proxy = Proxy::start(h2c(&origin));
    let client = client(&proxy).await;
    let asked = client.ask(post("/", "x"));
    let closed = async {
        eventually("the request is in flight", || {
            (begun.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        proxy.running.shutdown(Duration::from_millis(20)).await
    };
    let (answer, drained) = tokio::join!(asked, closed);
    assert!(answer.is_err());
    assert!(drained.aborted >= 1);
}

#[tokio::test]
async fn an_upgrade_towards_http2_alone_is_a_plain_exchange() {
    let origin = http2::origin(http2::echo).await;
    let proxy = Proxy::start(h2c(&origin));
    let (head, _) = proxy
        .client()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        .await;
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn trailers_of_an_http2_upstream_pass_to_an_http1_client_that_takes_them() {
    let origin = http2::origin(|_, _| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let body = frames(vec![Frame::data("ok".into()), Frame::trailers(trailers)]);
        Response::builder()
            .header("trailer", "x-sum")
            .body(body)
            .unwrap()
    })
    .await;
    let proxy = Proxy::start(h2c(&origin));
    let request = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n";
    let (_, content) = proxy.client().await.ask(request).await;
    assert_eq!(
        (&content.content[..], &*content.trailers),
        (&b"ok"[..], "x-sum: 7")
    );
}
