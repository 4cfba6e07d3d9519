//! How long a MessagePack value is, found without building it and without recursion.

use rmp::Marker;

/// The length of the first value in `bytes`; `None` where they end before it does or a marker is reserved.
pub(super) fn of_value(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    // Values still to be read; each is at least a byte, so more than that cannot follow.
    let mut pending = 1_usize;
    while pending > 0 {
        pending -= 1;
        let marker = Marker::from_u8(*bytes.get(at)?);
        at += 1;
        let (skip, children) = match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                (0, 0)
            }
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 | Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::FixExt4 => (5, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::FixStr(length) => (usize::from(length), 0),
            Marker::FixArray(count) => (0, usize::from(count)),
            Marker::FixMap(count) => (0, 2 * usize::from(count)),
            Marker::Str8 | Marker::Bin8 => (1 + number::<1>(bytes, at)?, 0),
            Marker::Str16 | Marker::Bin16 => (2 + number::<2>(bytes, at)?, 0),
            Marker::Str32 | Marker::Bin32 => (4 + number::<4>(bytes, at)?, 0),
            Marker::Ext8 => (2 + number::<1>(bytes, at)?, 0),
            Marker::Ext16 => (3 + number::<2>(bytes, at)?, 0),
            Marker::Ext32 => (5 + number::<4>(bytes, at)?, 0),
            Marker::Array16 => (2, number::<2>(bytes, at)?),
            Marker::Array32 => (4, number::<4>(bytes, at)?),
            Marker::Map16 => (2, 2 * number::<2>(bytes, at)?),
            Marker::Map32 => (4, number::<4>(bytes, at)?.checked_mul(2)?),
            Marker::Reserved => return None,
        };
        at = at.checked_add(skip)?;
        pending = pending.checked_add(children)?;
        if at.checked_add(pending)? > bytes.len() {
            return None;
        }
    }
    Some(at)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let digits: [u8; N] = bytes.get(at..at + N)?.try_into().ok()?;
    digits.iter().try_fold(0_usize, |n, digit| {
        n.checked_mul(256)?.checked_add(usize::from(*digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_encoder_for_every_marker_class() {
        let values = serde_json::json!([
            null, true, 0, 200, 60_000, 4_000_000_000_u32, u64::MAX, -1, -100, -30_000, -2_000_000_000,
            i64::MIN, 1.5, "", "x".repeat(40), "x".repeat(300), "x".repeat(70_000), [], [[[]]],
            vec![0; 20], vec![0; 70_000], {"a": {"b": [1]}},
        ]);
        for value in values.as_array().unwrap() {
            let mut bytes = rmp_serde::to_vec(value).unwrap();
            let length = bytes.len();
            assert_eq!(of_value(&bytes[..length - 1]), None, "{value}");
            bytes.extend_from_slice(b"\x01tail");
            assert_eq!(of_value(&bytes), Some(length));
        }
    }

    #[test]
    fn a_length_without_bytes_costs_nothing() {
        assert_eq!(of_value(&[0xdf, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(of_value(&[0xc6, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(of_value(&[0xc1]), None);
        assert_eq!(of_value(&[]), None);
    }
}
