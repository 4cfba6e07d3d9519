//! A client of a running node's API.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use url::Url;

use super::args::Api;
use super::table::printable;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 20;

pub(super) struct Client {
    base: Url,
    token: Option<String>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(super) fn new(api: &Api) -> anyhow::Result<Self> {
        let base: Url = api
            .api
            .parse()
            .with_context(|| format!("--api {}: not a URL", api.api))?;
        if base.scheme() != "http" {
            bail!(
                "--api {}: only http is spoken here; reach a remote API through a tunnel",
                base
            );
        }
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Ok(Self {
            base,
            token: api.token.clone(),
            http,
        })
    }

    /// Asks for `path` with `parameters`.
    pub(super) async fn get(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        self.send(Method::GET, path, parameters, None).await
    }

    /// Sends `body` as JSON to `path`.
    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, &[], Some(body)).await
    }

    /// Deletes what is at `path`.
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.send(Method::DELETE, path, &[], None).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut url = self
            .base
            .join(path)
            .with_context(|| format!("no address: {path}"))?;
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let mut request = Request::builder().method(method).uri(url.as_str());
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let content = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request
            .body(Full::new(content))
            .context("the token is no header value")?;
        let response = self.http.request(request).await.with_context(|| {
            format!(
                "no answer from {} (is the node running? --api names another)",
                self.base
            )
        })?;
        let status = response.status();
        let content = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("{url} broke off: {error}"))?
            .to_bytes();
        let value: Value = serde_json::from_slice(&content).unwrap_or_default();
        if !status.is_success() {
            let error = &value["error"];
            let message = error["message"].as_str().or(error.as_str());
            let message = printable(message.unwrap_or("no reason given"));
            match error["parameter"].as_str().map(printable) {
                Some(parameter) => bail!("{status}: {parameter}: {message}"),
                None => bail!("{status}: {message}"),
            }
        }
        Ok(value)
    }
}
