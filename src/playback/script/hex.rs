//! Bytes for people: hexadecimal, and what can be read of it.

/// How much is shown before the place that matters, and from it on.
const BEFORE: usize = 16;
const AFTER: usize = 24;

/// The bytes around `at`, which begin at `offset` of their side: `"00000010  0d 0a [2b 4f …  |..+O|"`.
pub(in crate::playback) fn dump(bytes: &[u8], at: usize, offset: u64) -> String {
    use std::fmt::Write as _;
    let at = at.min(bytes.len());
    let (start, end) = (at.saturating_sub(BEFORE), (at + AFTER).min(bytes.len()));
    let mut hex = format!("{:08x} ", offset + start as u64);
    for (place, byte) in bytes.iter().enumerate().take(end).skip(start) {
        let mark = if place == at { '[' } else { ' ' };
        let _ = write!(hex, "{mark}{byte:02x}");
    }
    if at == bytes.len() {
        hex.push_str(" [nothing]");
    }
    if end < bytes.len() {
        hex.push_str(" …");
    }
    let readable = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '.',
    };
    let text: String = bytes[start..end].iter().map(readable).collect();
    format!("{hex}  |{text}|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place_in_its_surroundings_and_never_more() {
        assert_eq!(
            dump(b"$3\r\ntea\r\n", 4, 0x10),
            "00000010  24 33 0d 0a[74 65 61 0d 0a  |$3..tea..|"
        );
        assert_eq!(dump(b"ab", 2, 0), "00000000  61 62 [nothing]  |ab|");
        assert_eq!(dump(b"", 0, 5), "00000005  [nothing]  ||");
        let long = dump(&[b'x'; 1000], 500, 0);
        assert!(long.starts_with("000001e4 ") && long.len() < 250, "{long}");
        assert!(long.contains('…'));
    }
}
