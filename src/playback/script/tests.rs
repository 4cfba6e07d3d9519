use proptest::prelude::*;

use super::*;
use crate::record::{ConnectionId, Epoch, NodeId, Origin, Outcome, Protocol, Sequence, Timing};
use Direction::{Client, Server};

pub(in crate::playback) fn origin() -> Origin {
    Origin {
        node: NodeId::new("rec").unwrap(),
        epoch: Epoch(1),
        seq: Sequence(1),
    }
}

pub(in crate::playback) fn batch(
    index: u32,
    segments: Vec<(Direction, u64, Bytes)>,
) -> SegmentBatch {
    let segments = segments.into_iter();
    SegmentBatch {
        record: RecordId::from_u128(7),
        origin: origin(),
        index,
        segments: segments
            .map(|(direction, offset_us, bytes)| Segment {
                direction,
                offset_us,
                bytes,
                frame: None,
                missing: 0,
            })
            .collect(),
    }
}

/// The summary of a stream whose segments are these.
pub(in crate::playback) fn stream(id: u128, batches: &[SegmentBatch]) -> Stream {
    let said = |from| {
        let all = batches.iter().flat_map(|batch| &batch.segments);
        all.filter(|s| s.direction == from)
            .map(|s| s.bytes.len() as u64)
            .sum()
    };
    Stream {
        id: RecordId::from_u128(id),
        origin: origin(),
        service: "svc".into(),
        protocol: Protocol::Tcp,
        connection: ConnectionId(1),
        client: "10.0.0.1:5".into(),
        upstream: Some("a:1".into()),
        tls: None,
        timing: Timing::default(),
        client_bytes: said(Client),
        server_bytes: said(Server),
        batches: u32::try_from(batches.len()).unwrap(),
        truncated: false,
        application: None,
        outcome: Outcome::Ok,
        exchange: None,
        upgrade: None,
    }
}

struct Batches(Vec<SegmentBatch>);

#[async_trait]
impl Source for Batches {
    async fn batch(
        &self,
        _: RecordId,
        index: u32,
        _: Duration,
    ) -> Result<Arc<SegmentBatch>, Unfit> {
        let batch = self.0.get(index as usize).cloned();
        batch.map(Arc::new).ok_or(Unfit::Missing { index })
    }
}

/// A conversation such as `c:ask s:answer c. s.`, each word a segment 1 ms after the one before.
pub(in crate::playback) fn script(id: u128, text: &str) -> Script {
    let segment = |(at, word): (usize, &str)| {
        let from = if word.starts_with('c') {
            Client
        } else {
            Server
        };
        (
            from,
            at as u64 * 1000,
            Bytes::copy_from_slice(&word.as_bytes()[2..]),
        )
    };
    let words = text.split(' ').map(|word| {
        if word.ends_with('.') {
            &word[..1]
        } else {
            word
        }
    });
    let words: Vec<String> = words
        .map(|w| {
            if w.len() == 1 {
                format!("{w}:")
            } else {
                w.to_owned()
            }
        })
        .collect();
    let segments = words.iter().map(String::as_str).enumerate().map(segment);
    let batches = vec![batch(0, segments.collect())];
    let stream = Arc::new(stream(id, &batches));
    let source = Arc::new(Batches(batches));
    Script::new(stream, Client, Arc::default(), source, Duration::ZERO).unwrap()
}

/// A stream whose segments are gone.
pub(in crate::playback) fn script_without_batches(id: u128) -> Script {
    let mut gone = stream(id, &[]);
    gone.batches = 1;
    let source = Arc::new(Batches(Vec::new()));
    Script::new(
        Arc::new(gone),
        Client,
        Arc::default(),
        source,
        Duration::ZERO,
    )
    .unwrap()
}

