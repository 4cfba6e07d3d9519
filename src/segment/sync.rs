//! Forcing data onto the disk, now or by a thread at an interval; never under the appender's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::Error;
use super::log::{Log, Shared};

impl Log {
    /// Forces everything that was appended onto the disk.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk refuses; it is tried again by the next call.
    pub fn sync(&self) -> Result<(), Error> {
        self.shared.sync()
    }
}

impl Shared {
    pub(super) fn sync(&self) -> Result<(), Error> {
        let index = self.index.read();
        let segments = index.segments.values().map(|segment| &segment.handle);
        let dirty = segments.filter(|handle| handle.dirty.load(Ordering::Acquire));
        let handles: Vec<_> = dirty.map(Arc::clone).collect();
        drop(index);
        let mut result = self.sync_dir();
        for handle in handles {
            // Cleared first: what is written while the sync runs is for the next one.
            handle.dirty.store(false, Ordering::Release);
            if let Err(source) = handle.file.sync() {
                handle.dirty.store(true, Ordering::Release);
                self.sync_failures.fetch_add(1, Ordering::Relaxed);
                result = Err(Error::io("sync", &handle.path, source));
            }
        }
        result
    }

    /// A file is only there after a power cut once its name is.
    fn sync_dir(&self) -> Result<(), Error> {
        if !self.dir_dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.files.sync_dir(&self.config.dir).map_err(|source| {
            self.dir_dirty.store(true, Ordering::Release);
            self.sync_failures.fetch_add(1, Ordering::Relaxed);
            Error::io("sync", &self.config.dir, source)
        })
    }
}

/// The thread behind [`super::Fsync::Interval`]; dropping this ends it after a last sync.
#[derive(Debug)]
pub(super) struct Syncer {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(shared: Arc<Shared>, interval: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("segment-sync".into())
            .spawn(move || {
                while stopped.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                    // Failures are counted in the statistics and tried again.
                    let _ = shared.sync();
                }
                let _ = shared.sync();
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
