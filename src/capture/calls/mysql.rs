//! MySQL and MariaDB (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>).
//!
//! A command is a packet with the number 0, so that nothing of a login is ever taken for one. Of an answer the first
//! packet tells whether it is an error; rows are not looked at, but for an error that ends them.

use std::collections::VecDeque;

use super::log::Log;
use super::read::{Framed, until_zero};
use super::text::{self, KEPT, Said};
use super::tls::Hello;
use super::{Facts, Stop};

/// How many prepared statements are remembered.
const REMEMBERED: usize = 32;
/// How many commands may wait for their answers.
const PENDING: usize = 256;
/// A packet of this length is continued by the next.
const FULL: u32 = 0x00ff_ffff;

/// Capabilities (section "Capabilities Flags").
const WITH_DATABASE: u32 = 1 << 3;
const COMPRESS: u32 = 1 << 5;
const SSL: u32 = 1 << 11;
const SECURE: u32 = 1 << 15;
const LENGTH_ENCODED: u32 = 1 << 21;
const ZSTD: u32 = 1 << 26;
const ATTRIBUTES: u32 = 1 << 27;

const PREPARE: u8 = 0x16;

#[derive(Debug, Default)]
pub(super) struct MySql {
    from_client: Side,
    from_server: Side,
    phase: Phase,
    since_us: u64,
    /// What the server can do; once the client has answered, what both can.
    capabilities: u32,
    /// Commands without an answer, and whether each is listed.
    pending: VecDeque<(u8, bool)>,
    /// Whether the answer that came last is one to a listed call.
    answers_listed: bool,
    /// The number of the first packet of the next answer, and of the packet that came last.
    first: u8,
    last: Option<u8>,
    statements: Vec<(u32, Said)>,
    prepared: Option<Said>,
    hello: Hello,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server has yet to greet.
    #[default]
    Greeting,
    /// The client says who it is and proves it.
    Login,
    Encrypted,
    Open,
}

/// The packets of one side.
#[derive(Debug, Default)]
struct Side {
    /// Their heads say length and number.
    packets: Framed<(u32, u8)>,
    /// Whether the last one goes on in the next.
    continues: bool,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    length: u32,
    number: u8,
    /// Whether it is the first or the only part of what it belongs to.
    first: bool,
}

impl MySql {
    pub(super) fn held(&self) -> usize {
        let sides = self.from_client.packets.held() + self.from_server.packets.held();
        let texts: usize = self
            .statements
            .iter()
            .map(|(_, said)| said.as_str().len())
            .sum();
        let prepared = self.prepared.as_ref().map_or(0, |said| said.as_str().len());
        let tables =
            self.statements.capacity() * size_of::<(u32, Said)>() + 2 * self.pending.capacity();
        sides + texts + prepared + tables + self.hello.held()
    }

