//! Tests of the spool as a whole.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Config, Error, Fsync, Message, Metrics, Spool};
use crate::metrics::Registry;
use crate::record::{Epoch, GapReason, Item, NodeId, Sequence, SequenceRange, Subject, wire};

const PAYLOAD: usize = 1000;

struct Bench {
    dir: tempfile::TempDir,
    metrics: Metrics,
    max_bytes: u64,
    tail_bytes: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            metrics: Metrics::default(),
            max_bytes: 4 << 30,
            tail_bytes: 8 << 20,
        }
    }

    /// Keeps few messages: files of 8 KiB hold seven each.
    fn small() -> Self {
        Self {
            max_bytes: 64 << 10,
            tail_bytes: 0,
            ..Self::new()
        }
    }

    fn open(&self) -> Spool {
        self.open_as("az1").unwrap()
    }

    fn open_as(&self, node: &str) -> Result<Spool, Error> {
        let config = Config {
            max_bytes: self.max_bytes,
            tail_bytes: self.tail_bytes,
            fsync: Fsync::Never,
            ..Config::new(self.dir.path(), NodeId::new(node).unwrap())
        };
        Spool::open(config, self.metrics.clone())
    }

    fn dropped(&self) -> u64 {
        let reason = GapReason::SpoolLimit.as_str();
        self.metrics.dropped.get_or_create(&reason.into()).get()
    }
}

fn message(epoch: Epoch, seq: u64) -> Message {
    let mut payload = vec![b'x'; PAYLOAD];
    payload[..8].copy_from_slice(&seq.to_be_bytes());
    Message {
        epoch,
        seq: Sequence(seq),
        span: 1,
        subject: Subject::Traffic {
            service: "shop".into(),
            protocol: "http".into(),
            method: "GET".into(),
            status: "200".into(),
        },
        payload: payload.into(),
    }
}

fn gap(epoch: Epoch, seq: u64, span: u64) -> Message {
    Message {
        span,
        subject: Subject::Gap,
        payload: Bytes::from_static(b"gap"),
        ..message(epoch, seq)
    }
}

fn fill(spool: &Spool, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        spool.append(&[message(spool.epoch(), seq)]).unwrap();
    }
}

/// Everything that can be read now, as (epoch, first, last).
fn drain(reader: &mut super::Reader) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        let batch = reader.try_next_batch(3000).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch);
    }
}

fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.seq.0).collect()
}

fn range(first: u64, last: u64) -> SequenceRange {
    SequenceRange { first, last }
}

#[test]
fn a_reader_that_begins_during_an_append_misses_nothing() {
    let spool = Bench::new().open();
    let epoch = spool.epoch();
    for seq in 1..=2000 {
        let together = std::sync::Barrier::new(2);
        let mut reader = std::thread::scope(|threads| {
            threads.spawn(|| {
                together.wait();
                fill(&spool, seq..=seq);
            });
            together.wait();
            spool.reader().unwrap()
        });
        assert_eq!(seqs(&drain(&mut reader)), [seq]);
        spool.acknowledge(epoch, Sequence(seq));
    }
}

#[test]
fn reads_in_order_from_memory_and_from_disk() {
    for tail_bytes in [0, 5000, 8 << 20] {
        let bench = Bench {
            tail_bytes,
            ..Bench::new()
        };
        let spool = bench.open();
        let mut reader = spool.reader().unwrap();
        assert!(reader.try_next_batch(1000).unwrap().is_empty());
        fill(&spool, 1..=20);
        let first = drain(&mut reader);
        assert_eq!(first[3], message(spool.epoch(), 4));
        fill(&spool, 21..=30);
        let rest = drain(&mut reader);
        assert_eq!(seqs(&[first, rest].concat()), Vec::from_iter(1..=30));
    }
}

#[test]
fn what_was_not_acknowledged_comes_first_after_reopen() {
    let bench = Bench::new();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=10);
    spool.acknowledge(old, Sequence(4));
    assert_eq!(spool.stats().unsent, 6);
    drop(spool);

    let spool = bench.open();
    assert!(spool.epoch() > old);
    assert_eq!(spool.highest(old), Some(Sequence(10)));
    assert_eq!(spool.stats().oldest_unsent, Some((old, Sequence(5))));
    fill(&spool, 1..=2);
    let mut reader = spool.reader().unwrap();
    let read: Vec<_> = drain(&mut reader)
        .iter()
        .map(|m| (m.epoch, m.seq.0))
        .collect();
    let new = spool.epoch();
    let expected = (5..=10).map(|s| (old, s)).chain([(new, 1), (new, 2)]);
    assert_eq!(read, Vec::from_iter(expected));
    spool.acknowledge(new, Sequence(2));
    assert_eq!(
        (spool.stats().unsent, spool.stats().oldest_unsent),
        (0, None)
    );
    assert!(drain(&mut spool.reader().unwrap()).is_empty());
}

