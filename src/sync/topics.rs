//! Every topic of the bus: how it is built, how it is read back.
//!
//! A level that comes from data is percent-escaped, so that it can neither split a topic nor look like a
//! wildcard to any broker (MQTT, and NATS and AMQP behind it); one that is too long is cut and gets a hash.
//! A topic has at most 7 slashes and 200 bytes, all ASCII. Nothing here sends or receives.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::record::{NodeId, Subject};

/// The longest topic that is built.
pub const MAX_TOPIC_BYTES: usize = 200;

const MAX_ROOT_BYTES: usize = 32;
const MAX_SERVICE_BYTES: usize = 56;
const MAX_METHOD_BYTES: usize = 24;
const MAX_PROTOCOL_BYTES: usize = 8;
const MAX_STATUS_BYTES: usize = 3;
/// `~` and 16 hexadecimal digits.
const HASH_SUFFIX_BYTES: usize = 17;

/// A topic root that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no topic root: use one or two levels of A-Z a-z 0-9 _ - with a slash between, \
     {MAX_ROOT_BYTES} bytes at most"
)]
pub struct InvalidRoot(String);

/// Builds and reads the topics under one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: Arc<str>,
}

/// What a topic is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// Items (records, chunks, segments, gaps) of this recorder.
    Items(NodeId),
    /// How far a recorder has published.
    Head(NodeId),
    /// What a player has of a recorder.
    Ack {
        /// The recorder.
        recorder: NodeId,
        /// The player.
        player: NodeId,
    },
    /// A node's presence.
    Presence(NodeId),
    /// Live capture settings of one node, or of all where `None`.
    Settings(Option<NodeId>),
}

impl Topics {
    /// Topics under `root`, e.g. `qproxy` or `team/qproxy`.
    ///
    /// # Errors
    /// [`InvalidRoot`] where it is empty, too long, has more than two levels or another character.
    pub fn new(root: &str) -> Result<Self, InvalidRoot> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let good = |level: &str| !level.is_empty() && level.bytes().all(legal);
        let levels: Vec<_> = root.split('/').collect();
        if root.len() <= MAX_ROOT_BYTES && levels.len() <= 2 && levels.into_iter().all(good) {
            Ok(Self { root: root.into() })
        } else {
            Err(InvalidRoot(root.to_owned()))
        }
    }

    /// Where an item of `node` about `subject` is published.
    #[must_use]
    pub fn items(&self, node: &NodeId, subject: &Subject) -> String {
        let root = &self.root;
        match subject {
            Subject::Traffic {
                service,
                protocol,
                method,
                status,
            } => format!(
                "{root}/traffic/{node}/{}/{}/{}/{}",
                level(service, MAX_SERVICE_BYTES),
                level(protocol, MAX_PROTOCOL_BYTES),
                level(method, MAX_METHOD_BYTES),
                level(status, MAX_STATUS_BYTES),
            ),
            Subject::Body { service } => {
                format!("{root}/body/{node}/{}", level(service, MAX_SERVICE_BYTES))
            }
            Subject::Segment { service } => {
                format!(
                    "{root}/segment/{node}/{}",
                    level(service, MAX_SERVICE_BYTES)
                )
            }
            Subject::Gap => format!("{root}/gap/{node}"),
        }
    }

    /// The filters under which every item of `node` about `service` arrives; `None` stands for any.
    ///
    /// Gaps name no service and come with every one.
    #[must_use]
    pub fn item_filters(&self, node: Option<&NodeId>, service: Option<&str>) -> [String; 4] {
        let root = &self.root;
        let node = node.map_or("+", NodeId::as_str);
        let service = service.map_or_else(|| "+".to_owned(), |name| level(name, MAX_SERVICE_BYTES));
        [
            format!("{root}/traffic/{node}/{service}/#"),
            format!("{root}/body/{node}/{service}"),
            format!("{root}/segment/{node}/{service}"),
            format!("{root}/gap/{node}"),
        ]
    }

    /// Where a recorder says how far it has published.
    #[must_use]
    pub fn head(&self, recorder: &NodeId) -> String {
        format!("{}/head/{recorder}", self.root)
    }

    /// The filter of every recorder's head, or of one's.
    #[must_use]
    pub fn head_filter(&self, recorder: Option<&NodeId>) -> String {
        format!(
            "{}/head/{}",
            self.root,
            recorder.map_or("+", NodeId::as_str)
        )
    }

    /// Where `player` says what it has of `recorder`.
    #[must_use]
    pub fn ack(&self, recorder: &NodeId, player: &NodeId) -> String {
        format!("{}/ack/{recorder}/{player}", self.root)
    }

    /// The filter of every player's acknowledgements of `recorder`.
    #[must_use]
    pub fn ack_filter(&self, recorder: &NodeId) -> String {
        format!("{}/ack/{recorder}/+", self.root)
    }

    /// Where a node's presence stands.
    #[must_use]
    pub fn presence(&self, node: &NodeId) -> String {
        format!("{}/node/{node}", self.root)
    }

    /// The filter of every node's presence; calls do not match it, they have more levels.
    #[must_use]
    pub fn presence_filter(&self) -> String {
        format!("{}/node/+", self.root)
    }

    /// Where a command is called on a node.
    #[must_use]
    pub fn command(&self, node: &NodeId, command: &str) -> String {
        format!("{}/node/{node}/{command}", self.root)
    }

    /// The live settings that apply to `node`: everyone's and its own.
    #[must_use]
    pub fn settings(&self, node: &NodeId) -> [String; 2] {
        [
            format!("{}/config/_all", self.root),
            format!("{}/config/{node}", self.root),
        ]
    }

    /// Reads a topic; `None` where it is none of those above or its node name is not legal.
    #[must_use]
    pub fn parse(&self, topic: &str) -> Option<Topic> {
        let rest = topic.strip_prefix(&*self.root)?.strip_prefix('/')?;
        let mut levels = rest.split('/');
        let kind = levels.next()?;
        let first = levels.next()?;
        let more = levels.count();
        let node = || NodeId::new(first).ok();
        match (kind, more) {
            ("traffic", 4) | ("body" | "segment", 1) | ("gap", 0) => Some(Topic::Items(node()?)),
            ("head", 0) => Some(Topic::Head(node()?)),
            ("node", 0) => Some(Topic::Presence(node()?)),
            ("config", 0) if first == "_all" => Some(Topic::Settings(None)),
            ("config", 0) => Some(Topic::Settings(Some(node()?))),
            ("ack", 1) => Some(Topic::Ack {
                recorder: node()?,
                player: NodeId::new(rest.rsplit('/').next()?).ok()?,
            }),
            _ => None,
        }
    }
}

