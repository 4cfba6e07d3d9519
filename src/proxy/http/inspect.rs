//! A second, strict look at what HTTP/1.1 clients send, before the HTTP library sees it.
//!
//! The library repairs some of what two servers can read in two ways, such as a length beside chunks, and that
//! is what request smuggling lives on (RFC 9112 section 11.2). Here such a message is spoilt instead, so that
//! the library answers it with 400 and closes. Where messages begin and end is followed byte by byte; the heads
//! are kept as they came, because the library loses the order and the case of their names.
//!
//! Pure: bytes in, a verdict out. It takes less than the library does, never more.

use bytes::Bytes;

/// The longest line of a chunk's size with its extensions, in bytes.
const MAX_CHUNK_LINE: usize = 4096;
/// Empty lines that may stand before a request (RFC 9112 section 2.2).
const MAX_EMPTY_LINES: usize = 4;

/// Where the next byte belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To a head.
    Head,
    /// To content, so many bytes of which are missing.
    Content(u64),
    /// To the size of a chunk.
    ChunkSize,
    /// To a chunk, so many bytes of which are missing.
    Chunk(u64),
    /// To the line end after a chunk; how many of its two bytes are there.
    ChunkEnd(u8),
    /// To the fields after the last chunk.
    Trailers,
    /// To nobody yet: what was asked for may make a tunnel of the connection.
    Held,
    /// No longer to HTTP, or the library is about to close.
    Unwatched,
}

/// What is to be done with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of them are good.
    Good,
    /// From this one on they are not to be read as HTTP.
    Bad(usize),
    /// Those from this one on have to wait.
    Hold(usize),
}

/// How a message's content is framed.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Follows one connection.
#[derive(Debug)]
pub(super) struct Inspector {
    state: State,
    /// The current head or line, as far as it is there.
    seen: Vec<u8>,
    /// Where the current line begins in it.
    line: usize,
    empty_lines: usize,
    framing: Framing,
    max_head: usize,
    heads: Vec<Bytes>,
    copies: Copies,
}

/// What is told of a head that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// All of it.
    Whole,
    /// That it has come, where nobody looks at more: its bytes are empty.
    Empty,
}

impl Inspector {
    pub(super) fn new(max_head: usize, copies: Copies) -> Self {
        Self {
            state: State::Head,
            seen: Vec::new(),
            line: 0,
            empty_lines: 0,
            framing: Framing::default(),
            max_head,
            heads: Vec::new(),
            copies,
        }
    }

