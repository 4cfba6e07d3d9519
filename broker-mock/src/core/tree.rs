//! Who wants a topic: a tree of filter levels, walked once per message.
//!
//! Works on `&str` levels, so multi-byte names need no care. Depth is bounded by `Limits::topic_levels`,
//! size by `Limits::subscriptions`. Filters are valid when they come here; the codec has checked them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use qproxy_mqtt::codec::QoS;

use super::SessionId;

/// One party that a topic matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    /// A session and the QoS it was granted.
    Session(SessionId, QoS),
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
    sessions: BTreeMap<SessionId, QoS>,
    groups: BTreeSet<Arc<str>>,
}

impl Tree {
    /// Adds a session, or changes its QoS.
    pub(super) fn insert(&mut self, filter: &str, session: SessionId, qos: QoS) {
        self.targets(filter).sessions.insert(session, qos);
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

    /// Appends all that match `topic`: each session once with its highest QoS, each group once.
    pub(super) fn matches(&self, topic: &str, found: &mut Vec<Match>) {
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
        if sessions.len() > 1 {
            sessions.sort_unstable_by_key(|&(session, qos)| (session, std::cmp::Reverse(qos)));
            sessions.dedup_by_key(|&mut (session, _)| session);
        }
        found.extend(
            sessions
                .into_iter()
                .map(|(session, qos)| Match::Session(session, qos)),
        );
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
        sessions: &mut Vec<(SessionId, QoS)>,
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
    fn collect(&self, sessions: &mut Vec<(SessionId, QoS)>, found: &mut Vec<Match>) {
        sessions.extend(self.sessions.iter().map(|(&session, &qos)| (session, qos)));
        found.extend(self.groups.iter().cloned().map(Match::Group));
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(filters: &[&str], topic: &str) -> Vec<usize> {
        let mut tree = Tree::default();
        for (index, filter) in filters.iter().enumerate() {
            tree.insert(filter, SessionId(index as u64), QoS::AtMostOnce);
        }
        let mut matches = Vec::new();
        tree.matches(topic, &mut matches);
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
    fn overlapping_filters_give_one_match_with_the_highest_qos() {
        let mut tree = Tree::default();
        tree.insert("a/#", SessionId(7), QoS::AtMostOnce);
        tree.insert("a/+", SessionId(7), QoS::ExactlyOnce);
        tree.insert("a/b", SessionId(7), QoS::AtLeastOnce);
        let mut matches = Vec::new();
        tree.matches("a/b", &mut matches);
        assert_eq!(matches, [Match::Session(SessionId(7), QoS::ExactlyOnce)]);
    }

    #[test]
    fn a_group_is_one_match_beside_a_session() {
        let mut tree = Tree::default();
        tree.insert_group("a/+", "$share/g/a/+".into());
        tree.insert("a/b", SessionId(1), QoS::AtLeastOnce);
        let mut matches = Vec::new();
        tree.matches("a/b", &mut matches);
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
