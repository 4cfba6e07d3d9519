//! Keep alive (3.1.2.10): when to ping, and when to give a silent server up.
//!
//! Both directions count. We ping after one interval in which we sent nothing (the server asks for that) or heard
//! nothing (so that a dead network is noticed even by a client that only sends), and give up after one and a half.

use std::time::{Duration, Instant};

/// The server has been silent for one and a half keep-alives, a ping included.
///
/// ```
/// use std::time::Duration;
/// use qproxy_mqtt::session::DeadPeer;
///
/// let error = DeadPeer(Duration::from_secs(90));
/// assert_eq!(error.to_string(), "nothing received for 90s, one and a half times keep alive");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing received for {0:?}, one and a half times keep alive")]
pub struct DeadPeer(pub Duration);

#[derive(Debug)]
pub(super) struct KeepAlive {
    interval: Duration,
    /// One and a half of them.
    patience: Duration,
    running: Option<Times>,
}

#[derive(Debug)]
struct Times {
    sent: Instant,
    received: Instant,
    pinged: Option<Instant>,
}

impl KeepAlive {
    pub(super) fn new() -> Self {
        Self {
            interval: Duration::ZERO,
            patience: Duration::ZERO,
            running: None,
        }
    }

    /// From now on; a server of MQTT 5.0 may have asked for another interval [MQTT-3.2.2-21].
    pub(super) fn start(&mut self, interval: Duration, now: Instant) {
        self.interval = interval;
        self.patience = interval * 3 / 2;
        self.running = Some(Times {
            sent: now,
            received: now,
            pinged: None,
        });
    }

    pub(super) fn stop(&mut self) {
        self.running = None;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if let Some(times) = &mut self.running {
            times.sent = now;
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        if let Some(times) = &mut self.running {
            times.received = now;
            times.pinged = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let times = self.watched()?;
        Some(self.ping_at(times).min(self.dead_at(times)))
    }

    /// Whether a ping has to go out.
    pub(super) fn tick(&mut self, now: Instant) -> Result<bool, DeadPeer> {
        let Some(times) = self.watched() else {
            return Ok(false);
        };
        if now >= self.dead_at(times) {
            return Err(DeadPeer(now - times.received));
        }
        let due = now >= self.ping_at(times);
        if let Some(times) = self.running.as_mut().filter(|_| due) {
            times.pinged = Some(now);
            times.sent = now;
        }
        Ok(due)
    }

    /// Nothing where it is switched off.
    fn watched(&self) -> Option<&Times> {
        self.running.as_ref().filter(|_| !self.interval.is_zero())
    }

    fn ping_at(&self, times: &Times) -> Instant {
        let since = match times.pinged {
            None => times.sent.min(times.received),
            Some(_) => times.sent,
        };
        since + self.interval
    }

    fn dead_at(&self, times: &Times) -> Instant {
        times.received + self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn started() -> (KeepAlive, Instant) {
        let now = Instant::now();
        let mut keep_alive = KeepAlive::new();
        keep_alive.start(10 * SECOND, now);
        (keep_alive, now)
    }

    #[test]
    fn pings_after_one_interval_of_silence_and_gives_up_after_one_and_a_half() {
        let (mut keep_alive, start) = started();
        assert_eq!(keep_alive.deadline(), Some(start + 10 * SECOND));
        assert_eq!(keep_alive.tick(start + 9 * SECOND), Ok(false));
        assert_eq!(keep_alive.tick(start + 10 * SECOND), Ok(true));
        assert_eq!(keep_alive.deadline(), Some(start + 15 * SECOND));
        assert_eq!(keep_alive.tick(start + 14 * SECOND), Ok(false));
        assert_eq!(
            keep_alive.tick(start + 15 * SECOND),
            Err(DeadPeer(15 * SECOND))
        );
    }

    #[test]
    fn a_client_that_only_sends_still_notices_a_dead_server() {
        let (mut keep_alive, start) = started();
        for second in 1..10 {
            keep_alive.sent(start + second * SECOND);
        }
        assert_eq!(keep_alive.tick(start + 10 * SECOND), Ok(true));
        keep_alive.sent(start + 14 * SECOND);
        assert!(keep_alive.tick(start + 15 * SECOND).is_err());
    }

    #[test]
    fn a_client_that_only_receives_still_pings_for_the_server() {
        let (mut keep_alive, start) = started();
        keep_alive.received(start + 9 * SECOND);
        assert_eq!(keep_alive.tick(start + 10 * SECOND), Ok(true));
        keep_alive.received(start + 11 * SECOND);
        assert_eq!(keep_alive.deadline(), Some(start + 20 * SECOND));
    }

    #[test]
    fn zero_switches_it_off() {
        let mut keep_alive = KeepAlive::new();
        let now = Instant::now();
        keep_alive.start(Duration::ZERO, now);
        assert_eq!(keep_alive.deadline(), None);
        assert_eq!(keep_alive.tick(now + 1000 * SECOND), Ok(false));
    }
}
