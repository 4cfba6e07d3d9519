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

    /// Lets go of the pages that were looked at so far. They stay in the page cache and come again where they are
    /// needed; until then they do not count as this process's memory. One look can map a megabyte, as the kernel
    /// maps what it keeps together.
    #[allow(
        unsafe_code,
        reason = "the mapping is shared and read-only, so that its pages hold nothing that the file does not"
    )]
    pub(super) fn release(&self) {
        if let Self::File(map) = self {
            // SAFETY: as said in the reason above: what is dropped is read from the file again.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
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
