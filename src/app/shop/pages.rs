//! What the shop answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use tokio::time::Sleep;

use super::{Edition, State};

pub(super) type Content = BoxBody<Bytes, Infallible>;
type Page = Response<Content>;

const PRODUCTS: &[(&str, u32)] = &[
    ("Kettle", 2_490),
    ("Teapot", 3_900),
    ("Cup, set of four", 1_850),
    ("Green tea, 100 g", 790),
    ("Black tea, 100 g", 690),
    ("Tea towel", 450),
    ("Sugar bowl", 1_190),
    ("Tray", 2_200),
];
const PAGE_SIZE: usize = 3;
const EVENTS: u32 = 5;
const EVENT_GAP: Duration = Duration::from_millis(100);
const SLOWEST: Duration = Duration::from_secs(10);
const LARGEST_DOWNLOAD: usize = 64 << 20;

pub(super) async fn route(state: &State, head: &http::request::Parts, body: &Bytes) -> Page {
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    let number = |name: &str| -> Option<usize> {
        query
            .split('&')
            .filter_map(|p| p.split_once('='))
            .find(|p| p.0 == name)?
            .1
            .parse()
            .ok()
    };
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (head.method.as_str(), segments.as_slice()) {
        ("GET" | "HEAD", [""]) => page(200, "text/html; charset=utf-8", FRONT.into()),
        ("GET" | "HEAD", ["products"]) => products(state, number("page").unwrap_or(1)),
        ("GET" | "HEAD", ["products", id]) => product(state, id),
        ("POST", ["login"]) => log_in(state, body),
        ("GET" | "HEAD", ["orders"]) => orders(state, head),
        ("POST", ["orders"]) => order(state, head, body),
        ("GET" | "HEAD", ["images", name]) => image(name),
        ("GET", ["events"]) => events(),
        ("GET" | "HEAD", ["slow"]) => {
            let wait = Duration::from_millis(number("ms").unwrap_or(400) as u64).min(SLOWEST);
            tokio::time::sleep(wait).await;
            json_page(200, &json!({ "waited_ms": wait.as_millis() as u64 }))
        }
        ("GET" | "HEAD", ["download"]) => {
            let size = number("bytes").unwrap_or(1 << 20).min(LARGEST_DOWNLOAD);
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            page(200, "application/octet-stream", content.into())
        }
        ("GET" | "HEAD" | "POST", _) => error(404, "there is no such page"),
        _ => error(405, "the shop knows GET, HEAD and POST"),
    }
}

pub(super) fn error(status: u16, message: &str) -> Page {
    let body = json!({ "error": message }).to_string();
    page(status, "application/json", body.into())
}

fn products(state: &State, number: usize) -> Page {
    let pages = PRODUCTS.len().div_ceil(PAGE_SIZE);
    if !(1..=pages).contains(&number) {
        return error(404, "there is no such page");
    }
    let first = (number - 1) * PAGE_SIZE;
    let last = (first + PAGE_SIZE).min(PRODUCTS.len());
    let items: Vec<Value> = (first..last).map(|at| describe(state, at)).collect();
    json_page(
        200,
        &json!({ "page": number, "pages": pages, "items": items }),
    )
}

fn product(state: &State, id: &str) -> Page {
    match id
        .parse::<usize>()
        .ok()
        .and_then(|id| id.checked_sub(1))
        .filter(|at| *at < PRODUCTS.len())
    {
        Some(at) => json_page(200, &describe(state, at)),
        None => error(404, "there is no such product"),
    }
}

fn describe(state: &State, at: usize) -> Value {
    let (name, mut cents) = PRODUCTS[at];
    if state.edition == Edition::Next && at == 2 {
        cents += 1; // The next release's mistake, for a replay to find.
    }
    json!({ "id": at + 1, "name": name, "cents": cents, "image": format!("/images/{}.svg", at + 1) })
}

fn log_in(state: &State, body: &Bytes) -> Page {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    match (request["user"].as_str(), request["password"].as_str()) {
        (Some(user), Some("tea")) => {
            json_page(200, &json!({ "user": user, "token": state.log_in(user) }))
        }
        (Some(_), Some(_)) => error(401, "wrong password (the demo's is `tea`)"),
        _ => error(400, "a login is {\"user\": …, \"password\": …}"),
    }
}

fn user(state: &State, head: &http::request::Parts) -> Option<std::sync::Arc<str>> {
    let field = head.headers.get("authorization")?.to_str().ok()?;
    state.user_of(field.strip_prefix("Bearer ")?)
}

fn orders(state: &State, head: &http::request::Parts) -> Page {
    match user(state, head) {
        Some(user) => json_page(200, &json!({ "user": &*user, "orders": [] })),
        None => error(401, "log in first: POST /login"),
    }
}

fn order(state: &State, head: &http::request::Parts, body: &Bytes) -> Page {
    let Some(user) = user(state, head) else {
        return error(401, "log in first: POST /login");
    };
    let wanted: Value = serde_json::from_slice(body).unwrap_or_default();
    match wanted["product"]
        .as_u64()
        .filter(|id| (1..=PRODUCTS.len() as u64).contains(id))
    {
        Some(id) => {
            let order = json!({ "order": state.next_order(), "user": &*user, "product": id });
            json_page(201, &order)
        }
        None => error(400, "an order is {\"product\": 1…8}"),
    }
}

fn image(name: &str) -> Page {
    let at = name
        .strip_suffix(".svg")
        .and_then(|id| id.parse::<usize>().ok());
    match at
        .and_then(|id| id.checked_sub(1))
        .filter(|at| *at < PRODUCTS.len())
    {
        Some(at) => {
            let svg = format!(
                r##"<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"><rect width="96" height="96" rx="12" fill="hsl({},60%,70%)"/><text x="48" y="60" font-size="36" text-anchor="middle">{}</text></svg>"##,
                at * 45,
                &PRODUCTS[at].0[..1],
            );
            page(200, "image/svg+xml", svg.into())
        }
        None => error(404, "there is no such image"),
    }
}

fn json_page(status: u16, body: &Value) -> Page {
    page(status, "application/json", body.to_string().into())
}

fn page(status: u16, media_type: &str, content: Bytes) -> Page {
    Response::builder()
        .status(status)
        .header("content-type", media_type)
        .body(Full::new(content).boxed())
        .expect("status and media type are constants of this file")
}

fn events() -> Page {
    Response::builder()
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store")
        .body(
            Ticker {
                next: 1,
                wait: Box::pin(tokio::time::sleep(Duration::ZERO)),
            }
            .boxed(),
        )
        .expect("the fields are constants of this file")
}

/// A few server-sent events, one after the other.
struct Ticker {
    next: u32,
    wait: Pin<Box<Sleep>>,
}

impl Body for Ticker {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next > EVENTS {
            return Poll::Ready(None);
        }
        if self.wait.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let event = format!(
            "id: {0}\nevent: stock\ndata: {{\"product\":{0}}}\n\n",
            self.next
        );
        self.next += 1;
        self.wait
            .as_mut()
            .reset(tokio::time::Instant::now() + EVENT_GAP);
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

const FRONT: &str = "<!doctype html><title>Tea shop</title><h1>Tea shop</h1>\
    <p>GET /products?page=1, /products/3, /images/3.svg, /events, /slow?ms=400, /download?bytes=100000; \
    POST /login {user, password: tea}, then GET and POST /orders with the token.</p>\n";
