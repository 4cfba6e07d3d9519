//! The model of what passes through a proxy: exchanges, streams, and the pieces they travel in.
//!
//! Pure data and pure functions: no I/O, no clock, no metrics. Everything that is stored or sent has its
//! own form in [`wire`], so that the model and the formats can change apart from each other.

mod id;
mod headers;
mod body;
mod exchange;
mod flow;
mod stream;
mod web_socket;
mod inflate;
mod item;
mod coverage;
mod fingerprint;
mod subject;
mod seal;
mod sealed;
pub mod wire;

pub use body::{Body, BodyChunk, Digest, Digester, Side};
pub use coverage::{Coverage, Observation, SequenceRange};
pub(crate) use exchange::Target;
pub use exchange::{
    Exchange, Outcome, Protocol, Record, Request, Response, Timing, TlsFacts, UpstreamFailure,
};
pub use fingerprint::{BodyMatch, Fingerprint, FingerprintRules, RequestView};
pub use flow::{Beat, Flow, Grpc, Message, Messages};
pub use headers::Headers;
pub use id::{ConnectionId, Epoch, IdSource, InvalidNode, NodeId, Origin, RecordId, Sequence};
pub use inflate::{Inflater, NotInflated};
pub use item::{Gap, GapReason, Item};
pub use seal::{InvalidKey, Key, Keyring, SealError};
pub use sealed::{Clear, Outside, Sealed};
pub use stream::{Direction, Segment, SegmentBatch, Stream};
pub use subject::Subject;
pub use web_socket::{
    Close, Context, Deflate, Frame, Opcode, Part, Tally, Upgrade, Window, accept_key,
};
