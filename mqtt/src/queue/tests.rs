//! Bounds, order and what those hear who wait.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::*;
use crate::codec::{Publish, QoS, Text};
use crate::outcomes::Outcome;
use crate::session::WindowFree;

const ALL: Room = room(100);

const fn room(acknowledged: usize) -> Room {
    let window = WindowFree {
        acknowledged,
        exactly_once: acknowledged,
    };
    Room {
        window,
        bytes: 1 << 20,
        controls: 16,
    }
}

fn queued(number: u8, qos: QoS) -> Queued {
    let payload = Bytes::copy_from_slice(&[number]);
    let topic = Text::from_static("t");
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        id: None,
        payload,
        properties: None,
    };
    Queued {
        publish,
        expires: None,
        done: None,
        keeping: None,
    }
}

fn queue_of(queue_messages: usize, queue_bytes: usize, overflow: Overflow) -> Queue {
    let config = MqttConfig {
        queue_messages,
        queue_bytes,
        overflow,
        ..MqttConfig::default()
    };
    let queue = Queue::new(&config, broadcast::Sender::new(8));
    queue.open();
    queue
}

fn queue(overflow: Overflow) -> Queue {
    queue_of(2, 1 << 20, overflow)
}

fn put(queue: &Queue, queued: Queued) -> Result<Published, Error> {
    queue.try_publish(&mut Some(queued), Hear::Outcome)
}

async fn put_in_time(queue: &Queue, queued: Queued) -> Result<Published, Error> {
    queue.publish(&mut Some(queued), Hear::Outcome).await
}

fn told(queue: &Queue, number: Published) -> Poll<Outcome> {
    let mut context = Context::from_waker(Waker::noop());
    queue.outcomes().poll(number.unwrap(), &mut context)
}

fn taken(queue: &Queue, room: Room) -> Vec<u8> {
    let mut batch = Batch::default();
    queue.take(room, &mut batch, Idle::Sleeps);
    batch
        .publishes
        .iter()
        .map(|queued| queued.publish.payload[0])
        .collect()
}

#[test]
fn refuses_or_displaces_when_full() {
    let refusing = queue(Overflow::Refuse);
    let displacing = queue(Overflow::DropOldest);
    for queue in [&refusing, &displacing] {
        put(queue, queued(1, QoS::AtLeastOnce)).unwrap();
        put(queue, queued(2, QoS::AtLeastOnce)).unwrap();
    }
    let refused = put(&refusing, queued(3, QoS::AtLeastOnce));
    assert!(matches!(refused, Err(Error::QueueFull)));
    put(&displacing, queued(3, QoS::AtLeastOnce)).unwrap();
    assert_eq!(taken(&refusing, ALL), [1, 2]);
    assert_eq!(taken(&displacing, ALL), [2, 3]);
    assert_eq!(displacing.displaced(), 1);
}

#[test]
fn is_bounded_by_bytes_too_but_lets_one_large_message_through() {
    let queue = queue_of(100, 100, Overflow::Refuse);
    let large = || {
        let mut large = queued(1, QoS::AtMostOnce);
        large.publish.payload = Bytes::from_static(&[0; 200]);
        large
    };
    put(&queue, large()).unwrap();
    assert!(matches!(put(&queue, large()), Err(Error::QueueFull)));
}

#[test]
fn takes_no_more_than_the_window_and_keeps_the_order() {
    let queue = queue(Overflow::Refuse);
    put(&queue, queued(1, QoS::AtLeastOnce)).unwrap();
    put(&queue, queued(2, QoS::AtMostOnce)).unwrap();

    assert!(taken(&queue, room(0)).is_empty(), "QoS 0 does not overtake");
    assert_eq!(taken(&queue, room(1)), [1, 2]);
}

#[tokio::test]
async fn a_waiting_producer_goes_on_when_there_is_room() {
    let queue = std::sync::Arc::new(queue(Overflow::Wait));
    put(&queue, queued(1, QoS::AtMostOnce)).unwrap();
    put(&queue, queued(2, QoS::AtMostOnce)).unwrap();
    let producer = {
        let queue = queue.clone();
        tokio::spawn(async move { put_in_time(&queue, queued(3, QoS::AtMostOnce)).await })
    };
    tokio::task::yield_now().await;
    assert!(!producer.is_finished());
    assert_eq!(taken(&queue, ALL), [1, 2]);
    producer.await.unwrap().unwrap();
    assert_eq!(taken(&queue, ALL), [3]);
}