#[test]
fn epoch_grows_though_the_clock_does_not() {
    let bench = Bench::new();
    let epochs: Vec<Epoch> = (0..5).map(|_| bench.open().epoch()).collect();
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    // A state from a clock that ran ahead.
    let ahead = epochs[4].0 + 1_000_000_000;
    let state =
        format!(r#"{{"v":1,"epoch":{ahead},"acknowledged":[0,0],"unlinked":[0,0],"dropped":[]}}"#);
    std::fs::write(bench.dir.path().join("state.json"), state).unwrap();
    assert_eq!(bench.open().epoch(), Epoch(ahead + 1));
}

#[test]
fn unreadable_state_is_set_aside_and_everything_sent_again() {
    let bench = Bench::new();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=3);
    spool.acknowledge(old, Sequence(3));
    drop(spool);
    std::fs::write(bench.dir.path().join("state.json"), b"{half").unwrap();
    let spool = bench.open();
    assert!(spool.epoch() > old);
    assert_eq!(seqs(&drain(&mut spool.reader().unwrap())), [1, 2, 3]);
    assert!(bench.dir.path().join("state.json.damaged").exists());
}

#[test]
fn over_the_limit_the_oldest_unsent_go_counted_and_leave_a_gap() {
    let bench = Bench::small();
    let spool = bench.open();
    let epoch = spool.epoch();
    fill(&spool, 1..=200);
    spool.expire(SystemTime::now()).unwrap();
    let read = drain(&mut spool.reader().unwrap());
    let first = read[0].clone();
    assert_eq!((first.seq.0, &first.subject), (1, &Subject::Gap));
    let Item::Gap(found) = wire::decode(&first.payload).unwrap() else {
        panic!("no gap: {first:?}");
    };
    assert_eq!(
        (
            found.origin.seq,
            found.origin.epoch,
            found.count,
            found.reason
        ),
        (Sequence(1), epoch, first.span, GapReason::SpoolLimit)
    );
    let kept = seqs(&read[1..]);
    assert_eq!(kept, Vec::from_iter(first.span + 1..=200));
    assert!(kept.len() >= 40, "{}", kept.len());
    assert_eq!(bench.dropped(), first.span);
    assert_eq!(spool.stats().unsent, kept.len() as u64);
    assert!(spool.stats().bytes <= 64 << 10);
    let range = spool.range(epoch, range(1, 200), 1000).unwrap();
    assert!(range.messages == read, "the gap and what is left");
}

#[test]
fn what_was_dropped_on_disk_is_not_sent_from_memory() {
    let bench = Bench {
        tail_bytes: 8 << 20,
        ..Bench::small()
    };
    let spool = bench.open();
    let mut reader = spool.reader().unwrap();
    fill(&spool, 1..=200);
    spool.expire(SystemTime::now()).unwrap();
    let read = drain(&mut reader);
    let sent = read.iter().filter(|m| m.subject != Subject::Gap).count() as u64;
    assert_eq!(sent + bench.dropped(), 200);
    assert_eq!(sent, spool.stats().unsent);
    let told: u64 = read.iter().map(|m| m.span).sum();
    assert_eq!(told, 200);
}

#[test]
fn gap_survives_a_restart_also_where_all_of_the_epoch_is_gone() {
    let bench = Bench::small();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=30);
    spool.acknowledge(old, Sequence(3));
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    assert_eq!(bench.dropped(), 27);
    drop(spool);

    let spool = bench.open();
    fill(&spool, 1..=1);
    let read = drain(&mut spool.reader().unwrap());
    assert_eq!((read[0].epoch, read[0].seq.0, read[0].span), (old, 4, 27));
    assert_eq!((read[1].epoch, read[1].seq.0), (spool.epoch(), 1));
    assert_eq!(read.len(), 2);
    spool.acknowledge(read[1].epoch, read[1].last());
    assert!(drain(&mut spool.reader().unwrap()).is_empty());
    assert_eq!(bench.dropped(), 27);
}

