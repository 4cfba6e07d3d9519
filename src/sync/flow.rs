//! How far a recorder may run ahead of the players that listen to it.
//!
//! What a slow player has not taken yet would wait in the broker, which drops it without a word when its queue
//! is full; so it waits in the spool instead. A player counts from the moment it is first heard, for as long as
//! it is heard *and* gets on: one that falls silent, or that says again and again that it got nowhere, holds
//! nobody back; it fills in later from the spool.
//!
//! What counts as taken is all up to the player's highest number, not its watermark: a number missing in the
//! middle is asked for again by itself and does not lie in the broker's queue. Losses narrow the window
//! (halved, not under an eighth), deliveries widen it: a broker with a short queue finds its own window.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::record::{Epoch, NodeId};

use super::notice::Ack;

/// How flow is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowConfig {
    /// How many messages may be on their way to the slowest live player.
    pub window_messages: usize,
    /// After how long without a sign of life, or without getting on, a player holds nobody back.
    pub player_timeout: Duration,
    /// How many players are listened to; more are ignored.
    pub max_players: usize,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            window_messages: 500,
            player_timeout: Duration::from_secs(30),
            max_players: 64,
        }
    }
}

/// Acknowledgements of this many lives are remembered per player.
const EPOCHS_KEPT: usize = 8;

#[derive(Debug)]
struct Player {
    heard: Instant,
    /// When it last took something, or had nothing to take.
    moved: Instant,
    /// Index of the first message that it has not taken.
    next: u64,
    window: usize,
    missing: u64,
    epochs: BTreeMap<u64, Ack>,
}

/// A player as a recorder sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlayerView {
    /// Its name.
    pub(super) player: NodeId,
    /// Its last acknowledgement for the recorder's present life.
    pub(super) ack: Option<Ack>,
    /// Messages on their way to it.
    pub(super) ahead: u64,
    /// Whether it is waited for.
    pub(super) live: bool,
}

/// The window of messages over all players.
#[derive(Debug)]
pub(super) struct Flow {
    config: FlowConfig,
    players: BTreeMap<NodeId, Player>,
    /// Life and largest number of each message that a live player may still have to take.
    sent: VecDeque<(Epoch, u64)>,
    /// Index of the first of `sent`.
    base: u64,
}

/// Whether an acknowledgement was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// From a player that was not known, or had fallen silent.
    Joined,
    /// From one that is known.
    Known,
    /// There are too many players.
    Ignored,
}

impl Flow {
    pub(super) fn new(config: FlowConfig) -> Self {
        Self {
            config,
            players: BTreeMap::new(),
            sent: VecDeque::new(),
            base: 0,
        }
    }

    /// A player said what it has.
    pub(super) fn heard(&mut self, player: &NodeId, ack: Ack, now: Instant) -> Heard {
        let timeout = self.config.player_timeout;
        self.players
            .retain(|_, known| now.duration_since(known.heard) < timeout);
        let full = self.players.len() >= self.config.max_players;
        if full && !self.players.contains_key(player) {
            return Heard::Ignored;
        }
        let end = self.base + self.sent.len() as u64;
        let mut verdict = Heard::Known;
        let known = self.players.entry(player.clone()).or_insert_with(|| {
            verdict = Heard::Joined;
            Player {
                heard: now,
                moved: now,
                next: end,
                window: self.config.window_messages,
                missing: ack.missing_count,
                epochs: BTreeMap::new(),
            }
        });
        if !known.live(now, timeout) {
            // It missed what went by meanwhile; that is filled in by resends.
            known.next = end;
        }
        known.heard = now;
        known.adapt(&ack, self.config.window_messages);
        known.epochs.insert(ack.epoch, ack);
        while known.epochs.len() > EPOCHS_KEPT {
            known.epochs.pop_first();
        }
        known.advance(&self.sent, self.base, now);
        self.trim(now);
        verdict
    }

    /// A message was handed to the broker's connection.
    pub(super) fn sent(&mut self, epoch: Epoch, last: u64, now: Instant) {
        let end = self.base + self.sent.len() as u64;
        for player in self.players.values_mut() {
            if player.next == end {
                player.moved = now;
            }
        }
        self.sent.push_back((epoch, last));
        self.trim(now);
    }

    /// How many more messages may be sent now; `None` where nobody limits it.
    pub(super) fn room(&self, now: Instant) -> Option<usize> {
        let end = self.base + self.sent.len() as u64;
        self.live(now)
            .map(|player| {
                let ahead = usize::try_from(end - player.next.min(end)).unwrap_or(usize::MAX);
                player.window.saturating_sub(ahead)
            })
            .min()
    }

    /// When a player that holds us back now stops to do so by itself.
    pub(super) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let timeout = self.config.player_timeout;
        self.live(now)
            .map(|player| player.heard.min(player.moved) + timeout)
            .min()
    }

    /// What is known of each player.
    pub(super) fn players(&self, epoch: Epoch, now: Instant) -> Vec<PlayerView> {
        let end = self.base + self.sent.len() as u64;
        self.players
            .iter()
            .map(|(player, known)| PlayerView {
                player: player.clone(),
                ack: known.epochs.get(&epoch.0).cloned(),
                ahead: end - known.next.min(end),
                live: known.live(now, self.config.player_timeout),
            })
            .collect()
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = &Player> {
        let timeout = self.config.player_timeout;
        self.players
            .values()
            .filter(move |player| player.live(now, timeout))
    }

    /// Forgets messages that no live player has to take any more.
    fn trim(&mut self, now: Instant) {
        let end = self.base + self.sent.len() as u64;
        let needed = self
            .live(now)
            .map(|player| player.next)
            .min()
            .unwrap_or(end);
        while self.base < needed && self.sent.pop_front().is_some() {
            self.base += 1;
        }
    }
}