    pub(super) fn client(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            if self.phase == Phase::Encrypted {
                return self.hello.read(bytes, facts);
            }
            let Some(packet) = self.from_client.read(at_us, &mut bytes)? else {
                continue;
            };
            match (self.phase, packet.number) {
                (Phase::Greeting, _) => return Err(Stop::Broken),
                (Phase::Login, 1) if packet.first => self.login(packet, facts),
                (Phase::Open, 0) if packet.first => self.command(packet, log)?,
                _ => {}
            }
            if !packet.first || packet.length == FULL {
                self.first = packet.number.wrapping_add(1);
            }
        }
        Ok(())
    }

    /// The client's answer to the greeting: `SSLRequest` or `HandshakeResponse41`.
    fn login(&mut self, packet: Packet, facts: &mut Facts) {
        let kept = self.from_client.packets.body();
        let flags = kept
            .first_chunk::<4>()
            .map_or(0, |four| u32::from_le_bytes(*four));
        self.capabilities &= flags;
        if flags & SSL != 0 && packet.length == 32 {
            self.phase = Phase::Encrypted;
            facts.encrypted = true;
            return;
        }
        let (user, rest) = until_zero(kept.get(32..).unwrap_or_default());
        facts.user = text::name(user);
        // What proves it stands between the name and the database.
        let rest = if flags & (LENGTH_ENCODED | SECURE) != 0 {
            let length = rest.first().map_or(0, |length| usize::from(*length));
            rest.get(1 + length..).unwrap_or_default()
        } else {
            until_zero(rest).1
        };
        if flags & WITH_DATABASE != 0 {
            facts.database = text::name(until_zero(rest).0);
        }
    }

    fn command(&mut self, packet: Packet, log: &mut Log) -> Result<(), Stop> {
        let (at_us, kept) = self.from_client.last();
        let (&code, rest) = kept.split_first().ok_or(Stop::Broken)?;
        let length = u64::from(packet.length - 1);
        let said = || match code {
            0x02 => Said::statement(rest, length).behind("USE"),
            0x03 => self.query(rest, length),
            0x04 => Said::plain("FIELD LIST"),
            0x05 => Said::statement(rest, length).behind("CREATE DATABASE"),
            0x06 => Said::statement(rest, length).behind("DROP DATABASE"),
            0x08 => Said::plain("SHUTDOWN"),
            0x09 => Said::plain("STATISTICS"),
            0x0a => Said::plain("PROCESS INFO"),
            0x0c => Said::plain("KILL"),
            0x0d => Said::plain("DEBUG"),
            0x0e => Said::plain("PING"),
            0x11 => Said::statement(until_zero(rest).0, 0).behind("CHANGE USER"),
            0x12 | 0x1e => Said::plain("BINLOG DUMP"),
            PREPARE => Said::statement(rest, length).behind("PREPARE"),
            0x17 | 0xfa => self.execution(rest),
            0x1a => Said::plain("RESET STATEMENT"),
            0x1b => Said::plain("SET OPTION"),
            0x1c => Said::plain("FETCH"),
            0x1f => Said::plain("RESET CONNECTION"),
            _ => Said::plain(&format!("COMMAND {code}")),
        };
        // Leaving, closing a statement and sending a parameter's parts: nobody answers.
        if matches!(code, 0x01 | 0x18 | 0x19) {
            return Ok(());
        }
        let listed = log.call(at_us, said).is_some();
        if code == PREPARE {
            let listing = listed && !log.is_full();
            self.prepared = listing.then(|| Said::statement(rest, length));
        }
        self.first = 1;
        if log.is_settled() {
            return Ok(());
        }
        if self.pending.len() >= PENDING {
            return Err(Stop::Broken);
        }
        if self.pending.is_empty() {
            self.last = None;
        }
        self.pending.push_back((code, listed));
        Ok(())
    }

    fn query(&self, rest: &[u8], length: u64) -> Said {
        if self.capabilities & ATTRIBUTES == 0 {
            return Said::statement(rest, length);
        }
        // Attributes may stand before the statement; where there are none, there are two bytes that say so.
        match rest.strip_prefix(&[0, 1]) {
            Some(statement) => Said::statement(statement, length.saturating_sub(2)),
            None => Said::plain("QUERY"),
        }
    }

    fn execution(&self, rest: &[u8]) -> Said {
        let id = rest
            .first_chunk::<4>()
            .map_or(0, |four| u32::from_le_bytes(*four));
        // MariaDB's clients name the statement that they prepared last by -1.
        let last = self.prepared.as_ref().filter(|_| id == u32::MAX);
        let known = self.statements.iter().find(|(known, _)| *known == id);
        let said = last.or_else(|| known.map(|(_, said)| said));
        said.map_or_else(|| Said::plain("EXECUTE"), Clone::clone)
    }

    pub(super) fn server(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let settled = self.phase == Phase::Open && log.is_settled();
            if settled || self.phase == Phase::Encrypted {
                self.pending.clear();
                return Ok(());
            }
            let Some(packet) = self.from_server.read(at_us, &mut bytes)? else {
                continue;
            };
            if !packet.first {
                self.last = Some(packet.number);
                continue;
            }
            match self.phase {
                Phase::Greeting => self.greets(facts),
                Phase::Login => self.lets_in(log)?,
                Phase::Encrypted => {}
                Phase::Open => self.answers(packet, log),
            }
        }
        Ok(())
    }

    /// `HandshakeV10`.
    fn greets(&mut self, facts: &mut Facts) {
        self.phase = Phase::Login;
        let (at_us, kept) = self.from_server.last();
        self.since_us = at_us;
        let (version, rest) = until_zero(kept.get(1..).unwrap_or_default());
        facts.server_version = text::name(version);
        // Behind the connection's number, 8 random bytes and a zero; in two halves with 3 bytes between them.
        let half = |at: usize| {
            let two = rest.get(at..at + 2).unwrap_or_default();
            two.iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u32::from(*byte))
        };
        self.capabilities = half(13) | half(18) << 16;
    }

    fn lets_in(&mut self, log: &mut Log) -> Result<(), Stop> {
        let (at_us, kept) = self.from_server.last();
        match kept.first() {
            Some(0) => {
                self.phase = Phase::Open;
                // Packets are within packets from here on.
                if self.capabilities & (COMPRESS | ZSTD) != 0 {
                    return Err(Stop::Broken);
                }
            }
            Some(0xff) => {
                let (code, message) = error(kept);
                log.call(self.since_us, || Said::plain("CONNECT"));
                log.answer_fails(at_us, &code, message);
            }
            _ => {}
        }
        Ok(())
    }

    fn answers(&mut self, packet: Packet, log: &mut Log) {
        let (at_us, kept) = self.from_server.last();
        // The numbers of a long answer begin anew behind 255.
        let begins = packet.number == self.first && self.last != Some(self.first.wrapping_sub(1));
        self.last = Some(packet.number);
        let failed = kept.first() == Some(&0xff);
        let command = begins.then(|| self.pending.pop_front()).flatten();
        if let Some((command, listed)) = command {
            self.answers_listed = listed;
            if command == PREPARE
                && let Some((0, rest)) = kept.split_first()
                && let (Some(id), Some(said)) = (rest.first_chunk::<4>(), &self.prepared)
            {
                remember(&mut self.statements, u32::from_le_bytes(*id), said.clone());
            }
            if listed {
                log.answer_begins(at_us);
                log.answer_ends();
            }
        }
        if failed && self.answers_listed {
            let (code, message) = error(kept);
            log.answer_failed(&code, message);
        }
    }
}