#[test]
fn what_the_publisher_holds_is_not_dropped_until_it_starts_again() {
    let bench = Bench::small();
    let spool = bench.open();
    fill(&spool, 1..=10);
    let mut reader = spool.reader().unwrap();
    assert_eq!(drain(&mut reader).len(), 10);
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    assert_eq!(bench.dropped(), 0);
    fill(&spool, 11..=12);
    assert_eq!(seqs(&drain(&mut reader)), [11, 12]);

    let read = drain(&mut spool.reader().unwrap());
    assert_eq!(seqs(&read), [1, 11, 12]);
    assert_eq!((read[0].span, bench.dropped()), (10, 10));
}

#[test]
fn what_an_earlier_life_gave_out_and_unlinked_leaves_a_counted_gap() {
    let bench = Bench::small();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=10);
    assert_eq!(drain(&mut spool.reader().unwrap()).len(), 10);
    spool.acknowledge(old, Sequence(3));
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    assert_eq!(bench.dropped(), 0);
    drop(spool);

    let spool = bench.open();
    assert_eq!(spool.highest(old), Some(Sequence(10)));
    let read = drain(&mut spool.reader().unwrap());
    assert_eq!((read[0].epoch, read[0].seq.0, read[0].span), (old, 4, 7));
    let Item::Gap(gap) = wire::decode(&read[0].payload).unwrap() else {
        panic!("no gap: {read:?}");
    };
    assert_eq!((read.len(), gap.reason), (1, GapReason::SpoolLimit));
    assert_eq!((bench.dropped(), spool.stats().unsent), (7, 0));
}

#[test]
fn what_another_node_left_unsent_is_refused() {
    let bench = Bench::new();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=5);
    spool.acknowledge(old, Sequence(2));
    drop(spool);
    let error = bench.open_as("az2").unwrap_err();
    let Error::Node { kept, unsent, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((kept.as_str(), *unsent), ("az1", 3));
    let read = drain(&mut bench.open().reader().unwrap());
    assert_eq!(seqs(&read), [3, 4, 5], "with the name back it goes on");
}

#[test]
fn what_another_node_sent_is_not_offered_under_the_new_name() {
    let bench = Bench::new();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=5);
    spool.acknowledge(old, Sequence(5));
    drop(spool);
    let first = bench.open_as("az2").unwrap();
    let since = first.epoch();
    fill(&first, 1..=2);
    drop(first);
    // Not the first start under the new name only.
    let spool = bench.open_as("az2").unwrap();
    assert_eq!(spool.earlier_lives(10), [(since, Sequence(2))]);
    assert_eq!(spool.highest(old), None);
    let resend = spool.range(old, range(1, 5), 10).unwrap();
    assert_eq!((resend.messages.len(), resend.gone), (0, vec![range(1, 5)]));
    let read = drain(&mut spool.reader().unwrap());
    let read: Vec<_> = read.iter().map(|m| (m.epoch, m.seq.0)).collect();
    assert_eq!(read, [(since, 1), (since, 2)]);
}

#[test]
fn state_from_before_the_node_was_kept_is_accepted() {
    let bench = Bench::new();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=3);
    drop(spool);
    let state = format!(
        r#"{{"v":1,"epoch":{},"acknowledged":[{},1],"unlinked":[0,0],"dropped":[]}}"#,
        old.0, old.0
    );
    std::fs::write(bench.dir.path().join("state.json"), state).unwrap();
    let spool = bench.open_as("az2").unwrap();
    assert_eq!(seqs(&drain(&mut spool.reader().unwrap())), [2, 3]);
}

#[test]
fn dropped_gap_is_not_counted_twice() {
    let bench = Bench::small();
    let spool = bench.open();
    let epoch = spool.epoch();
    fill(&spool, 1..=5);
    spool.append(&[gap(epoch, 6, 94)]).unwrap();
    fill(&spool, 100..=101);
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    assert_eq!(bench.dropped(), 7);
    let read = drain(&mut spool.reader().unwrap());
    assert_eq!((read[0].seq.0, read[0].span, read.len()), (1, 101, 1));
}

#[test]
fn running_reader_meets_the_gap_where_it_was_overtaken() {
    let bench = Bench::small();
    let spool = bench.open();
    fill(&spool, 1..=10);
    let mut reader = spool.reader().unwrap();
    let first = reader.try_next_batch(3000).unwrap();
    let had = first.last().unwrap().seq.0;
    fill(&spool, 11..=200);
    spool.expire(SystemTime::now()).unwrap();
    let rest = drain(&mut reader);
    assert_eq!((rest[0].seq.0, &rest[0].subject), (had + 1, &Subject::Gap));
    let mut next = 1;
    for message in first.iter().chain(&rest) {
        assert_eq!(message.seq.0, next);
        next = message.last().0 + 1;
    }
    assert_eq!(next, 201);
    assert_eq!(bench.dropped(), rest[0].span);
}

