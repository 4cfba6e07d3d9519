//! What waits for its answer under a packet id.

use std::time::Instant;

use crate::codec::Publish;

use super::control::Control;

#[derive(Debug)]
pub(super) enum State<P, S> {
    Publish(Open<P>),
    Control(Control<S>),
}

/// A publish of QoS 1 or 2 without its last answer.
#[derive(Debug)]
pub(super) struct Open<P> {
    pub(super) token: P,
    /// Nothing once PUBREC has come and PUBREL has gone out.
    pub(super) message: Option<Unreceived>,
}

/// Kept whole to be sent again.
#[derive(Debug)]
pub(super) struct Unreceived {
    pub(super) publish: Publish,
    /// When the message is of no use any more.
    pub(super) expires: Option<Instant>,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not sent on any connection yet.
    Held,
    /// Sent on this connection.
    OnWire,
    /// Sent on an earlier one, and not yet again.
    Behind,
}

impl<P, S> State<P, S> {
    pub(super) fn message(&self) -> Option<&Unreceived> {
        match self {
            Self::Publish(open) => open.message.as_ref(),
            Self::Control(_) => None,
        }
    }

    pub(super) fn message_mut(&mut self) -> Option<&mut Unreceived> {
        match self {
            Self::Publish(open) => open.message.as_mut(),
            Self::Control(_) => None,
        }
    }
}

impl Unreceived {
    /// What is left of the message's life. It was sent in time once, so it is sent again also where nothing is left,
    /// with the shortest life there is: its exchange has to come to an end (4.4), and to some servers 0 means for ever.
    pub(super) fn shorten(&mut self, now: Instant) {
        if let (Some(expires), Some(properties)) = (self.expires, &mut self.publish.properties) {
            let left = expires.saturating_duration_since(now).as_secs();
            properties.message_expiry = Some(u32::try_from(left).unwrap_or(u32::MAX).max(1));
        }
    }
}
