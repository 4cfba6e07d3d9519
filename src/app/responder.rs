//! What playback's answerer is to the proxy's listener.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::playback::Answerer;
use crate::proxy::http::{BoxBody, BoxError, BoxFuture, Responder};
use crate::record::ConnectionId;

/// Answers every request of a listener from the records.
pub(super) struct FromRecords(pub(super) Arc<Answerer>);

impl Responder for FromRecords {
    fn respond(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
        _: ConnectionId,
    ) -> BoxFuture<Response<BoxBody>> {
        let answerer = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let response = answerer.answer(&head, body, client).await;
            response.map(|body| body.map_err(BoxError::from).boxed_unsync())
        })
    }
}