fn steps(batches: &[SegmentBatch], joined: Direction, ignore: Ignore) -> Result<Vec<Step>, Unfit> {
    let mut turns = Turns::new(&stream(7, batches), joined, Arc::new(ignore))?;
    let mut all = Vec::new();
    loop {
        match turns.next()? {
            Next::Needs(index) => turns.supply(&batches[index as usize]),
            Next::Step(Step::End) => return Ok(all),
            Next::Step(step) => all.push(step),
        }
    }
}

fn shown(steps: &[Step]) -> Vec<String> {
    let name = |by| if by == Client { 'c' } else { 's' };
    let show = |step: &Step| match step {
        Step::Said(piece) => format!(
            "{}@{} {}-{} {}",
            name(piece.from),
            piece.offset,
            piece.at_us,
            piece.last_us,
            String::from_utf8_lossy(&piece.bytes)
        ),
        Step::Closed { by, at_us } => format!("{} closes {at_us}", name(*by)),
        Step::End => "end".to_owned(),
    };
    steps.iter().map(show).collect()
}

fn text(said: &[(Direction, u64, &'static str)]) -> Vec<(Direction, u64, Bytes)> {
    let said = said.iter();
    said.map(|(from, at, text)| (*from, *at, Bytes::from_static(text.as_bytes())))
        .collect()
}

#[test]
fn the_compared_side_is_joined_over_batches_and_the_other_one_is_not() {
    let batches = [
        batch(0, text(&[(Client, 1, "GE"), (Client, 2, "T ")])),
        batch(1, vec![]),
        batch(
            2,
            text(&[(Client, 3, "a"), (Server, 4, "o"), (Server, 9, "k")]),
        ),
        batch(
            3,
            text(&[(Client, 10, ""), (Client, 11, ""), (Server, 12, "")]),
        ),
    ];
    let client = steps(&batches, Client, Ignore::default()).unwrap();
    assert_eq!(
        shown(&client),
        [
            "c@0 1-3 GET a",
            "s@0 4-4 o",
            "s@1 9-9 k",
            "c closes 10",
            "s closes 12"
        ]
    );
    let server = steps(&batches, Server, Ignore::default()).unwrap();
    assert_eq!(
        shown(&server)[..4],
        ["c@0 1-1 GE", "c@2 2-2 T ", "c@4 3-3 a", "s@0 4-9 ok"]
    );
}

#[test]
fn a_client_that_says_a_byte_at_a_time_costs_no_more_than_its_bytes() {
    // Looking at all of it again with each batch would take hours.
    let byte = |index| batch(index, vec![(Client, 0, Bytes::from_static(b"x"))]);
    let batches: Vec<_> = (0..100_000).map(byte).collect();
    let steps = steps(&batches, Client, Ignore::default()).unwrap();
    assert_eq!(steps.len(), 2);
}

#[test]
fn a_piece_is_never_longer_than_what_is_looked_at_together() {
    let big = Bytes::from(vec![b'x'; JOIN_BYTES - 10]);
    let batches = [
        batch(
            0,
            vec![
                (Client, 0, big.clone()),
                (Client, 1, Bytes::from_static(b"0123456789")),
            ],
        ),
        batch(
            1,
            vec![(Client, 2, Bytes::from_static(b"y")), (Client, 3, big)],
        ),
    ];
    let lengths: Vec<_> = steps(&batches, Client, Ignore::default())
        .unwrap()
        .into_iter()
        .map(|step| match step {
            Step::Said(piece) => piece.bytes.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [JOIN_BYTES, JOIN_BYTES - 9]);
}

#[test]
fn a_stream_of_which_something_is_missing_is_refused_with_the_reason() {
    let batches = [batch(0, text(&[(Client, 0, "ab"), (Server, 1, "cd")]))];
    let whole = stream(7, &batches);
    let first = |stream: &Stream| -> Result<Step, Unfit> {
        let mut turns = Turns::new(stream, Client, Arc::default())?;
        loop {
            match turns.next()? {
                Next::Needs(_) => turns.supply(&batches[0]),
                Next::Step(Step::End) => return Ok(Step::End),
                Next::Step(_) => {}
            }
        }
    };
    assert!(first(&whole).is_ok());
    let change = |change: fn(&mut Stream)| {
        let mut stream = whole.clone();
        change(&mut stream);
        first(&stream).unwrap_err().to_string()
    };
    assert!(change(|s| s.truncated = true).contains("only a part"));
    assert!(change(|s| s.upstream = None).contains("no connection"));
    assert!(change(|s| s.exchange = Some(s.id)).contains("upgrade"));
    assert!(change(|s| s.client_bytes = 3).contains("not the bytes"));
    assert!(change(|s| s.server_bytes = 1).contains("not the bytes"));
}

#[test]
fn bytes_that_were_not_kept_in_between_are_noticed() {
    let mut batches = [batch(
        0,
        text(&[(Client, 0, "ab"), (Client, 1, "cd"), (Server, 2, "x")]),
    )];
    batches[0].segments[1].missing = 7;
    let refused = steps(&batches, Client, Ignore::default());
    assert!(matches!(refused, Err(Unfit::Truncated)), "{refused:?}");
}

#[test]
fn bytes_after_a_close_are_refused() {
    let batches = [batch(0, text(&[(Client, 0, ""), (Client, 1, "x")]))];
    assert!(matches!(
        steps(&batches, Client, Ignore::default()),
        Err(Unfit::Inconsistent)
    ));
}

#[test]
fn only_what_is_not_ignored_differs() {
    let rules = vec![
        IgnoreRule::pattern(Client, "id=[0-9]{4}").unwrap(),
        IgnoreRule::range(Client, 0..2),
    ];
    let batches = [batch(0, text(&[(Client, 0, "xx id=1234 end")]))];
    let steps = steps(&batches, Client, Ignore::from(rules)).unwrap();
    let Step::Said(piece) = &steps[0] else {
        panic!("{steps:?}")
    };
    assert_eq!(piece.difference(0, b"yy id=9999 end"), None);
    assert_eq!(piece.difference(0, b"xx id=9999 eND"), Some(12));
    assert_eq!(piece.difference(11, b"EN"), Some(11));
    assert_eq!(piece.difference(2, b"-"), Some(2));
    assert_eq!(piece.difference(0, b""), None);
}

proptest! {
    /// However a conversation was cut into segments and batches, the same bytes come out in the same order.
    #[test]
    fn steps_do_not_depend_on_how_a_stream_was_cut(
        said in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..20)), 0..30),
        cuts in prop::collection::vec(1usize..5, 1..30),
    ) {
        let side = |client: bool| if client { Client } else { Server };
        let segments: Vec<_> = said
            .iter()
            .map(|(client, bytes)| (side(*client), 0, Bytes::from(bytes.clone())))
            .collect();
        let (mut batches, mut at) = (Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            if at >= segments.len() {
                break;
            }
            let end = (at + cut).min(segments.len());
            let index = u32::try_from(batches.len()).unwrap();
            batches.push(batch(index, segments[at..end].to_vec()));
            at = end;
        }
        let flat = |all: &[(Direction, Vec<u8>)]| {
            let mut turns: Vec<(Direction, Vec<u8>)> = Vec::new();
            for (from, bytes) in all {
                match turns.last_mut() {
                    Some((last, before)) if last == from => before.extend(bytes),
                    _ => turns.push((*from, bytes.clone())),
                }
            }
            turns
        };
        let expected: Vec<_> = said.iter().map(|(c, bytes)| (side(*c), bytes.clone())).collect();
        let got = steps(&batches, Client, Ignore::default()).unwrap();
        let got: Vec<_> = got
            .iter()
            .map(|step| match step {
                Step::Said(piece) => (piece.from, piece.bytes.to_vec()),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(flat(&got), flat(&expected));
        // What is compared is whole.
        let pairs = got.windows(2);
        prop_assert!(pairs.filter(|w| w[0].0 == Client && w[1].0 == Client).count() == 0);
    }
}
