//! What outlives the process: publishes of QoS 1 and 2 that are accepted and not complete, and the packet ids between
//! PUBLISH and PUBREL in both directions (section 4.1, "Session state").
//!
//! The driver writes [`Change`]s down in batches: a publish before the call that queued it returns, everything else
//! before the packet that follows from it leaves. So what a server may act upon is always in the store. QoS 0 is not
//! kept, nor are subscriptions: a program makes them again as it starts.
//!
//! A publish that cannot be saved fails. Where a change of the session cannot be saved the connection ends with
//! [`Disconnected::NotSaved`](crate::error::Disconnected), and none is made until it could be: going on would break
//! the promise of QoS 2.

mod form;
mod journal;
mod saved;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::codec::{PacketId, Publish};

pub use journal::{Durability, Journal, JournalOptions};
pub use saved::{InFlight, Saved};

/// A store of one client's session. [`Journal`] is one in a file.
///
/// Called by the client's task, which waits for it: an implementation takes no longer than a write to a local disk.
///
/// ```
/// use std::sync::Mutex;
/// use qproxy_mqtt::persistence::{Change, Persistence, PersistenceError, Saved};
///
/// /// Outlives the client, though not the process.
/// #[derive(Debug, Default)]
/// struct InMemory(Mutex<Saved>);
///
/// impl Persistence for InMemory {
///     fn load(&self, _client_id: &str) -> Result<Saved, PersistenceError> {
///         Ok(self.0.lock().unwrap().clone())
///     }
///
///     fn save(&self, changes: &[Change]) -> Result<(), PersistenceError> {
///         let mut saved = self.0.lock().unwrap();
///         changes.iter().for_each(|change| saved.apply(change));
///         Ok(())
///     }
/// }
///
/// let store = InMemory::default();
/// let publish = Default::default();
/// store.save(&[Change::Accepted { number: 7, publish, expires: None }])?;
/// assert_eq!(store.load("lamp-1")?.next_number(), 8);
/// # Ok::<(), PersistenceError>(())
/// ```
pub trait Persistence: fmt::Debug + Send + Sync {
    /// What is not complete. Called at each `connect` and `start`.
    ///
    /// # Errors
    /// It cannot be read, or belongs to another client id; the client does not start then.
    fn load(&self, client_id: &str) -> Result<Saved, PersistenceError>;

    /// Makes changes last, in their order, all of them or none.
    ///
    /// # Errors
    /// None of them was kept.
    fn save(&self, changes: &[Change]) -> Result<(), PersistenceError>;
}

/// What happened to the session.
///
/// ```
/// use qproxy_mqtt::persistence::{Change, Saved};
///
/// let mut saved = Saved::default();
/// let publish = Default::default();
/// saved.apply(&Change::Accepted { number: 0, publish, expires: None });
/// saved.apply(&Change::Withdrawn { number: 0 });
/// assert_eq!(saved.queued().count(), 0);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A publish was accepted; `number` is above those of all that are open.
    Accepted {
        /// Its number.
        number: u64,
        /// The message; it has no packet id yet.
        publish: Publish,
        /// When it is of no use any more. Of the wall clock, for no other outlives the process.
        expires: Option<SystemTime>,
    },
    /// An accepted publish is given up before it was sent.
    Withdrawn {
        /// Its number.
        number: u64,
    },
    /// An accepted publish goes out under this id.
    Sent {
        /// Its number.
        number: u64,
        /// Its packet id.
        id: PacketId,
    },
    /// PUBREC came for a publish: from now on only PUBREL is to be sent.
    Released {
        /// Its packet id.
        id: PacketId,
    },
    /// A publish is complete.
    Completed {
        /// Its packet id, free again.
        id: PacketId,
    },
    /// A message of QoS 2 was taken from the server: its repeats are not delivered again.
    Received {
        /// Its packet id, the server's.
        id: PacketId,
    },
    /// PUBREL came for one.
    Forgotten {
        /// Its packet id.
        id: PacketId,
    },
    /// The server had lost the session: its ids mean nothing any more.
    AllForgotten,
}

/// Why the session could not be kept or read.
///
/// ```
/// use qproxy_mqtt::persistence::PersistenceError;
///
/// let error = PersistenceError::Locked { path: "lamp.journal".into() };
/// assert_eq!(error.to_string(), "lamp.journal is in use by another client");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PersistenceError {
    /// The system refused.
    #[error("could not {attempt} {}", .path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The limit of the journal is reached, and all in it is still needed.
    #[error("{} would grow over its limit of {limit} bytes", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// `max_bytes`.
        limit: u64,
    },
    /// Another client, in this process or in another one, has it open.
    #[error("{} is in use by another client", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The session of somebody else.
    #[error("{} holds the session of client {found:?}, not of {expected:?}", .path.display())]
    OtherClient {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asks.
        expected: String,
    },
    /// A file of another kind, or of a later version; it is left as it is.
    #[error("{} is no journal of this client", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A message that the journal cannot hold.
    #[error("a message cannot be written to the journal")]
    Message(#[from] crate::codec::EncodeError),
    /// An implementation of the program's own failed.
    #[error("the store of the session failed")]
    Other(#[source] Arc<dyn std::error::Error + Send + Sync>),
}
