//! Who wants a topic: a tree of filter levels, walked once per message.
//!
//! Works on `&str` levels, so multi-byte names need no care. Depth is bounded by `Limits::topic_levels`,
//! size by `Limits::subscriptions`. Filters are valid when they come here; the codec has checked them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use qproxy_mqtt::codec::{QoS, SubscriptionId};

use super::SessionId;

/// What a subscription asked for and got (MQTT 5 section 3.8.3.1; in 3.1.1 only the QoS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) qos: QoS,
    /// Not what the session publishes itself.
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) id: Option<SubscriptionId>,
}

/// The grants of all subscriptions of one session that matched: one copy is sent for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The highest.
    pub(super) qos: QoS,
    /// Whether one of them asks for it.
    pub(super) retain_as_published: bool,
    /// Of all that have one.
    pub(super) ids: Vec<SubscriptionId>,
}

impl From<Grant> for Wanted {
    fn from(grant: Grant) -> Self {
        Self {
            qos: grant.qos,
            retain_as_published: grant.retain_as_published,
            ids: grant.id.into_iter().collect(),
        }
    }
}

impl Wanted {
    fn and(&mut self, grant: Grant) {
        self.qos = self.qos.max(grant.qos);
        self.retain_as_published |= grant.retain_as_published;
        self.ids.extend(grant.id);
    }
}

/// One party that a topic matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    /// A session and what it wants.
    Session(SessionId, Wanted),
    /// A group of sessions of which one gets the message, by its whole `$share/...` filter.
    Group(Arc<str>),
}

/// All subscriptions of all sessions.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    /// The level `+`.
    any: Option<Box<Node>>,
    /// Filters that end at this level.
    here: Targets,
    /// Filters that go on with `#`, which matches this level too.
    below: Targets,
}

#[derive(Debug, Default)]
struct Targets {
    sessions: BTreeMap<SessionId, Grant>,
    groups: BTreeSet<Arc<str>>,
}

impl Tree {
    /// Adds a session, or changes what it was granted.
    pub(super) fn insert(&mut self, filter: &str, session: SessionId, grant: Grant) {
        self.targets(filter).sessions.insert(session, grant);
    }

    /// Adds a group; `filter` is what stands behind `$share/{name}/`.
    pub(super) fn insert_group(&mut self, filter: &str, group: Arc<str>) {
        self.targets(filter).groups.insert(group);
    }

    /// Takes a session off a filter and prunes what has become empty.
    pub(super) fn remove(&mut self, filter: &str, session: SessionId) {
        self.root.prune(filter.split('/'), &mut |targets| {
            targets.sessions.remove(&session);
        });
    }

    /// Takes a group off a filter.
    pub(super) fn remove_group(&mut self, filter: &str, group: &str) {
        self.root.prune(filter.split('/'), &mut |targets| {
            targets.groups.remove(group);
        });
    }

    /// Appends all that match `topic`: each session once, each group once. Subscriptions of `from` that do not
    /// want its own messages do not match.
    pub(super) fn matches(&self, topic: &str, from: Option<SessionId>, found: &mut Vec<Match>) {
        let mut sessions = Vec::new();
        // Wildcards do not match a first level that starts with `$` (MQTT 3.1.1 section 4.7.2).
        let wildcards = !topic.starts_with('$');
        let mut levels = topic.split('/');
        let first = levels.next().unwrap_or_default();
        if wildcards {
            self.root.below.collect(&mut sessions, found);
            if let Some(any) = &self.root.any {
                any.walk(levels.clone(), &mut sessions, found);
            }
        }
        if let Some(child) = self.root.children.get(first) {
            child.walk(levels, &mut sessions, found);
        }
        sessions.retain(|&(session, grant): &(_, Grant)| !grant.no_local || from != Some(session));
        if sessions.len() > 1 {
            sessions.sort_unstable_by_key(|&(session, grant)| (session, grant.id));
        }
        for (session, grant) in sessions {
            match found.last_mut() {
                Some(Match::Session(last, wanted)) if *last == session => wanted.and(grant),
                _ => found.push(Match::Session(session, grant.into())),
            }
        }
    }

    fn targets(&mut self, filter: &str) -> &mut Targets {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            node = match level {
                "#" => return &mut node.below,
                "+" => node.any.get_or_insert_default(),
                name => node.children.entry(name.into()).or_default(),
            };
        }
        &mut node.here
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl Node {
    fn walk<'t>(
        &self,
        mut levels: impl Iterator<Item = &'t str> + Clone,
        sessions: &mut Vec<(SessionId, Grant)>,
        found: &mut Vec<Match>,
    ) {
        self.below.collect(sessions, found);
        let Some(level) = levels.next() else {
            self.here.collect(sessions, found);
            return;
        };
        if let Some(any) = &self.any {
            any.walk(levels.clone(), sessions, found);
        }
        if let Some(child) = self.children.get(level) {
            child.walk(levels, sessions, found);
        }
    }

