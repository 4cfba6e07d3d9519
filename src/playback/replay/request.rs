//! Makes the request that is sent from the one that was recorded, or says why there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use parking_lot::Mutex;

use super::web_socket::is_web_socket;
use super::{HostHeader, RunId, Sending};
use crate::playback::link::{RequestBody, host_of};
use crate::playback::stored::Stored;
use crate::playback::{REPLAY_HEADER, fields};
use crate::record::{Body, Exchange, Headers, Outcome};

/// Why a record cannot be replayed; `None` where it can.
pub(super) fn unfit(exchange: &Exchange) -> Option<&'static str> {
    let request = &exchange.request;
    match (&exchange.outcome, &exchange.response) {
        (Outcome::UpstreamFailed(..), _) => {
            return Some("the recorded answer is not the service's: it failed then");
        }
        (Outcome::ClientError(_), _) => return Some("the request was not a legal one"),
        (_, None) => return Some("no response was recorded"),
        _ if is_web_socket(exchange) => {}
        (_, Some(response)) if response.status < 200 => return Some("it switches protocols"),
        _ if request.headers.first("upgrade").is_some() => {
            return Some("it asks for another protocol");
        }
        _ => {}
    }
    if &*request.method == "CONNECT" {
        return Some("CONNECT is not replayed");
    }
    if request.headers.first(REPLAY_HEADER).is_some() {
        return Some("it was itself replayed");
    }
    if request.body.truncated {
        return Some("only a part of the request's body was kept");
    }
    None
}

/// A request that can be made as often as it has to be.
pub(super) struct Prepared {
    method: Method,
    uri: Uri,
    pub(super) headers: HeaderMap,
    body: Stored,
    /// Whether it was made for a connection that stood.
    pub(super) sent: AtomicBool,
    /// Why the body could not be given whole, once that has happened.
    pub(super) broken: Arc<Mutex<Option<String>>>,
    /// Fields that HTTP has no form for.
    pub(super) dropped: u64,
}

impl Prepared {
    /// `recorded` are the recorded fields, with what was carried over.
    pub(super) fn new(
        exchange: &Exchange,
        recorded: &Headers,
        body: Stored,
        sending: &Sending,
        run: RunId,
    ) -> Result<Self, &'static str> {
        let request = &exchange.request;
        let method = Method::from_bytes(request.method.as_bytes());
        let method = method.map_err(|_| "its method is none that HTTP has a form for")?;
        let target = match request.query() {
            "" => request.path().to_owned(),
            query => format!("{}?{query}", request.path()),
        };
        let uri = Uri::try_from(target).map_err(|_| "its target is not one")?;
        let (mut headers, dropped) = fields::passed_on(recorded);
        headers.remove(header::EXPECT);
        for name in &sending.remove_headers {
            headers.remove(name);
        }
        for (name, value) in &sending.set_headers {
            headers.insert(name, value.clone());
        }
        if sending.host == HostHeader::Target || !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, host_of(&sending.target));
        }
        if headers.contains_key(header::CONTENT_LENGTH) || request.body.chunks == 0 {
            set_length(&mut headers, &method, &request.body);
        }
        let marker = HeaderValue::try_from(run.to_string());
        headers.insert(
            REPLAY_HEADER,
            marker.expect("a UUID is a legal field value"),
        );
        Ok(Self {
            method,
            uri,
            headers,
            body,
            sent: AtomicBool::new(false),
            broken: Arc::default(),
            dropped,
        })
    }

    pub(super) fn build(&self) -> Request<RequestBody> {
        self.sent.store(true, Ordering::Relaxed);
        let mut request = Request::new(self.content());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn content(&self) -> RequestBody {
        if self.body.body.chunks == 0 {
            let content = Full::<Bytes>::new(self.body.body.inline.clone());
            return content.map_err(|never| match never {}).boxed_unsync();
        }
        let broken = self.broken.clone();
        let pieces = self.body.clone().stream().inspect_err(move |error| {
            *broken.lock() = Some(error.to_string());
        });
        StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
    }
}

/// The true length, where there is content or the method is one that announces its absence.
fn set_length(headers: &mut HeaderMap, method: &Method, body: &Body) {
    let announced = headers.remove(header::CONTENT_LENGTH).is_some();
    let usual = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    if body.bytes > 0 || announced || usual {
        headers.insert(header::CONTENT_LENGTH, body.bytes.into());
    }
}
