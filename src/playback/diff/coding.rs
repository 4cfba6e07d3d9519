//! Content codings undone, so that what is under them can be compared (RFC 9110 section 8.4).

use std::io::Read;

/// How much of a decoded body is looked into; one that is larger is compared as the bytes that were sent.
const MAX_DECODED_BYTES: u64 = 8 << 20;

/// The content under `codings` (the value of `Content-Encoding`); `None` where a coding is not known, the content
/// is broken or too large.
pub(super) fn decoded(codings: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let codings = std::str::from_utf8(codings).ok()?;
    // The last one that was applied is undone first.
    let mut content = content.to_vec();
    for coding in codings.rsplit(',').map(str::trim) {
        content = match coding.to_ascii_lowercase().as_str() {
            "identity" => content,
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(content.as_slice()))?,
            // Meant is the zlib format, but some servers send the bare one.
            "deflate" => read(flate2::read::ZlibDecoder::new(content.as_slice()))
                .or_else(|| read(flate2::read::DeflateDecoder::new(content.as_slice())))?,
            "br" => read(brotli_decompressor::Decompressor::new(
                content.as_slice(),
                4096,
            ))?,
            "zstd" => read(zstd::stream::read::Decoder::new(content.as_slice()).ok()?)?,
            _ => return None,
        };
    }
    Some(content)
}

fn read(decoder: impl Read) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let length = decoder
        .take(MAX_DECODED_BYTES + 1)
        .read_to_end(&mut decoded)
        .ok()?;
    (length as u64 <= MAX_DECODED_BYTES).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_known_coding_is_undone_and_a_stack_of_them_in_reverse() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(b"tea").unwrap();
        let zlib = zlib.finish().unwrap();
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        bare.write_all(b"tea").unwrap();
        let bare = bare.finish().unwrap();
        let zstd = zstd::encode_all(b"tea".as_slice(), 1).unwrap();
        assert_eq!(decoded(b"gzip", &gzip(b"tea")).unwrap(), b"tea");
        assert_eq!(decoded(b"Deflate", &zlib).unwrap(), b"tea");
        assert_eq!(decoded(b"deflate", &bare).unwrap(), b"tea");
        assert_eq!(decoded(b"zstd", &zstd).unwrap(), b"tea");
        // `tea` in an uncompressed meta-block.
        assert_eq!(decoded(b"br", b"\x0b\x01\x80tea\x03").unwrap(), b"tea");
        let twice = gzip(&zstd::encode_all(b"tea".as_slice(), 1).unwrap());
        assert_eq!(decoded(b"zstd, gzip", &twice).unwrap(), b"tea");
    }

    #[test]
    fn what_is_broken_unknown_or_a_bomb_is_not_decoded() {
        assert_eq!(decoded(b"gzip", b"tea"), None);
        assert_eq!(decoded(b"gzip", &gzip(b"tea")[..12]), None);
        assert_eq!(decoded(b"compress", b"tea"), None);
        let bomb = gzip(&vec![0; usize::try_from(MAX_DECODED_BYTES).unwrap() + 1]);
        assert_eq!(decoded(b"gzip", &bomb), None);
    }
}
