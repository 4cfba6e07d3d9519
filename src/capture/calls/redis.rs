//! Redis: RESP 2 and 3 and inline commands (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
//!
//! A command's words are shown as they were sent, but for secrets. Replication and whatever else leaves the protocol
//! is not followed.

use super::log::Log;
use super::read::{Line, Piece, decimal};
use super::text::{self, KEPT, MASK, Said};
use super::{Facts, Stop};

/// How many words of a command are kept.
const WORDS: usize = 64;
/// How much of a word is looked at, bytes.
const SCANNED: usize = 256;
/// How much of a word is shown, bytes.
const WORD_BYTES: usize = 64;
/// The longest inline command that a server takes, bytes.
const INLINE_BYTES: u64 = 64 << 10;
/// The longest string that a server takes, and the most elements that a value has.
const MOST: u64 = 512 << 20;

#[derive(Debug, Default)]
pub(super) struct Redis {
    asked: Command,
    told: Reply,
    /// Whether messages come that nobody asked for one by one (RESP 2).
    subscribed: bool,
    /// Whether the client asked for silence, so that no answer can be told from another.
    silent: bool,
}

/// The command that is being read.
#[derive(Debug, Default)]
struct Command {
    line: Line,
    word: Piece,
    at_us: Option<u64>,
    /// Words that are still to come.
    left: u64,
    /// The length of the word that is being read.
    length: Option<u64>,
    words: Words,
}

/// The words of a command, as far as they are kept.
#[derive(Debug, Default)]
struct Words {
    kept: Vec<Word>,
    bytes: usize,
    count: u64,
}

#[derive(Debug)]
struct Word {
    kept: Box<[u8]>,
    length: u64,
}

/// The reply that is being read.
#[derive(Debug, Default)]
struct Reply {
    line: Line,
    bulk: Piece,
    at_us: u64,
    /// Values that are still to come; 0 between replies.
    left: u64,
    /// What the string is that is being read.
    in_bulk: Option<u8>,
    /// What the first value is, and the text of the first that has one.
    kind: u8,
    head: Vec<u8>,
    /// How many values have been read.
    values: u64,
}

impl Redis {
    pub(super) fn held(&self) -> usize {
        let (asked, told) = (&self.asked, &self.told);
        let words = asked.words.bytes + asked.words.kept.capacity() * size_of::<Word>();
        let replies = told.line.held() + told.bulk.held() + told.head.capacity();
        asked.line.held() + asked.word.held() + words + replies
    }

