//! PostgreSQL, protocol 3 (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
//!
//! A simple query is a call, and so is each execution of a prepared statement; preparing one is a call of its own where
//! nothing of it is executed at once. Parameters, rows and whatever has to do with passwords are never looked at.

use super::log::Log;
use super::read::{Framed, until_zero};
use super::text::{self, KEPT, Said};
use super::tls::Hello;
use super::{Facts, Stop};

/// How many prepared statements, and portals, are remembered.
const REMEMBERED: usize = 32;
/// How much is kept of messages that only name things, bytes.
const NAMES: usize = 256;

/// The codes in place of a version (section 55.7).
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;

#[derive(Debug, Default)]
pub(super) struct PostgreSql {
    from_client: Side,
    from_server: Side,
    phase: Phase,
    /// How many times the client has ended a group of messages, and the server has said that it is ready.
    asked: u64,
    ready: u64,
    /// Whether the server skips what is left of the group.
    skipping: bool,
    /// What the group that is being asked has prepared and not executed.
    prepared: Option<(u64, Said)>,
    statements: Names,
    portals: Names,
    hello: Hello,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The client has yet to say who it is.
    #[default]
    Startup,
    /// It asked for encryption, and the server answers with one byte.
    Offered,
    /// What follows is TLS.
    Encrypted,
    /// It said who it is, and the server has not let it in.
    Login { since_us: u64 },
    /// Messages go both ways.
    Open,
}

/// The messages of one side; their heads say the type and the length of the body.
type Side = Framed<(u8, u32)>;

/// What was given a name, the newest last.
#[derive(Debug, Default)]
struct Names(Vec<(Box<[u8]>, Said)>);

impl PostgreSql {
    pub(super) fn held(&self) -> usize {
        let sides = self.from_client.held() + self.from_server.held();
        sides + self.statements.held() + self.portals.held() + self.hello.held()
    }

