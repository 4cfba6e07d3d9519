//! What the fuzz target does with its bytes: `fuzz/fuzz_targets/calls.rs`. The same function runs in the normal tests,
//! over mutations of real conversations.
#![allow(
    clippy::missing_panics_doc,
    missing_docs,
    reason = "panicking is how a finding is told"
)]

use super::{Budget, Heard, Listener};
use crate::record::{Application, Direction};

/// More than this no stream may hold, bytes: 100 calls, their texts and errors, and what readers remember.
const MOST_HELD: usize = 160 << 10;

/// Reads the bytes as a conversation: a byte that tells who speaks and how much, then that much; and the same again byte
/// by byte. Both must tell the same, within the limits.
pub fn conversation(data: &[u8]) {
    let parts = parts(data);
    let whole = listen(&parts, usize::MAX);
    let split = listen(&parts, 1);
    assert_eq!(whole, split, "it depends on how the bytes are cut");
    let Some(application) = whole else { return };
    let texts = application.calls.iter().map(|call| &call.text);
    let errors = application.calls.iter().filter_map(|call| {
        let answer = call.answer.as_ref()?;
        answer.error.as_ref()
    });
    assert!(application.calls.len() <= Application::LISTED);
    assert!(application.count >= application.calls.len() as u64);
    for text in texts.chain(errors) {
        assert!(text.len() <= Application::TEXT_BYTES, "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}

pub(super) fn parts(mut data: &[u8]) -> Vec<(Direction, &[u8])> {
    let mut parts = Vec::new();
    while let Some((head, rest)) = data.split_first() {
        let direction = if head & 1 == 0 {
            Direction::Client
        } else {
            Direction::Server
        };
        let (part, tail) = rest.split_at(usize::from(head >> 1).min(rest.len()));
        parts.push((direction, part));
        data = tail;
    }
    parts
}

/// What a listener makes of it, in pieces of at most `size` bytes.
pub(super) fn listen(parts: &[(Direction, &[u8])], size: usize) -> Option<Application> {
    let budget = Budget::new(usize::MAX);
    let mut listener = Listener::new();
    let mut sent = [0, 0];
    for (direction, bytes) in parts {
        let sent = &mut sent[usize::from(*direction == Direction::Server)];
        for piece in bytes.chunks(size.min(bytes.len().max(1))) {
            let heard = Heard {
                direction: *direction,
                position: *sent,
                offset_us: 0,
                bytes: piece,
            };
            assert!(listener.hear(heard, &budget));
            assert!(budget.held() <= MOST_HELD, "{} bytes held", budget.held());
            *sent += piece.len() as u64;
        }
    }
    let application = listener.finish(false, &budget);
    assert_eq!(budget.held(), 0, "all is given back");
    application
}
