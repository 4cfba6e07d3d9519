//! From the model to what the API shows.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::record;

use super::{
    Body, Close, Deflate, Fields, Grpc, Link, Messages, Origin, Outcome, Record, Request, Response,
    Stream, Tally, Timing, Tls, Upgrade, Window, time,
};

impl From<&record::Record> for Record {
    fn from(record: &record::Record) -> Self {
        match record {
            record::Record::Exchange(exchange) => exchange.as_ref().into(),
            record::Record::Stream(stream) => stream.as_ref().into(),
        }
    }
}

impl From<&record::Exchange> for Record {
    fn from(exchange: &record::Exchange) -> Self {
        let id = exchange.id.to_string();
        let body = |side: &str, body: &record::Body| {
            let (text, base64) = if body.chunks == 0 {
                text_or_base64(&body.inline)
            } else {
                (None, None)
            };
            Body {
                bytes: body.bytes,
                truncated: body.truncated,
                chunks: body.chunks,
                digest: format!("{:032x}", u128::from_be_bytes(*body.digest.as_be_bytes())),
                text,
                base64,
                href: format!("/api/records/{id}/{side}/body"),
            }
        };
        let request = Request {
            method: exchange.request.method.to_string(),
            target: exchange.request.target.to_string(),
            version: exchange.request.version.to_string(),
            headers: fields(&exchange.request.headers),
            body: body("request", &exchange.request.body),
            trailers: fields(&exchange.request.trailers),
        };
        let response = exchange.response.as_ref().map(|response| Response {
            status: response.status,
            headers: fields(&response.headers),
            body: body("response", &response.body),
            trailers: fields(&response.trailers),
            informational: response
                .informational
                .iter()
                .map(|(status, headers)| (*status, fields(headers)))
                .collect(),
        });
        Self {
            origin: (&exchange.origin).into(),
            service: exchange.service.to_string(),
            protocol: exchange.protocol.as_str().to_owned(),
            connection: exchange.connection.0,
            client: exchange.client.to_string(),
            upstream: exchange.upstream.as_deref().map(str::to_owned),
            tls: exchange.tls.as_ref().map(Into::into),
            timing: (&exchange.timing).into(),
            outcome: (&exchange.outcome).into(),
            request: Some(request),
            response,
            stream: None,
            redactions: exchange
                .redactions
                .iter()
                .map(ToString::to_string)
                .collect(),
            followed_by: exchange.stream.map(Into::into),
            grpc: exchange.flow.grpc.as_deref().map(Into::into),
            completeness: None,
            pace: exchange
                .flow
                .pace
                .iter()
                .map(|beat| (beat.at_us, beat.bytes))
                .collect(),
            id,
        }
    }
}

impl From<&record::Grpc> for Grpc {
    fn from(grpc: &record::Grpc) -> Self {
        Self {
            service: grpc.service.to_string(),
            method: grpc.method.to_string(),
            status: grpc.status,
            message: grpc.message.to_string(),
            request: (&grpc.request).into(),
            response: (&grpc.response).into(),
        }
    }
}

impl From<&record::Messages> for Messages {
    fn from(messages: &record::Messages) -> Self {
        Self {
            count: messages.count,
            broken: messages.broken,
            first: messages
                .first
                .iter()
                .map(|m| (m.offset, m.bytes, m.compressed, m.at_us))
                .collect(),
        }
    }
}

impl From<&record::Stream> for Record {
    fn from(stream: &record::Stream) -> Self {
        let id = stream.id.to_string();
        Self {
            origin: (&stream.origin).into(),
            service: stream.service.to_string(),
            protocol: stream.protocol.as_str().to_owned(),
            connection: stream.connection.0,
            client: stream.client.to_string(),
            upstream: stream.upstream.as_deref().map(str::to_owned),
            tls: stream.tls.as_ref().map(Into::into),
            timing: (&stream.timing).into(),
            outcome: (&stream.outcome).into(),
            request: None,
            response: None,
            stream: Some(Stream {
                client_bytes: stream.client_bytes,
                server_bytes: stream.server_bytes,
                batches: stream.batches,
                truncated: stream.truncated,
                href: format!("/api/records/{id}/segments"),
                began_with: stream.exchange.map(Into::into),
                upgrade: stream.upgrade.as_deref().map(Into::into),
                application: stream.application.as_deref().map(Into::into),
            }),
            redactions: Vec::new(),
            followed_by: None,
            grpc: None,
            completeness: None,
            pace: Vec::new(),
            id,
        }
    }
}

