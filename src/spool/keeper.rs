//! The thread that keeps a spool within its limits and saves what was acknowledged.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::error::Error;
use super::queue::Shared;

/// How often the acknowledged place is saved at most, and the limits are looked at at least.
const INTERVAL: Duration = Duration::from_secs(1);

/// Wakes the keeper.
#[derive(Debug, Default)]
pub(super) struct Bell {
    call: Mutex<Call>,
    rung: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Call {
    #[default]
    None,
    Expire,
    Stop,
}

impl Bell {
    /// A file is full: look at the limits now.
    pub(super) fn ring(&self) {
        let mut call = self.call.lock();
        if *call == Call::None {
            *call = Call::Expire;
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        *self.call.lock() = Call::Stop;
        self.rung.notify_one();
    }

    fn wait(&self, until: Instant) -> Call {
        let mut call = self.call.lock();
        if *call == Call::None {
            self.rung.wait_until(&mut call, until);
        }
        match *call {
            Call::Stop => Call::Stop,
            other => {
                *call = Call::None;
                other
            }
        }
    }
}

/// Ends its thread when dropped, after a last save.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, Error> {
        let own = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name("spool".into())
            .spawn(move || run(&own))
            .map_err(|source| Error::State {
                action: "start the thread that saves",
                path: "state.json".into(),
                source,
            })?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.full.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    let mut saved = Instant::now();
    loop {
        let call = shared.full.wait(saved + INTERVAL);
        if call != Call::Stop
            && let Err(error) = shared.expire(SystemTime::now())
        {
            log_failure(&error);
        }
        if call == Call::Stop || saved.elapsed() >= INTERVAL {
            if let Err(error) = shared.save_if_moved() {
                log_failure(&error);
            }
            shared.tell_given_up();
            saved = Instant::now();
        }
        if call == Call::Stop {
            shared.tell_last_given_up();
            return;
        }
    }
}

fn log_failure(error: &Error) {
    let error: &dyn std::error::Error = error;
    tracing::warn!(error, "spool upkeep failed; it is tried again");
}
