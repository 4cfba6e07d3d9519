//! Bounds, order and what those hear who wait.

use bytes::Bytes;

use super::*;
use crate::codec::{Publish, QoS, Text};
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
        kept: Kept::Yes,
        number: None,
        saved: None,
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

fn taken(queue: &Queue, room: Room) -> Vec<u8> {
    let mut batch = Batch::default();
    queue.take(room, &mut batch);
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
        queue.try_publish(queued(1, QoS::AtLeastOnce)).unwrap();
        queue.try_publish(queued(2, QoS::AtLeastOnce)).unwrap();
    }
    let refused = refusing.try_publish(queued(3, QoS::AtLeastOnce));
    assert!(matches!(refused, Err(Error::QueueFull)));
    displacing.try_publish(queued(3, QoS::AtLeastOnce)).unwrap();
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
    queue.try_publish(large()).unwrap();
    assert!(matches!(queue.try_publish(large()), Err(Error::QueueFull)));
}

#[test]
fn takes_no_more_than_the_window_and_keeps_the_order() {
    let queue = queue(Overflow::Refuse);
    queue.try_publish(queued(1, QoS::AtLeastOnce)).unwrap();
    queue.try_publish(queued(2, QoS::AtMostOnce)).unwrap();

    assert!(taken(&queue, room(0)).is_empty(), "QoS 0 does not overtake");
    assert_eq!(taken(&queue, room(1)), [1, 2]);
}

#[tokio::test]
async fn a_waiting_producer_goes_on_when_there_is_room() {
    let queue = std::sync::Arc::new(queue(Overflow::Wait));
    queue.try_publish(queued(1, QoS::AtMostOnce)).unwrap();
    queue.try_publish(queued(2, QoS::AtMostOnce)).unwrap();
    let producer = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.publish(queued(3, QoS::AtMostOnce)).await })
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
    queue.try_publish(queued(1, QoS::AtMostOnce)).unwrap();
    queue.try_publish(queued(2, QoS::AtMostOnce)).unwrap();
    let producer = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.publish(queued(3, QoS::AtMostOnce)).await })
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
    queue.take(room, &mut batch);
    assert_eq!(batch.controls.len(), 1);
    assert!(!queue.is_empty());
}

#[test]
fn subscribes_that_were_given_up_take_no_room_and_are_not_made() {
    let queue = queue(Overflow::Refuse);
    let subscribe = || {
        let (answered, waiting) = oneshot::channel();
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
    queue.take(ALL, &mut batch);
    assert!(matches!(
        batch.controls[..],
        [Control::Subscribe(..), Control::Unsubscribe(..)]
    ));
}

#[tokio::test]
async fn a_stall_sends_everybody_away_and_keeps_what_is_queued() {
    let queue = std::sync::Arc::new(queue(Overflow::Wait));
    let (done, outcome) = oneshot::channel();
    let mut first = queued(1, QoS::AtLeastOnce);
    first.done = Some(done);
    queue.try_publish(first).unwrap();
    queue.try_publish(queued(2, QoS::AtLeastOnce)).unwrap();
    let producer = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.publish(queued(3, QoS::AtLeastOnce)).await })
    };
    tokio::task::yield_now().await;
    queue.stall();
    assert!(matches!(producer.await.unwrap(), Err(Error::Stalled(_))));
    assert!(matches!(outcome.await.unwrap(), Err(Error::Stalled(_))));
    assert_eq!(taken(&queue, ALL), [1, 2]);
}

#[test]
fn what_has_expired_makes_room_and_says_so() {
    let queue = queue(Overflow::Refuse);
    let now = Instant::now();
    let (done, mut outcome) = oneshot::channel();
    let mut useless = queued(1, QoS::AtLeastOnce);
    useless.expires = Some(now);
    useless.done = Some(done);
    queue.try_publish(useless).unwrap();
    queue.try_publish(queued(2, QoS::AtLeastOnce)).unwrap();
    queue.try_publish(queued(3, QoS::AtLeastOnce)).unwrap();
    assert!(matches!(outcome.try_recv(), Ok(Err(Error::Expired))));
    assert_eq!(taken(&queue, ALL), [2, 3]);

    let mut later = queued(4, QoS::AtLeastOnce);
    later.expires = Some(now + Duration::from_secs(60));
    queue.try_publish(later).unwrap();
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
        let _ = queue.try_publish(queued(number, QoS::AtLeastOnce));
    }
    assert!(matches!(events.try_recv(), Ok(Event::OutgoingPaused)));
    taken(&queue, room(1));
    assert!(events.try_recv().is_err(), "not yet");
    taken(&queue, room(1));
    assert!(matches!(events.try_recv(), Ok(Event::OutgoingResumed)));
    assert!(events.try_recv().is_err());
}