#[tokio::test]
async fn closing_frees_whoever_waits() {
    let queue = std::sync::Arc::new(queue(Overflow::Wait));
    put(&queue, queued(1, QoS::AtMostOnce)).unwrap();
    put(&queue, queued(2, QoS::AtMostOnce)).unwrap();
    let producer = {
        let queue = queue.clone();
        tokio::spawn(async move { put_in_time(&queue, queued(3, QoS::AtMostOnce)).await })
    };
    tokio::task::yield_now().await;
    queue.close();
    assert!(matches!(producer.await.unwrap(), Err(Error::NotConnected)));
}

#[test]
fn takes_no_more_controls_than_there_is_room_for() {
    let queue = queue(Overflow::Refuse);
    for _ in 0..2 {
        queue
            .control(Control::Unsubscribe(Vec::new(), None))
            .unwrap();
    }
    let more = queue.control(Control::Unsubscribe(Vec::new(), None));
    assert!(matches!(more, Err(Error::QueueFull)));
    let mut batch = Batch::default();
    let room = Room { controls: 1, ..ALL };
    queue.take(room, &mut batch, Idle::Sleeps);
    assert_eq!(batch.controls.len(), 1);
    assert!(!queue.is_empty());
}

#[test]
fn subscribes_that_were_given_up_take_no_room_and_are_not_made() {
    let queue = queue(Overflow::Refuse);
    let subscribe = || {
        let (answered, waiting) = tokio::sync::oneshot::channel();
        let subscribe = Control::Subscribe(Vec::new(), None, Some(answered));
        (queue.control(subscribe), waiting)
    };
    for _ in 0..3 {
        let (queued, waiting) = subscribe();
        queued.unwrap();
        drop(waiting);
    }
    assert!(queue.is_empty(), "nobody has to wait for them");
    let (queued, _waiting) = subscribe();
    queued.unwrap();
    queue
        .control(Control::Unsubscribe(Vec::new(), None))
        .unwrap();
    let (queued, _) = subscribe();
    assert!(matches!(queued, Err(Error::QueueFull)));
    let mut batch = Batch::default();
    queue.take(ALL, &mut batch, Idle::Sleeps);
    assert!(matches!(
        batch.controls[..],
        [Control::Subscribe(..), Control::Unsubscribe(..)]
    ));
}

#[tokio::test]
async fn a_stall_sends_everybody_away_and_keeps_what_is_queued() {
    let queue = std::sync::Arc::new(queue(Overflow::Wait));
    let first = put(&queue, queued(1, QoS::AtLeastOnce)).unwrap();
    put(&queue, queued(2, QoS::AtLeastOnce)).unwrap();
    let producer = {
        let queue = queue.clone();
        tokio::spawn(async move { put_in_time(&queue, queued(3, QoS::AtLeastOnce)).await })
    };
    tokio::task::yield_now().await;
    queue.stall();
    assert!(matches!(producer.await.unwrap(), Err(Error::Stalled(_))));
    let first = told(&queue, first);
    assert!(matches!(first, Poll::Ready(Err(Error::Stalled(_)))));
    assert_eq!(taken(&queue, ALL), [1, 2]);
}

#[test]
fn what_has_expired_makes_room_and_says_so() {
    let queue = queue(Overflow::Refuse);
    let now = Instant::now();
    let mut useless = queued(1, QoS::AtLeastOnce);
    useless.expires = Some(now);
    let useless = put(&queue, useless).unwrap();
    put(&queue, queued(2, QoS::AtLeastOnce)).unwrap();
    put(&queue, queued(3, QoS::AtLeastOnce)).unwrap();
    let useless = told(&queue, useless);
    assert!(matches!(useless, Poll::Ready(Err(Error::Expired))));
    assert_eq!(taken(&queue, ALL), [2, 3]);

    let mut later = queued(4, QoS::AtLeastOnce);
    later.expires = Some(now + Duration::from_secs(60));
    put(&queue, later).unwrap();
    queue.expire(now + Duration::from_secs(59));
    assert_eq!(queue.len(), 1);
    queue.expire(now + Duration::from_secs(60));
    assert_eq!((queue.len(), queue.expired()), (0, 2));
}