    pub(super) fn client(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            match self.phase {
                Phase::Encrypted => return self.hello.read(bytes, facts),
                Phase::Startup | Phase::Offered => {
                    let Some(code) = untyped(&mut self.from_client, at_us, &mut bytes)? else {
                        continue;
                    };
                    self.startup(code, log, facts)?;
                }
                Phase::Login { .. } | Phase::Open => {
                    let keep = |kind| match kind {
                        b'Q' | b'P' => KEPT,
                        b'B' | b'E' => NAMES,
                        _ => 0,
                    };
                    let side = &mut self.from_client;
                    let Some((kind, length)) = typed(side, at_us, &mut bytes, keep)? else {
                        continue;
                    };
                    self.asks(kind, length.into(), log)?;
                }
            }
        }
        Ok(())
    }

    fn startup(&mut self, code: u32, log: &mut Log, facts: &mut Facts) -> Result<(), Stop> {
        let at_us = self.from_client.at_us();
        match code {
            SSL | GSS => self.phase = Phase::Offered,
            CANCEL => {
                log.call(at_us, || Said::plain("CANCEL"));
                return Err(Stop::Opaque);
            }
            _ if code >> 16 == 3 => {
                let mut rest = &self.from_client.body()[4..];
                while !rest.is_empty() {
                    let (key, tail) = until_zero(rest);
                    let (value, tail) = until_zero(tail);
                    match key {
                        b"user" => facts.user = text::name(value),
                        b"database" => facts.database = text::name(value),
                        _ => {}
                    }
                    rest = tail;
                }
                self.phase = Phase::Login { since_us: at_us };
            }
            _ => return Err(Stop::Broken),
        }
        Ok(())
    }

    fn asks(&mut self, kind: u8, length: u64, log: &mut Log) -> Result<(), Stop> {
        let side = &self.from_client;
        let (at_us, kept, group) = (side.at_us(), side.body(), self.asked);
        match kind {
            b'Q' => {
                let said = || Said::statement(until_zero(kept).0, length.saturating_sub(1));
                if let Some(call) = log.call(at_us, said) {
                    call.group = group;
                    // It is over when the server is ready again, however many results it had.
                    call.replies = u64::MAX;
                }
                self.asked += 1;
            }
            b'P' if !log.is_full() => {
                let (name, rest) = until_zero(kept);
                let statement = until_zero(rest).0;
                let whole = statement.len() < rest.len();
                let length = if whole {
                    statement.len() as u64
                } else {
                    length
                };
                let said = Said::statement(statement, length);
                self.prepared = Some((at_us, said.clone()));
                self.statements.set(name, said);
            }
            b'B' if !log.is_full() => {
                let (portal, rest) = until_zero(kept);
                let (statement, _) = until_zero(rest);
                let said = self.statements.get(statement);
                self.portals.set(portal, said);
            }
            b'E' => {
                self.prepared = None;
                let portal = until_zero(kept).0;
                if let Some(call) = log.call(at_us, || self.portals.get(portal)) {
                    call.group = group;
                }
            }
            b'F' => {
                if let Some(call) = log.call(at_us, || Said::plain("FUNCTION CALL")) {
                    call.group = group;
                    call.replies = u64::MAX;
                }
                self.asked += 1;
            }
            b'S' => {
                if let Some((since_us, said)) = self.prepared.take()
                    && let Some(call) = log.call(since_us, || said.behind("PREPARE"))
                {
                    call.group = group;
                    call.replies = u64::MAX;
                }
                self.asked += 1;
            }
            b'P' | b'B' | b'C' | b'D' | b'H' | b'X' | b'p' | b'd' | b'c' | b'f' => {}
            _ => return Err(Stop::Broken),
        }
        Ok(())
    }

    pub(super) fn server(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            match self.phase {
                Phase::Encrypted => return Ok(()),
                Phase::Startup => return Err(Stop::Broken),
                Phase::Offered => {
                    let (answer, rest) = (bytes[0], &bytes[1..]);
                    self.phase = match answer {
                        b'S' => Phase::Encrypted,
                        b'N' => Phase::Startup,
                        b'G' => return Err(encrypted(facts, Stop::Opaque)),
                        _ => return Err(Stop::Broken),
                    };
                    facts.encrypted = answer == b'S';
                    bytes = rest;
                }
                Phase::Login { .. } | Phase::Open => {
                    let settled = log.is_settled() && self.phase == Phase::Open;
                    if settled {
                        return Ok(());
                    }
                    let keep = |kind| match kind {
                        b'E' => KEPT,
                        b'S' => NAMES,
                        _ => 0,
                    };
                    let side = &mut self.from_server;
                    let Some((kind, _)) = typed(side, at_us, &mut bytes, keep)? else {
                        continue;
                    };
                    self.tells(kind, log, facts)?;
                }
            }
        }
        Ok(())
    }

    fn tells(&mut self, kind: u8, log: &mut Log, facts: &mut Facts) -> Result<(), Stop> {
        let side = &self.from_server;
        let (at_us, kept) = (side.at_us(), side.body());
        if let Phase::Login { since_us } = self.phase {
            match kind {
                b'Z' => self.phase = Phase::Open,
                b'E' => {
                    let (code, message) = error(kept);
                    log.call(since_us, || Said::plain("CONNECT"));
                    log.answer_fails(at_us, &code, message);
                }
                b'S' => parameter(kept, facts),
                b'R' | b'K' | b'N' | b'v' => {}
                _ => return Err(Stop::Broken),
            }
            return Ok(());
        }
        let ready = self.ready;
        let waiting = log.waiting().filter(|call| call.group <= ready);
        let waiting = waiting.map(|call| call.replies);
        let (some, each) = (waiting.is_some(), waiting == Some(1));
        match kind {
            b'S' => parameter(kept, facts),
            b'N' | b'A' => {}
            b'Z' => {
                while log.waiting().is_some_and(|call| call.group <= ready) {
                    if self.skipping {
                        log.no_answer();
                    } else {
                        log.answer_begins(at_us);
                        log.answer_ends();
                    }
                }
                self.skipping = false;
                self.ready += 1;
            }
            b'E' if some && !self.skipping => {
                let (code, message) = error(kept);
                log.answer_fails(at_us, &code, message);
                self.skipping = true;
            }
            b'C' | b'I' | b's' if each => {
                log.answer_begins(at_us);
                log.answer_ends();
            }
            b'G' => {
                log.answer_begins(at_us);
                // While it takes rows it ignores that the client has ended the group; the client ends it again behind them.
                if each {
                    self.ready = self.ready.max(self.asked);
                }
            }
            b'C' | b'I' | b's' | b'E' | b'1' | b'2' | b'3' | b'D' | b'T' | b't' | b'n' | b'V'
            | b'H' | b'W' | b'd' | b'c' => {
                if some && !self.skipping {
                    log.answer_begins(at_us);
                }
            }
            _ => return Err(Stop::Broken),
        }
        Ok(())
    }
}

