//! The thread of a log: it forces data onto the disk at an interval and writes the sidecars of sealed files.
//! Never under the appender's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Fsync;
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
        let sealed = index.archive.files().iter().map(|file| &file.handle);
        let all = sealed.chain([&index.active.handle]);
        let dirty = all.filter(|handle| handle.dirty.load(Ordering::Acquire));
        let handles: Vec<_> = dirty.map(Arc::clone).collect();
        drop(index);
        let mut result = self.sync_dir();
        for handle in handles {
            result = result.and(self.sync_file(&handle));
        }
        result
    }

    pub(super) fn sync_file(&self, handle: &super::index::Handle) -> Result<(), Error> {
        // One at a time: whoever finds nothing to sync must not go on while another still does it.
        let _one = self.syncing.lock();
        // Cleared first: what is written while the sync runs is for the next one.
        if !handle.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        handle.file.sync().map_err(|source| {
            handle.dirty.store(true, Ordering::Release);
            self.sync_failures.fetch_add(1, Ordering::Relaxed);
            Error::io("sync", &handle.path, source)
        })
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

/// Wakes the thread.
#[derive(Debug, Default)]
pub(super) struct Bell {
    call: Mutex<Call>,
    rung: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Call {
    #[default]
    None,
    Seal,
    Stop,
}

impl Bell {
    /// A file was sealed.
    pub(super) fn ring(&self) {
        let mut call = self.call.lock();
        if *call == Call::None {
            *call = Call::Seal;
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        *self.call.lock() = Call::Stop;
        self.rung.notify_one();
    }

    fn wait(&self, until: Option<Instant>) -> Call {
        let mut call = self.call.lock();
        if *call == Call::None {
            match until {
                Some(until) => _ = self.rung.wait_until(&mut call, until),
                None => self.rung.wait(&mut call),
            }
        }
        match *call {
            Call::Stop => Call::Stop,
            Call::None | Call::Seal => std::mem::take(&mut *call),
        }
    }
}

/// Dropping this ends the thread, after the last sidecars and, under [`Fsync::Interval`], a last sync.
#[derive(Debug)]
pub(super) struct Upkeep {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Upkeep {
    pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Self> {
        let own = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name("segment".into())
            .spawn(move || run(&own))?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread: Some(thread),
        })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.shared.bell.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    let interval = match shared.config.fsync {
        Fsync::Interval(interval) => Some(interval),
        Fsync::Always | Fsync::Never => None,
    };
    let next = |interval: Option<Duration>| interval.map(|interval| Instant::now() + interval);
    let mut due = next(interval);
    loop {
        let call = shared.bell.wait(due);
        if call != Call::None {
            shared.seal_pending();
        }
        if due.is_some_and(|due| call == Call::Stop || Instant::now() >= due) {
            // Failures are counted in the statistics and tried again.
            let _ = shared.sync();
            due = next(interval);
        }
        if call == Call::Stop {
            return;
        }
    }
}
