//! Shared subscriptions: `$share/{group}/{filter}`; each message goes to one member of the group.
//!
//! Round robin among the connected members that have room. When a member leaves, what it has not
//! acknowledged goes to another connected one; where none is connected, durable members keep it.

use std::collections::HashMap;
use std::sync::Arc;

use super::Broker;
use super::filter::GroupKey;
use super::message::{Delivery, Message};
use super::session::SessionId;
use super::tree::Grant;

/// All groups, by their whole filter.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<GroupKey, Group>);

#[derive(Debug, Default)]
struct Group {
    members: Vec<(SessionId, Grant)>,
    /// Whose turn it is.
    next: usize,
}

impl Groups {
    /// Adds a member or changes its grant; returns the group's key where the group is new.
    pub(super) fn join(
        &mut self,
        filter: &str,
        session: SessionId,
        grant: Grant,
    ) -> Option<GroupKey> {
        if let Some(group) = self.0.get_mut(filter) {
            match group.members.iter_mut().find(|(id, _)| *id == session) {
                Some(member) => member.1 = grant,
                None => group.members.push((session, grant)),
            }
            return None;
        }
        let key = GroupKey::from(filter);
        let members = vec![(session, grant)];
        self.0.insert(Arc::clone(&key), Group { members, next: 0 });
        Some(key)
    }

    /// Removes a member; `true` where the group has ended with it.
    pub(super) fn part(&mut self, filter: &str, session: SessionId) -> bool {
        let Some(group) = self.0.get_mut(filter) else {
            return false;
        };
        group.members.retain(|&(id, _)| id != session);
        let empty = group.members.is_empty();
        if empty {
            self.0.remove(filter);
        }
        empty
    }

    fn any_member(&self, filter: &str, wanted: impl Fn(SessionId) -> bool) -> bool {
        self.0
            .get(filter)
            .is_some_and(|group| group.members.iter().any(|&(id, _)| wanted(id)))
    }

    /// The member whose turn it is, of those with the highest `rank`; `None` ranks a member out.
    fn choose<R: Ord>(
        &mut self,
        filter: &str,
        rank: impl Fn(SessionId) -> Option<R>,
    ) -> Option<(SessionId, Grant)> {
        let group = self.0.get_mut(filter)?;
        let count = group.members.len();
        let mut best: Option<(R, usize)> = None;
        for index in (0..count).map(|step| (group.next + step) % count) {
            let Some(rank) = rank(group.members[index].0) else {
                continue;
            };
            if best.as_ref().is_none_or(|(found, _)| rank > *found) {
                best = Some((rank, index));
            }
        }
        let (_, index) = best?;
        group.next = (index + 1) % count;
        Some(group.members[index])
    }
}

/// How good a member is for a message: worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    OfflineAndFull,
    Offline,
    OnlineAndFull,
    Online,
}

impl Broker {
    pub(super) fn deliver_shared(&mut self, group: GroupKey, message: &Arc<Message>) {
        let (sessions, limits) = (&self.sessions, &self.limits);
        let chosen = self.groups.choose(&group, |id| {
            let session = sessions.get(id)?;
            Some(
                match (session.is_online(), session.outbound.is_full(limits)) {
                    (true, false) => Rank::Online,
                    (true, true) => Rank::OnlineAndFull,
                    (false, false) => Rank::Offline,
                    (false, true) => Rank::OfflineAndFull,
                },
            )
        });
        let Some((session, granted)) = chosen else {
            return;
        };
        self.deliver(session, Delivery::of(message, granted.into(), Some(group)));
    }

    /// Gives what a session that went away holds for shared subscriptions to other connected members.
    pub(super) fn reassign(&mut self, leaving: SessionId) {
        let (sessions, groups) = (&self.sessions, &self.groups);
        let takers: Vec<GroupKey> = sessions
            .get(leaving)
            .into_iter()
            .flat_map(|session| session.outbound.groups())
            .filter(|group| groups.any_member(group, |id| id != leaving && sessions.is_online(id)))
            .collect();
        if takers.is_empty() {
            return;
        }
        let (sessions, room, _) = self.parts();
        let Some(session) = sessions.get_mut(leaving) else {
            return;
        };
        let taken = session.outbound.take_shared(
            |group| takers.iter().any(|taker| **taker == *group),
            room.budget,
        );
        for delivery in taken {
            if let Some(group) = delivery.group {
                self.counters.shared_reassigned += 1;
                self.deliver_shared(group, &delivery.message);
            }
        }
    }
}
