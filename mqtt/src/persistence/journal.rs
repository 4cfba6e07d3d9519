//! A session in one file: a header, then every change in its order. A batch is one write.
//!
//! What a crash left half-written is cut off as it is opened: it was never acknowledged to anybody. Once the file has
//! doubled since it held only what is open, it is written anew beside itself and put in its place.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, BytesMut};
use tracing::{debug, warn};

use super::form::{self, FRAME, MAX_CHANGE};
use super::{Change, Persistence, PersistenceError, Saved};

/// The start of every journal; the last byte is the version.
const MAGIC: &[u8; 8] = b"QMQTTJ\0\x01";
/// Smaller files are not worth writing anew, in bytes.
const REWRITE_AT: u64 = 1 << 20;

/// What a batch has to survive.
///
/// ```
/// use qproxy_mqtt::persistence::{Durability, JournalOptions};
///
/// assert_eq!(JournalOptions::default().durability, Durability::ProcessCrash);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process in any way, `kill -9` included: the system has the bytes.
    #[default]
    ProcessCrash,
    /// The end of the system too: the disk has them. Each batch then takes as long as the disk needs.
    PowerLoss,
}

/// Settings of a journal.
///
/// ```
/// use qproxy_mqtt::persistence::{Durability, JournalOptions};
///
/// let options = JournalOptions {
///     durability: Durability::PowerLoss,
///     ..JournalOptions::default()
/// };
/// assert_eq!(options.max_bytes, 256 << 20);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// What a batch has to survive. Default: the end of the process.
    pub durability: Durability,
    /// The largest size of the file in bytes; publishes that would need more fail. While it is written anew, a
    /// second file takes as much again at most. Default 256 MiB.
    pub max_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            max_bytes: 256 << 20,
        }
    }
}

/// The session of one client in a file.
///
/// ```
/// use std::sync::Arc;
/// use qproxy_mqtt::MqttConfig;
/// use qproxy_mqtt::persistence::{Journal, JournalOptions};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("lamp.journal");
/// let journal = Journal::open(path, JournalOptions::default())?;
/// assert_eq!(journal.size(), 0, "no client was here yet");
/// let config = MqttConfig {
///     client_id: "lamp-1".to_owned(),
///     clean_session: false,
///     persistence: Some(Arc::new(journal)),
///     ..MqttConfig::default()
/// };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    options: JournalOptions,
    inner: Mutex<Inner>,
    /// Makes a rename in this folder last; another one where a test wants it to fail.
    sync_folder: fn(&Path) -> io::Result<()>,
    /// Held as long as the journal is; a file of its own, for the journal's changes as it is written anew.
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// Whose session it is; nobody's as long as the file is empty.
    client_id: Option<String>,
    saved: Saved,
    /// Bytes that hold good; the file may be longer after a write that failed.
    len: u64,
    tail: Tail,
    /// Whether the file's name is known to outlive the system.
    name: Name,
    rewrite_at: u64,
}

/// What stands behind the bytes that hold good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Nothing,
    /// A write that failed and could not be cut off: what is appended now would never be found.
    Torn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Synced,
    /// The file took the place of another: until the folder is synced, the other may come back.
    Unsynced,
}

