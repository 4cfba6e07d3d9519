//! What is said on a TCP stream: which protocol it is, who speaks, and the calls that the client makes.
//!
//! ```text
//! segments --> detect: by the first bytes --> one protocol's reader --> log of calls
//! ```
//!
//! Readers are plain code on capture's thread: bytes of either side in, in the order in which they passed, cut
//! anywhere; they keep only the beginnings of what is shown. What does not read as its protocol is given up without a
//! word: the bytes are recorded all the same. Nothing here changes them.

mod text;
mod read;
mod log;
mod detect;
mod redis;
mod postgresql;
mod mysql;
mod http;
mod tls;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use self::detect::{Kind, Verdict};
use self::http::Http;
use self::log::Log;
use self::mysql::MySql;
use self::postgresql::PostgreSql;
use self::redis::Redis;
use self::tls::Hello;
use crate::record::{Application, Direction, Facts};

/// How much is held of a stream before its protocol is known, bytes.
const UNDECIDED_BYTES: usize = 8 << 10;

/// What the calls of all open streams may take of memory together.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    most: usize,
}

impl Budget {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            held: AtomicUsize::new(0),
            most,
        }
    }

    /// Changes what one stream holds; whether there is room for it.
    fn change(&self, from: usize, to: usize) -> bool {
        let before = self.held.fetch_add(to, Relaxed);
        self.held.fetch_sub(from, Relaxed);
        to <= from || before + to - from <= self.most
    }

    #[cfg(any(test, fuzzing))]
    fn held(&self) -> usize {
        self.held.load(Relaxed)
    }
}

/// Bytes that passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) direction: Direction,
    /// How many bytes its sender sent before.
    pub(super) position: u64,
    /// Microseconds since the stream's start.
    pub(super) offset_us: u64,
    pub(super) bytes: &'a [u8],
}

/// Why a reader reads no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// What follows is not to be read: it is encrypted, or another protocol.
    Opaque,
    /// It does not make sense.
    Broken,
}

/// Listens to one stream.
#[derive(Debug)]
pub(super) struct Listener {
    state: State,
    protocol: Option<Kind>,
    log: Log,
    facts: Facts,
    broken: bool,
    /// How many bytes of client and server have been heard.
    heard: [u64; 2],
    /// What of the budget is taken.
    taken: usize,
}

#[derive(Debug)]
enum State {
    Undecided(Vec<Held>),
    Reading(Box<Reader>),
    Over,
}

/// Bytes that wait until the protocol is known.
#[derive(Debug)]
struct Held {
    direction: Direction,
    offset_us: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Reader {
    Redis(Redis),
    PostgreSql(PostgreSql),
    MySql(MySql),
    Http(Http),
    Tls(Hello),
}

impl Listener {
    /// One that has heard nothing.
    pub(super) fn new() -> Self {
        Self {
            state: State::Undecided(Vec::new()),
            ..Self::deaf()
        }
    }

    /// One that never will.
    pub(super) fn deaf() -> Self {
        Self {
            state: State::Over,
            protocol: None,
            log: Log::default(),
            facts: Facts::default(),
            broken: false,
            heard: [0, 0],
            taken: 0,
        }
    }

    /// Hears what passed; `false` where it has to stop for want of memory.
    pub(super) fn hear(&mut self, heard: Heard<'_>, budget: &Budget) -> bool {
        if matches!(self.state, State::Over) || heard.bytes.is_empty() {
            return true;
        }
        let side = match heard.direction {
            Direction::Client => &mut self.heard[0],
            Direction::Server => &mut self.heard[1],
        };
        let expected = std::mem::replace(side, heard.position + heard.bytes.len() as u64);
        if expected == heard.position {
            self.read(heard.direction, heard.offset_us, heard.bytes);
        } else {
            // The bytes between were not kept.
            self.stop(Stop::Broken);
        }
        self.fits(budget)
    }

    /// What was heard; the stream has ended, and of it all was kept or not.
    pub(super) fn finish(&mut self, truncated: bool, budget: &Budget) -> Option<Application> {
        let reading = matches!(self.state, State::Reading(_));
        let heard = std::mem::replace(self, Self::deaf());
        budget.change(heard.taken, 0);
        Some(Application {
            protocol: heard.protocol?.name().into(),
            facts: heard.facts,
            count: heard.log.count(),
            calls: heard.log.into_calls(),
            broken: heard.broken || reading && truncated,
        })
    }

