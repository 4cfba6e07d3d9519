//! The script: which packets of whom meet which fault.
//!
//! A rule counts the packets that fit its scope, direction and kind, over all connections in scope; so a rule
//! `When::Nth(3)` acts once in its life, also when the client comes back. The first rule that acts on a packet wins.

use std::time::Duration;

use bytes::Bytes;
use qproxy_mqtt::codec::{Kind, Packet, ReasonCode};

/// What a [`crate::MockBroker`] does wrong, and what it notes.
#[derive(Debug, Clone)]
pub struct Script {
    /// Decides every [`When::Chance`], separately for each connection.
    pub seed: u64,
    /// Asked in order for each packet.
    pub rules: Vec<Rule>,
    /// Whether each packet from a client that our codec accepts is decoded by `mqttbytes` as well; a disagreement
    /// is noted and closes the connection.
    pub second_opinion: bool,
    /// How many entries the transcript keeps. Default 100,000.
    pub transcript_entries: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            seed: 0,
            rules: Vec::new(),
            second_opinion: true,
            transcript_entries: 100_000,
        }
    }
}

impl Script {
    /// A script with these rules.
    #[must_use]
    pub fn of(rules: impl Into<Vec<Rule>>) -> Self {
        Self {
            rules: rules.into(),
            ..Self::default()
        }
    }
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    FromClient,
    /// From the broker to the client.
    ToClient,
}

/// Whose packets a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Everybody's.
    #[default]
    All,
    /// Those of the connection that was accepted as number N, from 0.
    Connection(u64),
    /// Those of a client id, on all of its connections.
    Client(String),
}

/// On which of the packets that it counts a rule acts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// Each.
    Always,
    /// Only packet number N, from 1.
    Nth(u64),
    /// Packet number N and all that follow, from 1.
    From(u64),
    /// Each N-th.
    Every(u64),
    /// With this probability, 0.0 to 1.0.
    Chance(f64),
}

/// What is done wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The packet is lost and the connection closed.
    DropBefore,
    /// The packet goes on and then the connection is closed.
    DropAfter,
    /// Only the first N bytes of a packet to the client are written, then the connection is closed.
    Cut(usize),
    /// The packet is lost.
    Lose,
    /// The packet goes on twice.
    Duplicate,
    /// The packet goes on later; those behind it overtake it.
    Delay(Duration),
    /// The packet goes on right after the next one in its direction.
    Swap,
    /// These bytes go to the client, and the packet goes on.
    Malformed(Bytes),
    /// The packet is a CONNECT: it is answered with this code, and the connection closed.
    Refuse(ReasonCode),
    /// Before the packet goes on, all sessions without a connection are forgotten.
    ForgetSessions,
    /// The packet goes on and nothing is read from the client for this long.
    StallReads(Duration),
    /// The packet goes on; from then on at most N bytes are written at once on this connection.
    SplitWrites(usize),
}

/// When a fault happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Whose packets are counted.
    pub scope: Scope,
    /// Which way they go.
    pub direction: Direction,
    /// Which kind they are; `None` is every kind.
    pub kind: Option<Kind>,
    /// Which of them meet the fault.
    pub when: When,
    /// What is done with them.
    pub fault: Fault,
}

impl Rule {
    /// For packets of one kind from clients.
    #[must_use]
    pub fn from_client(kind: Kind, when: When, fault: Fault) -> Self {
        Self::on(Direction::FromClient, Some(kind), when, fault)
    }

    /// For packets of one kind to clients.
    #[must_use]
    pub fn to_client(kind: Kind, when: When, fault: Fault) -> Self {
        Self::on(Direction::ToClient, Some(kind), when, fault)
    }

    /// For packets of any kind.
    #[must_use]
    pub fn any(direction: Direction, when: When, fault: Fault) -> Self {
        Self::on(direction, None, when, fault)
    }

    /// The same for fewer.
    #[must_use]
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    fn on(direction: Direction, kind: Option<Kind>, when: When, fault: Fault) -> Self {
        Self {
            scope: Scope::All,
            direction,
            kind,
            when,
            fault,
        }
    }
}

