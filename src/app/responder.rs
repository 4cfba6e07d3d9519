//! What playback's answerers are to the proxy's listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::playback::{Answerer, Talker};
use crate::proxy::http::{BoxBody, BoxError, BoxFuture, Responder};
use crate::proxy::tcp::talk::{self, Duplex};
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

/// Talks to every client of a listener from the recorded streams.
pub(super) struct FromStreams(pub(super) Arc<Talker>);

impl talk::Talker for FromStreams {
    fn talk(&self, connection: Box<dyn Duplex>, client: SocketAddr) -> BoxFuture<()> {
        let talker = self.0.clone();
        Box::pin(async move { talker.talk(connection, client).await })
    }
}