    /// Looks at the next bytes.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Verdict {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Unwatched => return Verdict::Good,
                State::Held => return Verdict::Hold(at),
                State::Content(missing) => {
                    let taken = part(missing, rest);
                    at += taken;
                    self.content(missing - taken as u64);
                }
                State::Chunk(missing) => {
                    let taken = part(missing, rest);
                    at += taken;
                    let missing = missing - taken as u64;
                    self.state = match missing {
                        0 => State::ChunkEnd(0),
                        _ => State::Chunk(missing),
                    };
                }
                State::ChunkEnd(known) => {
                    if rest[0] != b"\r\n"[usize::from(known)] {
                        return Verdict::Bad(at);
                    }
                    at += 1;
                    self.state = match known {
                        0 => State::ChunkEnd(1),
                        _ => State::ChunkSize,
                    };
                }
                State::Head | State::ChunkSize | State::Trailers => {
                    let taken = self.whole_head(rest);
                    if taken > 0 {
                        at += taken;
                        continue;
                    }
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.seen.extend_from_slice(rest);
                        return self.unfinished(at);
                    };
                    self.seen.extend_from_slice(&rest[..=end]);
                    at += end + 1;
                    if self.is_too_long() {
                        self.state = State::Unwatched;
                    } else if self.end_line().is_none() {
                        return Verdict::Bad(at - 1);
                    }
                }
            }
        }
        Verdict::Good
    }

    /// Heads that have come whole since the last call.
    pub(super) fn heads(&mut self) -> impl Iterator<Item = Bytes> + '_ {
        self.heads.drain(..)
    }

    /// Whether nothing can be said of the bytes that come next.
    pub(super) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// What was held back is HTTP after all.
    pub(super) fn release(&mut self) {
        if self.state == State::Held {
            self.state = State::Head;
        }
    }

    /// What comes from here on is none of HTTP's.
    pub(super) fn give_up(&mut self) {
        self.state = State::Unwatched;
        self.seen = Vec::new();
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_within_content(&self) -> bool {
        matches!(
            self.state,
            State::Content(_)
                | State::ChunkSize
                | State::Chunk(_)
                | State::ChunkEnd(_)
                | State::Trailers
        )
    }

    fn is_too_long(&self) -> bool {
        let limit = match self.state {
            State::ChunkSize => MAX_CHUNK_LINE,
            _ => self.max_head,
        };
        self.seen.len() > limit
    }

    /// A line without an end so far: the library has a limit for it, too, and an answer.
    fn unfinished(&mut self, at: usize) -> Verdict {
        if self.is_too_long() {
            if self.state == State::ChunkSize {
                return Verdict::Bad(at);
            }
            self.give_up();
        }
        Verdict::Good
    }

    /// A whole line is there; `None` where it is not one that everybody reads in the same way.
    fn end_line(&mut self) -> Option<()> {
        let line = self.seen[self.line..].strip_suffix(b"\r\n")?;
        if memchr::memchr(b'\r', line).is_some() {
            return None;
        }
        match self.state {
            State::ChunkSize => {
                let size = chunk_size(line)?;
                self.restart();
                self.state = match size {
                    0 => State::Trailers,
                    size => State::Chunk(size),
                };
            }
            State::Trailers if line.is_empty() => {
                self.restart();
                self.end_message();
            }
            State::Trailers => {
                field(line)?;
                self.line = self.seen.len();
            }
            _ if line.is_empty() && self.line == 0 => {
                self.empty_lines += 1;
                self.restart();
                return (self.empty_lines <= MAX_EMPTY_LINES).then_some(());
            }
            _ if line.is_empty() => self.end_head(),
            _ if self.line == 0 => {
                self.framing = Framing::of(line);
                self.line = self.seen.len();
            }
            _ => {
                let (name, value) = field(line)?;
                self.framing.see(name, value)?;
                self.line = self.seen.len();
            }
        }
        Some(())
    }

    /// Takes a head that is whole and good and lies in one piece, as most do, without a copy of its lines, and
    /// tells its length; 0 for all others, which are left to be looked at line by line.
    fn whole_head(&mut self, bytes: &[u8]) -> usize {
        if self.state != State::Head || !self.seen.is_empty() {
            return 0;
        }
        match good_head(bytes) {
            Some((length, framing)) if length <= self.max_head => {
                self.framing = framing;
                self.empty_lines = 0;
                self.heads.push(self.copies.of(&bytes[..length]));
                self.begin_content();
                length
            }
            _ => 0,
        }
    }

    fn end_head(&mut self) {
        self.empty_lines = 0;
        self.heads.push(self.copies.of(&self.seen));
        self.restart();
        self.begin_content();
    }

    fn begin_content(&mut self) {
        if self.framing.chunked {
            self.state = State::ChunkSize;
        } else {
            self.content(self.framing.length.unwrap_or(0));
        }
    }

    fn content(&mut self, missing: u64) {
        match missing {
            0 => self.end_message(),
            _ => self.state = State::Content(missing),
        }
    }

    fn end_message(&mut self) {
        self.state = if self.framing.upgrade {
            State::Held
        } else {
            State::Head
        };
    }

    fn restart(&mut self) {
        self.seen.clear();
        self.line = 0;
    }
}

impl Copies {
    fn of(self, head: &[u8]) -> Bytes {
        match self {
            Self::Whole => Bytes::copy_from_slice(head),
            Self::Empty => Bytes::new(),
        }
    }
}

impl Framing {
    /// What a request's first line tells.
    fn of(line: &[u8]) -> Self {
        Self {
            upgrade: line.starts_with(b"CONNECT "),
            ..Self::default()
        }
    }

    /// Takes note of a field; `None` where it makes the end of the message a matter of opinion.
    fn see(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits)?;
            if self.chunked || self.length.replace(length.parse().ok()?).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || self.length.is_some() || self.chunked {
                return None;
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Some(())
    }
}

/// The length and the framing of a head that is whole and as it should be.
fn good_head(bytes: &[u8]) -> Option<(usize, Framing)> {
    let (mut at, mut framing) = (0, None);
    loop {
        let rest = &bytes[at..];
        let end = memchr::memchr2(b'\r', b'\n', rest)?;
        if rest.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        let line = &rest[..end];
        at += end + 2;
        match &mut framing {
            None if line.is_empty() => return None,
            None => framing = Some(Framing::of(line)),
            Some(_) if line.is_empty() => return framing.map(|framing| (at, framing)),
            Some(framing) => {
                let (name, value) = field(line)?;
                framing.see(name, value)?;
            }
        }
    }
}

/// Which bytes a field's name may have (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
};

/// Name and value of a field line; `None` where a space or a fold makes the name uncertain (RFC 9112 section 5).
pub(super) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| TOKEN[usize::from(*byte)]) {
        return None;
    }
    Some((name, value.trim_ascii()))
}

/// The size in a chunk's first line; extensions are allowed and ignored (RFC 9112 section 7.1.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = memchr::memchr(b';', line).unwrap_or(line.len());
    let digits = &line[..end];
    let hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| hex)?;
    u64::from_str_radix(digits, 16).ok()
}

