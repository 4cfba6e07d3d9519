//! Upgrades (RFC 9110 section 7.8), WebSocket above all: the 101 is an exchange like any other, and what
//! follows passes as bytes until both sides are done.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::super::Error;
use super::Client;
use super::body::{Meter, Progress, Reply, RequestBody, UpstreamBody, Way};
use super::forward::{Asker, Forwarder, no_answer, within};
use super::head::{self, Use};
use super::upstream::{Place, Site, Upstreams};
use crate::capture::Tee;
use crate::record::Outcome;

/// Serves a request that asks for another protocol.
pub(super) async fn forward(
    forwarder: &Arc<Forwarder>,
    upstreams: &Upstreams,
    mut request: Request<Incoming>,
    tee: Option<Tee>,
    mut meter: Meter,
    client: &Client,
) -> Response<Reply> {
    let client_side = hyper::upgrade::on(&mut request);
    let sent = send(forwarder, upstreams, request, tee.as_ref(), client.address);
    let (site, place, mut response) = match sent.await {
        Ok(answered) => answered,
        Err(error) => return forwarder.refuse(&error, Asker::Http, tee, meter),
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upstream_side = hyper::upgrade::on(&mut response);
    let (mut head, incoming) = response.into_parts();
    let kind = if switched {
        Use::Upgrade
    } else {
        Use::Exchange
    };
    head::to_client(&mut head, kind);
    meter.answered(head.status);
    let tee = tee.and_then(|tee| tee.respond(head.status, &head.headers, Some(&site.name)));
    if !switched {
        let pause = forwarder.pause(&head.headers);
        let body = UpstreamBody::new(incoming, Way::Driven, site, tee, meter, pause);
        return Response::from_parts(head, Reply::Upstream(Box::new(body)));
    }
    if let Some(tee) = tee {
        tee.end(Outcome::Ok);
    }
    let task = Arc::clone(forwarder);
    client.write_limit.lift();
    // The tunnel outlives the HTTP connection and goes on to count under the limit on connections.
    let slot = Arc::clone(&client.slot);
    forwarder.drain.spawn(async move {
        let (_slot, _place) = (slot, place);
        task.metrics.streams.inc();
        tokio::select! {
            () = tunnel(client_side, upstream_side) => {}
            // A tunnel has no natural end, so a drain does not wait for it.
            () = task.drain.draining() => {}
        }
    });
    Response::from_parts(head, Reply::Own(http_body_util::Full::default()))
}

async fn send(
    forwarder: &Arc<Forwarder>,
    upstreams: &Upstreams,
    request: Request<Incoming>,
    tee: Option<&Tee>,
    client: SocketAddr,
) -> Result<(Arc<Site>, Arc<Place>, Response<Incoming>), Error> {
    let (site, connection) = upstreams.upgradable().await?;
    let (mut parts, body) = request.into_parts();
    let progress: Arc<Progress> = Arc::default();
    let body = if body.is_end_stream() {
        RequestBody::none(Arc::clone(&forwarder.metrics))
    } else {
        let tee = tee.map(|tee| tee.request_body(&parts.headers));
        RequestBody::new(
            body,
            tee,
            Arc::clone(&forwarder.metrics),
            Arc::clone(&progress),
        )
        .limited(forwarder.max_request_bytes)
    };
    forwarder.rewrite(&mut parts, Use::Upgrade, &site, client)?;
    let (mut sender, driver) = (connection.sender, connection.driver);
    let (drain, place) = (forwarder.drain.clone(), Arc::new(connection.place));
    let driven = Arc::clone(&place);
    forwarder.drain.spawn(async move {
        let _place = driven;
        tokio::select! {
            result = driver.with_upgrades() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "upstream connection ended");
                }
            }
            () = drain.closing() => {}
        }
    });
    let response = sender.send_request(Request::from_parts(parts, body));
    match within(forwarder.response_timeout, &progress, response).await {
        Some(Ok(response)) => Ok((site, place, response)),
        Some(Err(error)) => Err(progress.explain(Error::from_exchange(error, &site.name))),
        None => Err(no_answer(&progress, &site.name)),
    }
}

async fn tunnel(client: OnUpgrade, upstream: OnUpgrade) {
    let result = async {
        let (client, upstream) = tokio::try_join!(client, upstream)?;
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        copy_bidirectional(&mut client, &mut upstream).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    if let Err(error) = result.await {
        tracing::debug!(error, "upgraded connection ended");
    }
}
