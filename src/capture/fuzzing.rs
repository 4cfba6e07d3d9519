//! What the fuzz targets do with their bytes: `fuzz/fuzz_targets`. The normal tests call the same functions.
#![allow(
    clippy::missing_panics_doc,
    reason = "panicking is how a finding is told"
)]

use super::frames::{Compression, Frames, Piece};
use crate::record::Direction;

/// Reads WebSocket frames, cut as the first byte says: no byte may get lost, and no piece be too large.
pub fn frames(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else {
        return;
    };
    let sender = match how & 1 {
        0 => Direction::Client,
        _ => Direction::Server,
    };
    let compression = match how & 2 {
        0 => Compression::Off,
        _ => Compression::On,
    };
    let (piece, part) = (usize::from(how >> 5) + 1, usize::from(how >> 2 & 7) + 1);
    let mut frames = Frames::new(sender, compression, piece);
    let mut given = 0;
    let mut give = |given_piece: Piece| {
        assert!(given_piece.bytes.len() <= piece, "a piece is too large");
        given += given_piece.bytes.len() as u64;
    };
    for part in bytes.chunks(part) {
        frames.read(part, &mut give);
    }
    frames.finish(&mut give);
    let all = bytes.len() as u64;
    assert_eq!(given + frames.heads(), all, "bytes were lost or invented");
}
