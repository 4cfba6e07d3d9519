//! Backups of an embedded store: a folder for each, named by the time at which it was made, all in one folder.
//!
//! One is made at a time, under a name that shows that it is not finished, and then renamed: what has a name of ours is
//! whole. None is ever removed here; how many there may be is limited instead, because each keeps the disk space
//! of what it holds once the store has expired that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{Embedded, Error, Open};

/// How many backups may lie in the folder.
pub const MAX_BACKUPS: usize = 64;

/// What the name of a backup begins with until it is whole.
const UNFINISHED: &str = ".unfinished-";
/// Where the files lie in it: as in the folder of a node, which a backup can thus take the place of.
const RECORDS: &str = "records";

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name: when it was made, UTC.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// Files of records in it.
    pub segments: u64,
    /// Bytes of these and of their indexes.
    pub bytes: u64,
}

/// Why there is no new backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another one is being made.
    #[error("another backup is being made: try again when it is done")]
    Busy,
    /// As many as are allowed.
    #[error("{MAX_BACKUPS} backups lie in {0}, which is the limit: remove some")]
    TooMany(PathBuf),
    /// The disk, or the store.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Makes backups of a store in a folder on the same file system.
#[derive(Debug)]
pub struct Backups {
    store: Embedded,
    dir: PathBuf,
    one: Arc<Mutex<()>>,
}

impl Backups {
    /// Backups of `store` in `dir`, which is made with the first.
    #[must_use]
    pub fn new(store: Embedded, dir: PathBuf) -> Self {
        Self {
            store,
            dir,
            one: Arc::default(),
        }
    }

    /// Makes one of what the store holds now. It is made to its end even where nobody waits for it any more.
    ///
    /// # Errors
    /// [`BackupError`]; then there is no new backup.
    pub async fn make(&self, now: Timestamp) -> Result<Made, BackupError> {
        let one = Arc::clone(&self.one).try_lock_owned();
        let one = one.map_err(|_| BackupError::Busy)?;
        let dir = self.dir.clone();
        let name = now.strftime("%Y-%m-%dT%H-%M-%S.%3fZ").to_string();
        let made = self.store.blocking(move |open| {
            let _one = one;
            if names(&dir)?.len() >= MAX_BACKUPS {
                return Ok(None);
            }
            make(open, &dir, name).map(Some)
        });
        let made = made.await?;
        made.ok_or_else(|| BackupError::TooMany(self.dir.clone()))
    }

    /// The names of those that are there, oldest first.
    ///
    /// # Errors
    /// [`BackupError::Store`] where the folder cannot be read.
    pub async fn list(&self) -> Result<Vec<String>, BackupError> {
        let dir = self.dir.clone();
        Ok(self.store.blocking(move |_| names(&dir)).await?)
    }
}

fn make(open: &Open, dir: &Path, name: String) -> Result<Made, Error> {
    remove_unfinished(dir)?;
    let unfinished = dir.join(format!("{UNFINISHED}{name}"));
    let path = dir.join(&name);
    let whole = open
        .log
        .backup(&unfinished.join(RECORDS))
        .map_err(|error| open.failed(error))
        .and_then(|backup| {
            let named = match path.try_exists() {
                Ok(true) => Err(io::ErrorKind::AlreadyExists.into()),
                Ok(false) => fs::rename(&unfinished, &path),
                Err(error) => Err(error),
            };
            let named = named.and_then(|()| fs::File::open(dir)?.sync_all());
            named.map_err(failed("name the backup", &path))?;
            Ok(backup)
        });
    let backup = whole.inspect_err(|_| {
        // What stays is removed with the next one.
        let _ = fs::remove_dir_all(&unfinished);
    })?;
    Ok(Made {
        name,
        path,
        segments: backup.segments,
        bytes: backup.bytes,
    })
}

/// What a process that ended while it made a backup left behind.
fn remove_unfinished(dir: &Path) -> Result<(), Error> {
    for name in entries(dir)? {
        if name.starts_with(UNFINISHED) {
            let path = dir.join(name);
            fs::remove_dir_all(&path).map_err(failed("remove an unfinished backup", &path))?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = entries(dir)?;
    names.retain(|name| !name.starts_with('.') && dir.join(name).join(RECORDS).is_dir());
    names.sort_unstable();
    Ok(names)
}

/// The names in a folder that are text; none where it is not there.
fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed,
    };
    let names = listed.and_then(|entries| {
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.collect::<io::Result<Vec<_>>>()
    });
    let names = names.map_err(failed("list the backups in", dir))?;
    Ok(names.into_iter().flatten().collect())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Config;
    use crate::store::{Metrics, Store};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backups(root: &Path) -> Backups {
        let store = Embedded::open(Config::new(root.join("records")), Metrics::default()).unwrap();
        Backups::new(store, root.join("backups"))
    }

    #[tokio::test]
    async fn is_named_by_its_time_and_listed_once_it_is_whole() {
        let root = tempfile::tempdir().unwrap();
        let backups = backups(root.path());
        assert_eq!(backups.list().await.unwrap(), Vec::<String>::new());
        // As a process leaves it that is killed.
        let half = root.path().join("backups/.unfinished-x/records");
        fs::create_dir_all(&half).unwrap();
        let foreign = root.path().join("backups/notes");
        fs::create_dir_all(&foreign).unwrap();
        assert_eq!(backups.list().await.unwrap(), Vec::<String>::new());

        let made = backups.make(at(1_800_000_000)).await.unwrap();
        assert_eq!(made.name, "2027-01-15T08-00-00.000Z");
        assert_eq!(made.path, root.path().join("backups").join(&made.name));
        assert_eq!(backups.list().await.unwrap(), [made.name]);
        assert!(!half.exists() && foreign.exists());
        let again = Config::new(made.path.join(RECORDS));
        let again = Embedded::open(again, Metrics::default()).unwrap();
        assert_eq!(again.stats().await.unwrap().records, 0);
    }

    #[tokio::test]
    async fn one_at_a_time_and_none_in_the_place_of_another() {
        let root = tempfile::tempdir().unwrap();
        let backups = backups(root.path());
        let other = Arc::clone(&backups.one).lock_owned().await;
        let error = backups.make(at(1)).await.unwrap_err();
        assert!(matches!(error, BackupError::Busy));
        drop(other);
        backups.make(at(1)).await.unwrap();
        let error = backups.make(at(1)).await.unwrap_err();
        assert!(matches!(error, BackupError::Store(Error::Io { .. })));
        assert_eq!(entries(&root.path().join("backups")).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn there_are_only_so_many() {
        let root = tempfile::tempdir().unwrap();
        let backups = backups(root.path());
        for second in 0..MAX_BACKUPS {
            backups
                .make(at(i64::try_from(second).unwrap()))
                .await
                .unwrap();
        }
        let error = backups.make(at(1000)).await.unwrap_err();
        assert!(matches!(error, BackupError::TooMany(_)), "{error}");
        let oldest = &backups.list().await.unwrap()[0];
        fs::remove_dir_all(root.path().join("backups").join(oldest)).unwrap();
        backups.make(at(1000)).await.unwrap();
    }
}