    fn prune<'t>(
        &mut self,
        mut levels: impl Iterator<Item = &'t str>,
        change: &mut impl FnMut(&mut Targets),
    ) {
        match levels.next() {
            None => change(&mut self.here),
            Some("#") => change(&mut self.below),
            Some("+") => {
                if let Some(any) = &mut self.any {
                    any.prune(levels, change);
                    if any.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some(name) => {
                if let Some(child) = self.children.get_mut(name) {
                    child.prune(levels, change);
                    if child.is_empty() {
                        self.children.remove(name);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

impl Targets {
    fn collect(&self, sessions: &mut Vec<(SessionId, Grant)>, found: &mut Vec<Match>) {
        sessions.extend(self.sessions.iter().map(|(&id, &grant)| (id, grant)));
        found.extend(self.groups.iter().cloned().map(Match::Group));
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(qos: QoS) -> Grant {
        Grant {
            qos,
            no_local: false,
            retain_as_published: false,
            id: None,
        }
    }

    fn found(filters: &[&str], topic: &str) -> Vec<usize> {
        let mut tree = Tree::default();
        for (index, filter) in filters.iter().enumerate() {
            tree.insert(filter, SessionId(index as u64), grant(QoS::AtMostOnce));
        }
        let mut matches = Vec::new();
        tree.matches(topic, None, &mut matches);
        let mut indexes: Vec<usize> = matches
            .iter()
            .map(|found| match found {
                Match::Session(session, _) => session.0 as usize,
                Match::Group(_) => unreachable!("no group was added"),
            })
            .collect();
        indexes.sort_unstable();
        for (index, filter) in filters.iter().enumerate() {
            tree.remove(filter, SessionId(index as u64));
        }
        assert!(tree.is_empty(), "removal leaves nothing behind");
        indexes
    }

    #[test]
    fn wildcards_follow_the_specification() {
        let filters = [
            "sport/tennis/player1/#",
            "sport/#",
            "#",
            "sport/+",
            "+/+",
            "/+",
            "+",
            "sport",
            "sport/",
            "+/tennis/#",
        ];
        assert_eq!(found(&filters, "sport/tennis/player1"), [0, 1, 2, 9]);
        assert_eq!(found(&filters, "sport/tennis/player1/score"), [0, 1, 2, 9]);
        assert_eq!(found(&filters, "sport"), [1, 2, 6, 7]);
        assert_eq!(found(&filters, "sport/"), [1, 2, 3, 4, 8]);
        assert_eq!(found(&filters, "/finance"), [2, 4, 5]);
        assert_eq!(found(&filters, "sport/tennis"), [1, 2, 3, 4, 9]);
    }

    #[test]
    fn multi_byte_names_match() {
        assert_eq!(
            found(&["#", "+/x", "é/x", "é/+", "e/x"], "é/x"),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn dollar_topics_need_their_first_level_spelled_out() {
        let filters = ["#", "+/broker", "$SYS/#", "$SYS/+", "+/#", "a/+"];
        assert_eq!(found(&filters, "$SYS/broker"), [2, 3]);
        assert_eq!(found(&filters, "a/$SYS"), [0, 4, 5]);
    }

    #[test]
    fn overlapping_filters_give_one_match_that_wants_the_most_of_each() {
        let mut tree = Tree::default();
        let numbered = |qos, number| Grant {
            id: SubscriptionId::new(number),
            retain_as_published: number == 9,
            ..grant(qos)
        };
        tree.insert("a/#", SessionId(7), numbered(QoS::AtMostOnce, 9));
        tree.insert("a/+", SessionId(7), grant(QoS::ExactlyOnce));
        tree.insert("a/b", SessionId(7), numbered(QoS::AtLeastOnce, 3));
        let mut matches = Vec::new();
        tree.matches("a/b", None, &mut matches);
        let wanted = Wanted {
            qos: QoS::ExactlyOnce,
            retain_as_published: true,
            ids: [3, 9].into_iter().filter_map(SubscriptionId::new).collect(),
        };
        assert_eq!(matches, [Match::Session(SessionId(7), wanted)]);
    }

    #[test]
    fn no_local_leaves_out_the_publisher_and_nobody_else() {
        let mut tree = Tree::default();
        let shy = Grant {
            no_local: true,
            ..grant(QoS::AtMostOnce)
        };
        tree.insert("a", SessionId(1), shy);
        tree.insert("a", SessionId(2), shy);
        tree.insert("+", SessionId(2), grant(QoS::ExactlyOnce));
        let mut matches = Vec::new();
        tree.matches("a", Some(SessionId(1)), &mut matches);
        assert_eq!(matches.len(), 1);
        matches.clear();
        tree.matches("a", Some(SessionId(2)), &mut matches);
        assert_eq!(matches.len(), 2, "its other filter does not mind");
    }

    #[test]
    fn a_group_is_one_match_beside_a_session() {
        let mut tree = Tree::default();
        tree.insert_group("a/+", "$share/g/a/+".into());
        tree.insert("a/b", SessionId(1), grant(QoS::AtLeastOnce));
        let mut matches = Vec::new();
        tree.matches("a/b", None, &mut matches);
        assert_eq!(matches.len(), 2);
        tree.remove_group("a/+", "$share/g/a/+");
        tree.remove("a/b", SessionId(1));
        assert!(tree.is_empty());
    }

    proptest::proptest! {
        /// The tree agrees with the plain rule applied to each filter by itself.
        #[test]
        fn agrees_with_the_plain_rule(
            filters in proptest::collection::vec("([a-bé]|\\+|\\$x)?(/([a-bé]|\\+|)){0,3}(/#)?", 1..12),
            topic in "([a-bé]|\\$x)?(/[a-bé]?){0,4}",
        ) {
            let filters: Vec<&str> = filters.iter().map(String::as_str).filter(|f| !f.is_empty()).collect();
            let expected: Vec<usize> = filters
                .iter()
                .enumerate()
                .filter(|(_, filter)| plain_rule(filter, &topic))
                .map(|(index, _)| index)
                .collect();
            proptest::prop_assert_eq!(found(&filters, &topic), expected);
        }
    }

    fn plain_rule(filter: &str, topic: &str) -> bool {
        if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
            return false;
        }
        let (filter, topic): (Vec<_>, Vec<_>) =
            (filter.split('/').collect(), topic.split('/').collect());
        for (index, level) in filter.iter().enumerate() {
            match (*level, topic.get(index)) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (name, Some(other)) if name == *other => {}
                _ => return false,
            }
        }
        filter.len() == topic.len()
    }
}
