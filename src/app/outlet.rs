//! What the recorder's disk queue is to capture.

use crate::capture::{Encoded, Outlet, OutletError};
use crate::record::Epoch;
use crate::spool::{Message, Spool};

/// Appends what capture encoded to the spool.
pub(super) struct SpoolOutlet(pub(super) Spool);

impl Outlet for SpoolOutlet {
    fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    fn append(&mut self, batch: &[Encoded]) -> Result<(), OutletError> {
        let epoch = self.0.epoch();
        let messages: Vec<Message> = batch
            .iter()
            .map(|encoded| Message {
                epoch,
                seq: encoded.seq,
                span: encoded.span,
                subject: encoded.subject.clone(),
                payload: encoded.payload.clone(),
            })
            .collect();
        self.0
            .append(&messages)
            .map_err(|error| OutletError(Box::new(error)))
    }
}