    fn read(&mut self, direction: Direction, offset_us: u64, bytes: &[u8]) {
        if let State::Undecided(held) = &mut self.state {
            hold(held, direction, offset_us, bytes);
            match detect::verdict(held) {
                Verdict::Is(kind) => {
                    let held = std::mem::take(held);
                    self.protocol = Some(kind);
                    self.state = kind.reader().map_or(State::Over, State::Reading);
                    for part in held {
                        self.read_on(part.direction, part.offset_us, &part.bytes);
                    }
                }
                Verdict::More if bytes_of(held) <= UNDECIDED_BYTES => {}
                Verdict::More | Verdict::No => self.state = State::Over,
            }
        } else {
            self.read_on(direction, offset_us, bytes);
        }
    }

    fn read_on(&mut self, direction: Direction, at_us: u64, bytes: &[u8]) {
        let State::Reading(reader) = &mut self.state else {
            return;
        };
        let (log, facts) = (&mut self.log, &mut self.facts);
        let read = match (direction, reader.as_mut()) {
            (Direction::Client, Reader::Redis(redis)) => redis.client(at_us, bytes, log, facts),
            (Direction::Server, Reader::Redis(redis)) => redis.server(at_us, bytes, log),
            (Direction::Client, Reader::PostgreSql(pg)) => pg.client(at_us, bytes, log, facts),
            (Direction::Server, Reader::PostgreSql(pg)) => pg.server(at_us, bytes, log, facts),
            (Direction::Client, Reader::MySql(mysql)) => mysql.client(at_us, bytes, log, facts),
            (Direction::Server, Reader::MySql(mysql)) => mysql.server(at_us, bytes, log, facts),
            (Direction::Client, Reader::Http(http)) => http.client(at_us, bytes, log),
            (Direction::Server, Reader::Http(http)) => http.server(at_us, bytes, log),
            (Direction::Client, Reader::Tls(hello)) => hello.read(bytes, facts),
            (Direction::Server, Reader::Tls(_)) => Ok(()),
        };
        if let Err(stop) = read {
            self.stop(stop);
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.broken |= stop == Stop::Broken;
        self.state = State::Over;
    }

    /// Accounts for what is held; gives the stream up where that is too much.
    fn fits(&mut self, budget: &Budget) -> bool {
        let (before, held) = (self.taken, self.held());
        let fits = budget.change(before, held);
        self.taken = held;
        if !fits {
            self.stop(Stop::Broken);
            if self.held() > before {
                self.log.forget();
            }
            let left = self.held();
            budget.change(held, left);
            self.taken = left;
        }
        fits
    }

    fn held(&self) -> usize {
        let reader = match &self.state {
            State::Undecided(held) => bytes_of(held),
            State::Reading(reader) => size_of::<Reader>() + reader.held(),
            State::Over => 0,
        };
        reader + self.log.held()
    }
}

impl Reader {
    fn held(&self) -> usize {
        match self {
            Self::Redis(redis) => redis.held(),
            Self::PostgreSql(pg) => pg.held(),
            Self::MySql(mysql) => mysql.held(),
            Self::Http(http) => http.held(),
            Self::Tls(hello) => hello.held(),
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::PostgreSql => "postgresql",
            Self::MySql => "mysql",
            Self::Http1 => "http",
            Self::Http2 => "h2",
            Self::Tls => "tls",
        }
    }

    /// What reads it; HTTP/2 is told apart and not read.
    fn reader(self) -> Option<Box<Reader>> {
        Some(Box::new(match self {
            Self::Redis => Reader::Redis(Redis::default()),
            Self::PostgreSql => Reader::PostgreSql(PostgreSql::default()),
            Self::MySql => Reader::MySql(MySql::default()),
            Self::Http1 => Reader::Http(Http::default()),
            Self::Http2 => return None,
            Self::Tls => Reader::Tls(Hello::default()),
        }))
    }
}

/// Adds bytes; what one side says in one go stays one part.
fn hold(held: &mut Vec<Held>, direction: Direction, offset_us: u64, bytes: &[u8]) {
    match held.last_mut() {
        Some(last) if last.direction == direction => last.bytes.extend_from_slice(bytes),
        _ => held.push(Held {
            direction,
            offset_us,
            bytes: bytes.to_vec(),
        }),
    }
}

fn bytes_of(held: &[Held]) -> usize {
    let each = held.iter().map(|part| part.bytes.len() + size_of::<Held>());
    each.sum()
}

#[cfg(any(test, fuzzing))]
#[allow(unreachable_pub, reason = "public where it is fuzzed")]
pub mod fuzzing;
#[cfg(test)]
mod tests;
