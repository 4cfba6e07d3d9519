//! The bytes of a sidecar: a file in memory by way of the page cache, or plain memory where it could not be
//! written.

use std::fs;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// Bytes that stay as they are.
#[derive(Debug)]
pub(super) enum Map {
    File(memmap2::Mmap),
    Memory(Vec<u8>),
}

impl Map {
    /// Maps a file that nobody writes to.
    ///
    /// # Errors
    /// Where it cannot be opened or mapped.
    #[allow(
        unsafe_code,
        reason = "mapping a file is sound only while nobody changes or shortens it. A sidecar is written under \
                  another name, synced, renamed and never opened for writing again; a new one is a new file, \
                  and one that is unlinked stays until it is unmapped. The directory is locked against other \
                  processes of this program"
    )]
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        // SAFETY: as said in the reason above.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        // Look-ups go here and there: reading ahead would only fill memory.
        let _ = map.advise(memmap2::Advice::Random);
        Ok(Self::File(map))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}
