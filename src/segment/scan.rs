//! Walks over the frames of one file, batch by batch.

use std::io;

use super::files::{File, read_full};
use super::frame::{FILE_HEADER, HEAD, Head, MAGIC};

/// How much of each frame is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Head and meta, with their checksum.
    Heads,
    /// The payload and its checksum too.
    Whole,
}

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Step {
    /// A frame, at this offset.
    Frame(Head, u64),
    /// The end of the file.
    End,
    /// Bytes that are no frame.
    Broken,
    /// The disk refused.
    Unreadable,
}

/// A reader with a window over the file, so that small frames don't cost a system call each.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    file: &'a dyn File,
    length: u64,
    at: u64,
    depth: Depth,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scanner<'a> {
    /// Starts behind the file's header.
    pub(super) fn new(file: &'a dyn File, length: u64, depth: Depth) -> Self {
        Self {
            file,
            length,
            at: FILE_HEADER as u64,
            depth,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Where the next step looks.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// The next frame; after anything else the scan is over.
    pub(super) fn step(&mut self) -> Step {
        if self.at == self.length {
            return Step::End;
        }
        match self.frame() {
            Ok(Some(head)) => {
                let start = self.at;
                self.at += head.frame_len() as u64;
                Step::Frame(head, start)
            }
            Ok(None) => Step::Broken,
            Err(_) => Step::Unreadable,
        }
    }

    /// The meta of the frame that the last step gave.
    pub(super) fn meta(&self, head: &Head, at: u64) -> &[u8] {
        let start = usize::try_from(at - self.window_at).expect("it was read with its head");
        &self.window[start + HEAD..start + head.head_len()]
    }

    fn frame(&mut self) -> io::Result<Option<Head>> {
        let Some(head) = self.bytes(HEAD)?.and_then(parsed) else {
            return Ok(None);
        };
        let depth = self.depth;
        if self.at + head.frame_len() as u64 > self.length {
            return Ok(None);
        }
        let wanted = match depth {
            Depth::Heads => head.head_len(),
            Depth::Whole => head.frame_len(),
        };
        let Some(bytes) = self.bytes(wanted)? else {
            return Ok(None);
        };
        let whole = depth == Depth::Heads || head.holds(&bytes[head.head_len()..]);
        Ok(Head::checked(bytes).filter(|_| whole))
    }

    /// `count` bytes from where the scan stands; `None` where the file ends before.
    fn bytes(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        if self.at + count as u64 > self.length {
            return Ok(None);
        }
        let inside = |at: u64, window_at: u64, length: usize| {
            at >= window_at && at + count as u64 <= window_at + length as u64
        };
        if !inside(self.at, self.window_at, self.window.len()) {
            let reach = match self.depth {
                Depth::Heads => 4 << 10,
                Depth::Whole => 256 << 10,
            };
            self.window.resize(count.max(reach), 0);
            let read = read_full(self.file, &mut self.window, self.at)?;
            self.window.truncate(read);
            self.window_at = self.at;
            if read < count {
                return Ok(None);
            }
        }
        let from = usize::try_from(self.at - self.window_at).expect("inside the window");
        Ok(Some(&self.window[from..from + count]))
    }
}

fn parsed(bytes: &[u8]) -> Option<Head> {
    Head::parse(bytes.first_chunk()?)
}

/// Where the first valid head behind `from` stands; `None` where there is none up to `length`.
///
/// In a tail that cannot be read it tells damage from the end of a write that was cut short. A payload may hold
/// what looks like a head, so whoever goes on from there has to know the entry by other means.
pub(super) fn next_head(file: &dyn File, from: u64, length: u64) -> io::Result<Option<u64>> {
    const WINDOW: u64 = 1 << 20;
    // A head may start at the last byte of a window and reach over the next.
    let overlap = HEAD as u64 + super::MAX_META_BYTES as u64;
    let mut window = Vec::new();
    let mut at = from + 1;
    while at + HEAD as u64 <= length {
        let wanted = (length - at).min(WINDOW + overlap);
        window.resize(usize::try_from(wanted).unwrap_or(usize::MAX), 0);
        let read = read_full(file, &mut window, at)?;
        let bytes = &window[..read];
        let candidates = bytes
            .len()
            .min(usize::try_from(WINDOW).unwrap_or(usize::MAX));
        let found = (0..candidates)
            .filter(|&i| bytes[i] == MAGIC[0] && bytes[i..].starts_with(&MAGIC))
            .find(|&i| Head::checked(&bytes[i..]).is_some());
        if let Some(found) = found {
            return Ok(Some(at + found as u64));
        }
        at += WINDOW;
    }
    Ok(None)
}
