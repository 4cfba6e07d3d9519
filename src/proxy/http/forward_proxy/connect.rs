//! CONNECT over HTTP/1.1 (RFC 9110 section 9.3.6) and HTTP/2 (RFC 9113 section 8.5).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, PROXY_AUTHENTICATE, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use super::super::super::Error;
use super::super::body::Reply;
use super::super::refusal::message;
use super::super::server::{Client, Server};
use super::tunnel::Tunnel;
use super::{Gate, access};

/// What a client has to show (RFC 7617 section 2).
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"qproxy\", charset=\"UTF-8\"");

/// Serves a CONNECT: the answer to it, after which the connection or stream is a tunnel where it is 200.
pub(in super::super) async fn serve(
    server: &Arc<Server>,
    gate: &Arc<Gate>,
    peer: &Arc<Client>,
    request: Request<Incoming>,
) -> Response<Reply> {
    let started = Instant::now();
    let response = match open(server, gate, peer, request).await {
        Ok(()) => Response::new(Reply::Own(Full::default())),
        Err(error) => {
            if let Some(failure) = error.upstream_failure() {
                gate.metrics.upstream_failed(failure);
                tracing::info!(error = error.chain(), "no tunnel for a client");
            } else {
                gate.count(&error);
            }
            refusal(&error)
        }
    };
    let status = response.status();
    gate.metrics.served(status.as_u16(), started.elapsed());
    if let Some(desk) = peer.desk.as_ref().filter(|_| status.is_success()) {
        desk.becomes_tunnel();
    }
    response
}

/// The answer to a CONNECT on a listener that answers by itself and has no authority.
pub(in super::super) fn no_authority() -> Response<Reply> {
    refusal(&Error::Unsupported(
        "what is in a tunnel is answered only where it can be decrypted: set `ca` of this listener to an authority \
         that the client trusts, such as `qproxy ca init` makes",
    ))
}

async fn open(
    server: &Arc<Server>,
    gate: &Arc<Gate>,
    peer: &Arc<Client>,
    mut request: Request<Incoming>,
) -> Result<(), Error> {
    if peer.inside.is_some() {
        return Err(Error::Unsupported("no tunnel leads out of a tunnel"));
    }
    gate.access.admit(request.headers())?;
    let target = access::connect_target(request.uri())?;
    let length = request.headers().get(CONTENT_LENGTH);
    if length.is_some_and(|length| length != "0")
        || request.headers().contains_key(TRANSFER_ENCODING)
    {
        return Err(Error::Request(
            "a CONNECT has no content (RFC 9110 section 9.3.6)",
        ));
    }
    gate.access.allow(&target)?;
    let looked_into = gate.looks_into(&target, peer.address.ip());
    if gate.outward.is_none() && !looked_into {
        return Err(Error::Unsupported(
            "tunnels that are not looked into lead nowhere here: answers come from records",
        ));
    }
    let mut tunnel = Tunnel::new(server, gate, peer, target);
    let upstream = match looked_into {
        true => None,
        false => {
            if gate.authority.is_some() {
                gate.metrics.passed_through.inc();
            }
            Some(tunnel.reach().await?)
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    server.drain().spawn(tunnel.run(upgrade, upstream));
    Ok(())
}

fn refusal(error: &Error) -> Response<Reply> {
    let content: Bytes = message(error);
    let length = content.len();
    let mut response = Response::new(Reply::Own(Full::new(content)));
    *response.status_mut() = error.status();
    challenge(error, &mut response);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Says how a client is to show who it is, where that is what was missing.
pub(in super::super) fn challenge<B>(error: &Error, response: &mut Response<B>) {
    if matches!(error, Error::Credentials) {
        response.headers_mut().insert(PROXY_AUTHENTICATE, CHALLENGE);
    }
}
