//! How much has to have come before the system wakes us for it.
//!
//! To wake a thread is work of the one that wakes it, which is the server or the network's side of this machine, and
//! costs some ten times what a small message does. A stream of messages that comes faster than
//! [`MqttConfig::coalescing`] allows for is therefore left in the socket until there is as much as comes in that time,
//! as network cards do it with interrupts (`SO_RCVLOWAT`). What is slower, or stands alone, is taken at once.
//!
//! A flow that stops leaves less than that: after a while it is taken all the same. Where the sender waits for us (a
//! window of its own, or TCP's, Nagle's algorithm, a caller that wants the answer) that would happen each time, so that
//! less is asked for from then on: what it sends of itself, and twice as much again after a while.
//!
//! [`MqttConfig::coalescing`]: crate::MqttConfig::coalescing

use std::time::{Duration, Instant};

/// The longest limit.
const LONGEST: Duration = Duration::from_secs(1);
/// For so many times the limit the flow is watched before what is asked for changes.
const WATCHED: u32 = 10;
/// For so many times the limit something is left in the socket at most, give or take a tick of the timer.
const HELD: u32 = 2;
/// The timer's tick: what is less than that cannot be told.
const TICK: Duration = Duration::from_millis(1);
/// The bytes that may be asked for: less is not worth it, and more does not save anything any more.
const ASKED: std::ops::RangeInclusive<usize> = 16..=64 << 10;
/// Times that the flow is watched before twice as much is tried.
const PATIENCE: std::ops::RangeInclusive<u32> = 20..=2000;
/// Packets a read that make up for the wake-up already.
const ENOUGH: u32 = 16;
/// The shortest answer to a packet of ours, in bytes.
const ANSWER: usize = 4;

#[derive(Debug)]
pub(super) struct Coalescing {
    /// In which time as much comes as is asked for.
    limit: Duration,
    watch: Duration,
    hold: Duration,
    /// Bytes that have to have come; 1 is whatever comes.
    asked: usize,
    /// The most that has not proved to be too much.
    ceiling: usize,
    /// Watches between two tries of more, and those left until the next.
    patience: u32,
    left: u32,
    since: Instant,
    bytes: usize,
    reads: u32,
    packets: u32,
    last_read: Instant,
    released: Option<Released>,
}

/// How what was read was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// There was nothing before it came.
    Waited,
    /// It lay behind what was read before.
    Next,
}

/// What was held was let go before there was enough: whether the sender has waited for that will show.
#[derive(Debug, Clone, Copy)]
struct Released {
    at: Instant,
    /// What was there, as far as it has been read.
    bytes: usize,
    found: bool,
}

