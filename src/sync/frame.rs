//! The outermost layer of a message: nothing, or a compressed frame around the whole payload.
//!
//! The magic number tells which: MessagePack maps start with 0x80 and above, an LZ4 frame with 0x04, a Zstandard
//! frame with 0x28. So a reader needs no setting, and writers may differ.

use std::io::{Read, Write};

use bytes::Bytes;

/// How messages are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 frame format: cheap.
    Lz4,
    /// Zstandard (RFC 8878), level 1: smaller; recommended between zones.
    Zstd,
}

/// A payload that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// More than the limit comes out of it.
    #[error("message unpacks to more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The frame is broken.
    #[error("compressed message is broken")]
    Broken(#[source] std::io::Error),
}

const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_LEVEL: i32 = 1;
/// 8 MiB: what RFC 8878 asks every reader to take, and as much as a hostile frame can make us allocate.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Below this a frame's own bytes eat what it saves.
const WORTH_PACKING: usize = 128;

impl Compression {
    /// Packs a payload; leaves it as it is where that would not make it smaller.
    #[must_use]
    pub fn pack(self, payload: Vec<u8>) -> Bytes {
        if self == Self::None || payload.len() < WORTH_PACKING {
            return payload.into();
        }
        match self.squeeze(&payload) {
            Ok(packed) if packed.len() < payload.len() => packed.into(),
            _ => payload.into(),
        }
    }

    fn squeeze(self, payload: &[u8]) -> std::io::Result<Vec<u8>> {
        let out = Vec::with_capacity(payload.len() / 2);
        match self {
            Self::None => Ok(payload.to_vec()),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(payload)?;
                encoder.finish().map_err(std::io::Error::other)
            }
            Self::Zstd => zstd::stream::encode_all(payload, ZSTD_LEVEL),
        }
    }
}

/// The payload within a message, at most `limit` bytes of it, packed or not.
///
/// # Errors
/// [`FrameError`] where the frame is broken or holds more.
pub fn unpack(message: &Bytes, limit: usize) -> Result<Bytes, FrameError> {
    let out = beginning(message, limit.saturating_add(1))?;
    if out.len() > limit {
        return Err(FrameError::TooLarge { limit });
    }
    Ok(out)
}

/// What the payload within a message begins with, at most `limit` bytes.
pub(super) fn beginning(message: &Bytes, limit: usize) -> Result<Bytes, FrameError> {
    if message.starts_with(&LZ4_MAGIC) {
        drain(lz4_flex::frame::FrameDecoder::new(&message[..]), limit)
    } else if message.starts_with(&ZSTD_MAGIC) {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(&message[..]).map_err(FrameError::Broken)?;
        decoder
            .window_log_max(ZSTD_WINDOW_LOG)
            .map_err(FrameError::Broken)?;
        drain(decoder, limit)
    } else {
        Ok(message.slice(..message.len().min(limit)))
    }
}

fn drain(reader: impl Read, limit: usize) -> Result<Bytes, FrameError> {
    let mut out = Vec::new();
    reader
        .take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut out)
        .map_err(FrameError::Broken)?;
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn what_repeats_gets_smaller_and_comes_back() {
        let payload = b"\x83 the same again".repeat(500);
        for compression in [Compression::Lz4, Compression::Zstd] {
            let packed = compression.pack(payload.clone());
            assert!(packed.len() < payload.len() / 10, "{compression:?}");
            assert_eq!(unpack(&packed, payload.len()).unwrap(), payload);
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let payload = vec![0x80; 4 << 20];
        for compression in [Compression::Lz4, Compression::Zstd] {
            let packed = compression.pack(payload.clone());
            assert!(packed.len() < 64 << 10);
            assert!(matches!(
                unpack(&packed, payload.len() - 1),
                Err(FrameError::TooLarge { .. })
            ));
        }
    }

    #[test]
    fn every_prefix_of_a_frame_is_refused_or_short() {
        let payload = b"\x83 the same again".repeat(50);
        for compression in [Compression::Lz4, Compression::Zstd] {
            let packed = compression.pack(payload.clone());
            for length in 4..packed.len() {
                let read = unpack(&packed.slice(..length), 1 << 20);
                assert!(read.map_or(true, |read| read.len() <= payload.len()));
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        let noise: Vec<u8> = (0..1000_u64)
            .flat_map(|n| twox_hash::XxHash3_64::oneshot(&n.to_le_bytes()).to_le_bytes())
            .map(|byte| byte | 0x80)
            .collect();
        assert_eq!(Compression::Lz4.pack(noise.clone()), noise);
        assert_eq!(Compression::Zstd.pack(vec![0x81; 20]), vec![0x81; 20]);
    }

    proptest! {
        #[test]
        fn mutated_frames_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), zstd in any::<bool>()) {
            let compression = if zstd { Compression::Zstd } else { Compression::Lz4 };
            let mut packed = compression.pack(b"\x83 the same again".repeat(50)).to_vec();
            let at = at.index(packed.len());
            packed[at] = byte;
            let read = unpack(&packed.into(), 10_000);
            prop_assert_eq!(read.map_or(0, |read| read.len()) > 10_000, false);
        }
    }
}
