use bytes::Bytes;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::record::{
    Beat, Body, BodyChunk, Close, ConnectionId, Context, Deflate, Direction, Epoch, Exchange, Flow,
    Frame, Gap, GapReason, Grpc, Headers, IdSource, Key, Keyring, Message, Messages, NodeId,
    Opcode, Origin, Outcome, Part, Protocol, Record, RecordId, Request, Response, Segment,
    SegmentBatch, Sequence, Side, Stream, Tally, Timing, TlsFacts, Upgrade, UpstreamFailure,
    Window,
};

fn origin(seq: u64) -> Origin {
    Origin {
        node: NodeId::new("az1").unwrap(),
        epoch: Epoch(7),
        seq: Sequence(seq),
    }
}

fn headers() -> Headers {
    [("Host", "shop"), ("X-Raw", "\u{e9}")]
        .into_iter()
        .map(|(n, v)| (Bytes::from(n), Bytes::from(v)))
        .collect()
}

fn flow() -> Flow {
    Flow {
        grpc: Some(Box::new(Grpc {
            service: "shop.Orders".into(),
            method: "Place".into(),
            status: Some(5),
            message: "none left".into(),
            request: Messages {
                count: 300,
                broken: true,
                first: vec![Message {
                    offset: 9,
                    bytes: 1 << 31,
                    compressed: true,
                    at_us: 7,
                }],
            },
            response: Messages::default(),
        })),
        pace: vec![Beat { at_us: 1, bytes: 2 }, Beat { at_us: 3, bytes: 4 }],
    }
}

fn upgrade() -> Upgrade {
    let window = |bits, context| Window { bits, context };
    Upgrade {
        host: "shop".into(),
        target: "/chat?room=1".into(),
        deflate: Some(Deflate {
            client: window(8, Context::Fresh),
            server: window(15, Context::Kept),
        }),
        client: Tally {
            messages: 9,
            unframed: Some("a frame without a mask".into()),
        },
        server: Tally::default(),
        close: Some(Close {
            from: Direction::Server,
            code: Some(1001),
            reason: "going".into(),
        }),
    }
}

/// A piece of every kind.
fn framed() -> Vec<Segment> {
    let pieces = Opcode::ALL.into_iter().zip(Part::ALL.into_iter().cycle());
    let segment = |(opcode, part): (Opcode, Part)| Segment {
        direction: Direction::Client,
        offset_us: 1,
        bytes: Bytes::from_static(b"X-Raw"),
        frame: Some(Frame {
            opcode,
            part,
            compressed: opcode == Opcode::Binary,
        }),
        missing: u64::from(opcode == Opcode::Ping),
    };
    pieces.map(segment).collect()
}