    pub(super) fn client(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let asked = &mut self.asked;
            let began = *asked.at_us.get_or_insert(at_us);
            if !asked.read(&mut bytes)? {
                continue;
            }
            asked.at_us = None;
            let words = std::mem::take(&mut asked.words);
            if words.count > 0 {
                self.command(began, &words, log, facts)?;
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        at_us: u64,
        words: &Words,
        log: &mut Log,
        facts: &mut Facts,
    ) -> Result<(), Stop> {
        let call = log.call(at_us, || words.said());
        let arguments = words.count - 1;
        let mut replies = 1;
        match words.lower(0).as_slice() {
            b"subscribe" | b"psubscribe" | b"ssubscribe" => {
                self.subscribed = true;
                replies = arguments;
            }
            b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => replies = arguments,
            b"client" if words.lower(1) == b"reply" && words.lower(2) != b"on" => {
                self.silent = true
            }
            b"psync" | b"sync" => return Err(Stop::Opaque),
            b"select" => learn(&mut facts.database, words.get(1)),
            b"auth" if arguments == 2 => learn(&mut facts.user, words.get(1)),
            b"hello" => {
                let auth = (1..words.kept.len()).find(|at| words.lower(*at) == b"auth");
                learn(&mut facts.user, auth.and_then(|at| words.get(at + 1)));
            }
            _ => {}
        }
        if let Some(call) = call {
            call.replies = replies.max(1);
        }
        Ok(())
    }

    pub(super) fn server(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() && !self.silent && !log.is_settled() {
            let told = &mut self.told;
            if told.left == 0 {
                told.begin(at_us);
            }
            if told.read(&mut bytes)? {
                self.replied(log);
            }
        }
        Ok(())
    }

    fn replied(&self, log: &mut Log) {
        let told = &self.told;
        let head = told.head.as_slice();
        let on = head.ends_with(b"subscribe");
        match told.kind {
            b'>' if !on => return,
            b'*' if self.subscribed && matches!(head, b"message" | b"pmessage" | b"smessage") => {
                return;
            }
            _ => {}
        }
        let Some(call) = log.waiting() else { return };
        // Leaving all channels is one command and as many replies as there were channels.
        let stray = head.ends_with(b"unsubscribe")
            && matches!(told.kind, b'*' | b'>')
            && !call.text().to_ascii_lowercase().contains("unsubscribe");
        if stray {
            return;
        }
        call.replies -= 1;
        let last = call.replies == 0;
        match told.kind {
            b'-' | b'!' => {
                let space = head.iter().position(|byte| *byte == b' ');
                let (code, message) = head.split_at(space.unwrap_or(head.len()));
                let code = text::printable(code);
                log.answer_fails(told.at_us, &code, message.trim_ascii_start());
            }
            _ => {
                log.answer_begins(told.at_us);
                if last {
                    log.answer_ends();
                }
            }
        }
    }
}

fn learn(fact: &mut Option<std::sync::Arc<str>>, word: Option<&[u8]>) {
    // Within quotes, words of an inline command are cut where they are not: it may be half a password.
    let quoted = |word: &[u8]| word.iter().any(|byte| matches!(byte, b'"' | b'\''));
    if fact.is_none() && !word.is_some_and(quoted) {
        *fact = word.and_then(text::name);
    }
}

impl Command {
    /// Reads on; whether a command is whole.
    fn read(&mut self, bytes: &mut &[u8]) -> Result<bool, Stop> {
        if let Some(length) = self.length {
            if self.word.take(bytes) {
                self.length = None;
                self.left -= 1;
                self.words.push(self.word.kept(), length);
                return Ok(self.left == 0);
            }
            return Ok(false);
        }
        let whole = self.line.take(bytes, KEPT);
        if self.line.length() > INLINE_BYTES {
            return Err(Stop::Broken);
        }
        if !whole {
            return Ok(false);
        }
        let line = self.line.kept();
        if self.left > 0 {
            let length = number(line)?.filter(|_| line[0] == b'$');
            let length = length.ok_or(Stop::Broken)?;
            // The CR LF behind it is no part of it.
            self.word.expect(length + 2, self.words.room(length));
            self.length = Some(length);
            return Ok(false);
        }
        if line.first() == Some(&b'*') {
            self.left = number(line)?.unwrap_or(0);
            self.words.count = self.left;
            return Ok(self.left == 0);
        }
        let inline = line.split(u8::is_ascii_whitespace);
        for word in inline.filter(|word| !word.is_empty()) {
            self.words.count += 1;
            let room = self.words.room(word.len() as u64);
            self.words.push(&word[..room], word.len() as u64);
        }
        Ok(true)
    }
}

impl Words {
    /// How much of the next word is kept.
    fn room(&self, length: u64) -> usize {
        let room = match self.kept.len() {
            WORDS.. => 0,
            _ => KEPT.saturating_sub(self.bytes).min(SCANNED),
        };
        room.min(usize::try_from(length).unwrap_or(room))
    }

    fn push(&mut self, kept: &[u8], length: u64) {
        if self.kept.len() < WORDS && self.bytes < KEPT {
            self.bytes += kept.len();
            self.kept.push(Word {
                kept: kept.into(),
                length,
            });
        }
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        self.kept.get(at).map(|word| &*word.kept)
    }

    fn lower(&self, at: usize) -> Vec<u8> {
        self.get(at).unwrap_or_default().to_ascii_lowercase()
    }

