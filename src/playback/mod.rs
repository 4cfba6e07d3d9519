//! Two uses of what was recorded: answering requests from the records, and replaying them against a target.
//!
//! ```text
//! request --> matcher --> answer --> the waiting client        (never a live service, unless told to)
//! client <--> talk (script: who says what next)                (the same for TCP)
//!         `-> web_socket (behind a handshake: the recorded messages, one after the other)
//! records --> pace --> replay --> target --> diff --> report   (only to targets that the config allows)
//! ```
//!
//! Nothing here listens on a socket: `app` hands requests to [`Answerer::answer`] and connections to [`Talker::talk`],
//! starts runs through [`Runs`], and feeds arriving records to [`Live`]. Replayed requests carry [`REPLAY_HEADER`], so that a
//! recorder on their way leaves them alone.

mod error;
mod metrics;
mod generations;
mod fields;
mod stored;
mod script;
mod wire;
mod talk;
mod web_socket;
mod matcher;
mod miss;
mod answer;
mod target;
mod link;
mod pace;
mod carry;
pub mod diff;
pub mod report;
mod replay;
mod live;

pub use answer::{Answer, AnswerBody, Answerer, Config as AnswerConfig, Delay, Miss, Provenance};
pub use carry::Rules as CarryRules;
pub use error::Error;
use error::described;
pub use live::{Config as LiveConfig, Live};
pub use matcher::{ClientKey, Config as MatchConfig, Repeat};
pub use metrics::Metrics;
pub use pace::Speed;
pub use replay::{
    Config as ReplayConfig, Discard, HostHeader, KeepOrder, Plan, Progress, ReplayResult,
    ResultSink, RunId, RunState, Runs, Selection, Sending, StandIn, Streams, Verdict,
};
pub use script::{Ignore, IgnoreRule, InvalidPattern};
pub use stored::BodyError;
pub use talk::{Config as TalkConfig, Disclosure, Mismatch, TalkStatus, Talker};
pub use target::{AllowedTargets, Scheme, Target};
pub use web_socket::{Config as WebSocketConfig, Conversation};

/// Marks a replayed request with its run's id; a recorder does not record what carries it.
pub const REPLAY_HEADER: &str = "qproxy-replay";

/// Names, in an answer, the record that it came from.
pub const RECORD_HEADER: &str = "qproxy-record";

/// Stands in an answer of which only a part was kept.
pub const TRUNCATED_HEADER: &str = "qproxy-truncated";
