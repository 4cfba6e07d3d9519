use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::playback::web_socket::Config;
use crate::playback::web_socket::dialogue::tests::{piece, recorded};
use crate::record::{Opcode, Part, Segment};
use crate::store;
use crate::store::embedded::Embedded;
use Direction::{Client, Server};

const MINUTE: Duration = Duration::from_secs(60);

fn text(from: Direction, at_s: u64, text: &'static str) -> Segment {
    piece(from, at_s * 1000, Opcode::Text, Part::Whole, text)
}

/// A client's side, and what then comes of the conversation in the metrics.
struct Stage {
    peer: Peer<DuplexStream>,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(
        segments: &[Segment],
        delay: Delay,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = store::embedded::Config::new(folder.path().to_owned());
        let store = Embedded::open(limits, store::Metrics::default()).unwrap();
        let metrics = Metrics::default();
        let config = Config {
            idle_timeout: MINUTE,
            ..Config::default()
        };
        let delays = (delay, Duration::from_secs(5));
        let shared = Conversations::new(Arc::new(store), config, delays, metrics.clone());
        let conversation = Conversation {
            shared: Arc::new(shared),
            dialogue: recorded(segments, 2, |_| ()),
            others: Others::none(),
            followed: Followed::new(),
            client: "127.0.0.1:1".parse().unwrap(),
            done: (Instant::now(), 0),
            last: None,
        };
        let (ours, theirs) = duplex(1 << 10);
        tokio::spawn(conversation.hold(ours, stopped));
        Self {
            peer: Peer::client(theirs, 1 << 20).await,
            metrics,
            _folder: folder,
        }
    }

    /// What is said next, and after how many seconds.
    async fn hear(&mut self) -> (u64, Heard) {
        let started = Instant::now();
        let heard = self.peer.hear().await.unwrap();
        (started.elapsed().as_secs(), heard)
    }

    async fn say(&mut self, text: &'static str) {
        let bytes = Bytes::from(text);
        self.peer.say(Kind::Text, &bytes).await.unwrap();
    }

    fn ended(&self, how: &'static str) -> u64 {
        self.metrics.conversations.get_or_create(&how.into()).get()
    }
}

fn said(text: &'static str) -> Heard {
    Heard::Said(Kind::Text, Bytes::from(text))
}

fn greeting() -> Vec<Segment> {
    vec![
        text(Server, 1, "hello"),
        text(Client, 3, "who?"),
        text(Server, 5, "me"),
        text(Server, 105, "and you"),
        piece(
            Server,
            106_000,
            Opcode::Close,
            Part::Whole,
            &b"\x0f\xa1bye"[..],
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_their_recorded_time_and_none_is_waited_for_longer_than_the_longest() {
    let mut stage = Stage::set(&greeting(), Delay::AsRecorded, std::future::pending()).await;
    assert_eq!(stage.hear().await, (1, said("hello")));
    stage.say("who?").await;
    assert_eq!(stage.hear().await, (2, said("me")));
    assert_eq!(stage.hear().await, (5, said("and you")));
    assert_eq!(stage.hear().await, (1, Heard::Closed(Some(4001))));
    assert_eq!(stage.ended("completed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_delay_is_waited_once_before_each_answer() {
    let delay = Delay::Fixed(Duration::from_secs(3));
    let mut stage = Stage::set(&greeting(), delay, std::future::pending()).await;
    assert_eq!(stage.hear().await, (3, said("hello")));
    stage.say("who?").await;
    assert_eq!(stage.hear().await, (3, said("me")));
    assert_eq!(stage.hear().await, (0, said("and you")));
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_after_the_limit_and_all_are_when_the_node_stops() {
    let mut stage = Stage::set(&greeting(), Delay::None, std::future::pending()).await;
    assert_eq!(stage.hear().await, (0, said("hello")));
    assert_eq!(stage.hear().await, (60, Heard::Closed(Some(1001))));
    assert_eq!(stage.ended("idle"), 1);

    let soon = tokio::time::sleep(Duration::from_secs(7));
    let mut stage = Stage::set(&greeting(), Delay::None, soon).await;
    assert_eq!(stage.hear().await, (0, said("hello")));
    assert_eq!(stage.hear().await, (7, Heard::Closed(Some(1001))));
    assert_eq!(stage.ended("stopped"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_closed_and_what_breaks_off_in_the_store_too() {
    let mut stage = Stage::set(&greeting(), Delay::None, std::future::pending()).await;
    assert_eq!(stage.hear().await.1, said("hello"));
    stage.say("whom?").await;
    assert_eq!(stage.hear().await.1, Heard::Closed(Some(1008)));
    assert_eq!(stage.ended("mismatch"), 1);

    let mut segments = greeting();
    segments[2].missing = 1;
    let mut stage = Stage::set(&segments, Delay::None, std::future::pending()).await;
    assert_eq!(stage.hear().await.1, said("hello"));
    stage.say("who?").await;
    assert_eq!(stage.hear().await.1, Heard::Closed(Some(1011)));
    assert_eq!(stage.ended("failed"), 1);
}
