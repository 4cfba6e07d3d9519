//! What this process takes of its machine: CPU and memory everywhere, files and network where `/proc` tells.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// CPU use is a difference over time; readings closer together than this would be noise.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// One reading. What the system does not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since the reading before, percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// Traffic of the machine's interfaces.
    pub network: Option<Network>,
}

/// Bytes through the machine's network interfaces since it started, loopback left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Received.
    pub received_bytes: u64,
    /// Sent.
    pub sent_bytes: u64,
}

/// Reads [`Usage`], at most twice a second.
pub(super) struct Resources(Mutex<Sampler>);

struct Sampler {
    /// `None` where the system tells nothing.
    system: Option<System>,
    pid: Option<Pid>,
    taken: Instant,
    usage: Usage,
}

impl Resources {
    pub(super) fn new() -> Self {
        let mut sampler = Sampler {
            system: System::new().ok(),
            pid: sysinfo::get_current_pid().ok(),
            taken: Instant::now(),
            usage: Usage::default(),
        };
        sampler.take();
        Self(Mutex::new(sampler))
    }

    /// The present use; reads a few small files of the system where the last reading is old enough.
    pub(super) fn usage(&self) -> Usage {
        let mut sampler = self.0.lock();
        if sampler.taken.elapsed() >= MIN_INTERVAL {
            sampler.take();
        }
        sampler.usage
    }
}

impl Sampler {
    fn take(&mut self) {
        let wanted = ProcessRefreshKind::nothing()
            .with_cpu()
            .with_memory()
            .without_tasks();
        if let (Some(system), Some(pid)) = (&mut self.system, self.pid) {
            let only = [pid];
            system.refresh_processes_specifics(ProcessesToUpdate::Some(&only), true, wanted);
        }
        let process = self
            .system
            .as_ref()
            .zip(self.pid)
            .and_then(|(all, pid)| all.process(pid));
        self.taken = Instant::now();
        self.usage = Usage {
            cpu_percent: process.map(|p| f64::from(p.cpu_usage())),
            rss_bytes: process.map(sysinfo::Process::memory),
            open_files: process
                .and_then(|p| p.open_files())
                .map(|count| count as u64),
            network: std::fs::read_to_string("/proc/net/dev")
                .ok()
                .map(|table| network(&table)),
        };
    }
}

/// Sums up a table in the form of Linux's `/proc/net/dev` (proc(5)).
fn network(table: &str) -> Network {
    let mut sum = Network::default();
    for line in table.lines() {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers
            .split_ascii_whitespace()
            .map(|n| n.parse::<u64>().unwrap_or(0));
        sum.received_bytes = sum
            .received_bytes
            .saturating_add(numbers.next().unwrap_or(0));
        sum.sent_bytes = sum.sent_bytes.saturating_add(numbers.nth(7).unwrap_or(0));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let usage = Resources::new().usage();
        assert!(usage.rss_bytes.unwrap() > 1 << 20, "{usage:?}");
        assert!(usage.open_files.is_none_or(|files| files > 2), "{usage:?}");
    }

    #[test]
    fn sums_every_interface_but_loopback() {
        let table = "Inter-|   Receive\n face |bytes    packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n\
                     eth0: 100 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        let expected = Network {
            received_bytes: 105,
            sent_bytes: 76,
        };
        assert_eq!(network(table), expected);
    }
}
