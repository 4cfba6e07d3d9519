//! Interim responses of an HTTP/1.1 upstream (RFC 9110 section 15.2): 100 lets the client's content go, the
//! others are passed on to an HTTP/1.1 client, and all of them are recorded.
//!
//! The HTTP library cannot send interim responses over HTTP/2, so that such a client gets none.

use std::sync::Arc;

use http::{Request, StatusCode};

use super::body::Progress;
use super::head;
use super::line::Desk;
use crate::capture::InterimTee;

/// Where the interim responses to one request go.
#[derive(Clone)]
pub(super) struct Hints {
    pub(super) progress: Arc<Progress>,
    /// The client's connection, where it can be told.
    pub(super) desk: Option<Arc<Desk>>,
    pub(super) tee: Option<InterimTee>,
}

impl Hints {
    /// Has the interim responses to `request` taken here.
    pub(super) fn attach<B>(&self, request: &mut Request<B>) {
        let hints = self.clone();
        hyper::ext::on_informational(request, move |response| {
            if let Some(tee) = &hints.tee {
                tee.add(response.status(), response.headers());
            }
            match (response.status(), &hints.desk) {
                (StatusCode::CONTINUE, _) => hints.progress.release(),
                (status, Some(desk)) => desk.interim(status, &head::interim(response.headers())),
                (_, None) => {}
            }
        });
    }
}
