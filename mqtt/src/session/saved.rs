//! What of a session outlives the process: which changes there were, and how one begins where another ended.
//!
//! Nothing is noted down unless it was asked for.

use crate::codec::{PacketId, Publish, QoS};

use super::Session;

/// Something that the next process has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionChange {
    /// The publish handed over last goes out under this id.
    Sent(PacketId),
    /// PUBREC came: from now on PUBREL stands for it.
    Released(PacketId),
    /// It is complete, or came to nothing; its id is free.
    Completed(PacketId),
    /// A message of QoS 2 was taken from the server.
    Received(PacketId),
    /// PUBREL came for it, or the program let it go.
    Forgotten(PacketId),
    /// The server had lost the session.
    AllForgotten,
}

/// One of the two directions notes down here.
#[derive(Debug, Default)]
pub(super) struct Changes(Option<Vec<SessionChange>>);

impl Changes {
    pub(super) fn push(&mut self, change: SessionChange) {
        if let Some(changes) = &mut self.0 {
            changes.push(change);
        }
    }

    fn take_into(&mut self, into: &mut Vec<SessionChange>) {
        if let Some(changes) = &mut self.0 {
            into.append(changes);
        }
    }
}

impl<P, S> Session<P, S> {
    /// From now on notes down what [`Session::take_changes`] gives.
    pub fn note_changes(&mut self) {
        self.outgoing.changes = Changes(Some(Vec::new()));
        self.incoming.changes = Changes(Some(Vec::new()));
    }

    /// Takes what was noted down. It has to be saved before the bytes in the outbox leave.
    pub fn take_changes(&mut self, into: &mut Vec<SessionChange>) {
        self.outgoing.changes.take_into(into);
        self.incoming.changes.take_into(into);
    }

    /// A publish went out under `id` in an earlier process: it goes out again in the next connection. To be called in
    /// the order of publishing, before anything else, and not for QoS 0.
    pub fn restore_publish(&mut self, id: PacketId, publish: Publish, token: P) {
        debug_assert_ne!(publish.qos, QoS::AtMostOnce);
        self.outgoing.restore_publish(id, publish, token);
    }

    /// PUBREC had come for this publish. To be called in the order of those.
    pub fn restore_release(&mut self, id: PacketId, token: P) {
        self.outgoing.restore_release(id, token);
    }

    /// A message of QoS 2 had been taken under this id of the server.
    pub fn restore_received(&mut self, id: PacketId) {
        self.incoming.restore(id);
    }
}
