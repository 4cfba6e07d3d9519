//! What is handed over, and what the driver has room for.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::codec::{Publish, ReasonCode, Subscription, SubscriptionId, Text};
use crate::error::Error;
use crate::message::properties_cost;
use crate::outcomes::Number;
use crate::session::{AckId, Settled, WindowFree};

/// Under which the outcome of a publish is told, if somebody wants to hear of it.
pub(crate) type Published = Option<Number>;
/// Where the answer to a subscribe or an unsubscribe goes.
pub(crate) type Answered = Option<oneshot::Sender<Result<Answer, Error>>>;

/// What the server answered to a subscribe or an unsubscribe.
#[derive(Debug)]
pub(crate) struct Answer {
    /// One for each filter.
    pub(crate) codes: Vec<ReasonCode>,
    /// In the server's words.
    pub(crate) text: Option<Text>,
}

/// A publish on its way to the driver.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) publish: Publish,
    /// When it is of no use any more.
    pub(crate) expires: Option<Instant>,
    pub(crate) done: Published,
    /// Nothing where it does not outlive the process. Boxed: a publish moves from hand to hand, and few have it.
    pub(crate) keeping: Option<Box<Keeping>>,
}

/// Of a publish that outlives the process: with `persistence`, and of a QoS that is kept.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Under which it is saved, once it is.
    pub(crate) number: Option<u64>,
    /// Hears when it is, or dies with the reason in `done`.
    pub(crate) saved: Option<oneshot::Sender<()>>,
}

/// Whether somebody is going to ask how a publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hear {
    Outcome,
    Nothing,
}

impl Queued {
    /// Under which it is saved, where it is.
    pub(crate) fn number(&self) -> Option<u64> {
        self.keeping.as_ref()?.number
    }

    /// What it counts for against the bound on bytes; never nothing.
    pub(super) fn cost(&self) -> usize {
        let properties = properties_cost(self.publish.properties.as_deref());
        self.publish.payload.len() + self.publish.topic.as_bytes().len() + properties + 64
    }

    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Other things for the driver; few and small.
#[derive(Debug)]
pub(crate) enum Control {
    Subscribe(Vec<Subscription>, Option<SubscriptionId>, Answered),
    Unsubscribe(Vec<Text>, Answered),
}

impl Control {
    /// A subscription that nobody waits for any more is not made: calls that are given up while there is no connection
    /// would pile up otherwise. Filters are given up all the same.
    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Self::Subscribe(.., Some(answered)) => !answered.is_closed(),
            Self::Subscribe(.., None) | Self::Unsubscribe(..) => true,
        }
    }
}

/// What the driver takes at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) publishes: VecDeque<Queued>,
    pub(crate) controls: Vec<Control>,
    pub(crate) settled: Vec<(AckId, Settled)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.controls.is_empty() && self.settled.is_empty()
    }
}

/// What the driver does when it has done what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// It comes back by itself, and is not woken.
    LooksAgain,
    /// It waits for the socket to take what it has: more publishes are no news.
    Writes,
    /// It sleeps until it is woken.
    Sleeps,
}

/// Whether there is nothing to be taken before the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quiet {
    UntilTold,
    No,
}

/// What the driver has room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Publishes of QoS 1 and 2.
    pub(crate) window: WindowFree,
    /// Bytes of publishes of any kind.
    pub(crate) bytes: usize,
    /// Subscribes and unsubscribes.
    pub(crate) controls: usize,
}