impl From<&record::Origin> for Origin {
    fn from(origin: &record::Origin) -> Self {
        Self {
            node: origin.node.to_string(),
            epoch: origin.epoch.0,
            seq: origin.seq.0,
        }
    }
}

impl From<&record::TlsFacts> for Tls {
    fn from(tls: &record::TlsFacts) -> Self {
        Self {
            version: tls.version.to_string(),
            cipher: tls.cipher.to_string(),
            server_name: tls.server_name.as_deref().map(str::to_owned),
            alpn: tls.alpn.as_deref().map(str::to_owned),
        }
    }
}

impl From<&record::Timing> for Timing {
    fn from(timing: &record::Timing) -> Self {
        Self {
            started: time(timing.started_us),
            request_end_us: timing.request_end_us,
            first_byte_us: timing.first_byte_us,
            end_us: timing.end_us,
        }
    }
}

impl From<&record::Outcome> for Outcome {
    fn from(outcome: &record::Outcome) -> Self {
        let (failure, detail) = match outcome {
            record::Outcome::Ok | record::Outcome::ClientClosed => (None, None),
            record::Outcome::UpstreamFailed(failure, detail) => (Some(failure), Some(detail)),
            record::Outcome::ClientError(detail) | record::Outcome::ProxyClosed(detail) => {
                (None, Some(detail))
            }
        };
        Self {
            kind: outcome.as_str().to_owned(),
            failure: failure.map(|failure| failure.as_str().to_owned()),
            detail: detail.map(ToString::to_string),
        }
    }
}

impl From<record::RecordId> for Link {
    fn from(id: record::RecordId) -> Self {
        Self {
            id: id.to_string(),
            href: format!("/api/records/{id}"),
        }
    }
}

impl From<&record::Upgrade> for Upgrade {
    fn from(upgrade: &record::Upgrade) -> Self {
        let window = |window: record::Window| Window {
            bits: window.bits,
            context: window.context == record::Context::Kept,
        };
        let tally = |tally: &record::Tally| Tally {
            messages: tally.messages,
            unframed: tally.unframed.as_deref().map(str::to_owned),
        };
        Self {
            host: upgrade.host.to_string(),
            target: upgrade.target.to_string(),
            deflate: upgrade.deflate.map(|deflate| Deflate {
                client: window(deflate.client),
                server: window(deflate.server),
            }),
            client: tally(&upgrade.client),
            server: tally(&upgrade.server),
            close: upgrade.close.as_ref().map(|close| Close {
                from: sender(close.from).to_owned(),
                code: close.code,
                reason: close.reason.to_string(),
            }),
        }
    }
}

/// How a direction is called.
pub(in super::super) const fn sender(direction: record::Direction) -> &'static str {
    match direction {
        record::Direction::Client => "client",
        record::Direction::Server => "server",
    }
}

fn fields(headers: &record::Headers) -> Fields {
    headers
        .iter()
        .map(|(name, value)| {
            (
                header_text(name).into_owned(),
                header_text(value).into_owned(),
            )
        })
        .collect()
}

fn header_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
            .into(),
    }
}

pub(in super::super) fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_stay_bytes() {
        assert_eq!(text_or_base64("é".as_bytes()), (Some("é".to_owned()), None));
        assert_eq!(text_or_base64(b"\xff\0"), (None, Some("/wA=".to_owned())));
        assert_eq!(header_text(b"caf\xe9"), "café");
    }

    #[test]
    fn times_are_utc_and_never_panic() {
        assert_eq!(
            time(1_000_001).as_deref(),
            Some("1970-01-01T00:00:01.000001Z")
        );
        assert_eq!((time(i64::MAX), time(i64::MIN)), (None, None));
    }
}
