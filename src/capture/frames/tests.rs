use proptest::prelude::{any, prop, prop_assert_eq, proptest};

use super::*;

const PIECE: usize = 1000;

/// A frame as it is on the wire.
fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { MASK } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        length @ ..=125 => out.push(masked | u8::try_from(length).unwrap()),
        length @ ..=0xffff => {
            out.push(masked | 126);
            out.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    out.extend(mask.into_iter().flatten());
    out.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, None)
}

/// What is read of `bytes` in parts of `part`, with the pieces of one frame that were cut elsewhere put together.
fn read(frames: &mut Frames, bytes: &[u8], part: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut give = |piece: Piece| {
        assert!(piece.bytes.len() <= PIECE);
        match pieces.last_mut().and_then(|last| joined(last, &piece)) {
            Some(both) => *pieces.last_mut().unwrap() = both,
            None => pieces.push(piece),
        }
    };
    for part in bytes.chunks(part.max(1)) {
        frames.read(part, &mut give);
    }
    frames.finish(&mut give);
    pieces
}

fn joined(one: &Piece, next: &Piece) -> Option<Piece> {
    let frame = match (one.frame, next.frame) {
        (None, None) => None,
        (Some(a), Some(b)) if !a.part.ends() && !b.part.begins() && a.opcode == b.opcode => {
            Some(Frame {
                part: Part::of(a.part.begins(), b.part.ends()),
                ..a
            })
        }
        _ => return None,
    };
    let bytes = [&one.bytes[..], &next.bytes[..]].concat().into();
    Some(Piece { bytes, frame })
}

fn piece(opcode: Opcode, part: Part, compressed: bool, bytes: &[u8]) -> Piece {
    Piece {
        bytes: Bytes::copy_from_slice(bytes),
        frame: Some(Frame {
            opcode,
            part,
            compressed,
        }),
    }
}

fn of(sender: Direction, compression: Compression) -> Frames {
    Frames::new(sender, compression, PIECE)
}

#[test]
fn messages_are_the_same_however_the_bytes_are_cut() {
    let long = vec![b'x'; 70_000];
    let mask = Some([1, 2, 3, 0xff]);
    let bytes = [
        frame(0x81, b"hello", mask),
        frame(0x02, b"one ", mask),
        frame(0x89, b"are you there", mask),
        frame(0x80, b"two", mask),
        frame(0x82, &[7; 300], mask),
        frame(0x82, &long, mask),
        frame(0x81, b"", mask),
        frame(0x88, &[3, 232, b'b'], mask),
    ]
    .concat();
    let expected = [
        piece(Opcode::Text, Part::Whole, false, b"hello"),
        piece(Opcode::Binary, Part::First, false, b"one "),
        piece(Opcode::Ping, Part::Whole, false, b"are you there"),
        piece(Opcode::Binary, Part::Last, false, b"two"),
        piece(Opcode::Binary, Part::Whole, false, &[7; 300]),
        piece(Opcode::Binary, Part::Whole, false, &long),
        piece(Opcode::Text, Part::Whole, false, b""),
        piece(Opcode::Close, Part::Whole, false, &[3, 232, b'b']),
    ];
    for part in (1..40).chain([999, 1000, 1001, 8192, 65_536, bytes.len()]) {
        let mut frames = of(Direction::Client, Compression::Off);
        assert_eq!(read(&mut frames, &bytes, part), expected, "{part}");
        assert_eq!((frames.messages(), frames.unframed()), (5, None));
    }
}

#[test]
fn fragments_stay_apart_and_a_continuation_is_as_compressed_as_its_first() {
    let bytes = [server(0x41, b"ab"), server(0x00, b""), server(0x80, b"c")].concat();
    let mut frames = of(Direction::Server, Compression::On);
    let mut pieces = Vec::new();
    frames.read(&bytes, &mut |piece| pieces.push(piece));
    assert_eq!(
        pieces,
        [
            piece(Opcode::Text, Part::First, true, b"ab"),
            piece(Opcode::Text, Part::Middle, true, b""),
            piece(Opcode::Text, Part::Last, true, b"c"),
        ]
    );
}