impl Player {
    fn live(&self, now: Instant, timeout: Duration) -> bool {
        now.duration_since(self.heard) < timeout && now.duration_since(self.moved) < timeout
    }

    fn adapt(&mut self, ack: &Ack, most: usize) {
        if ack.missing_count > self.missing {
            self.window = (self.window / 2).max(most / 8).max(1);
        } else {
            self.window = (self.window + most / 50 + 1).min(most);
        }
        self.missing = ack.missing_count;
    }

    fn advance(&mut self, sent: &VecDeque<(Epoch, u64)>, base: u64, now: Instant) {
        let before = self.next;
        while let Some((epoch, last)) = usize::try_from(self.next.saturating_sub(base))
            .ok()
            .and_then(|at| sent.get(at))
        {
            let taken = self
                .epochs
                .get(&epoch.0)
                .is_some_and(|ack| *last <= ack.highest);
            if !taken {
                break;
            }
            self.next += 1;
        }
        if self.next > before || self.next == base + sent.len() as u64 {
            self.moved = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(1);

    fn flow(window: usize) -> Flow {
        Flow::new(FlowConfig {
            window_messages: window,
            ..FlowConfig::default()
        })
    }

    fn name(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    fn ack(highest: u64, missing_count: u64) -> Ack {
        Ack {
            epoch: EPOCH.0,
            watermark: highest - missing_count,
            highest,
            missing_count,
            missing: Vec::new(),
        }
    }

    #[test]
    fn with_no_player_nothing_holds_back_and_nothing_is_remembered() {
        let now = Instant::now();
        let mut flow = flow(10);
        (1..=1000).for_each(|n| flow.sent(EPOCH, n, now));
        assert_eq!((flow.room(now), flow.sent.len()), (None, 0));
    }

    #[test]
    fn the_slowest_live_player_counts() {
        let now = Instant::now();
        let mut flow = flow(10);
        assert_eq!(flow.heard(&name("fast"), ack(0, 0), now), Heard::Joined);
        flow.heard(&name("slow"), ack(0, 0), now);
        (1..=10).for_each(|n| flow.sent(EPOCH, n, now));
        assert_eq!(flow.room(now), Some(0));
        flow.heard(&name("fast"), ack(10, 0), now);
        assert_eq!(flow.room(now), Some(0));
        flow.heard(&name("slow"), ack(4, 0), now);
        assert_eq!(flow.room(now), Some(4));
    }

    #[test]
    fn a_player_that_joins_late_does_not_answer_for_what_went_by() {
        let now = Instant::now();
        let mut flow = flow(10);
        flow.heard(&name("a"), ack(0, 0), now);
        (1..=8).for_each(|n| flow.sent(EPOCH, n, now));
        flow.heard(&name("late"), ack(0, 0), now);
        flow.heard(&name("a"), ack(8, 0), now);
        assert_eq!(flow.room(now), Some(10));
    }

    #[test]
    fn a_player_that_falls_silent_holds_nobody_back() {
        let mut now = Instant::now();
        let mut flow = flow(10);
        flow.heard(&name("a"), ack(0, 0), now);
        (1..=10).for_each(|n| flow.sent(EPOCH, n, now));
        assert_eq!(flow.next_timeout(now), Some(now + Duration::from_secs(30)));
        now += Duration::from_secs(30);
        assert_eq!((flow.room(now), flow.next_timeout(now)), (None, None));
        flow.heard(&name("a"), ack(0, 0), now);
        assert_eq!(flow.room(now), Some(10));
    }

    #[test]
    fn a_player_that_gets_nowhere_holds_nobody_back_for_ever() {
        let mut now = Instant::now();
        let mut flow = flow(10);
        flow.heard(&name("stuck"), ack(0, 0), now);
        (1..=10).for_each(|n| flow.sent(EPOCH, n, now));
        for _ in 0..9 {
            now += Duration::from_secs(3);
            flow.heard(&name("stuck"), ack(0, 0), now);
            assert_eq!(flow.room(now), Some(0));
        }
        now += Duration::from_secs(3);
        assert_eq!(flow.room(now), None);
    }

    #[test]
    fn an_idle_player_stays_live_when_traffic_begins() {
        let mut now = Instant::now();
        let mut flow = flow(10);
        for _ in 0..20 {
            flow.heard(&name("a"), ack(0, 0), now);
            now += Duration::from_secs(5);
        }
        flow.sent(EPOCH, 1, now);
        assert_eq!(flow.room(now), Some(9));
    }

    #[test]
    fn losses_narrow_the_window_and_deliveries_widen_it() {
        let now = Instant::now();
        let mut flow = flow(400);
        flow.heard(&name("a"), ack(100, 0), now);
        flow.heard(&name("a"), ack(100, 5), now);
        assert_eq!(flow.room(now), Some(200));
        (6..100).for_each(|missing| {
            flow.heard(&name("a"), ack(200, missing), now);
        });
        assert_eq!(flow.room(now), Some(50));
        (0..100).for_each(|_| {
            flow.heard(&name("a"), ack(200, 0), now);
        });
        assert_eq!(flow.room(now), Some(400));
    }

    #[test]
    fn too_many_players_are_ignored() {
        let now = Instant::now();
        let mut flow = flow(10);
        for n in 0..64 {
            flow.heard(&name(&format!("p{n}")), ack(0, 0), now);
        }
        assert_eq!(flow.heard(&name("more"), ack(0, 0), now), Heard::Ignored);
        let later = now + Duration::from_secs(30);
        assert_eq!(flow.heard(&name("more"), ack(0, 0), later), Heard::Joined);
        assert_eq!(flow.players(EPOCH, later).len(), 1);
    }
}
