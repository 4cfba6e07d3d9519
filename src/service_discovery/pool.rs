//! The endpoints of one service: round robin over those that are up, or the least busy, with passive health.
//!
//! An endpoint that could not be connected to several times in a row is left out for a while that doubles
//! with each further failure; then one caller tries it again while the others still go elsewhere. When all
//! are down the one that failed longest ago is used, because refusing without trying helps nobody.
//! All state is in atomics: a success on a healthy endpoint only reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Endpoint;
use crate::metrics::{Counter, Registry};

/// When an endpoint counts as down, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Failed connections in a row after which an endpoint is left out; at least 1.
    pub failures: u32,
    /// For how long it is first left out.
    pub back_off: Duration,
    /// The most that the doubling of `back_off` comes to; at least `back_off`.
    pub max_back_off: Duration,
    /// Which endpoint is next.
    pub balance: Balance,
}

/// Which endpoint is next, of those that are up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest [`InUse`], in turn where several have.
    LeastConnections,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            failures: 3,
            back_off: Duration::from_secs(1),
            max_back_off: Duration::from_secs(30),
            balance: Balance::default(),
        }
    }
}

/// Why there can be no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// The list is empty.
    #[error("no endpoint is given")]
    NoEndpoint,
    /// `failures` is 0.
    #[error("at least 1 failure must be needed to leave an endpoint out")]
    NoFailures,
    /// `max_back_off` is under `back_off`, or `back_off` is 0.
    #[error("the back-off must be over 0 and not over its maximum")]
    BackOff,
}

/// Counters of all pools of a process.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    failures: Counter,
    left_out: Counter,
    recovered: Counter,
}

impl Metrics {
    /// Adds the counters to the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.add(
            "endpoint_failures",
            "Connections to an endpoint that did not come about.",
            &self.failures,
        );
        registry.add(
            "endpoint_left_out",
            "Times an endpoint went from up to down.",
            &self.left_out,
        );
        registry.add(
            "endpoint_recovered",
            "Times an endpoint went from down to up.",
            &self.recovered,
        );
    }
}

/// Whether an endpoint is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Up,
    /// It is left out; a caller tries it again when this time has passed.
    Down {
        /// The rest of the back-off.
        retry_in: Duration,
    },
}

/// One endpoint of a pool and what is known of its health.
#[derive(Debug)]
pub struct Member {
    endpoint: Endpoint,
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds on the pool's clock, plus 1; 0 where it never failed.
    failed_at: AtomicU64,
    /// Milliseconds on the pool's clock, plus 1, from which it may be tried again; 0 where it is up.
    down_until: AtomicU64,
    in_use: AtomicUsize,
}

/// A connection to an endpoint counts while this lives.
#[derive(Debug)]
pub struct InUse(Arc<Member>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Relaxed);
    }
}

impl Member {
    /// Counts a connection.
    #[must_use]
    pub fn in_use(self: &Arc<Self>) -> InUse {
        self.in_use.fetch_add(1, Relaxed);
        InUse(Arc::clone(self))
    }

    /// Where it listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// The endpoints of one service.
#[derive(Debug)]
pub struct Pool {
    members: Box<[Arc<Member>]>,
    next: AtomicUsize,
    config: Config,
    metrics: Metrics,
    start: Instant,
}

impl Pool {
    /// A pool of endpoints that all count as up; `now` is the moment from which it counts time.
    ///
    /// # Errors
    /// [`InvalidConfig`] where there is no endpoint or a limit makes no sense.
    pub fn new(
        endpoints: Vec<Endpoint>,
        config: &Config,
        metrics: Metrics,
        now: Instant,
    ) -> Result<Self, InvalidConfig> {
        if endpoints.is_empty() {
            return Err(InvalidConfig::NoEndpoint);
        }
        if config.failures == 0 {
            return Err(InvalidConfig::NoFailures);
        }
        if config.back_off.is_zero() || config.max_back_off < config.back_off {
            return Err(InvalidConfig::BackOff);
        }
        let member = |endpoint| {
            Arc::new(Member {
                endpoint,
                failures: AtomicU32::new(0),
                failed_at: AtomicU64::new(0),
                down_until: AtomicU64::new(0),
                in_use: AtomicUsize::new(0),
            })
        };
        Ok(Self {
            members: endpoints.into_iter().map(member).collect(),
            next: AtomicUsize::new(0),
            config: config.clone(),
            metrics,
            start: now,
        })
    }

