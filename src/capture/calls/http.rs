//! HTTP/1.0 and HTTP/1.1 through a TCP proxy (RFC 9112): a request line is a call, an error is a status from 400 on.
//!
//! It follows the framing only as far as to find the next message.

use super::Stop;
use super::log::Log;
use super::read::{Line, decimal};
use super::text::{self, KEPT, Said};

/// The longest head that is read, bytes.
const HEAD_BYTES: u64 = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Http {
    request: Message,
    response: Message,
    status: u16,
    reason: Vec<u8>,
}

/// The message that is being read from one side.
#[derive(Debug, Default)]
struct Message {
    line: Line,
    step: Step,
    at_us: Option<u64>,
    head_bytes: u64,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    First,
    Field,
    /// Content of which so many bytes are still to come.
    Content(u64),
    ChunkSize,
    /// A chunk, with the CR LF behind it.
    Chunk(u64),
    Trailer,
    /// All there is until the connection ends.
    Rest,
}

impl Http {
    pub(super) fn held(&self) -> usize {
        self.request.line.held() + self.response.line.held() + self.reason.capacity()
    }

    pub(super) fn client(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let message = &mut self.request;
            if !message.read(at_us, &mut bytes)? {
                continue;
            }
            let line = message.line.kept();
            match message.step {
                Step::First if line.is_empty() => message.at_us = None,
                Step::First => {
                    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
                    // The version of a line that is too long to be kept is out of sight.
                    let cut = message.line.length() > line.len() as u64;
                    let [method, .., version] = parts.as_slice() else {
                        return Err(Stop::Broken);
                    };
                    if !cut && !version.starts_with(b"HTTP/1.") {
                        return Err(Stop::Broken);
                    }
                    let shown = if cut {
                        line
                    } else {
                        &line[..line.len() - version.len() - 1]
                    };
                    let length = if cut {
                        message.line.length()
                    } else {
                        shown.len() as u64
                    };
                    let answerless = u64::from(*method == b"HEAD");
                    let tunnel = *method == b"CONNECT";
                    let since = message.at_us.unwrap_or(at_us);
                    if let Some(call) = log.call(since, || Said::statement(shown, length)) {
                        call.group = if tunnel { 2 } else { answerless };
                    }
                    message.step = Step::Field;
                }
                Step::Field if line.is_empty() => message.content(Step::First),
                Step::Field => message.field(),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn server(
        &mut self,
        at_us: u64,
        mut bytes: &[u8],
        log: &mut Log,
    ) -> Result<(), Stop> {
        while !bytes.is_empty() && !log.is_settled() {
            let message = &mut self.response;
            if !message.read(at_us, &mut bytes)? {
                continue;
            }
            let line = message.line.kept();
            match message.step {
                Step::First if line.is_empty() => message.at_us = None,
                Step::First => {
                    let status = line
                        .strip_prefix(b"HTTP/1.")
                        .and_then(|rest| rest.get(2..5));
                    let status = status.and_then(decimal).ok_or(Stop::Broken)?;
                    self.status = u16::try_from(status).map_err(|_| Stop::Broken)?;
                    self.reason.clear();
                    let reason = line.get(13..).unwrap_or_default();
                    self.reason
                        .extend_from_slice(&reason[..reason.len().min(64)]);
                    message.step = Step::Field;
                    log.answer_begins(message.at_us.unwrap_or(at_us));
                }
                Step::Field if line.is_empty() => self.answered(at_us, log)?,
                Step::Field => message.field(),
                _ => {}
            }
        }
        Ok(())
    }

    /// The head of a response is whole.
    fn answered(&mut self, at_us: u64, log: &mut Log) -> Result<(), Stop> {
        let status = self.status;
        let message = &mut self.response;
        if (100..200).contains(&status) && status != 101 {
            message.next();
            return Ok(());
        }
        let asked = log.waiting().map_or(0, |call| call.group);
        if status >= 400 {
            let since = message.at_us.unwrap_or(at_us);
            log.answer_fails(since, &status.to_string(), &self.reason);
        } else {
            log.answer_ends();
        }
        // Another protocol follows (RFC 9110 sections 7.8 and 9.3.6).
        if status == 101 || asked == 2 && (200..300).contains(&status) {
            return Err(Stop::Opaque);
        }
        if asked == 1 || status == 204 || status == 304 {
            message.next();
        } else {
            message.content(Step::Rest);
        }
        Ok(())
    }
}

impl Message {
    /// Reads on; whether a line of a head is whole.
    fn read(&mut self, at_us: u64, bytes: &mut &[u8]) -> Result<bool, Stop> {
        match self.step {
            Step::Rest => *bytes = &[],
            Step::Content(left) => {
                let left = skip(left, bytes);
                self.step = Step::Content(left);
                if left == 0 {
                    self.next();
                }
            }
            Step::Chunk(left) => {
                let left = skip(left, bytes);
                self.step = if left == 0 {
                    Step::ChunkSize
                } else {
                    Step::Chunk(left)
                };
            }
            Step::First | Step::Field | Step::ChunkSize | Step::Trailer => {
                self.at_us.get_or_insert(at_us);
                let before = bytes.len();
                let whole = self.line.take(bytes, KEPT);
                self.head_bytes += (before - bytes.len()) as u64;
                if self.head_bytes > HEAD_BYTES {
                    return Err(Stop::Broken);
                }
                if whole {
                    return self.line();
                }
            }
        }
        Ok(false)
    }

    fn line(&mut self) -> Result<bool, Stop> {
        match self.step {
            Step::ChunkSize => {
                let digits = self.line.kept().split(|byte| *byte == b';').next();
                let digits = digits.unwrap_or_default().trim_ascii();
                let digits = std::str::from_utf8(digits).map_err(|_| Stop::Broken)?;
                let legal = (1..=15).contains(&digits.len());
                let size = u64::from_str_radix(digits, 16).ok().filter(|_| legal);
                self.head_bytes = 0;
                self.step = match size.ok_or(Stop::Broken)? {
                    0 => Step::Trailer,
                    size => Step::Chunk(size + 2),
                };
                Ok(false)
            }
            Step::Trailer => {
                if self.line.kept().is_empty() {
                    self.next();
                }
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn field(&mut self) {
        let line = self.line.kept();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = decimal(value);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = text::printable(value)
                .to_ascii_lowercase()
                .ends_with("chunked");
        }
    }

    /// The head is whole; content without a length is `endless`.
    fn content(&mut self, endless: Step) {
        self.head_bytes = 0;
        match (self.chunked, self.length) {
            (true, _) => self.step = Step::ChunkSize,
            (false, Some(0)) => self.next(),
            (false, Some(length)) => self.step = Step::Content(length),
            (false, None) if endless == Step::First => self.next(),
            (false, None) => self.step = endless,
        }
    }

    /// The message is whole.
    fn next(&mut self) {
        let line = std::mem::take(&mut self.line);
        *self = Self {
            line,
            ..Self::default()
        };
    }
}

/// Takes at most `left` bytes away; how many are left.
fn skip(left: u64, bytes: &mut &[u8]) -> u64 {
    let length = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *bytes = &bytes[length..];
    left - length as u64
}
