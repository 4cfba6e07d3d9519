//! What `/api/status` shows of the bus.

use serde::Serialize;

use super::quarantine::Quarantined;

/// The recorder's side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RecorderStatus {
    /// The recorder's life.
    pub epoch: u64,
    /// The largest number given out.
    pub highest: u64,
    /// Up to this number the broker has everything of this life.
    pub acknowledged: u64,
    /// Numbers that wait in the spool, over all lives.
    pub unsent: u64,
    /// Messages on their way to the broker.
    pub in_flight: usize,
    /// Whether there is a connection.
    pub connected: bool,
    /// The players that are heard of.
    pub players: Vec<PlayerStatus>,
}

/// A player as a recorder sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlayerStatus {
    /// Its name.
    pub player: String,
    /// Up to this number of the present life it has everything.
    pub watermark: u64,
    /// Numbers that it lacks of those that were published.
    pub lag: u64,
    /// Messages on their way to it.
    pub ahead: u64,
    /// Whether it is waited for.
    pub live: bool,
}

/// The player's side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PlayerSideStatus {
    /// Whether there is a connection.
    pub connected: bool,
    /// Why nothing can be stored at present.
    pub blocked: Option<String>,
    /// What is known of each life of each recorder.
    pub recorders: Vec<LifeStatus>,
    /// The last messages that could not be read.
    pub quarantine: Vec<Quarantined>,
}

/// One life of one recorder, as a player has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LifeStatus {
    /// The recorder.
    pub node: String,
    /// Its life.
    pub epoch: u64,
    /// Every number up to this one is settled.
    pub watermark: u64,
    /// The largest number known of.
    pub highest: u64,
    /// Numbers that are missing.
    pub missing: u64,
    /// Numbers that the recorder said it dropped.
    pub dropped: u64,
    /// Numbers that nobody has any more.
    pub lost: u64,
    /// Numbers that are stored: settled, and neither dropped nor lost.
    pub stored: u64,
}