fn remember(statements: &mut Vec<(u32, Said)>, id: u32, said: Said) {
    statements.retain(|(known, _)| *known != id);
    if statements.len() >= REMEMBERED {
        statements.remove(0);
    }
    statements.push((id, said));
}

/// Code and message of an `ERR_Packet`.
fn error(kept: &[u8]) -> (String, &[u8]) {
    let code = kept.get(1..3).unwrap_or_default();
    let code = code
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u32::from(*byte));
    let rest = kept.get(3..).unwrap_or_default();
    let message = match rest.first() {
        Some(b'#') => rest.get(6..).unwrap_or_default(),
        _ => rest,
    };
    (code.to_string(), message)
}

impl Side {
    /// Reads a packet; what it is once it is whole.
    fn read(&mut self, at_us: u64, bytes: &mut &[u8]) -> Result<Option<Packet>, Stop> {
        let whole = self.packets.take(at_us, bytes, 4, |head| {
            let head = head.first_chunk::<4>().copied();
            let [low, middle, high, number] = head.unwrap_or_default();
            let length = u32::from_le_bytes([low, middle, high, 0]);
            Ok(((length, number), length, KEPT))
        })?;
        Ok(whole.map(|(length, number)| Packet {
            length,
            number,
            first: !std::mem::replace(&mut self.continues, length == FULL),
        }))
    }

    /// When the packet that came last began, and the beginning of its body.
    fn last(&self) -> (u64, &[u8]) {
        (self.packets.at_us(), self.packets.body())
    }
}
