//! The demo's traffic: one visit to the shop, through the proxy.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::demo::expect;

struct Visitor {
    shop: String,
    http: Client<HttpConnector, Full<Bytes>>,
    token: Option<String>,
    sent: u64,
}

/// Looks around, logs in, orders; tells how many requests that were.
pub(super) async fn trip(shop: &str) -> anyhow::Result<u64> {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let mut visitor = Visitor {
        shop: shop.to_owned(),
        http,
        token: None,
        sent: 0,
    };
    for path in [
        "/",
        "/products?page=1",
        "/products?page=2",
        "/products?page=3",
    ] {
        visitor.get(path, 200).await?;
    }
    for id in 1..=8 {
        visitor.get(&format!("/products/{id}"), 200).await?;
        visitor.get(&format!("/images/{id}.svg"), 200).await?;
    }
    visitor.get("/orders", 401).await?;
    let login = json!({ "user": "ada", "password": "tea" });
    let welcome = visitor.post("/login", &login, 200).await?;
    visitor.token = Some(
        welcome["token"]
            .as_str()
            .context("no token came back")?
            .to_owned(),
    );
    visitor.get("/orders", 200).await?;
    visitor
        .post("/orders", &json!({ "product": 3 }), 201)
        .await?;
    for path in ["/events", "/slow?ms=400", "/download?bytes=200000"] {
        visitor.get(path, 200).await?;
    }
    visitor.get("/no-such-page", 404).await?;
    Ok(visitor.sent)
}

impl Visitor {
    async fn get(&mut self, path: &str, wanted: u16) -> anyhow::Result<Bytes> {
        self.send(Method::GET, path, Bytes::new(), wanted).await
    }

    async fn post(&mut self, path: &str, body: &Value, wanted: u16) -> anyhow::Result<Value> {
        let answer = self
            .send(Method::POST, path, body.to_string().into(), wanted)
            .await?;
        serde_json::from_slice(&answer).with_context(|| format!("POST {path}: no JSON came back"))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        wanted: u16,
    ) -> anyhow::Result<Bytes> {
        let what = format!("{method} {path}");
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.shop));
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(body))
            .with_context(|| what.clone())?;
        let response = self
            .http
            .request(request)
            .await
            .with_context(|| what.clone())?;
        expect(response.status(), wanted, &what)?;
        let body = response
            .into_body()
            .collect()
            .await
            .with_context(|| what.clone())?;
        self.sent += 1;
        Ok(body.to_bytes())
    }
}
