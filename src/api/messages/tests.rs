use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

use super::*;
use crate::record::{
    ConnectionId, Context, Epoch, NodeId, Opcode, Origin, Outcome, Protocol, RecordId, Sequence,
    Timing, Upgrade, Window,
};

fn origin() -> Origin {
    Origin {
        node: NodeId::new("az1").unwrap(),
        epoch: Epoch(1),
        seq: Sequence(1),
    }
}

fn stream(deflate: Option<Deflate>) -> Stream {
    Stream {
        id: RecordId::from_u128(1),
        origin: origin(),
        service: "chat".into(),
        protocol: Protocol::WebSocket,
        connection: ConnectionId(1),
        client: "127.0.0.1:5".into(),
        upstream: None,
        tls: None,
        timing: Timing::default(),
        client_bytes: 0,
        server_bytes: 0,
        batches: 1,
        truncated: false,
        outcome: Outcome::Ok,
        exchange: Some(RecordId::from_u128(2)),
        upgrade: Some(Box::new(Upgrade {
            deflate,
            ..Upgrade::default()
        })),
    }
}

fn deflate() -> Deflate {
    let window = Window {
        bits: 15,
        context: Context::Kept,
    };
    Deflate {
        client: window,
        server: window,
    }
}

fn piece(opcode: Opcode, part: Part, compressed: bool, bytes: &[u8]) -> Segment {
    Segment {
        direction: Direction::Client,
        offset_us: 7,
        bytes: Bytes::copy_from_slice(bytes),
        frame: Some(Frame {
            opcode,
            part,
            compressed,
        }),
        missing: 0,
    }
}

fn batch(segments: Vec<Segment>) -> SegmentBatch {
    SegmentBatch {
        record: RecordId::from_u128(1),
        origin: origin(),
        index: 0,
        segments,
    }
}

fn texts(reader: Reader) -> Vec<(Option<String>, Option<String>, Option<String>)> {
    let entry = |entry: dto::Segment| (entry.opcode, entry.part, entry.text);
    reader.finish().into_iter().map(entry).collect()
}

fn entry(
    opcode: &str,
    part: Option<&str>,
    text: &str,
) -> (Option<String>, Option<String>, Option<String>) {
    (Some(opcode.into()), part.map(Into::into), Some(text.into()))
}

#[test]
fn pieces_are_put_together_around_control_frames_and_cut_letters() {
    let mut reader = Reader::new(&stream(None));
    reader.read(&batch(vec![
        piece(Opcode::Text, Part::First, false, b"caf\xc3"),
        piece(Opcode::Ping, Part::Whole, false, b"?"),
        piece(Opcode::Text, Part::Middle, false, b"\xa9"),
        piece(Opcode::Text, Part::Last, false, b"!"),
        piece(Opcode::Text, Part::First, false, b"and "),
    ]));
    let expected = [
        entry("text", None, "café!"),
        entry("ping", None, "?"),
        entry("text", Some("first"), "and "),
    ];
    assert_eq!(texts(reader), expected);
}

#[test]
fn compressed_messages_are_inflated_also_where_a_page_begins_behind_others() {
    let mut compress = Compress::new(Compression::default(), false);
    let mut deflated = |text: &str| {
        let mut out = Vec::with_capacity(200);
        compress
            .compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync)
            .unwrap();
        out.truncate(out.len() - 4);
        out
    };
    let messages = ["green tea", "green tea, and more green tea"];
    let [one, two] = messages.map(|text| piece(Opcode::Text, Part::Whole, true, &deflated(text)));
    let mut reader = Reader::new(&stream(Some(deflate())));
    assert!(reader.looks_back());
    reader.read(&batch(vec![one]));
    reader.forget();
    reader.read(&batch(vec![two.clone()]));
    assert_eq!(texts(reader), [entry("text", None, messages[1])]);
    // Without what it refers to it is shown as it was sent, and that is said.
    let mut reader = Reader::new(&stream(Some(deflate())));
    reader.skip();
    reader.read(&batch(vec![two]));
    let shown = reader.finish();
    assert!(shown[0].compressed && shown[0].base64.is_some());
    assert!(
        shown[0]
            .note
            .as_ref()
            .unwrap()
            .contains("refers to a message before it")
    );
}

#[test]
fn what_inflates_without_end_is_shown_as_it_was_sent() {
    let mut compress = Compress::new(Compression::best(), false);
    let zeros = vec![0; MAX_INFLATED + 1];
    let mut bomb = Vec::with_capacity(1 << 20);
    compress
        .compress_vec(&zeros, &mut bomb, FlushCompress::Sync)
        .unwrap();
    bomb.truncate(bomb.len() - 4);
    let mut reader = Reader::new(&stream(Some(deflate())));
    reader.read(&batch(vec![piece(
        Opcode::Binary,
        Part::Whole,
        true,
        &bomb,
    )]));
    let shown = reader.finish();
    assert!(shown[0].note.as_ref().unwrap().contains("too large"));
    assert!(shown[0].base64.as_ref().unwrap().len() < 100_000);
}
