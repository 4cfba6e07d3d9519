//! What a spool remembers beside its log: the last epoch, what was acknowledged, what was dropped unsaid.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::given_up::GivenUp;
use super::ledger::{Dropped, Ledger};
use super::message::Key;
use crate::record::{NodeId, SequenceRange};

const FILE: &str = "state.json";

/// The file's version.
const VERSION: u32 = 1;

/// How many dropped ranges are remembered over a restart; of more the oldest are forgotten.
const MAX_DROPPED: usize = 1024;

/// The stored form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    v: u32,
    /// Whose messages these are; empty in files from before this was kept.
    #[serde(default)]
    pub(super) node: String,
    /// The first epoch of that node; what is older in the log is another's.
    #[serde(default)]
    pub(super) node_since: u64,
    /// The last epoch that was given out.
    pub(super) epoch: u64,
    /// Epoch and number.
    pub(super) acknowledged: Key,
    /// Up to here everything that is not in the log was removed by a limit.
    pub(super) unlinked: Key,
    /// Epoch, first, last.
    dropped: Vec<(u64, u64, u64)>,
    /// The same for all that was ever dropped, also where players were told.
    #[serde(default)]
    given_up: Vec<(u64, u64, u64)>,
    /// The same for what left the spool before any player said that it has it.
    #[serde(default)]
    unsure: Vec<(u64, u64, u64)>,
    /// Epoch, and up to where the broker and a player have it.
    #[serde(default)]
    pub(super) sent: Vec<(u64, u64, u64)>,
    /// The largest number of every epoch that is not wholly acknowledged.
    #[serde(default)]
    lives: Vec<Key>,
}

impl State {
    pub(super) fn new(node: &NodeId, node_since: u64, epoch: u64, ledger: &Ledger) -> Self {
        let dropped = ledger.dropped_between((0, 0), None);
        let newest = &dropped[dropped.len().saturating_sub(MAX_DROPPED)..];
        Self {
            v: VERSION,
            node: node.to_string(),
            node_since,
            epoch,
            acknowledged: ledger.acknowledged(),
            unlinked: ledger.unlinked(),
            dropped: newest.iter().map(|(e, r)| (*e, r.first, r.last)).collect(),
            given_up: plain(ledger.given_up()),
            unsure: plain(ledger.unsure()),
            sent: ledger.sent().collect(),
            lives: ledger.lives().collect(),
        }
    }

    /// The dropped ranges that make sense, of which players were not told.
    pub(super) fn dropped(&self) -> Vec<Dropped> {
        sensible(&self.dropped)
    }

    /// All dropped ranges that make sense.
    pub(super) fn given_up(&self) -> Vec<Dropped> {
        sensible(&self.given_up)
    }

    /// What left the spool unconfirmed and makes sense.
    pub(super) fn unsure(&self) -> Vec<Dropped> {
        sensible(&self.unsure)
    }

    /// Whether another node wrote what is here.
    pub(super) fn is_of_another(&self, node: &NodeId) -> bool {
        !self.node.is_empty() && self.node != node.as_str()
    }

    /// The last place of every epoch of which a limit removed something. What was only lost, in a crash, was
    /// not removed by a limit and is left out.
    pub(super) fn removed(&self) -> impl Iterator<Item = Key> + '_ {
        let touched = self.lives.iter().filter(|life| life.0 <= self.unlinked.0);
        touched.map(|life| *life.min(&self.unlinked))
    }

    /// What was saved last. A file that cannot be understood is set aside: without it everything in the log
    /// is sent again, which is harmless.
    ///
    /// # Errors
    /// [`Error::State`] where the disk refuses.
    pub(super) fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(failed("read", path, source)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(state) if state.v == VERSION => Ok(state),
            other => {
                let aside = path.with_extension("json.damaged");
                let reason = other.err().map(|error| error.to_string());
                tracing::warn!(
                    path = %path.display(),
                    aside = %aside.display(),
                    reason,
                    "spool state is not readable: everything is sent again"
                );
                fs::rename(&path, aside).map_err(|source| failed("set aside", path, source))?;
                Ok(Self::default())
            }
        }
    }

    /// Puts this in the place of what was saved before.
    ///
    /// # Errors
    /// [`Error::State`]; then the old one is still there.
    pub(super) fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        let next = dir.join("state.json.next");
        let bytes = serde_json::to_vec(self).expect("plain numbers can be written as JSON");
        let written = fs::File::create(&next).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written
            .and_then(|()| fs::rename(&next, &path))
            .and_then(|()| fs::File::open(dir)?.sync_all())
            .map_err(|source| failed("write", path, source))
    }
}

fn plain(ranges: &GivenUp) -> Vec<(u64, u64, u64)> {
    let all = ranges.all();
    all.map(|(epoch, range)| (epoch, range.first, range.last))
        .collect()
}

fn sensible(ranges: &[(u64, u64, u64)]) -> Vec<Dropped> {
    let range = |&(epoch, first, last): &(u64, u64, u64)| {
        let whole = 0 < first && first <= last && last < u64::MAX;
        whole.then_some((epoch, SequenceRange { first, last }))
    };
    ranges.iter().filter_map(range).collect()
}

fn failed(action: &'static str, path: PathBuf, source: io::Error) -> Error {
    Error::State {
        action,
        path,
        source,
    }
}
