//! What the halves of a copy say, put together as the record that others see: redacted, and with the few
//! texts that return in nearly every record shared.

use std::sync::Arc;

use bytes::Bytes;

use super::Settings;
use super::body::CopiedBody;
use super::exchange::{Answer, Shared};
use super::head::FlatHead;
use super::redact::{self, Redacted};
use crate::record::{
    Body, Digest, Exchange, Flow, Grpc, Headers, Origin, Outcome, Protocol, Request, Response,
    Target, Timing,
};

/// How many method names and statuses are remembered.
const MAX_NAMES: usize = 64;

/// The exchange that was copied, redacted; its place in the sequence is `origin`.
pub(super) fn exchange(shared: &Shared, origin: Origin, names: &mut Names) -> Exchange {
    let mut redactions = Vec::new();
    let settings = &*shared.settings;
    let request = request(shared, names, &mut redactions);
    let half = shared.response.get();
    let answer = half.and_then(|half| half.answer.as_ref());
    let response = answer.map(|answer| Response {
        informational: interim(shared, &mut redactions),
        ..response(settings, answer, &mut redactions)
    });
    let connection = &shared.connection;
    Exchange {
        id: shared.id,
        origin,
        service: Arc::clone(&connection.service),
        protocol: shared.protocol,
        connection: connection.id,
        client: Arc::clone(&connection.client),
        upstream: half.and_then(|half| half.upstream.clone()),
        tls: connection.tls.clone(),
        timing: Timing {
            started_us: shared.started_us,
            monotonic_us: shared.monotonic_us,
            request_end_us: Some(shared.request.get().map_or(0, |half| half.end_us)),
            first_byte_us: answer.map(|answer| answer.first_byte_us),
            end_us: half.map_or(0, |half| half.end_us),
        },
        flow: Flow {
            grpc: grpc(shared, response.as_ref()),
            pace: answer.map_or_else(Vec::new, |answer| answer.pace.clone()),
        },
        request,
        response,
        stream: shared.stream.get().copied(),
        outcome: half.map_or(Outcome::ClientClosed, |half| half.outcome.clone()),
        redactions,
    }
}

/// The interim responses that came first.
fn interim(shared: &Shared, redactions: &mut Vec<Arc<str>>) -> Vec<(u16, Headers)> {
    let mut all = Vec::new();
    for (status, head) in shared.interim.lock().iter() {
        let mut headers = head.headers();
        redact::headers(&shared.settings, &mut headers, redactions);
        all.push((*status, headers));
    }
    all
}

/// The call, where the exchange was one. Its status comes in the trailers, or in the only head.
fn grpc(shared: &Shared, response: Option<&Response>) -> Option<Box<Grpc>> {
    if shared.protocol != Protocol::Grpc {
        return None;
    }
    let (service, method) = Grpc::call(Target(shared.head.text()).path());
    let field = |name| {
        let response = response?;
        let field = response.trailers.first(name);
        field.or_else(|| response.headers.first(name))
    };
    let status = field("grpc-status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let message = field("grpc-message").map_or_else(String::new, |text| {
        let text = percent_encoding::percent_decode(text);
        text.decode_utf8_lossy().into_owned()
    });
    let half = shared.response.get();
    let answer = half.and_then(|half| half.answer.as_ref());
    Some(Box::new(Grpc {
        service: service.into(),
        method: method.into(),
        status,
        message: message.into(),
        request: shared
            .request
            .get()
            .map_or_else(Default::default, |half| half.messages.clone()),
        response: answer.map_or_else(Default::default, |answer| answer.messages.clone()),
    }))
}

fn request(shared: &Shared, names: &mut Names, redactions: &mut Vec<Arc<str>>) -> Request {
    let settings = &*shared.settings;
    let mut headers = shared.head.headers();
    let half = shared.request.get();
    let mut body = half.map_or_else(Body::empty, |half| body(&half.body));
    let mut trailers = half
        .and_then(|half| half.trailers.as_ref())
        .map_or_else(Headers::default, FlatHead::headers);
    redact::headers(settings, &mut headers, redactions);
    redact::headers(settings, &mut trailers, redactions);
    let withheld = half.is_some_and(|half| half.body.withheld);
    let kind = headers.first("content-type").map(Bytes::as_ref);
    if redact::applies_to(settings, kind) {
        redact_body(
            settings,
            "request",
            shared.typed,
            withheld,
            &mut body,
            redactions,
        );
    }
    Request {
        method: names.of(shared.method.as_str()),
        target: shared.head.text().into(),
        version: names.of(version(shared.version)),
        headers,
        body,
        trailers,
    }
}

fn body(copied: &CopiedBody) -> Body {
    let digest = copied.digest.unwrap_or_else(|| Digest::of(&copied.inline));
    Body {
        inline: copied.inline.clone(),
        chunks: copied.chunks,
        bytes: copied.bytes,
        truncated: copied.truncated,
        digest,
    }
}

fn response(settings: &Settings, answer: &Answer, redactions: &mut Vec<Arc<str>>) -> Response {
    let mut headers = answer.head.headers();
    let mut trailers = answer
        .trailers
        .as_ref()
        .map_or_else(Headers::default, FlatHead::headers);
    redact::headers(settings, &mut headers, redactions);
    redact::headers(settings, &mut trailers, redactions);
    let mut body = body(&answer.body);
    let kind = headers.first("content-type").map(Bytes::as_ref);
    if redact::applies_to(settings, kind) {
        let withheld = answer.body.withheld;
        redact_body(
            settings,
            "response",
            answer.typed,
            withheld,
            &mut body,
            redactions,
        );
    }
    Response {
        status: answer.status.as_u16(),
        headers,
        body,
        trailers,
        informational: Vec::new(),
    }
}

fn redact_body(
    settings: &Settings,
    side: &str,
    typed: bool,
    withheld: bool,
    body: &mut Body,
    redactions: &mut Vec<Arc<str>>,
) {
    let redacted = if withheld {
        redact::withhold(body);
        Redacted::Withheld
    } else {
        redact::json(settings, typed, body)
    };
    match redacted {
        Redacted::Nothing => {}
        Redacted::Paths(paths) => {
            for path in paths {
                redact::note(redactions, format!("json:{path}"));
            }
        }
        Redacted::Withheld => redact::note(redactions, format!("body:{side}")),
    }
}

const fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// Shares the few texts that return in nearly every record.
#[derive(Debug, Default)]
pub(super) struct Names {
    texts: Vec<Arc<str>>,
    statuses: Vec<(u16, Arc<str>)>,
}

impl Names {
    pub(super) fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        if self.texts.len() < MAX_NAMES {
            self.texts.push(Arc::clone(&new));
        }
        new
    }

    pub(super) fn status(&mut self, status: u16) -> Arc<str> {
        if let Some((_, known)) = self.statuses.iter().find(|(known, _)| *known == status) {
            return Arc::clone(known);
        }
        let new: Arc<str> = status.to_string().into();
        if self.statuses.len() < MAX_NAMES {
            self.statuses.push((status, Arc::clone(&new)));
        }
        new
    }
}
