//! What ends the listening, and what it may take.

use super::{Client, Server, application, calls, resp};
use crate::capture::calls::{Budget, Heard, Listener};
use crate::record::Application;

#[test]
fn what_stops_to_make_sense_keeps_what_was_told_and_says_so() {
    let asked = [
        resp(&["GET", "a"]),
        b"*1\r\nfoo\r\n".to_vec(),
        resp(&["GET", "b"]),
    ]
    .concat();
    let application = application(&[(Client, &asked)]);
    assert_eq!(calls(&application), ["GET a ?"]);
    assert!(application.broken);
}

#[test]
fn bytes_that_were_not_kept_end_the_listening() {
    let budget = Budget::new(usize::MAX);
    let mut listener = Listener::new();
    let get = resp(&["GET", "a"]);
    for position in [0, get.len() as u64, 1000] {
        let heard = Heard {
            direction: Client,
            position,
            offset_us: 5,
            bytes: &get,
        };
        assert!(listener.hear(heard, &budget));
    }
    let application = listener.finish(false, &budget).unwrap();
    assert_eq!((application.count, application.broken), (2, true));
}

#[test]
fn past_the_listed_calls_they_are_counted() {
    let get = resp(&["GET", "a"]).repeat(1000);
    let application = application(&[(Client, &get), (Server, &b"$-1\r\n".repeat(1000))]);
    assert_eq!(application.count, 1000);
    assert_eq!(application.calls.len(), Application::LISTED);
    assert!(application.calls.iter().all(|call| call.answer.is_some()));
}

#[test]
fn a_call_has_its_times() {
    let budget = Budget::new(usize::MAX);
    let mut listener = Listener::new();
    let (mut asked, mut told) = (0, 0);
    let mut hear = |direction, offset_us, bytes: &[u8]| {
        let sent = if direction == Client {
            &mut asked
        } else {
            &mut told
        };
        let position = *sent;
        *sent += bytes.len() as u64;
        let heard = Heard {
            direction,
            position,
            offset_us,
            bytes,
        };
        listener.hear(heard, &budget);
    };
    hear(Client, 100, b"*2\r\n$3\r\n");
    hear(Client, 200, b"GET\r\n$1\r\na\r\n");
    hear(Server, 350, b"$1\r");
    hear(Server, 900, b"\na\r\n");
    let application = listener.finish(false, &budget).unwrap();
    let call = &application.calls[0];
    assert_eq!(call.offset_us, 100);
    assert_eq!(call.answer.as_ref().unwrap().after_us, 250);
}

#[test]
fn a_budget_that_is_spent_ends_the_listening_and_comes_back() {
    let budget = Budget::new(20_000);
    let get = resp(&["GET", &"k".repeat(60)]);
    let hear = |listener: &mut Listener, position| {
        let heard = Heard {
            direction: Client,
            position,
            offset_us: 0,
            bytes: &get,
        };
        listener.hear(heard, &budget)
    };
    let mut listeners: Vec<_> = std::iter::repeat_with(Listener::new).take(50).collect();
    let mut refused = 0;
    for round in 0..10 {
        for listener in &mut listeners {
            refused += usize::from(!hear(listener, round * get.len() as u64));
            assert!(budget.held() <= 20_000, "{}", budget.held());
        }
    }
    assert!(
        refused > 0 && refused <= 50,
        "each is given up once: {refused}"
    );
    let broken = listeners.into_iter().map(|mut listener| {
        let application = listener.finish(false, &budget);
        application.is_none_or(|application| application.broken)
    });
    assert!(broken.filter(|broken| *broken).count() >= refused);
    assert_eq!(budget.held(), 0);
}