    /// The endpoint to use next. Tell what came of it with [`Pool::connected`] or [`Pool::failed`].
    #[must_use]
    pub fn pick(&self, now: Instant) -> &Arc<Member> {
        if let [only] = &*self.members {
            return only;
        }
        let ticks = self.ticks(now);
        let from = self.next.fetch_add(1, Relaxed);
        let count = self.members.len();
        let in_turn = || (0..count).map(|step| &self.members[from.wrapping_add(step) % count]);
        let chosen = match self.config.balance {
            Balance::RoundRobin => in_turn().find(|member| self.usable(member, ticks)),
            // One whose back-off has passed is to be tried, however busy the others are or are not.
            Balance::LeastConnections => in_turn()
                .find(|member| member.down_until.load(Relaxed) != 0 && self.usable(member, ticks))
                .or_else(|| {
                    in_turn()
                        .filter(|member| member.down_until.load(Relaxed) == 0)
                        .min_by_key(|member| member.in_use.load(Relaxed))
                }),
        };
        chosen.unwrap_or_else(|| self.least_recently_failed())
    }

    /// A connection to the endpoint came about.
    pub fn connected(&self, member: &Member) {
        // Reads first: writing on every success would pass the cache line between all cores.
        if member.failures.load(Relaxed) != 0 {
            member.failures.store(0, Relaxed);
        }
        if member.down_until.load(Relaxed) != 0 && member.down_until.swap(0, Relaxed) != 0 {
            self.metrics.recovered.inc();
            tracing::info!(endpoint = %member.endpoint, "endpoint is up again");
        }
    }

    /// A connection to the endpoint did not come about. What an endpoint answers is no matter of its health.
    pub fn failed(&self, member: &Member, now: Instant) {
        self.metrics.failures.inc();
        let ticks = self.ticks(now);
        member.failed_at.store(ticks, Relaxed);
        let failures = member.failures.load(Relaxed).saturating_add(1);
        member.failures.store(failures, Relaxed);
        if let Some(excess) = failures.checked_sub(self.config.failures) {
            let back_off = self.back_off(excess);
            let until = ticks.saturating_add(back_off);
            if member.down_until.swap(until, Relaxed) == 0 {
                self.metrics.left_out.inc();
                tracing::warn!(
                    endpoint = %member.endpoint,
                    failures,
                    retry_in_ms = back_off,
                    "endpoint is down: requests go to the others, where there are some"
                );
            }
        }
    }

    /// Every endpoint, in the order of the list.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether an endpoint is in use.
    #[must_use]
    pub fn health(&self, member: &Member, now: Instant) -> Health {
        match member.down_until.load(Relaxed) {
            0 => Health::Up,
            until => Health::Down {
                retry_in: Duration::from_millis(until.saturating_sub(self.ticks(now))),
            },
        }
    }

    /// Up, or its back-off has passed and this caller is the one to try it.
    fn usable(&self, member: &Member, ticks: u64) -> bool {
        let until = member.down_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let next = ticks.saturating_add(self.back_off(0));
        until <= ticks
            && member
                .down_until
                .compare_exchange(until, next, Relaxed, Relaxed)
                .is_ok()
    }

    fn least_recently_failed(&self) -> &Arc<Member> {
        self.members
            .iter()
            .min_by_key(|member| member.failed_at.load(Relaxed))
            .expect("a pool has at least one endpoint")
    }