#[test]
fn range_tells_what_is_there_what_is_gone_and_what_is_left() {
    let bench = Bench::small();
    let spool = bench.open();
    let epoch = spool.epoch();
    fill(&spool, 1..=100);
    spool.append(&[gap(epoch, 101, 10)]).unwrap();
    fill(&spool, 111..=112);
    spool.expire(SystemTime::now()).unwrap();
    let first_kept = 113 - spool.stats().unsent;
    let oldest = spool.stats().oldest_unsent.unwrap().1.0;
    assert!((2..=90).contains(&oldest), "{oldest} {first_kept}");

    let all = spool.range(epoch, range(1, 500), 1000).unwrap();
    assert_eq!((all.gone.len(), all.rest), (0, None));
    // What was never sent is not gone but dropped, which the gap in its place says.
    assert_eq!(
        (all.messages[0].seq.0, all.messages[0].span),
        (1, oldest - 1)
    );
    let expected = (oldest..=101).chain([111, 112]);
    assert_eq!(seqs(&all.messages[1..]), Vec::from_iter(expected));

    // The gap message covers numbers that it does not start at.
    let inside = spool.range(epoch, range(105, 106), 10).unwrap();
    assert_eq!((seqs(&inside.messages), inside.gone.len()), (vec![101], 0));

    let part = spool.range(epoch, range(95, 112), 3).unwrap();
    assert_eq!(seqs(&part.messages), [95, 96, 97]);
    assert_eq!((part.gone.len(), part.rest), (0, Some(range(98, 112))));

    let ahead = spool.range(epoch, range(113, 500), 10).unwrap();
    assert_eq!(ahead, super::Resend::default());
    let unknown = spool.range(Epoch(5), range(1, 9), 10).unwrap();
    assert_eq!(unknown.gone, [range(1, 9)]);
}

#[test]
fn who_asks_late_hears_what_was_dropped_and_what_is_gone_also_after_a_restart() {
    let bench = Bench::small();
    let spool = bench.open();
    let epoch = spool.epoch();
    fill(&spool, 1..=5);
    let sent = drain(&mut spool.reader().unwrap());
    assert_eq!(sent.len(), 5);
    spool.acknowledge(epoch, Sequence(5));
    spool.confirm(epoch, Sequence(5));
    fill(&spool, 6..=10);
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    fill(&spool, 11..=11);
    // The gap has been published, to nobody, and nothing waits any more.
    spool.acknowledge(epoch, Sequence(11));
    assert_eq!((bench.dropped(), spool.stats().unsent), (5, 0));
    let ask = |spool: &Spool| {
        let resend = spool.range(epoch, range(2, 11), 100).unwrap();
        assert_eq!(resend.gone, [range(2, 5)]);
        let told: Vec<_> = resend.messages.iter().map(|m| (m.seq.0, m.span)).collect();
        assert_eq!(told, [(6, 5), (11, 1)]);
        assert_eq!(resend.messages[0].subject, Subject::Gap);
    };
    ask(&spool);
    let part = spool.range(epoch, range(7, 8), 100).unwrap();
    assert_eq!((part.messages[0].seq.0, part.messages[0].span), (6, 5));
    assert!(part.gone.is_empty());
    drop(spool);
    ask(&bench.open());
}

#[test]
fn what_left_the_spool_in_the_publishers_hands_is_dropped_when_somebody_lacks_it() {
    let bench = Bench::small();
    let spool = bench.open();
    let epoch = spool.epoch();
    fill(&spool, 1..=5);
    spool.append(&[gap(epoch, 6, 10)]).unwrap();
    fill(&spool, 16..=20);
    let mut reader = spool.reader().unwrap();
    assert_eq!(drain(&mut reader).len(), 11);
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    // The publisher may yet bring them to somebody.
    assert_eq!(bench.dropped(), 0);
    spool.acknowledge(epoch, Sequence(20));
    for _ in 0..2 {
        let resend = spool.range(epoch, range(3, 18), 100).unwrap();
        assert_eq!((resend.gone.len(), resend.messages.len()), (0, 1));
        let told = &resend.messages[0];
        assert_eq!(
            (told.seq.0, told.span, &told.subject),
            (3, 16, &Subject::Gap)
        );
        // 3 to 5 and 16 to 18: what lies between was never a copy, and is counted where the gap was made.
        assert_eq!(bench.dropped(), 6);
    }
}