    /// The first word that is not shown because one before it names a secret, or may.
    fn hidden_from(&self) -> usize {
        let all = self.kept.len();
        let named = match (self.lower(0).as_slice(), self.lower(1).as_slice()) {
            (b"auth", _) => 1,
            (b"acl", b"setuser") => 3,
            _ => all,
        };
        let names = |word: &Word| {
            let text = String::from_utf8_lossy(&word.kept).to_ascii_lowercase();
            matches!(&*text, "auth" | "auth2" | "masterauth")
                || text.contains("pass")
                || text::names_a_secret(&text)
                || word.length > word.kept.len() as u64
        };
        let after = self.kept.iter().skip(1).position(names);
        after.map_or(named, |at| named.min(at + 2))
    }

    fn said(&self) -> Said {
        let hidden_from = self.hidden_from();
        let mut line = String::new();
        for (at, word) in self.kept.iter().enumerate() {
            if at > 0 {
                line.push(' ');
            }
            if at >= hidden_from {
                line.push_str(MASK);
                return Said::assembled(&line, true, false);
            }
            line.push_str(&word.shown());
        }
        let cut = self.count > self.kept.len() as u64;
        let secret = text::names_a_secret(&line);
        Said::assembled(&line, secret, cut)
    }
}

impl Word {
    /// As one would type it: in quotes where it could not stand bare.
    fn shown(&self) -> String {
        let printable = text::printable(&self.kept);
        let (veiled, _) = text::veil(&printable);
        let cut = self.length > self.kept.len() as u64;
        let text = text::shorten(&veiled, WORD_BYTES, cut);
        let bare = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'');
        if !text.is_empty() && text.chars().all(bare) {
            return text;
        }
        format!("\"{}\"", text.replace('"', "\\\""))
    }
}

impl Reply {
    fn begin(&mut self, at_us: u64) {
        self.at_us = at_us;
        self.left = 1;
        self.values = 0;
        self.head.clear();
    }

    /// Reads on; whether a reply is whole.
    fn read(&mut self, bytes: &mut &[u8]) -> Result<bool, Stop> {
        if let Some(kind) = self.in_bulk {
            if !self.bulk.take(bytes) {
                return Ok(false);
            }
            self.in_bulk = None;
            let bulk = std::mem::take(&mut self.bulk);
            self.value(kind, bulk.kept(), 0);
            self.bulk = bulk;
            return Ok(self.left == 0);
        }
        let whole = self.line.take(bytes, KEPT);
        if self.line.length() > MOST {
            return Err(Stop::Broken);
        }
        if !whole {
            return Ok(false);
        }
        let line = std::mem::take(&mut self.line);
        let read = self.line(line.kept());
        self.line = line;
        read
    }

    fn line(&mut self, line: &[u8]) -> Result<bool, Stop> {
        let (kind, text) = line.split_first().ok_or(Stop::Broken)?;
        let children = match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => 0,
            b'$' | b'!' | b'=' => match number(line)? {
                None => 0,
                Some(length) => {
                    // The CR LF behind it is no part of it.
                    let keep = usize::try_from(length).map_or(KEPT, |length| length.min(KEPT));
                    self.bulk.expect(length + 2, keep);
                    self.in_bulk = Some(*kind);
                    return Ok(false);
                }
            },
            b'*' | b'~' | b'>' => number(line)?.unwrap_or(0),
            b'%' => 2 * number(line)?.unwrap_or(0),
            // Attributes stand before the value that they belong to.
            b'|' => 2 * number(line)?.unwrap_or(0) + 1,
            _ => return Err(Stop::Broken),
        };
        let text = if children == 0 { text } else { b"" };
        self.value(*kind, text, children);
        Ok(self.left == 0)
    }

    fn value(&mut self, kind: u8, text: &[u8], children: u64) {
        if self.values == 0 {
            self.kind = kind;
        }
        if self.values < 2 && self.head.is_empty() {
            self.head.extend_from_slice(text);
        }
        self.values += 1;
        self.left = (self.left - 1).saturating_add(children);
    }
}

/// The number behind the first byte of a line; `None` where it is -1, for nothing.
fn number(line: &[u8]) -> Result<Option<u64>, Stop> {
    match line.get(1..) {
        Some(b"-1") => Ok(None),
        Some(digits) => match decimal(digits) {
            Some(number) if number <= MOST => Ok(Some(number)),
            _ => Err(Stop::Broken),
        },
        None => Err(Stop::Broken),
    }
}