impl Journal {
    /// Opens the journal at `path`, or makes an empty one.
    ///
    /// # Errors
    /// It cannot be read or written, another client has it open, or the file is none.
    pub fn open(
        path: impl Into<PathBuf>,
        options: JournalOptions,
    ) -> Result<Self, PersistenceError> {
        let path = path.into();
        let lock = lock(&path)?;
        let failed = |attempt| io_error(attempt, &path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open"))?;
        let (client_id, saved, len) = match read(&file).map_err(failed("read"))? {
            Content::Foreign => return Err(PersistenceError::Foreign { path }),
            Content::Journal {
                client_id,
                saved,
                len,
            } => (client_id, saved, len),
        };
        let size = file.metadata().map_err(failed("read"))?.len();
        if size > len {
            warn!(path = %path.display(), cut = size - len, kept = len, "cut what was half-written");
            file.set_len(len).map_err(failed("cut"))?;
        }
        file.seek(SeekFrom::Start(len)).map_err(failed("read"))?;
        let inner = Mutex::new(Inner {
            file,
            client_id,
            saved,
            len,
            tail: Tail::Nothing,
            name: Name::Synced,
            rewrite_at: REWRITE_AT.max(len.saturating_mul(2)),
        });
        Ok(Self {
            path,
            options,
            inner,
            sync_folder,
            _lock: lock,
        })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner().len
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, attempt: &'static str) -> impl FnOnce(io::Error) -> PersistenceError {
        io_error(attempt, &self.path)
    }

    fn append(&self, inner: &mut Inner, bytes: &[u8]) -> Result<(), PersistenceError> {
        let appended = inner
            .file
            .write_all(bytes)
            .and_then(|()| self.sync(&inner.file));
        if let Err(error) = appended {
            inner.tail = Tail::Torn;
            if let Err(error) = cut(inner) {
                warn!(path = %self.path.display(), %error, "could not cut what was half-written");
            }
            return Err(self.failed("append to")(error));
        }
        inner.len += bytes.len() as u64;
        Ok(())
    }

    /// Brings the file into a state in which what is appended holds good.
    fn mend(&self, inner: &mut Inner) -> Result<(), PersistenceError> {
        if inner.tail == Tail::Torn && cut(inner).is_err() {
            self.rewrite(inner)?;
        }
        if inner.name == Name::Unsynced {
            let parent = self.path.parent().filter(|it| !it.as_os_str().is_empty());
            let synced = (self.sync_folder)(parent.unwrap_or(Path::new(".")));
            synced.map_err(self.failed("replace"))?;
            inner.name = Name::Synced;
        }
        Ok(())
    }

    /// As `rewrite`, where the journal is as good without: there may be no room for a second file.
    fn try_rewrite(&self, inner: &mut Inner) {
        if let Err(error) = self.rewrite(inner) {
            inner.rewrite_at = inner.len.saturating_mul(2);
            warn!(path = %self.path.display(), %error, next_at = inner.rewrite_at,
                "the journal could not be written anew, and grows");
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.options.durability {
            Durability::ProcessCrash => Ok(()),
            Durability::PowerLoss => file.sync_data(),
        }
    }

    /// Writes what is open into a new file and puts it in place of the old one.
    fn rewrite(&self, inner: &mut Inner) -> Result<(), PersistenceError> {
        let client_id = inner.client_id.clone().unwrap_or_default();
        let mut bytes = header(&client_id);
        for change in inner.saved.changes() {
            form::encode(&change, &mut bytes)?;
        }
        let beside = beside(&self.path, "new");
        let file = self.write_beside(&beside, &bytes).inspect_err(|_| {
            // Room that the journal may need; what cannot be removed is overwritten next time.
            let _ = std::fs::remove_file(&beside);
        })?;
        debug!(path = %self.path.display(), before = inner.len, after = bytes.len(), "journal written anew");
        // From here on the old file has no name any more, whatever fails.
        inner.file = file;
        inner.len = bytes.len() as u64;
        inner.tail = Tail::Nothing;
        if self.options.durability == Durability::PowerLoss {
            inner.name = Name::Unsynced;
        }
        inner.rewrite_at = REWRITE_AT.max(inner.len.saturating_mul(2));
        Ok(())
    }

    /// A file with `bytes` in it, in place of the journal's.
    fn write_beside(&self, beside: &Path, bytes: &[u8]) -> Result<File, PersistenceError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(beside)
            .map_err(io_error("open", beside))?;
        file.write_all(bytes)
            .and_then(|()| self.sync(&file))
            .map_err(io_error("write", beside))?;
        std::fs::rename(beside, &self.path).map_err(self.failed("replace"))?;
        Ok(file)
    }
}

impl Persistence for Journal {
    fn load(&self, client_id: &str) -> Result<Saved, PersistenceError> {
        let mut inner = self.inner();
        match &inner.client_id {
            Some(found) if found != client_id => Err(PersistenceError::OtherClient {
                path: self.path.clone(),
                found: found.clone(),
                expected: client_id.to_owned(),
            }),
            Some(_) => Ok(inner.saved.clone()),
            None => {
                if inner.tail == Tail::Torn {
                    cut(&mut inner).map_err(self.failed("cut"))?;
                }
                self.append(&mut inner, &header(client_id))?;
                inner.client_id = Some(client_id.to_owned());
                Ok(inner.saved.clone())
            }
        }
    }

