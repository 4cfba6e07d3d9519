//! What a node says of itself and of what it keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::resources::Usage;

/// `GET /api/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// `Record`, `Playback`, `Standalone`, `Forward`.
    pub mode: String,
    /// The program's version.
    pub version: String,
    /// When the API began to serve, ISO 8601 in UTC.
    pub started: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// How many records are where.
    pub counts: Counts,
    /// What the process takes of its machine.
    pub resources: Usage,
    /// How full the store is; `null` on a node without one.
    pub store: Option<StoreStatus>,
    /// Seconds between a record's end and its commit, or the age of the oldest unsent one; by direction.
    pub lag: BTreeMap<String, f64>,
    /// Where every captured item is, by recorder and epoch.
    pub ledger: Value,
    /// The connection to the MQTT broker.
    pub broker: Value,
}

/// How many records are where, since this process started unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Captured on this node.
    pub recorded: u64,
    /// Handed to the broker and acknowledged by it.
    pub published: u64,
    /// Waiting in this node's spool.
    pub spooled: u64,
    /// In the store now.
    pub records: u64,
    /// Of these, as far as they are watched: with a piece missing that may yet arrive.
    pub pending: u64,
    /// Of these, as far as they are watched: with a piece missing and late.
    pub incomplete: u64,
    /// Copies given up on purpose, each with a counted reason.
    pub dropped: u64,
    /// Not here yet, and asked for again.
    pub missing: u64,
    /// Not here, and nobody has them any more.
    pub lost: u64,
}

/// How full the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Records that can be listed.
    pub records: Option<u64>,
    /// Bytes in use.
    pub bytes: Option<u64>,
    /// Start of the oldest record, ISO 8601 in UTC.
    pub oldest: Option<String>,
    /// Why the store could not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// `POST /api/backups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// When it was made, in UTC, as the name of a folder.
    pub name: String,
    /// Its folder on the node's machine.
    pub path: String,
    /// Files of records in it.
    pub segments: u64,
    /// Bytes of these and of their indexes.
    pub bytes: u64,
}

/// `GET /api/backups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backups {
    /// Their names, oldest first.
    pub backups: Vec<String>,
}

/// `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok` or `failing`.
    pub status: String,
    /// What is wrong; empty where nothing is.
    pub reasons: Vec<String>,
}
