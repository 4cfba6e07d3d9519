//! The bus: spool -> MQTT -> store, with the proof that nothing is missing.
//!
//! ```text
//! spool --> Publisher ==QoS 1==> broker ==> Subscriber --> store, then PUBACK
//!              ^  ^                            |   |
//!              |  `---- ack {recorder}/{player} ---'   how far it is: flow control
//!              `------- resend (a call) -------'       what it lacks: published again, or lost
//! ```
//!
//! A PUBACK from the broker is not delivery: brokers drop for slow subscribers without a word. The spool and the
//! player's coverage are the truth, the broker is a carrier. What is decided stands in plain code without
//! sockets and clocks (`packer`, `unacked`, `flow`, `ledger`, `repair`); `publisher`, `subscriber` and `control`
//! drive it, each over an MQTT connection of its own.

mod topics;
mod frame;
mod notice;
mod endpoint;
mod packer;
mod unacked;
mod flow;
mod publisher;
mod intake;
mod places;
mod ledger;
mod repair;
mod quarantine;
mod live;
mod subscriber;
mod control;
mod status;
mod metrics;
mod error;
#[cfg(test)]
mod testing;

pub use control::{Control, Roles, Station, StationHandle};
pub use endpoint::{Endpoint, Tls};
pub use error::{Error, ResendError};
pub use flow::FlowConfig;
pub use frame::{Compression, FrameError, unpack};
pub use ledger::LedgerConfig;
pub use live::{Feed, Heard, Listener};
pub use metrics::Metrics;
pub use notice::{
    Ack, Head, LiveSettings, NoticeError, Presence, Range, ResendAnswer, ResendRequest, State,
};
pub use publisher::{Publisher, PublisherConfig, PublisherHandle};
pub use quarantine::Quarantined;
pub use repair::RepairConfig;
pub use status::{LifeStatus, PlayerSideStatus, PlayerStatus, RecorderStatus};
pub use subscriber::{Scope, Subscriber, SubscriberConfig, SubscriberHandle};
pub use topics::{InvalidRoot, MAX_TOPIC_BYTES, Topic, Topics, shared};