fn encrypted(facts: &mut Facts, stop: Stop) -> Stop {
    facts.encrypted = true;
    stop
}

fn parameter(kept: &[u8], facts: &mut Facts) {
    let (key, rest) = until_zero(kept);
    if key == b"server_version" {
        facts.server_version = text::name(until_zero(rest).0);
    }
}

/// Code and message of an `ErrorResponse` (section 55.8).
fn error(mut kept: &[u8]) -> (String, &[u8]) {
    let (mut code, mut message) = (String::new(), b"".as_slice());
    while let Some((field, rest)) = kept.split_first() {
        let (value, tail) = until_zero(rest);
        match field {
            b'C' => code = text::printable(value),
            b'M' => message = value,
            _ => {}
        }
        kept = tail;
    }
    (code, message)
}

/// Reads a message without a type, as the first ones are; its code once it is whole.
fn untyped(side: &mut Side, at_us: u64, bytes: &mut &[u8]) -> Result<Option<u32>, Stop> {
    let whole = side.take(at_us, bytes, 4, |head| {
        let length = u32_of(head).checked_sub(4);
        let length = length.filter(|length| (4..=10_000).contains(length));
        let length = length.ok_or(Stop::Broken)?;
        Ok(((0, length), length, KEPT))
    })?;
    Ok(whole.map(|_| u32_of(side.body())))
}

/// Reads a message; its type and the length of its body once it is whole.
fn typed(
    side: &mut Side,
    at_us: u64,
    bytes: &mut &[u8],
    keep: impl FnOnce(u8) -> usize,
) -> Result<Option<(u8, u32)>, Stop> {
    side.take(at_us, bytes, 5, |head| {
        let (kind, length) = (head[0], u32_of(&head[1..]));
        let length = length.checked_sub(4).filter(|_| length >> 30 == 0);
        let length = length.ok_or(Stop::Broken)?;
        Ok(((kind, length), length, keep(kind)))
    })
}

fn u32_of(bytes: &[u8]) -> u32 {
    let four = bytes.first_chunk::<4>().copied();
    u32::from_be_bytes(four.unwrap_or_default())
}

impl Names {
    fn set(&mut self, name: &[u8], said: Said) {
        self.0.retain(|(known, _)| **known != *name);
        if self.0.len() >= REMEMBERED {
            self.0.remove(0);
        }
        self.0.push((name.into(), said));
    }

    fn get(&self, name: &[u8]) -> Said {
        let known = self.0.iter().find(|(known, _)| **known == *name);
        known.map_or_else(|| Said::plain("EXECUTE"), |(_, said)| said.clone())
    }

    fn held(&self) -> usize {
        let each = |(name, said): &(Box<[u8]>, Said)| name.len() + said.as_str().len();
        let texts: usize = self.0.iter().map(each).sum();
        texts + self.0.capacity() * size_of::<(Box<[u8]>, Said)>()
    }
}
