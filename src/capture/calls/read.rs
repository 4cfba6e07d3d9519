//! Reading what comes in pieces: something of a known length, a line, or a message behind a head that tells its
//! length; of each only the beginning is kept.

use super::Stop;

/// Something of a known length.
#[derive(Debug, Default)]
pub(super) struct Piece {
    kept: Vec<u8>,
    keep: usize,
    /// How many bytes are still to come.
    left: u64,
}

impl Piece {
    /// `length` bytes come, of which the first `keep` matter.
    pub(super) fn expect(&mut self, length: u64, keep: usize) {
        self.kept.clear();
        // What was large once is not held for the rest of the stream.
        self.kept.shrink_to(256);
        self.keep = keep.min(usize::try_from(length).unwrap_or(keep));
        self.left = length;
    }

    /// Takes its bytes from the front of `bytes`; whether it is whole.
    pub(super) fn take(&mut self, bytes: &mut &[u8]) -> bool {
        let length = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (mine, rest) = bytes.split_at(length);
        let keep = (self.keep - self.kept.len()).min(length);
        self.kept.extend_from_slice(&mine[..keep]);
        self.left -= length as u64;
        *bytes = rest;
        self.left == 0
    }

    /// Its beginning.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    pub(super) const fn held(&self) -> usize {
        self.kept.capacity()
    }
}

/// A line, without its end of LF or CR LF.
#[derive(Debug, Default)]
pub(super) struct Line {
    kept: Vec<u8>,
    length: u64,
    whole: bool,
}

impl Line {
    /// Takes its bytes from the front of `bytes`, and keeps the first `keep`; whether it is whole.
    pub(super) fn take(&mut self, bytes: &mut &[u8], keep: usize) -> bool {
        if std::mem::take(&mut self.whole) {
            self.kept.clear();
            self.kept.shrink_to(256);
            self.length = 0;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (mine, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        // One more than is kept, so that the CR of a line that just fits is seen.
        let room = (keep + 2).saturating_sub(self.kept.len()).min(mine.len());
        self.kept.extend_from_slice(&mine[..room]);
        self.length += mine.len() as u64;
        *bytes = rest;
        self.whole = end.is_some();
        if self.whole {
            if self.kept.len() as u64 == self.length {
                self.kept.pop();
                self.length -= 1;
                if self.kept.last() == Some(&b'\r') {
                    self.kept.pop();
                    self.length -= 1;
                }
            }
            self.kept.truncate(keep);
        }
        self.whole
    }

    /// Its beginning.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Its length so far.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) const fn held(&self) -> usize {
        self.kept.capacity()
    }
}

/// Messages of one side, of which each has a head of a known length; `H` is what a head says.
#[derive(Debug, Default)]
pub(super) struct Framed<H> {
    head: Piece,
    body: Piece,
    at_us: u64,
    step: Step<H>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Step<H> {
    #[default]
    Between,
    Head,
    Body(H),
}

impl<H: Copy> Framed<H> {
    /// Takes a message of which `bytes` are the next; what its head says once all of it has come. `says` reads a head of
    /// `length` bytes: what it says, the length of the body, and how much of that matters.
    pub(super) fn take(
        &mut self,
        at_us: u64,
        bytes: &mut &[u8],
        length: u8,
        says: impl FnOnce(&[u8]) -> Result<(H, u32, usize), Stop>,
    ) -> Result<Option<H>, Stop> {
        if matches!(self.step, Step::Between) {
            self.at_us = at_us;
            self.head.expect(length.into(), length.into());
            self.step = Step::Head;
        }
        if !self.head.take(bytes) {
            return Ok(None);
        }
        let said = match self.step {
            Step::Body(said) => said,
            Step::Between | Step::Head => {
                let (said, length, keep) = says(self.head.kept())?;
                self.body.expect(length.into(), keep);
                self.step = Step::Body(said);
                said
            }
        };
        if !self.body.take(bytes) {
            return Ok(None);
        }
        self.step = Step::Between;
        Ok(Some(said))
    }

    /// The beginning of the body of the message that came last.
    pub(super) fn body(&self) -> &[u8] {
        self.body.kept()
    }

    /// When its first byte came.
    pub(super) const fn at_us(&self) -> u64 {
        self.at_us
    }

    pub(super) const fn held(&self) -> usize {
        self.head.held() + self.body.held()
    }
}

/// Splits at the first zero byte; all of it where there is none.
pub(super) fn until_zero(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

/// A decimal number; `None` for anything else.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    let short = (1..=18).contains(&bytes.len());
    if !short || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = bytes.iter().map(|byte| u64::from(byte - b'0'));
    Some(digits.fold(0, |number, digit| number * 10 + digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_lines_read_the_same_in_any_split() {
        for cut in 0..=12 {
            let whole = b"0123456789ab".as_slice();
            let mut piece = Piece::default();
            piece.expect(10, 4);
            let (mut one, mut two) = whole.split_at(cut);
            assert_eq!(piece.take(&mut one), cut >= 10);
            if cut < 10 {
                assert!(piece.take(&mut two));
            }
            assert_eq!(piece.kept(), b"0123");
            assert_eq!([one, two].concat(), b"ab");
        }
        for text in ["0123456789\r\nab", "0123456789\nab"] {
            for (keep, kept) in [(4, "0123"), (10, "0123456789"), (100, "0123456789")] {
                for cut in 0..=text.len() {
                    let (mut one, mut two) = text.as_bytes().split_at(cut);
                    let mut line = Line::default();
                    if !line.take(&mut one, keep) {
                        assert!(line.take(&mut two, keep));
                    }
                    assert_eq!(line.kept(), kept.as_bytes(), "{cut}");
                    assert_eq!([one, two].concat(), b"ab");
                }
            }
        }
    }

    #[test]
    fn messages_read_the_same_in_any_split_and_keep_when_they_began() {
        let two = b"\x03abcdef\x01gh".as_slice();
        let says = |head: &[u8]| Ok((head[0], 2 * u32::from(head[0]), 4));
        for cut in 0..=two.len() {
            let (one, other) = two.split_at(cut);
            let (mut framed, mut seen) = (Framed::default(), Vec::new());
            for (at_us, mut bytes) in [(10, one), (20, other)] {
                while !bytes.is_empty() {
                    if let Some(said) = framed.take(at_us, &mut bytes, 1, says).unwrap() {
                        seen.push((said, framed.body().to_vec(), framed.at_us()));
                    }
                }
            }
            let at_us = |begins| if begins < cut { 10 } else { 20 };
            let (first, second) = (b"abcd".to_vec(), b"gh".to_vec());
            assert_eq!(seen, [(3, first, at_us(0)), (1, second, at_us(7))], "{cut}");
        }
    }

    #[test]
    fn a_head_that_makes_no_sense_ends_the_reading() {
        let mut framed = Framed::<()>::default();
        let broken = framed.take(0, &mut b"x".as_slice(), 1, |_| Err(Stop::Broken));
        assert_eq!(broken, Err(Stop::Broken));
    }

    #[test]
    fn numbers_have_digits_only() {
        assert_eq!(decimal(b"0042"), Some(42));
        for no in ["", "+1", "-1", "1 ", "9999999999999999999"] {
            assert_eq!(decimal(no.as_bytes()), None, "{no}");
        }
    }
}