#[expect(clippy::too_many_lines, reason = "one of each kind of item")]
fn items() -> Vec<Item> {
    let id = IdSource::default().next_id(1_700_000_000_000_000);
    let timing = Timing {
        started_us: -5,
        monotonic_us: 9,
        end_us: 3,
        ..Timing::default()
    };
    let tls = TlsFacts {
        version: "TLSv1.3".into(),
        alpn: Some("h2".into()),
        ..TlsFacts::default()
    };
    let exchange = Exchange {
        id,
        origin: origin(1),
        service: "shop".into(),
        protocol: Protocol::Http1,
        connection: ConnectionId(4),
        client: "127.0.0.1:5".into(),
        upstream: Some("http://u:1".into()),
        tls: Some(tls.clone()),
        timing,
        request: Request {
            method: "POST".into(),
            target: "/a?b=1".into(),
            version: "HTTP/1.1".into(),
            headers: headers(),
            body: Body::inline(Bytes::from_static(b"\0\xff")),
            trailers: Headers::default(),
        },
        response: Some(Response {
            status: 200,
            headers: headers(),
            body: Body {
                chunks: 3,
                bytes: 1 << 33,
                truncated: true,
                ..Body::empty()
            },
            trailers: headers(),
            informational: vec![(103, headers())],
        }),
        flow: flow(),
        stream: None,
        outcome: Outcome::UpstreamFailed(UpstreamFailure::Reset, "gone".into()),
        redactions: vec!["header:authorization".into()],
    };
    let stream = Stream {
        id,
        origin: origin(2),
        service: "db".into(),
        protocol: Protocol::Tcp,
        connection: ConnectionId(4),
        client: "127.0.0.1:5".into(),
        upstream: None,
        tls: None,
        timing,
        client_bytes: 1,
        server_bytes: 2,
        batches: 1,
        truncated: false,
        outcome: Outcome::ClientError("garbage".into()),
        exchange: None,
        upgrade: None,
    };
    let bytes = Bytes::from(vec![5; 70_000]);
    let segment = Segment {
        direction: Direction::Server,
        offset_us: 8,
        bytes: bytes.clone(),
        frame: None,
        missing: 0,
    };
    vec![
        Item::Record(Record::Exchange(Box::new(exchange.clone()))),
        Item::Record(Record::Exchange(Box::new(Exchange {
            response: None,
            flow: Flow::default(),
            tls: None,
            stream: Some(RecordId::from_u128(7)),
            ..exchange
        }))),
        Item::Record(Record::Stream(Box::new(stream.clone()))),
        Item::Chunk(BodyChunk {
            record: id,
            origin: origin(3),
            side: Side::Response,
            index: 2,
            bytes,
        }),
        Item::Segments(SegmentBatch {
            record: id,
            origin: origin(4),
            index: 0,
            segments: vec![segment],
        }),
        Item::Record(Record::Stream(Box::new(Stream {
            protocol: Protocol::WebSocket,
            exchange: Some(RecordId::from_u128(8)),
            upgrade: Some(Box::new(upgrade())),
            ..stream
        }))),
        Item::Segments(SegmentBatch {
            record: id,
            origin: origin(6),
            index: 1,
            segments: framed(),
        }),
        Item::Gap(Gap {
            origin: origin(5),
            count: 9,
            reason: GapReason::SpoolLimit,
        }),
    ]
}

fn message(items: &[Item]) -> Bytes {
    let mut out = Vec::new();
    items.iter().for_each(|item| encode(item, &mut out));
    out.into()
}

#[test]
fn a_message_of_every_kind_reads_back_as_it_was() {
    let items = items();
    let message = message(&items);
    let read: Vec<_> = decode_all(&message).map(|r| r.unwrap()).collect();
    assert_eq!(
        read.iter().map(|d| d.item.clone()).collect::<Vec<_>>(),
        items
    );
    let raws: Vec<u8> = read.iter().flat_map(|d| d.raw.to_vec()).collect();
    assert_eq!(raws, message);
}

#[test]
fn a_body_whose_length_is_not_that_of_its_bytes_is_refused() {
    let kept = || Body::inline(Bytes::from_static(b"12345"));
    for (chunks, bytes, truncated, legal) in [
        (0, 5, false, true),
        (0, 4, false, false),
        (0, 6, false, false),
        (0, 6, true, true),
        (0, 4, true, false),
        (1, 5, false, false),
    ] {
        let mut items = items();
        let Item::Record(Record::Exchange(exchange)) = &mut items[0] else {
            panic!("the first is an exchange");
        };
        exchange.request.body = Body {
            chunks,
            bytes,
            truncated,
            ..kept()
        };
        let decoded = decode(&message(&items[..1]));
        assert_eq!(decoded.is_ok(), legal, "{chunks} {bytes} {truncated}");
        if let Err(error) = decoded {
            assert!(error.to_string().contains("body.bytes"), "{error}");
        }
    }
}

#[test]
fn bodies_are_slices_of_the_message() {
    let message = message(&items());
    let inside = message.as_ptr_range();
    for decoded in decode_all(&message) {
        if let Item::Chunk(chunk) = decoded.unwrap().item {
            assert!(inside.contains(&chunk.bytes.as_ptr()));
        }
    }
}