/// The rules with their counts.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<(Rule, u64)>);

/// Where a packet passes.
pub(super) struct Place<'a> {
    pub(super) connection: u64,
    pub(super) client: Option<&'a str>,
    pub(super) direction: Direction,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        Self(rules.into_iter().map(|rule| (rule, 0)).collect())
    }

    pub(super) fn add(&mut self, rule: Rule) {
        self.0.push((rule, 0));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts the packet in every rule that it fits, and returns the fault of the first that acts.
    pub(super) fn judge(
        &mut self,
        place: &Place<'_>,
        packet: &Packet,
        random: &mut Random,
    ) -> Option<Fault> {
        let mut fault = None;
        for (rule, count) in &mut self.0 {
            if !rule.fits(place, packet.kind()) {
                continue;
            }
            *count += 1;
            if rule.when.acts(*count, random) && fault.is_none() {
                fault = Some(rule.fault.clone());
            }
        }
        fault
    }
}

impl Rule {
    fn fits(&self, place: &Place<'_>, kind: Kind) -> bool {
        let scope = match &self.scope {
            Scope::All => true,
            Scope::Connection(number) => *number == place.connection,
            Scope::Client(client) => place.client == Some(client),
        };
        scope && self.direction == place.direction && self.kind.is_none_or(|wanted| wanted == kind)
    }
}

impl When {
    fn acts(self, count: u64, random: &mut Random) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(number) => count == number,
            Self::From(number) => count >= number,
            Self::Every(step) => step > 0 && count.is_multiple_of(step),
            Self::Chance(probability) => random.unit() < probability,
        }
    }
}

/// A small generator (`SplitMix64`): the same seed gives the same faults on every machine.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xa076_1d64_78bd_642f));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0.0 up to but not including 1.0.
    #[allow(clippy::cast_precision_loss, reason = "32 bits fit an f64")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 32) as f64 / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: Vec<Rule>, seed: u64, packets: usize) -> Vec<bool> {
        let mut rules = Rules::new(rules);
        let mut random = Random::new(seed, 0);
        let place = Place {
            connection: 0,
            client: Some("c"),
            direction: Direction::FromClient,
        };
        (0..packets)
            .map(|_| rules.judge(&place, &Packet::PingReq, &mut random).is_some())
            .collect()
    }

    fn rule(when: When) -> Vec<Rule> {
        vec![Rule::from_client(Kind::PingReq, when, Fault::Lose)]
    }

    #[test]
    fn counts_from_one() {
        assert_eq!(
            faults(rule(When::Nth(2)), 0, 4),
            [false, true, false, false]
        );
        assert_eq!(
            faults(rule(When::From(3)), 0, 4),
            [false, false, true, true]
        );
        assert_eq!(
            faults(rule(When::Every(2)), 0, 4),
            [false, true, false, true]
        );
    }

    #[test]
    fn the_seed_decides_chances() {
        let chance = || rule(When::Chance(0.3));
        let first = faults(chance(), 7, 10_000);
        assert_eq!(first, faults(chance(), 7, 10_000));
        assert_ne!(first, faults(chance(), 8, 10_000));
        let hits = first.iter().filter(|hit| **hit).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
    }

    #[test]
    fn scope_direction_and_kind_all_count() {
        let other =
            |scope| vec![Rule::from_client(Kind::PingReq, When::Always, Fault::Lose).scope(scope)];
        assert_eq!(faults(other(Scope::Connection(1)), 0, 1), [false]);
        assert_eq!(faults(other(Scope::Client("d".into())), 0, 1), [false]);
        assert_eq!(faults(other(Scope::Client("c".into())), 0, 1), [true]);
        let way = Rule::to_client(Kind::PingReq, When::Always, Fault::Lose);
        assert_eq!(faults(vec![way], 0, 1), [false]);
        let kind = Rule::from_client(Kind::PubAck, When::Always, Fault::Lose);
        assert_eq!(faults(vec![kind], 0, 1), [false]);
    }
}
