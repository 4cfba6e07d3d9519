//! What playback's answerers are to the proxy's listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;

use crate::playback::{Answerer, Talker};
use crate::proxy::http::{self, BoxError, BoxFuture, Responder};
use crate::proxy::tcp::{self, Duplex};
use crate::record::ConnectionId;

/// Answers every request of a listener from the records.
pub(super) struct FromRecords(pub(super) Arc<Answerer>);

impl Responder for FromRecords {
    fn respond(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
        _: ConnectionId,
    ) -> BoxFuture<http::Answer> {
        let answerer = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let answer = answerer.answer(&head, body, client).await;
            let response = answer.response;
            let response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
            match answer.conversation {
                None => http::Answer::Response(response),
                Some(conversation) => {
                    let tunnel: http::Tunnel = Box::new(|connection, draining| {
                        Box::pin(conversation.hold(connection, draining))
                    });
                    http::Answer::Switch(response, tunnel)
                }
            }
        })
    }
}

/// Talks to every client of a listener from the recorded streams.
pub(super) struct FromStreams(pub(super) Arc<Talker>);

impl tcp::Talker for FromStreams {
    fn talk(&self, connection: Box<dyn Duplex>, client: SocketAddr) -> BoxFuture<()> {
        let talker = self.0.clone();
        Box::pin(async move { talker.talk(connection, client).await })
    }
}
