//! The calls of a stream in the order in which they were made, and which of them waits for its answer.
//!
//! Servers answer in order, so the answer that comes next belongs to the first call without one. Only what is listed is
//! followed; what comes after it is counted.

use std::sync::Arc;

use super::text::Said;
use crate::record::{Answer, Application, Call};

/// A listed call.
#[derive(Debug)]
pub(super) struct Listed {
    offset_us: u64,
    said: Said,
    answer: Option<Answer>,
    /// Which group of calls it belongs to, where the protocol has groups.
    pub(super) group: u64,
    /// How many replies it waits for.
    pub(super) replies: u64,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    calls: Vec<Listed>,
    /// The first that has no whole answer.
    next: usize,
    count: u64,
    /// What texts and errors take.
    bytes: usize,
}

impl Log {
    /// Whether a further call would only be counted, so that its text is not needed.
    pub(super) fn is_full(&self) -> bool {
        self.calls.len() >= Application::LISTED
    }

    /// Whether nothing that a server says matters any more.
    pub(super) fn is_settled(&self) -> bool {
        self.is_full() && self.next >= self.calls.len()
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// A call was made. `said` is asked for only where it is listed.
    pub(super) fn call(
        &mut self,
        offset_us: u64,
        said: impl FnOnce() -> Said,
    ) -> Option<&mut Listed> {
        self.count += 1;
        if self.is_full() {
            return None;
        }
        let said = said();
        self.bytes += said.as_str().len() + size_of::<Listed>();
        self.calls.push(Listed {
            offset_us,
            said,
            answer: None,
            group: 0,
            replies: 1,
        });
        self.calls.last_mut()
    }

    /// The call whose answer comes next.
    pub(super) fn waiting(&mut self) -> Option<&mut Listed> {
        self.calls.get_mut(self.next)
    }

    /// The answer to the waiting call begins.
    pub(super) fn answer_begins(&mut self, at_us: u64) {
        if let Some(call) = self.calls.get_mut(self.next) {
            let after_us = at_us.saturating_sub(call.offset_us);
            call.answer.get_or_insert(Answer {
                after_us,
                error: None,
            });
        }
    }

    /// It is whole; the next call waits.
    pub(super) fn answer_ends(&mut self) {
        self.next = (self.next + 1).min(self.calls.len());
    }

    /// It is whole, and it is an error.
    pub(super) fn answer_fails(&mut self, at_us: u64, code: &str, message: &[u8]) {
        self.answer_begins(at_us);
        self.answer_ends();
        self.answer_failed(code, message);
    }

    /// The answer that ended last turns out to be an error.
    pub(super) fn answer_failed(&mut self, code: &str, message: &[u8]) {
        let last = self.next.checked_sub(1);
        let call = last.and_then(|last| self.calls.get_mut(last));
        if let Some(call) = call
            && let Some(answer) = &mut call.answer
            && answer.error.is_none()
        {
            let error: Arc<str> = call.said.error(code, message);
            self.bytes += error.len();
            answer.error = Some(error);
        }
    }

    /// The waiting call gets no answer.
    pub(super) fn no_answer(&mut self) {
        self.answer_ends();
    }

    /// Drops the list; the count stays.
    pub(super) fn forget(&mut self) {
        (self.calls, self.next, self.bytes) = (Vec::new(), 0, 0);
    }

    /// What it takes of memory, bytes.
    pub(super) const fn held(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_calls(self) -> Vec<Call> {
        let call = |listed: Listed| Call {
            offset_us: listed.offset_us,
            text: listed.said.as_str().into(),
            answer: listed.answer,
        };
        self.calls.into_iter().map(call).collect()
    }
}

impl Listed {
    pub(super) fn text(&self) -> &str {
        self.said.as_str()
    }
}