#[test]
fn what_the_broker_took_and_no_player_has_is_dropped_when_somebody_lacks_it_also_after_a_restart() {
    let bench = Bench::small();
    let spool = bench.open();
    let old = spool.epoch();
    fill(&spool, 1..=5);
    assert_eq!(drain(&mut spool.reader().unwrap()).len(), 5);
    spool.acknowledge(old, Sequence(5));
    drop(spool);

    let spool = bench.open();
    let epoch = spool.epoch();
    fill(&spool, 1..=30);
    assert_eq!(drain(&mut spool.reader().unwrap()).len(), 30);
    spool.acknowledge(epoch, Sequence(30));
    spool.confirm(epoch, Sequence(10));
    spool.confirm(Epoch(epoch.0 + 1), Sequence(10));
    let later = SystemTime::now() + Duration::from_secs(25 * 3600);
    spool.expire(later).unwrap();
    // The player may have the rest as well.
    assert_eq!((bench.dropped(), spool.stats().unsent), (0, 0));
    drop(spool);

    let spool = bench.open();
    for _ in 0..2 {
        let resend = spool.range(epoch, range(8, 20), 100).unwrap();
        assert_eq!(resend.gone, [range(8, 10)]);
        let told: Vec<_> = resend.messages.iter().map(|m| (m.seq.0, m.span)).collect();
        assert_eq!((told, bench.dropped()), (vec![(11, 10)], 10));
    }
    let resend = spool.range(old, range(1, 5), 100).unwrap();
    assert_eq!((resend.gone.len(), resend.messages[0].span), (0, 5));
    assert_eq!(bench.dropped(), 15);
}

#[test]
fn range_stops_at_its_byte_limit() {
    let bench = Bench::new();
    let spool = bench.open();
    let epoch = spool.epoch();
    let large = Bytes::from(vec![0; Spool::MAX_RESEND_BYTES / 2]);
    for seq in 1..=4 {
        let payload = large.clone();
        spool
            .append(&[Message {
                payload,
                ..message(epoch, seq)
            }])
            .unwrap();
    }
    let part = spool.range(epoch, range(1, 4), 100).unwrap();
    assert_eq!(
        (seqs(&part.messages), part.rest),
        (vec![1, 2], Some(range(3, 4)))
    );
}

#[test]
fn message_out_of_order_is_refused_and_nothing_appended() {
    let bench = Bench::new();
    let spool = bench.open();
    let epoch = spool.epoch();
    let bad = [
        vec![message(epoch, 1), message(epoch, 1)],
        vec![gap(epoch, 1, 3), message(epoch, 3)],
        vec![message(Epoch(epoch.0 - 1), 1)],
        vec![gap(epoch, 1, 0)],
        vec![gap(epoch, 1, u64::MAX)],
        vec![message(epoch, 0)],
    ];
    for messages in bad {
        let refused = spool.append(&messages);
        assert!(matches!(refused, Err(Error::Order { .. })), "{messages:?}");
    }
    assert!(drain(&mut spool.reader().unwrap()).is_empty());
    spool.append(&[]).unwrap();
    fill(&spool, 1..=1);
    assert_eq!(spool.stats().highest, Sequence(1));
}

#[test]
fn second_process_is_refused() {
    let bench = Bench::new();
    let _open = bench.open();
    let config = Config::new(bench.dir.path(), NodeId::new("az1").unwrap());
    let error = Spool::open(config, Metrics::default()).unwrap_err();
    assert!(matches!(
        error,
        Error::Log(crate::segment::Error::Locked { .. })
    ));
    let config = Config {
        max_bytes: 1,
        ..Config::new(bench.dir.path(), NodeId::new("az1").unwrap())
    };
    let error = Spool::open(config, Metrics::default()).unwrap_err();
    assert!(error.to_string().contains("65536, not 1"), "{error}");
}

