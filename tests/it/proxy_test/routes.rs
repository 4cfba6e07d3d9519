//! Several services behind one listener, and what they are told of the client.

use std::sync::Arc;

use qproxy::proxy::http::{Forwarded, Route};

use super::Proxy;
use super::http2_support::{self as http2, Http2};
use super::origin::{Origin, Peer, eventually, pool};

/// An origin that says its name, and the head that it saw.
async fn named(name: &'static str) -> Origin {
    Origin::start(move |_, socket| async move {
        let mut peer = Peer::over(socket);
        while let Some(head) = peer.head().await {
            if head.value("upgrade").is_some() {
                let switch =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
                return peer.send(&format!("{switch}{name}")).await;
            }
            let content = format!("{name}\n{}", head.text);
            let length = content.len();
            peer.send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{content}"
            ))
            .await;
        }
    })
    .await
}

fn route(
    host: Option<&str>,
    path: &str,
    service: &str,
    pool: Arc<qproxy::service_discovery::Pool>,
) -> Route {
    Route {
        host: host.map(Arc::from),
        path: path.into(),
        service: service.into(),
        pool,
    }
}

#[tokio::test]
async fn the_first_route_that_fits_takes_a_request_and_names_its_service() {
    let (shop, orders, admin) = (
        named("shop").await,
        named("orders").await,
        named("admin").await,
    );
    let proxy = Proxy::with(shop.pool(), |config| {
        config.routes = vec![
            route(Some("admin.test"), "/", "admin", admin.pool()),
            route(None, "/orders", "orders", orders.pool()),
        ];
    });
    let mut client = proxy.client().await;
    let asked = [
        ("shop.test", "/", "shop"),
        ("shop.test", "/orders/7?x", "orders"),
        ("shop.test", "/ordersx", "shop"),
        ("ADMIN.test:81", "/orders", "admin"),
        ("shop.test", "/orders", "orders"),
    ];
    for (host, path, service) in asked {
        let (_, body) = client
            .ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        let text = String::from_utf8(body.content).unwrap();
        assert_eq!(text.lines().next(), Some(service), "{host}{path}");
        assert!(
            text.contains(&format!("GET {path} HTTP/1.1\r\nHost: {host}")),
            "{text}"
        );
    }
    let new = Http2::connect(proxy.running.local_addr()).await;
    let answer = new.get("http://admin.test/orders").await;
    assert!(answer.body.starts_with(b"admin\n"));
    let mut upgrading = proxy.client().await;
    upgrading
        .send("GET /orders HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        .await;
    assert_eq!(upgrading.head().await.unwrap().status(), 101);
    assert_eq!(upgrading.rest().await, b"orders");
    let exchanges = eventually("all records", || {
        Some(proxy.kept.exchanges()).filter(|exchanges| exchanges.len() == asked.len() + 2)
    });
    let exchanges = exchanges.await;
    let services: Vec<_> = exchanges
        .iter()
        .map(|exchange| &*exchange.service)
        .collect();
    assert_eq!(
        services,
        [
            "shop", "orders", "shop", "admin", "orders", "admin", "orders"
        ]
    );
    let connection = exchanges[0].connection;
    assert!(
        exchanges[..5]
            .iter()
            .all(|exchange| exchange.connection == connection)
    );
}

#[tokio::test]
async fn requests_take_turns_over_the_endpoints_of_a_route() {
    let (shop, one) = (named("shop").await, named("one").await);
    let two = http2::origin(|_, _| async { hyper::Response::new(http2::full("two\n")) }).await;
    let endpoints = [
        format!("http://{}", one.address),
        format!("h2c://{}", two.address),
    ];
    let pool = pool(&[&endpoints[0], &endpoints[1]]);
    let proxy = Proxy::with(shop.pool(), |config| {
        config.routes = vec![route(None, "/both", "both", pool)];
    });
    let mut client = proxy.client().await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (_, body) = client.ask("GET /both HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let text = String::from_utf8(body.content).unwrap();
        seen.push(text.lines().next().unwrap().to_owned());
    }
    assert_eq!(seen, ["one", "two", "one", "two"]);
    assert_eq!(shop.connected(), 0);
}

#[tokio::test]
async fn the_upstream_is_told_of_the_client_as_the_option_says() {
    for (forwarded, expected) in [
        (Forwarded::Off, vec![]),
        (
            Forwarded::On,
            vec![
                "x-forwarded-for: 10.0.0.1, 127.0.0.1",
                "x-forwarded-host: a:1",
                "x-forwarded-proto: http",
            ],
        ),
        (
            Forwarded::Standard,
            vec!["forwarded: for=127.0.0.1;host=\"a:1\";proto=http"],
        ),
    ] {
        let proxy = Proxy::with(named("shop").await.pool(), |config| {
            config.forwarded = forwarded
        });
        let sent = match forwarded {
            Forwarded::On => "X-Forwarded-For: 10.0.0.1\r\n",
            _ => "",
        };
        let request = format!("GET / HTTP/1.1\r\nHost: a:1\r\n{sent}\r\n");
        let (_, body) = proxy.client().await.ask(&request).await;
        let text = String::from_utf8(body.content).unwrap().to_lowercase();
        let mut told: Vec<_> = text
            .lines()
            .filter(|line| line.contains("forwarded"))
            .collect();
        told.sort_unstable();
        assert_eq!(told, expected);
        // The record has what the client sent.
        let exchange = proxy.kept.exchange().await;
        assert!(
            exchange
                .request
                .headers
                .first("x-forwarded-proto")
                .is_none()
        );
    }
}