/// A filter as one member of a shared subscription `group` uses it.
#[must_use]
pub fn shared(group: &str, filter: &str) -> String {
    format!("$share/{}/{filter}", level(group, MAX_SERVICE_BYTES))
}

/// One level from data: escaped, at most `limit` bytes, never empty.
fn level(data: &str, limit: usize) -> String {
    if data.is_empty() {
        return "-".to_owned();
    }
    let mut out = String::with_capacity(data.len());
    for &byte in data.as_bytes() {
        if stands_for_itself(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    if out.len() <= limit {
        return out;
    }
    let hash = XxHash3_64::oneshot(data.as_bytes());
    if limit < HASH_SUFFIX_BYTES {
        return format!("{hash:016x}")[..limit].to_owned();
    }
    out.truncate(limit - HASH_SUFFIX_BYTES);
    // An escape is cut whole or not at all.
    if let Some(at) = out.rfind('%').filter(|at| at + 3 > out.len()) {
        out.truncate(at);
    }
    write!(out, "~{hash:016x}").expect("writing to a string cannot fail");
    out
}

/// Space, `*` and `>` mean something to NATS, `.` to NATS and AMQP, the rest to MQTT or to us.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'/' | b'+' | b'#' | b'%' | b'.' | b'*' | b'>')
}

/// Remembers the topic of each subject, since the same few come again and again.
#[derive(Debug)]
pub(super) struct TopicCache {
    topics: Topics,
    node: NodeId,
    known: HashMap<Subject, Arc<str>>,
}

impl TopicCache {
    /// More subjects than this are forgotten at once: clients choose methods, and so could fill memory.
    pub(super) const CAPACITY: usize = 4096;

    /// A cache for what `node` publishes.
    #[must_use]
    pub(super) fn new(topics: Topics, node: NodeId) -> Self {
        Self {
            topics,
            node,
            known: HashMap::new(),
        }
    }

    /// The topic of a subject.
    pub(super) fn topic(&mut self, subject: &Subject) -> Arc<str> {
        if let Some(topic) = self.known.get(subject) {
            return topic.clone();
        }
        if self.known.len() >= Self::CAPACITY {
            self.known.clear();
        }
        let topic: Arc<str> = self.topics.items(&self.node, subject).into();
        self.known.insert(subject.clone(), topic.clone());
        topic
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn topics() -> Topics {
        Topics::new("qproxy").unwrap()
    }

    fn node() -> NodeId {
        NodeId::new("az1-rec").unwrap()
    }

    fn traffic(service: &str, method: &str) -> Subject {
        Subject::Traffic {
            service: service.into(),
            protocol: "http".into(),
            method: method.into(),
            status: "200".into(),
        }
    }

    #[test]
    fn a_topic_looks_as_documented() {
        let topic = topics().items(&node(), &traffic("shop", "GET"));
        assert_eq!(topic, "qproxy/traffic/az1-rec/shop/http/GET/200");
        assert_eq!(topics().items(&node(), &Subject::Gap), "qproxy/gap/az1-rec");
        let [all, ..] = topics().item_filters(None, Some("a.b"));
        assert_eq!(all, "qproxy/traffic/+/a%2Eb/#");
        assert_eq!(shared("g", "a/#"), "$share/g/a/#");
    }

    #[test]
    fn data_cannot_split_a_topic_or_look_like_a_wildcard() {
        let topic = topics().items(&node(), &traffic("a/b+c#d%e.f é\n*>", ""));
        assert_eq!(
            topic,
            "qproxy/traffic/az1-rec/a%2Fb%2Bc%23d%25e%2Ef%20%C3%A9%0A%2A%3E/http/-/200"
        );
    }

    #[test]
    fn a_long_level_is_cut_between_escapes_and_stays_distinct() {
        let one = level(&"é".repeat(100), 56);
        let other = level(&"é".repeat(101), 56);
        assert_ne!(one, other);
        assert!(one.len() <= 56 && one.starts_with("%C3%A9"), "{one}");
        let (escapes, _) = one.split_once('~').unwrap();
        assert_eq!(escapes.len() % 3, 0, "{one}");
    }

    #[test]
    fn what_is_built_reads_back() {
        let (topics, node) = (topics(), node());
        let player = NodeId::new("p").unwrap();
        let items = Some(Topic::Items(node.clone()));
        let service: Arc<str> = "s/x".into();
        for subject in [
            traffic("s/x", "GET"),
            Subject::Body {
                service: service.clone(),
            },
            Subject::Segment { service },
            Subject::Gap,
        ] {
            assert_eq!(topics.parse(&topics.items(&node, &subject)), items);
        }
        let ack = Topic::Ack {
            recorder: node.clone(),
            player: player.clone(),
        };
        assert_eq!(topics.parse(&topics.ack(&node, &player)), Some(ack));
        assert_eq!(
            topics.parse(&topics.head(&node)),
            Some(Topic::Head(node.clone()))
        );
        assert_eq!(
            topics.parse(&topics.presence(&node)),
            Some(Topic::Presence(node.clone()))
        );
        let [all, own] = topics.settings(&node);
        assert_eq!(topics.parse(&all), Some(Topic::Settings(None)));
        assert_eq!(topics.parse(&own), Some(Topic::Settings(Some(node))));
    }

    #[test]
    fn foreign_topics_are_refused() {
        for foreign in [
            "",
            "qproxy",
            "qproxy/",
            "qproxy/gap",
            "qproxy/gap/a/b",
            "qproxy/gap/",
            "qproxy/gap/é",
            "qproxyx/gap/a",
            "qproxy/traffic/a/b/c/d",
            "qproxy/node/a/resend",
            "other/gap/a",
        ] {
            assert_eq!(topics().parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn roots_are_checked() {
        assert!(Topics::new("team/qproxy").is_ok());
        for bad in ["", "/", "a/", "a/b/c", "a b", "#", &"x".repeat(33)] {
            assert!(Topics::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cache_is_bounded() {
        let mut cache = TopicCache::new(topics(), node());
        for n in 0..3 * TopicCache::CAPACITY {
            cache.topic(&traffic("s", &n.to_string()));
            assert!(cache.known.len() <= TopicCache::CAPACITY);
        }
        assert_eq!(&*cache.topic(&Subject::Gap), "qproxy/gap/az1-rec");
    }

    proptest! {
        #[test]
        fn any_data_gives_a_legal_topic(service in any::<String>(), method in any::<String>(), status in any::<String>()) {
            let topics = Topics::new(&format!("{}/{}", "r".repeat(15), "q".repeat(16))).unwrap();
            let node = NodeId::new(&"n".repeat(64)).unwrap();
            let subject = Subject::Traffic {
                service: service.as_str().into(),
                protocol: method.as_str().into(),
                method: method.as_str().into(),
                status: status.as_str().into(),
            };
            let topic = topics.items(&node, &subject);
            prop_assert!(topic.len() <= MAX_TOPIC_BYTES && topic.is_ascii(), "{topic}");
            prop_assert!(topic.matches('/').count() <= 7);
            prop_assert!(!topic.contains(['+', '#', '.', ' ', '*', '>']) && !topic.contains("//"));
            prop_assert_eq!(topics.parse(&topic), Some(Topic::Items(node)));
        }
    }
}