#[test]
fn a_full_queue_says_so_once_and_again_when_half_of_it_is_free() {
    let queue = queue_of(4, 1 << 20, Overflow::Refuse);
    let mut events = queue.events.subscribe();
    for number in 0..6 {
        let _ = put(&queue, queued(number, QoS::AtLeastOnce));
    }
    assert!(matches!(events.try_recv(), Ok(Event::OutgoingPaused)));
    taken(&queue, room(1));
    assert!(events.try_recv().is_err(), "not yet");
    taken(&queue, room(1));
    assert!(matches!(events.try_recv(), Ok(Event::OutgoingResumed)));
    assert!(events.try_recv().is_err());
}

#[test]
fn only_a_driver_that_sleeps_and_can_write_is_woken_for_a_publish() {
    let queue = queue_of(100, 1 << 20, Overflow::Refuse);
    let mut context = Context::from_waker(Waker::noop());
    let mut is_woken = || std::pin::pin!(queue.work()).poll(&mut context).is_ready();
    let mut batch = Batch::default();
    for (idle, wakes) in [
        (Idle::LooksAgain, false),
        (Idle::Writes, false),
        (Idle::Sleeps, true),
    ] {
        queue.take(ALL, &mut batch, idle);
        assert!(batch.is_empty());
        put(&queue, queued(1, QoS::AtMostOnce)).unwrap();
        assert_eq!(is_woken(), wakes, "{idle:?}");
        put(&queue, queued(2, QoS::AtMostOnce)).unwrap();
        assert!(!is_woken(), "one is enough");
        queue.take(ALL, &mut batch, Idle::Sleeps);
        assert_eq!(std::mem::take(&mut batch).publishes.len(), 2);
        put(&queue, queued(3, QoS::AtMostOnce)).unwrap();
        assert!(!is_woken(), "who has taken something looks again");
        assert_eq!(taken(&queue, ALL), [3]);
        queue.take(ALL, &mut batch, Idle::Writes);
        queue
            .control(Control::Unsubscribe(Vec::new(), None))
            .unwrap();
        assert!(is_woken(), "for anything else");
        queue.take(ALL, &mut batch, idle);
        batch = Batch::default();
        queue.take(ALL, &mut batch, idle);
    }
}

#[test]
fn whoever_may_wait_to_be_told_is_told_of_everything() {
    type Happening<'a> = (&'a str, &'a dyn Fn(&Queue) -> Result<(), Error>);
    let put_in = |queue: &Queue| put(queue, queued(1, QoS::AtMostOnce)).map(drop);
    let control = |queue: &Queue| queue.control(Control::Unsubscribe(Vec::new(), None));
    let settle = |queue: &Queue| {
        queue.settle(AckId::FIRST, Settled::Dropped);
        Ok(())
    };
    let close = |queue: &Queue| {
        queue.close();
        Ok(())
    };
    let wake = |queue: &Queue| {
        queue.wake();
        Ok(())
    };
    for persistence in [false, true] {
        let happenings: [Happening<'_>; 5] = [
            ("publish", &put_in),
            ("control", &control),
            ("settle", &settle),
            ("close", &close),
            ("wake", &wake),
        ];
        for (name, happens) in happenings {
            let mut queue = queue_of(100, 1 << 20, Overflow::Refuse);
            if persistence {
                queue.saving = Saving::All;
            }
            let mut batch = Batch::default();
            assert_eq!(queue.take(ALL, &mut batch, Idle::LooksAgain), Quiet::No);
            assert_eq!(queue.take(ALL, &mut batch, Idle::Writes), Quiet::No);
            let quiet = queue.take(ALL, &mut batch, Idle::Sleeps);
            assert_eq!(
                (quiet, queue.has_told()),
                (Quiet::UntilTold, false),
                "{name}"
            );
            happens(&queue).unwrap();
            assert!(queue.has_told(), "{name}");
        }
    }
}

#[test]
fn a_control_that_waits_for_room_is_looked_for_again_without_being_told() {
    let queue = queue_of(100, 1 << 20, Overflow::Refuse);
    let mut batch = Batch::default();
    queue
        .control(Control::Unsubscribe(Vec::new(), None))
        .unwrap();
    let full = Room { controls: 0, ..ALL };
    assert_eq!(queue.take(full, &mut batch, Idle::Sleeps), Quiet::No);
    assert!(batch.is_empty());
    queue.take(ALL, &mut batch, Idle::Sleeps);
    assert_eq!(batch.controls.len(), 1);
}