    fn save(&self, changes: &[Change]) -> Result<(), PersistenceError> {
        let mut bytes = BytesMut::new();
        for change in changes {
            form::encode(change, &mut bytes)?;
        }
        let mut inner = self.inner();
        let limit = self.options.max_bytes;
        let needed = bytes.len() as u64;
        let grows = changes
            .iter()
            .any(|it| matches!(it, Change::Accepted { .. }));
        let over = grows && inner.len + needed > limit;
        // Only where it gives much back, or a full journal would be written again and again.
        let worth = over && inner.len.saturating_sub(inner.saved.bytes()) >= limit / 8;
        if worth || inner.len >= inner.rewrite_at {
            self.try_rewrite(&mut inner);
        }
        self.mend(&mut inner)?;
        // What makes room may always be written: the limit is for what needs it.
        if grows && inner.len + needed > limit {
            let path = self.path.clone();
            return Err(PersistenceError::Full { path, limit });
        }
        self.append(&mut inner, &bytes)?;
        for change in changes {
            inner.saved.apply(change);
        }
        Ok(())
    }
}

fn io_error<'a>(
    attempt: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> PersistenceError + 'a {
    move |source| PersistenceError::Io {
        attempt,
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

/// Cuts off what does not hold good; or its end would not be found as the file is opened again.
fn cut(inner: &mut Inner) -> io::Result<()> {
    inner.file.set_len(inner.len)?;
    inner.file.seek(SeekFrom::Start(inner.len))?;
    inner.tail = Tail::Nothing;
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn lock(path: &Path) -> Result<File, PersistenceError> {
    let beside = beside(path, "lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&beside)
        .map_err(io_error("open", &beside))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PersistenceError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &beside)(error)),
    }
}

fn header(client_id: &str) -> BytesMut {
    let mut bytes = BytesMut::from(&MAGIC[..]);
    let start = bytes.len();
    bytes.put_bytes(0, FRAME);
    bytes.put_slice(client_id.as_bytes());
    form::seal(&mut bytes[start..]);
    bytes
}

enum Content {
    Foreign,
    Journal {
        client_id: Option<String>,
        saved: Saved,
        /// Where what holds good ends.
        len: u64,
    },
}

/// Reads change by change, so that no more than the open ones and the one at hand are in memory.
fn read(file: &File) -> io::Result<Content> {
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut magic = Vec::new();
    reader
        .by_ref()
        .take(MAGIC.len() as u64)
        .read_to_end(&mut magic)?;
    let mut content = (None, Saved::default(), 0);
    if magic != MAGIC {
        // The very first write may have been cut short too.
        let cut_short = MAGIC.starts_with(&magic);
        return Ok(if cut_short {
            journal(content)
        } else {
            Content::Foreign
        });
    }
    let mut at = MAGIC.len() as u64;
    while let Some(body) = next(&mut reader, size - at)? {
        at += (FRAME + body.len()) as u64;
        if content.0.is_none() {
            let Ok(client_id) = String::from_utf8(body) else {
                return Ok(Content::Foreign);
            };
            content.0 = Some(client_id);
        } else {
            let Some(change) = form::decode(&body) else {
                break;
            };
            content.1.apply(&change);
        }
        content.2 = at;
    }
    Ok(journal(content))
}

fn journal((client_id, saved, len): (Option<String>, Saved, u64)) -> Content {
    Content::Journal {
        client_id,
        saved,
        len,
    }
}

/// The next body that is whole; `None` at the end, and where the rest is not to be trusted.
fn next(reader: &mut impl Read, left: u64) -> io::Result<Option<Vec<u8>>> {
    if left < FRAME as u64 {
        return Ok(None);
    }
    let mut frame = [0; FRAME];
    reader.read_exact(&mut frame)?;
    let (length, checksum) = form::unseal(frame);
    if length > MAX_CHANGE || length as u64 > left - FRAME as u64 {
        return Ok(None);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((crc32fast::hash(&body) == checksum).then_some(body))
}

#[cfg(test)]
mod tests;