#[test]
fn acknowledged_place_is_saved_when_the_spool_is_closed_and_by_flush() {
    let bench = Bench::new();
    let spool = bench.open();
    fill(&spool, 1..=5);
    spool.acknowledge(spool.epoch(), Sequence(2));
    spool.flush().unwrap();
    let state = std::fs::read_to_string(bench.dir.path().join("state.json")).unwrap();
    let expected = format!("\"acknowledged\":[{},2]", spool.epoch().0);
    assert!(state.contains(&expected), "{state}");
    spool.acknowledge(spool.epoch(), Sequence(4));
    drop(spool);
    let read = drain(&mut bench.open().reader().unwrap());
    assert_eq!(seqs(&read), [5]);
}

#[test]
fn metrics_show_what_happened() {
    let bench = Bench::new();
    let spool = bench.open();
    fill(&spool, 1..=5);
    spool.acknowledge(spool.epoch(), Sequence(2));
    spool.expire(SystemTime::now()).unwrap();
    let mut registry = Registry::default();
    bench.metrics.register(&mut registry);
    let page = registry.text();
    for line in [
        "qproxy_spool_messages_total 5".to_owned(),
        format!("qproxy_spool_written_bytes_total {}", 5 * PAYLOAD),
        format!("qproxy_spool_bytes {}", spool.stats().bytes),
        "qproxy_spool_unsent 3".to_owned(),
        "qproxy_spool_disk_errors_total 0".to_owned(),
        "qproxy_spool_recovery_cut_bytes_total 0".to_owned(),
        "qproxy_spool_damaged_bytes_total 0".to_owned(),
        "qproxy_spool_reindexed_total 0".to_owned(),
    ] {
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn waiting_reader_wakes_for_an_append_and_can_be_cancelled() {
    let bench = Bench::new();
    let spool = bench.open();
    let mut reader = spool.reader().unwrap();
    {
        let mut waiting = std::pin::pin!(reader.next_batch(1000));
        let poll = futures_util::poll!(waiting.as_mut());
        assert!(poll.is_pending());
    }
    let task = tokio::spawn(async move { reader.next_batch(1 << 20).await.unwrap() });
    tokio::task::yield_now().await;
    spool
        .append(&[message(spool.epoch(), 1), message(spool.epoch(), 2)])
        .unwrap();
    assert_eq!(seqs(&task.await.unwrap()), [1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_keeps_up_with_a_writer_over_many_files_without_loss_or_repeat() {
    for tail_bytes in [0, 20_000] {
        let bench = Bench {
            max_bytes: 8 << 20,
            tail_bytes,
            ..Bench::new()
        };
        let spool = bench.open();
        let mut reader = spool.reader().unwrap();
        let writer = {
            let spool = spool.clone();
            tokio::task::spawn_blocking(move || {
                for start in (1..=3000).step_by(5) {
                    let batch: Vec<_> = (start..start + 5)
                        .map(|seq| message(spool.epoch(), seq))
                        .collect();
                    spool.append(&batch).unwrap();
                }
            })
        };
        let mut next = 1;
        while next <= 3000 {
            for message in reader.next_batch(10_000).await.unwrap() {
                assert_eq!(message.seq.0, next);
                assert_eq!(message.payload[..8], next.to_be_bytes());
                next += 1;
                spool.acknowledge(message.epoch, message.seq);
            }
        }
        writer.await.unwrap();
        assert_eq!((bench.dropped(), spool.stats().unsent), (0, 0));
    }
}

#[test]
fn damaged_message_is_passed_over_counted_and_told_as_gone() {
    // In the payload, in the meta and in the length that tells where the next one starts.
    for place in 0..3 {
        let bench = Bench::small();
        let spool = bench.open();
        let old = spool.epoch();
        fill(&spool, 1..=20);
        drop(spool);
        let file = bench.dir.path().join("0000000000000001.seg");
        let mut bytes = std::fs::read(&file).unwrap();
        let payload = message(old, 3).payload;
        let third = bytes.windows(PAYLOAD).position(|window| window == payload);
        let third = third.unwrap();
        let magic = bytes[..third]
            .windows(3)
            .rposition(|window| window == b"\xf1SG");
        bytes[[third + 100, third - 1, magic.unwrap() + 20][place]] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let spool = bench.open();
        let expected: Vec<u64> = (1..=20).filter(|seq| *seq != 3).collect();
        assert_eq!(seqs(&drain(&mut spool.reader().unwrap())), expected);
        assert!(bench.metrics.damaged_bytes.get() > PAYLOAD as u64);
        let asked = spool.range(old, range(2, 4), 10).unwrap();
        assert_eq!(seqs(&asked.messages), [2, 4]);
        assert_eq!((asked.gone, bench.dropped()), (vec![range(3, 3)], 0));
    }
}