    /// Milliseconds, doubled for each failure after the one that took the endpoint down.
    fn back_off(&self, excess: u32) -> u64 {
        let longest = self.config.max_back_off;
        let factor = 1_u32.checked_shl(excess).unwrap_or(u32::MAX);
        let time = self.config.back_off.saturating_mul(factor).min(longest);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn ticks(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: u16, now: Instant) -> Pool {
        let endpoints = (1..=count).map(|port| format!("host:{port}").parse().unwrap());
        Pool::new(
            endpoints.collect(),
            &Config::default(),
            Metrics::default(),
            now,
        )
        .unwrap()
    }

    fn picks(pool: &Pool, count: usize, now: Instant) -> Vec<u16> {
        (0..count)
            .map(|_| pool.pick(now).endpoint().port())
            .collect()
    }

    fn fail(pool: &Pool, index: usize, times: u32, now: Instant) {
        for _ in 0..times {
            pool.failed(&pool.members()[index], now);
        }
    }

    #[test]
    fn goes_round() {
        let now = Instant::now();
        assert_eq!(picks(&pool(3, now), 7, now), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn leaves_out_what_failed_three_times_in_a_row() {
        let now = Instant::now();
        let pool = pool(3, now);
        fail(&pool, 1, 2, now);
        pool.connected(&pool.members()[1]);
        fail(&pool, 1, 2, now);
        assert!(
            picks(&pool, 3, now).contains(&2),
            "a success between starts the count anew"
        );
        fail(&pool, 1, 1, now);
        assert!(!picks(&pool, 6, now).contains(&2));
        let retry_in = Duration::from_secs(1);
        assert_eq!(
            pool.health(&pool.members()[1], now),
            Health::Down { retry_in }
        );
        assert_eq!(pool.health(&pool.members()[0], now), Health::Up);
    }

    #[test]
    fn one_caller_tries_again_after_the_back_off() {
        let now = Instant::now();
        let pool = pool(2, now);
        fail(&pool, 0, 3, now);
        let later = now + Duration::from_millis(1001);
        let tried = |picks: Vec<u16>| picks.into_iter().filter(|port| *port == 1).count();
        assert_eq!(tried(picks(&pool, 8, later)), 1);
        pool.connected(&pool.members()[0]);
        assert_eq!(tried(picks(&pool, 8, later)), 4);
        assert_eq!(pool.metrics.recovered.get(), 1);
        assert_eq!(pool.metrics.left_out.get(), 1);
        assert_eq!(pool.metrics.failures.get(), 3);
    }

    #[test]
    fn back_off_doubles_up_to_its_maximum() {
        let now = Instant::now();
        let pool = pool(2, now);
        for (times, seconds) in [(3, 1), (1, 2), (1, 4), (3, 30), (1000, 30)] {
            fail(&pool, 0, times, now);
            let retry_in = Duration::from_secs(seconds);
            assert_eq!(
                pool.health(&pool.members()[0], now),
                Health::Down { retry_in }
            );
        }
    }

    #[test]
    fn uses_the_least_recently_failed_when_all_are_down() {
        let start = Instant::now();
        let pool = pool(3, start);
        for (index, at) in [(1, 10), (2, 20), (0, 30)] {
            fail(&pool, index, 3, start + Duration::from_millis(at));
        }
        let now = start + Duration::from_millis(40);
        assert_eq!(picks(&pool, 3, now), [2, 2, 2]);
        fail(&pool, 1, 1, now);
        assert_eq!(picks(&pool, 2, now), [3, 3]);
    }

    #[test]
    fn a_single_endpoint_is_always_tried() {
        let now = Instant::now();
        let pool = pool(1, now);
        fail(&pool, 0, 9, now);
        assert_eq!(picks(&pool, 2, now), [1, 1]);
    }

    #[test]
    fn the_least_busy_is_next_and_a_tie_goes_round() {
        let now = Instant::now();
        let endpoints = (1..=3).map(|port| format!("host:{port}").parse().unwrap());
        let config = Config {
            balance: Balance::LeastConnections,
            ..Config::default()
        };
        let pool = Pool::new(endpoints.collect(), &config, Metrics::default(), now).unwrap();
        assert_eq!(picks(&pool, 3, now), [1, 2, 3]);
        let busy = [0, 0, 2].map(|index| pool.members()[index].in_use());
        assert_eq!(picks(&pool, 2, now), [2, 2]);
        drop(busy);
        fail(&pool, 1, 3, now);
        let _busy = [0, 0, 2].map(|index| pool.members()[index].in_use());
        assert_eq!(picks(&pool, 2, now), [3, 3], "one that is down is left out");
        let later = now + Duration::from_millis(1001);
        assert_eq!(
            picks(&pool, 2, later),
            [2, 3],
            "and tried once when its time has come"
        );
    }

    #[test]
    fn refuses_limits_that_make_no_sense() {
        let check = |config: &Config| {
            let endpoints = vec!["host:1".parse().unwrap()];
            Pool::new(endpoints, config, Metrics::default(), Instant::now()).map(|_| ())
        };
        let config = Config {
            failures: 0,
            ..Config::default()
        };
        assert_eq!(check(&config), Err(InvalidConfig::NoFailures));
        let config = Config {
            max_back_off: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(check(&config), Err(InvalidConfig::BackOff));
    }
}