impl Coalescing {
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        let limit = limit.min(LONGEST);
        Self {
            limit,
            watch: (limit * WATCHED).max(TICK * WATCHED / HELD),
            hold: (limit * HELD).max(TICK),
            asked: 1,
            ceiling: *ASKED.end(),
            patience: *PATIENCE.start(),
            left: *PATIENCE.start(),
            since: now,
            bytes: 0,
            reads: 0,
            packets: 0,
            last_read: now,
            released: None,
        }
    }

    /// What has to have come, in bytes, where so many packets of ours wait for an answer: for half of those answers we
    /// can wait, as nothing else has to happen for them to come.
    pub(super) fn asked(&mut self, awaited: impl FnOnce() -> usize) -> usize {
        if self.asked > 1 {
            let awaited = awaited();
            if awaited > 0 {
                self.ask(self.asked.min(awaited / 2 * ANSWER));
            }
        }
        self.asked
    }

    fn ask(&mut self, bytes: usize) {
        self.asked = if ASKED.contains(&bytes) { bytes } else { 1 };
    }

    /// So many packets were in what was read.
    pub(super) fn decoded(&mut self, packets: u32) {
        self.packets = self.packets.saturating_add(packets);
    }

    /// So many bytes were read.
    pub(super) fn read(&mut self, bytes: usize, arrival: Arrival, now: Instant) {
        if self.limit.is_zero() {
            return;
        }
        self.judge(bytes, arrival, now);
        let pause = now.saturating_duration_since(self.last_read);
        self.last_read = now;
        if pause > self.watch {
            self.watch_anew(now);
            self.asked = 1;
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.reads += 1;
        let watched = now.saturating_duration_since(self.since);
        if watched >= self.watch && self.released.is_none() {
            self.decide(watched);
            self.watch_anew(now);
        }
    }

    fn watch_anew(&mut self, now: Instant) {
        self.since = now;
        self.bytes = 0;
        self.reads = 0;
        self.packets = 0;
    }

    fn decide(&mut self, watched: Duration) {
        self.left -= 1;
        if self.left == 0 {
            if self.ceiling == *ASKED.end() {
                self.patience = *PATIENCE.start();
            }
            self.ceiling = (self.ceiling * 2).min(*ASKED.end());
            self.left = self.patience;
        }
        let periods = (watched.as_nanos() / self.limit.as_nanos().max(1)).max(1);
        let periods = usize::try_from(periods).unwrap_or(usize::MAX);
        // One read in that time is what would come of it.
        let is_seldom = self.reads as usize <= periods.saturating_mul(2);
        if self.asked == 1 && (is_seldom || self.packets / self.reads.max(1) >= ENOUGH) {
            return;
        }
        let wanted = (self.bytes / periods).min(self.ceiling);
        // Each change is a system call.
        if wanted.abs_diff(self.asked) > self.asked / 4 {
            self.ask(wanted);
        }
    }

    /// When to call [`release`](Self::release).
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.asked > 1).then(|| self.last_read + self.hold)
    }

    /// Takes whatever is there, if it has been held for long enough.
    pub(super) fn release(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.released = Some(Released {
            at: now,
            bytes: 0,
            found: false,
        });
        self.asked = 1;
        self.watch_anew(now);
    }

    /// Where something was held, and more comes as soon as it is let go, the sender has waited for us: what was there is
    /// all that it sends until then.
    fn judge(&mut self, bytes: usize, arrival: Arrival, now: Instant) {
        let Some(released) = &mut self.released else {
            return;
        };
        if now.saturating_duration_since(released.at) > self.hold {
            self.released = None;
        } else if arrival == Arrival::Next || !std::mem::replace(&mut released.found, true) {
            released.bytes += bytes;
        } else {
            self.ceiling = (released.bytes * 3 / 4).clamp(*ASKED.start() / 2, *ASKED.end());
            self.patience = (self.patience * 2).min(*PATIENCE.end());
            self.left = self.patience;
            self.released = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(500);

    /// A sender, a socket, and the reader, from one microsecond to the next.
    struct Flow {
        coalescing: Coalescing,
        now: Instant,
        socket: usize,
        packets: u32,
        awaited: usize,
        wakes: u32,
        taken: usize,
        /// Longest that a byte lay in the socket.
        longest: Duration,
        waits_since: Option<Instant>,
    }

    impl Flow {
        fn new(limit: Duration) -> Self {
            let now = Instant::now();
            Self {
                coalescing: Coalescing::new(limit, now),
                now,
                socket: 0,
                packets: 0,
                awaited: 0,
                wakes: 0,
                taken: 0,
                longest: Duration::ZERO,
                waits_since: None,
            }
        }

        fn pass(&mut self) {
            self.now += Duration::from_micros(1);
            self.coalescing.release(self.now);
            let asked = self.coalescing.asked(|| self.awaited);
            if self.socket > 0 && self.socket >= asked {
                self.wakes += 1;
                self.taken += self.socket;
                self.coalescing.read(self.socket, Arrival::Waited, self.now);
                self.coalescing.decoded(self.packets);
                self.packets = 0;
                self.socket = 0;
                let since = self.waits_since.take();
                let waited = since.map_or(Duration::ZERO, |since| self.now - since);
                self.longest = self.longest.max(waited);
            }
        }

        /// One packet.
        fn arrive(&mut self, bytes: usize) {
            self.socket += bytes;
            self.packets += 1;
            self.waits_since.get_or_insert(self.now);
        }

        /// A message of 80 bytes each so many microseconds.
        fn run(&mut self, micros: u32, every: u32) {
            for passed in 0..micros {
                if passed % every == 0 {
                    self.arrive(80);
                }
                self.pass();
            }
        }

        /// A sender that keeps no more than `window` bytes unread, of messages that it takes 10 us for.
        fn run_closed(&mut self, micros: u32, window: usize, message: usize) {
            for passed in 0..micros {
                if passed % 10 == 0 && self.socket + message <= window {
                    self.arrive(message);
                }
                self.pass();
            }
        }

        fn count_anew(&mut self) {
            (self.wakes, self.taken, self.longest) = (0, 0, Duration::ZERO);
        }
    }

    #[test]
    fn what_comes_fast_shares_a_wake_up_and_waits_no_longer_than_it_may() {
        let mut flow = Flow::new(LIMIT);
        flow.run(20_000, 10);
        flow.count_anew();
        flow.run(1_000_000, 10);
        assert!(flow.taken.abs_diff(100_000 * 80) < 10_000, "{}", flow.taken);
        // Two thousand in a second, instead of a hundred thousand.
        assert!((1900..2300).contains(&flow.wakes), "{}", flow.wakes);
        assert!(flow.longest <= LIMIT * 11 / 10, "{:?}", flow.longest);
    }

    #[test]
    fn what_comes_seldom_is_taken_at_once() {
        let mut flow = Flow::new(LIMIT);
        flow.run(1_000_000, 1000);
        assert_eq!(flow.wakes, 1000);
        assert!(
            flow.longest <= Duration::from_micros(1),
            "{:?}",
            flow.longest
        );
    }

    #[test]
    fn the_last_of_a_stream_is_taken_soon_and_what_comes_later_at_once() {
        let mut flow = Flow::new(LIMIT);
        flow.run(20_003, 10);
        flow.arrive(80);
        assert!(flow.coalescing.asked > 80, "it is coalescing");
        flow.count_anew();
        for _ in 0..2000 {
            flow.pass();
        }
        assert_eq!(flow.socket, 0);
        assert!(flow.longest <= LIMIT * 2, "{:?}", flow.longest);
        flow.count_anew();
        flow.arrive(80);
        flow.pass();
        assert_eq!(flow.wakes, 1);
        assert_eq!(flow.coalescing.ceiling, *ASKED.end(), "that was no fault");
    }

    #[test]
    fn a_sender_that_waits_for_us_is_held_up_seldom() {
        // A window of ten messages is less than comes in the limit.
        let mut flow = Flow::new(LIMIT);
        flow.run_closed(10_000_000, 800, 80);
        let possible = 1_000_000 * 80;
        assert!(
            flow.taken > possible / 100 * 99,
            "{} of {possible}",
            flow.taken
        );
        assert!(flow.wakes < 300_000, "{}", flow.wakes);
        // One at a time, as in question and answer.
        let mut flow = Flow::new(LIMIT);
        flow.run_closed(10_000_000, 80, 80);
        assert!(
            flow.taken > possible / 100 * 99,
            "{} of {possible}",
            flow.taken
        );
    }

    #[test]
    fn a_sender_that_waits_no_longer_is_found_out() {
        let mut flow = Flow::new(LIMIT);
        flow.run_closed(1_000_000, 800, 80);
        flow.run(60_000_000, 10);
        flow.count_anew();
        flow.run(1_000_000, 10);
        assert!(flow.wakes < 2300, "{}", flow.wakes);
    }

    #[test]
    fn answers_are_waited_for_by_the_half_and_a_single_one_not_at_all() {
        let mut flow = Flow::new(LIMIT);
        flow.awaited = 20;
        flow.run(20_000, 10);
        assert_eq!(flow.coalescing.asked, 40);
        flow.awaited = 1;
        flow.pass();
        assert_eq!(flow.coalescing.asked, 1);
    }

    #[test]
    fn what_comes_by_the_dozen_needs_no_more() {
        let mut flow = Flow::new(LIMIT);
        for _ in 0..1000 {
            for _ in 0..ENOUGH {
                flow.arrive(4);
            }
            flow.run(100, 1000);
        }
        assert_eq!(flow.wakes, 1000);
    }

    #[test]
    fn a_limit_of_zero_takes_all_at_once() {
        let mut flow = Flow::new(Duration::ZERO);
        flow.run(100_000, 10);
        assert_eq!(flow.wakes, 10_000);
    }
}