/// How many of `bytes` belong to what is missing.
fn part(missing: u64, bytes: &[u8]) -> usize {
    usize::try_from(missing).map_or(bytes.len(), |missing| missing.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    fn inspect(bytes: &[u8], frame: usize) -> (bool, Vec<Bytes>) {
        let mut inspector = Inspector::new(64 << 10, Copies::Whole);
        let mut heads = Vec::new();
        for part in bytes.chunks(frame) {
            let verdict = inspector.look(part);
            heads.extend(inspector.heads());
            if let Verdict::Bad(at) = verdict {
                assert!(at < part.len(), "there is a byte to spoil");
                return (false, heads);
            }
        }
        (true, heads)
    }

    const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\r\n\r\nx",
        "POST / HTTP/1.1\r\ntransfer-encoding:CHUNKED\r\n\r\n6;a=\"b\"\r\nhel\nlo\r\n0\r\nX: 1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length:  0 \r\nX:\r\nY: a:b\r\n\r\n",
    ];

    #[test]
    fn good_messages_pass_one_after_the_other_whatever_the_frames() {
        let all = ["\r\n", &GOOD.concat(), &GOOD.concat()].concat();
        for frame in 1..all.len() {
            let (good, heads) = inspect(all.as_bytes(), frame);
            assert!(good, "{frame}");
            assert_eq!(heads.len(), 2 * GOOD.len(), "{frame}");
            assert_eq!(heads[0], GOOD[0]);
            assert!(heads[3].starts_with(b"PUT "));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_bad_whatever_the_frames() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut bad: Vec<String> = [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length: 1\r\ncontent-length: 2\r\n\r\n",
            "Content-Length: 1, 1\r\n\r\n",
            "Content-Length: +1\r\n\r\n",
            "Content-Length: 0x1\r\n\r\n",
            "Content-Length: \r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked, chunked\r\n\r\n",
            "Transfer-Encoding: identity\r\n\r\n",
            "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding: xchunked\r\n\r\n",
            "Transfer-Encoding : chunked\r\n\r\n",
            " Transfer-Encoding: chunked\r\n\r\n",
            "X: 1\r\n folded\r\n\r\n",
            "X: 1\r\n\tfolded\r\n\r\n",
            "X: 1\n\r\n",
            "X: 1\rY: 2\r\n\r\n",
            "X: 1\r\n\n",
            "X\r\n\r\n",
            ": 1\r\n\r\n",
            "X\0: 1\r\n\r\n",
        ]
        .iter()
        .map(|rest| format!("{head}{rest}"))
        .collect();
        for rest in [
            "zz\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "\r\n",
            "11111111111111111\r\n",
            "0\r\nX : 1\r\n\r\n",
        ] {
            bad.push(format!("{chunked}{rest}"));
        }
        bad.push("\r\n".repeat(6));
        for message in bad {
            for frame in 1..=message.len() {
                assert!(!inspect(message.as_bytes(), frame).0, "{frame} {message:?}");
            }
        }
    }

    #[test]
    fn what_may_become_a_tunnel_is_held_until_it_is_known() {
        let upgrade = b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n";
        let mut inspector = Inspector::new(8192, Copies::Whole);
        assert_eq!(inspector.look(upgrade), Verdict::Good);
        assert_eq!(inspector.look(b"any\nthing"), Verdict::Hold(0));
        inspector.release();
        assert_eq!(inspector.look(b"any\nthing"), Verdict::Bad(3));
        let mut inspector = Inspector::new(8192, Copies::Whole);
        let more = [&upgrade[..], b"any\nthing"].concat();
        assert_eq!(inspector.look(&more), Verdict::Hold(upgrade.len()));
        inspector.give_up();
        assert_eq!(inspector.look(b"any\nthing"), Verdict::Good);
    }

    #[test]
    fn what_comes_in_one_piece_is_judged_as_what_comes_byte_by_byte() {
        for good in GOOD {
            assert!(good_head(good.as_bytes()).is_some(), "{good:?}");
        }
        let mut inspector = Inspector::new(8192, Copies::Empty);
        assert_eq!(inspector.look(GOOD[0].as_bytes()), Verdict::Good);
        assert!(inspector.heads().eq([Bytes::new()]));
    }

    #[test]
    fn memory_is_bounded_by_the_limit_on_heads() {
        let mut inspector = Inspector::new(8192, Copies::Whole);
        for _ in 0..1000 {
            assert_eq!(inspector.look(&[b'x'; 1000]), Verdict::Good);
            assert!(inspector.seen.len() <= 9192);
        }
    }

    proptest! {
        #[test]
        fn a_message_means_the_same_however_it_is_cut(
            bytes in prop::collection::vec(prop::sample::select(&b"GT /:1a;\r\n"[..]), 0..80),
            start in any::<bool>(),
        ) {
            let head = if start { &b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"[..] } else { b"" };
            let all = [head, &bytes].concat();
            let whole = inspect(&all, all.len().max(1));
            for frame in 1..all.len() {
                assert_eq!(inspect(&all, frame), whole);
            }
        }
    }
}