#[test]
fn every_prefix_of_an_item_is_refused_with_its_place() {
    for item in items() {
        let bytes = message(&[item]);
        let step = (bytes.len() / 300).max(1);
        for length in (1..bytes.len()).step_by(step) {
            let result = decode_all(&bytes.slice(..length)).last().unwrap();
            assert!(
                matches!(result, Err(WireError::Broken { at: 0 })),
                "{length}"
            );
        }
    }
}

#[test]
fn records_of_plain_streams_have_the_keys_they_always_had() {
    let items = items();
    let plain = message(&items[..1]);
    let framed = message(&items[5..7]);
    let has = |message: &Bytes, key: &str| {
        let key = [&[0xa0 | u8::try_from(key.len()).unwrap()], key.as_bytes()].concat();
        message.windows(key.len()).any(|window| window == key)
    };
    for key in [
        "exchange",
        "upgrade",
        "opcode",
        "part",
        "compressed",
        "missing",
    ] {
        assert!(has(&framed, key), "{key}");
    }
    for key in ["opcode", "part", "compressed", "missing", "upgrade"] {
        assert!(!has(&message(&items[2..5]), key), "{key}");
    }
    // The kind of the first has the same text as a key of the stream.
    assert!(has(&message(&items[1..2]), "stream") && !has(&plain, "stream"));
}

#[test]
fn a_key_that_is_not_known_is_skipped_and_a_later_version_is_refused() {
    #[derive(serde::Serialize)]
    struct Later {
        later: Vec<u8>,
        v: u8,
        kind: &'static str,
        origin: std::collections::BTreeMap<&'static str, serde_json::Value>,
        count: u64,
        reason: &'static str,
    }
    let origin = [
        ("node", "az1".into()),
        ("epoch", 1.into()),
        ("seq", 2.into()),
    ];
    let mut later = Later {
        later: vec![1],
        v: 1,
        kind: "gap",
        origin: origin.into_iter().collect(),
        count: 1,
        reason: "oversize",
    };
    let bytes = Bytes::from(rmp_serde::to_vec_named(&later).unwrap());
    assert!(matches!(decode(&bytes), Ok(Item::Gap(_))));
    later.v = 3;
    let bytes = Bytes::from(rmp_serde::to_vec_named(&later).unwrap());
    assert!(matches!(
        decode(&bytes),
        Err(WireError::Version { version: 3, .. })
    ));
}

#[test]
fn nesting_without_end_is_refused_not_followed() {
    let deep = Bytes::from([vec![0x81, 0xa1, b'x'], vec![0x91; 100_000]].concat());
    assert!(decode(&deep).is_err());
}

fn key(id: &str, byte: &str) -> Key {
    Key::parse(id, &byte.repeat(32)).unwrap()
}

fn sealed(item: &Item, key: &Key) -> Bytes {
    let mut out = Vec::new();
    seal(item, key, &mut out);
    out.into()
}

/// The item in `bytes`, or why it stays closed.
fn opened(bytes: &Bytes, keys: &Keyring) -> Result<Item, String> {
    let decoded = decode_one(bytes).map_err(|error| error.to_string())?;
    match open(decoded, keys) {
        (decoded, None) => Ok(decoded.item),
        (decoded, Some(why)) => {
            assert!(matches!(decoded.item, Item::Sealed(_)));
            Err(why.to_string())
        }
    }
}

#[test]
fn what_is_sealed_opens_with_its_key_only_and_keeps_its_place() {
    let keys = Keyring::new(vec![key("new", "0a"), key("old", "0b")]);
    let other = Keyring::new(vec![key("new", "0c")]);
    for item in items() {
        for by in ["new", "old"] {
            let bytes = sealed(&item, keys.key(by).unwrap());
            assert_eq!(opened(&bytes, &keys), Ok(item.clone()));
            let decoded = decode_one(&bytes).unwrap();
            assert_eq!(decoded.item.origin(), item.origin());
            if matches!(item, Item::Gap(_)) {
                continue;
            }
            assert_eq!(decoded.sealed.as_deref(), Some(by));
            let unknown = opened(&bytes, &Keyring::default()).unwrap_err();
            assert_eq!(unknown, format!("key \"{by}\" is not known here"));
            if by == "new" {
                let refused = opened(&bytes, &other).unwrap_err();
                assert!(
                    refused.contains("does not open with key \"new\""),
                    "{refused}"
                );
            }
        }
        // Unsealed ones stay readable beside them.
        assert_eq!(
            opened(&message(std::slice::from_ref(&item)), &keys),
            Ok(item)
        );
    }
}

