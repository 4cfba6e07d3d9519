//! What a client is told where there is no response to pass on, and what is counted, logged and recorded of it.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Response, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::super::{Error, Side};
use super::body::{Meter, Reply};
use super::forward::Forwarder;
use super::forward_proxy;
use super::line::{LINGER, LINGER_BYTES};
use crate::capture::Tee;
use crate::record::{Grpc, Outcome};

/// Who is answered, which decides what an error looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Takes a status and a text.
    Http,
    /// Takes a `grpc-status` in trailers.
    Grpc,
}

impl Asker {
    pub(super) fn of(parts: &Parts) -> Self {
        let kind = parts.headers.get(CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| Grpc::is_content_type(kind.as_bytes()));
        if grpc && parts.version == Version::HTTP_2 {
            Self::Grpc
        } else {
            Self::Http
        }
    }
}

impl Forwarder {
    /// Answers a request that failed, and records that.
    pub(super) fn refuse(
        &self,
        error: &Error,
        asker: Asker,
        tee: Option<Tee>,
        mut meter: Meter,
    ) -> Response<Reply> {
        if let Some(failure) = error.upstream_failure() {
            self.metrics.upstream_failed(failure);
            self.log_failure(error);
        } else if let Some(gate) = self.gate.as_ref().filter(|_| error.is_refusal()) {
            gate.count(error);
        } else {
            tracing::debug!(error = error.chain(), "request refused");
        }
        let content = match asker {
            Asker::Http => message(error),
            Asker::Grpc => Bytes::new(),
        };
        let mut response = Response::new(Reply::Own(Full::new(content.clone())));
        let status = match asker {
            Asker::Http => error.status(),
            // What went wrong with a call is in its trailers, which here are the only head there is.
            Asker::Grpc => StatusCode::OK,
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match asker {
            Asker::Http => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
            }
            Asker::Grpc => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", error.grpc_status().into());
                headers.insert("grpc-message", grpc_message(error));
            }
        }
        let again = matches!(error, Error::Credentials | Error::Denied { .. });
        if asker == Asker::Http && error.side() == Side::Client && !again {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        forward_proxy::challenge(error, &mut response);
        meter.answered(error.status());
        if let Some(tee) = tee {
            if error.outcome() == Outcome::ClientClosed {
                tee.end(error.outcome(), error.upstream());
            } else if let Some(mut tee) = tee.respond(status, response.headers(), error.upstream())
            {
                tee.data(&content);
                tee.end_own(error.outcome());
            }
        }
        response
    }

    /// Warns at most once a second: an upstream that is down fails every request.
    fn log_failure(&self, error: &Error) {
        let second = self.started.elapsed().as_secs() + 1;
        if self.warned.swap(second, Relaxed) == second {
            tracing::debug!(error = error.chain(), "upstream failed");
        } else {
            tracing::warn!(error = error.chain(), "upstream failed");
        }
    }

    /// Reads and forgets the content of a request that was refused over HTTP/2: to let go of it would reset the
    /// stream, and some clients then make nothing of the answer. Over HTTP/1.1 the socket does the same.
    pub(super) fn linger(&self, version: Version, mut body: Incoming) {
        if version != Version::HTTP_2 {
            return;
        }
        let closing = self.drain.clone();
        self.drain.spawn(async move {
            let rest = async {
                let mut left = LINGER_BYTES;
                while left > 0
                    && let Some(Ok(frame)) = body.frame().await
                {
                    left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(LINGER, rest) => {}
                () = closing.closing() => {}
            }
        });
    }
}

/// What a `grpc-message` has to escape: a percent sign, and what is not printable ASCII.
const GRPC_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

fn grpc_message(error: &Error) -> HeaderValue {
    let text = utf8_percent_encode(&error.chain(), GRPC_ESCAPED).to_string();
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("the call failed"))
}

/// What a client is told of an error.
pub(super) fn message(error: &Error) -> Bytes {
    let name = match error.side() {
        _ if matches!(error, Error::Credentials) => "proxy_authentication_required",
        _ if matches!(error, Error::Denied { .. }) => "denied",
        _ if matches!(error, Error::Loop { .. }) => "loop",
        Side::Client => "bad_request",
        Side::Upstream => "upstream_failed",
        Side::Proxy => "proxy_failed",
    };
    let failure = error.upstream_failure().map(|failure| failure.as_str());
    let text = serde_json::json!({
        "error": name,
        "failure": failure,
        "upstream": error.upstream().map(|name| &**name),
        "detail": error.chain(),
    });
    format!("{text}\n").into()
}