#[test]
fn what_breaks_the_protocol_is_given_as_it_came_from_that_frame_on() {
    let good = server(0x81, b"good");
    let bad: [(&[u8], &str); 10] = [
        (&[0xc1, 0x01, b'x'], "reserved bit"),
        (&[0xa1, 0x00], "reserved bit"),
        (&[0x83, 0x00], "reserved opcode"),
        (&[0x80, 0x01, b'x'], "continuation of no message"),
        (&[0x09, 0x00], "control frame in fragments"),
        (&[0x89, 126, 0, 126], "more than 125"),
        (&[0x81, 0x81, 1, 2, 3, 4, 5], "with a mask"),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], "63 bits"),
        (&[0x01, 0x01, b'x', 0x81, 0x01, b'y'], "within another"),
        (b"HTTP/1.1 200 OK\r\n", "reserved bit"),
    ];
    for (bad, why) in bad {
        let rest = b"and everything behind it";
        let bytes = [&good[..], bad, rest].concat();
        for part in 1..bytes.len() {
            let mut frames = of(Direction::Server, Compression::Off);
            let pieces = read(&mut frames, &bytes, part);
            assert_eq!(pieces[0], piece(Opcode::Text, Part::Whole, false, b"good"));
            let raw = pieces.last().unwrap();
            assert_eq!(raw.frame, None, "{bad:x?}");
            assert!(bytes.ends_with(&raw.bytes) && raw.bytes.ends_with(rest));
            assert!(frames.unframed().unwrap().contains(why), "{bad:x?}");
        }
    }
    let mut frames = of(Direction::Client, Compression::Off);
    let pieces = read(&mut frames, &good, 1);
    assert_eq!((pieces.len(), &pieces[0].bytes[..]), (1, &good[..]));
}

#[test]
fn a_length_that_is_announced_takes_no_room_until_it_comes() {
    let mut frames = Frames::new(Direction::Server, Compression::Off, 24 << 10);
    let mut given = 0;
    let mut give = |piece: Piece| given += piece.bytes.len();
    frames.read(&[0x82, 127, 0, 0, 0, 0, 0x40, 0, 0, 0], &mut give);
    let room = |frames: &Frames| match &frames.state {
        State::Payload(payload) => payload.held.capacity(),
        _ => panic!("a payload is on its way"),
    };
    assert_eq!(room(&frames), 0);
    for _ in 0..100 {
        frames.read(&[0; 5000], &mut give);
        assert!(room(&frames) <= 48 << 10);
    }
    frames.finish(&mut give);
    assert_eq!(given, 500_000);
}

#[test]
fn what_breaks_off_is_given_as_far_as_it_came() {
    let whole = server(0x81, b"hello");
    for end in 1..whole.len() {
        let mut frames = of(Direction::Server, Compression::Off);
        let pieces = read(&mut frames, &whole[..end], 3);
        let expected = match end {
            1 => Piece {
                bytes: Bytes::copy_from_slice(&whole[..1]),
                frame: None,
            },
            _ => piece(Opcode::Text, Part::First, false, &whole[2..end]),
        };
        assert_eq!(pieces, [expected], "{end}");
        assert_eq!(frames.messages(), 0);
    }
}

#[test]
fn a_head_that_breaks_off_is_given_in_pieces_too() {
    super::super::fuzzing::frames(&[0x26, 0x8a, 0x8a, 0x0a]);
}

proptest! {
    #[test]
    fn no_byte_is_lost_and_nothing_depends_on_the_cut(
        payloads in prop::collection::vec((prop::sample::select(&[0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8a, 0xc1][..]), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
        masked in any::<bool>(),
        compressed in any::<bool>(),
        mutation in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        part in 1_usize..64,
    ) {
        let (sender, mask) = if masked { (Direction::Client, Some([9, 8, 7, 6])) } else { (Direction::Server, None) };
        let compression = if compressed { Compression::On } else { Compression::Off };
        let mut bytes: Vec<u8> = payloads.iter().flat_map(|(first, payload)| frame(*first, payload, mask)).collect();
        if let (Some((at, byte)), false) = (mutation, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (mut whole, mut cut) = (of(sender, compression), of(sender, compression));
        let pieces = read(&mut whole, &bytes, bytes.len());
        prop_assert_eq!(&pieces, &read(&mut cut, &bytes, part));
        let given: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        prop_assert_eq!(given as u64 + whole.heads(), bytes.len() as u64);
    }

    #[test]
    fn garbage_never_panics_and_is_never_lost(bytes in prop::collection::vec(any::<u8>(), 0..400), part in 1_usize..50) {
        super::super::fuzzing::frames(&bytes);
        let mut frames = of(Direction::Client, Compression::On);
        let given: usize = read(&mut frames, &bytes, part).iter().map(|piece| piece.bytes.len()).sum();
        prop_assert_eq!(given as u64 + frames.heads(), bytes.len() as u64);
    }
}