#[test]
fn a_sealed_item_shows_what_the_reference_says_and_nothing_else() {
    for item in items() {
        if matches!(item, Item::Gap(_)) {
            continue;
        }
        let bytes = sealed(&item, &key("k", "0a"));
        for word in [
            "shop.Orders",
            "X-Raw",
            "Host",
            "TLSv1.3",
            "none left",
            "127.0.0.1",
            "/chat",
            "binary",
        ] {
            let shown = bytes.windows(word.len()).any(|w| w == word.as_bytes());
            assert!(!shown, "{word} of {item:?}");
        }
        // Twice the same is not twice the same bytes.
        assert_ne!(bytes, sealed(&item, &key("k", "0a")));
    }
}

#[test]
fn every_changed_byte_of_a_sealed_item_is_refused() {
    let keys = Keyring::new(vec![key("k", "0a")]);
    for item in items() {
        if matches!(item, Item::Gap(_)) {
            continue;
        }
        let bytes = sealed(&item, keys.writing().unwrap());
        // All of the outside and of a small item; of a large one's content, some.
        let step = (bytes.len() / 40).max(1);
        for at in (0..bytes.len()).filter(|at| *at < 600 || at % step == 0) {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            let read = opened(&changed.into(), &keys);
            assert!(read.is_err(), "byte {at} of {item:?}");
        }
    }
}

#[test]
fn content_put_into_another_item_is_refused() {
    let keys = Keyring::new(vec![key("k", "0a")]);
    let chunk = |record: u128, seq: u64, index: u32| {
        let item = Item::Chunk(BodyChunk {
            record: crate::record::RecordId::from_u128(record),
            origin: origin(seq),
            side: Side::Request,
            index,
            bytes: Bytes::from_static(b"content"),
        });
        sealed(&item, keys.writing().unwrap()).to_vec()
    };
    let one = chunk(1, 1, 0);
    for other in [chunk(2, 1, 0), chunk(1, 2, 0), chunk(1, 1, 1)] {
        assert_eq!(one.len(), other.len());
        // Nonce and content stand last: the outside of one before the inside of the other.
        let inside = 24 + "content".len();
        for cut in [one.len() - inside, one.len() / 2, one.len() - 200] {
            let swapped = [&one[..cut], &other[cut..]].concat();
            if swapped != one && swapped != other {
                let read = opened(&swapped.into(), &keys);
                assert!(read.is_err(), "cut at {cut}");
            }
        }
    }
}

proptest! {
    #[test]
    fn mutated_messages_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0usize..8) {
        let mut bytes = message(&items()[which..=which]).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let bytes = Bytes::from(bytes);
        for decoded in decode_all(&bytes) {
            prop_assert!(decoded.map_or(true, |d| d.raw.len() <= bytes.len()));
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        prop_assert_eq!(decode_all(&bytes).count() > 0, !bytes.is_empty());
    }

    #[test]
    fn mutated_sealed_messages_never_panic_and_never_open_as_another(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0usize..8,
    ) {
        let item = &items()[which];
        let keys = Keyring::new(vec![key("k", "0a")]);
        let bytes = sealed(item, keys.writing().unwrap());
        let mut changed = bytes.to_vec();
        let at = at.index(changed.len());
        changed[at] = byte;
        let changed = Bytes::from(changed);
        let read = opened(&changed, &keys);
        prop_assert!(changed == bytes || matches!(item, Item::Gap(_)) || read.is_err());
    }
}
