use async_trait::async_trait;
use flate2::{Compress, Compression, FlushCompress};

use super::*;
use crate::playback::script::tests::{batch, stream as summary};
use crate::record::{Context, Part, RecordId, SegmentBatch, Tally, Upgrade, Window};
use Direction::{Client, Server};

/// The batches of one stream.
pub(in crate::playback::web_socket) struct Batches(Vec<Arc<SegmentBatch>>);

#[async_trait]
impl Source for Batches {
    async fn batch(
        &self,
        _: RecordId,
        index: u32,
        _: Duration,
    ) -> Result<Arc<SegmentBatch>, Unfit> {
        let batch = self.0.get(index as usize).cloned();
        batch.ok_or(Unfit::Missing { index })
    }
}

/// A piece: who, when (milliseconds), what of which message.
pub(in crate::playback::web_socket) fn piece(
    from: Direction,
    at_ms: u64,
    opcode: Opcode,
    part: Part,
    bytes: impl Into<Bytes>,
) -> Segment {
    Segment {
        direction: from,
        offset_us: at_ms * 1000,
        bytes: bytes.into(),
        frame: Some(Frame {
            opcode,
            part,
            compressed: false,
        }),
        missing: 0,
    }
}

/// A stream with these segments, `per_batch` in each batch, and its dialogue.
pub(in crate::playback::web_socket) fn recorded(
    segments: &[Segment],
    per_batch: usize,
    change: impl Fn(&mut Stream),
) -> Dialogue {
    let batches: Vec<_> = (0..)
        .zip(segments.chunks(per_batch))
        .map(|(index, segments)| SegmentBatch {
            segments: segments.to_vec(),
            ..batch(index, Vec::new())
        })
        .collect();
    let mut stream = summary(7, &batches);
    stream.protocol = Protocol::WebSocket;
    let whole = |from| {
        let data = segments.iter().filter(|segment| {
            let frame = segment.frame.filter(|frame| !frame.opcode.is_control());
            segment.direction == from && frame.is_some_and(|frame| frame.part.ends())
        });
        Tally {
            messages: data.count() as u64,
            unframed: None,
        }
    };
    stream.upgrade = Some(Box::new(Upgrade {
        client: whole(Client),
        server: whole(Server),
        ..Upgrade::default()
    }));
    change(&mut stream);
    let batches = batches.into_iter().map(Arc::new).collect();
    Dialogue::new(
        Arc::new(stream),
        Arc::new(Batches(batches)),
        1000,
        Duration::ZERO,
    )
}

async fn all(dialogue: &mut Dialogue) -> Result<Vec<String>, Unfit> {
    let mut told = Vec::new();
    loop {
        told.push(match dialogue.next().await? {
            Event::Said(said) => {
                let text = String::from_utf8_lossy(&said.bytes).into_owned();
                let (kind, at) = (said.kind.as_str(), said.at_us / 1000);
                format!(
                    "{:?} {kind} {text} #{} +{} @{at}",
                    said.from, said.number, said.offset
                )
            }
            Event::Closed { close, .. } => {
                format!("{:?} closes {:?} {}", close.from, close.code, close.reason)
            }
            Event::End => return Ok(told),
        });
    }
}

fn conversation() -> Vec<Segment> {
    vec![
        piece(Server, 1, Opcode::Text, Part::Whole, "welcome"),
        piece(Client, 2, Opcode::Text, Part::First, "one "),
        piece(Server, 3, Opcode::Ping, Part::Whole, "there?"),
        piece(Client, 3, Opcode::Pong, Part::Whole, "there?"),
        piece(Server, 4, Opcode::Binary, Part::Whole, "between"),
        piece(Client, 5, Opcode::Text, Part::Middle, "and "),
        piece(Client, 6, Opcode::Text, Part::Last, "two"),
        piece(Client, 7, Opcode::Text, Part::Whole, ""),
        piece(Server, 8, Opcode::Close, Part::Whole, &b"\x03\xe8done"[..]),
        piece(Client, 9, Opcode::Close, Part::Whole, ""),
    ]
}

#[tokio::test]
async fn pieces_become_messages_however_they_lie_in_batches() {
    for per_batch in [1, 3, 100] {
        let mut dialogue = recorded(&conversation(), per_batch, |_| ());
        assert_eq!(
            all(&mut dialogue).await.unwrap(),
            [
                "Server text welcome #0 +0 @1",
                "Server binary between #1 +7 @4",
                "Client text one and two #0 +0 @6",
                "Client text  #1 +11 @7",
                "Server closes Some(1000) done",
                "Client closes None ",
            ]
        );
        assert_eq!((dialogue.said(Client), dialogue.said(Server)), (11, 14));
    }
}

#[tokio::test]
async fn compressed_messages_are_inflated_with_what_came_before_them() {
    let mut stream = Compress::new(Compression::default(), false);
    let mut deflated = |text: &str| {
        let mut out = Vec::with_capacity(200);
        let flush = FlushCompress::Sync;
        stream
            .compress_vec(text.as_bytes(), &mut out, flush)
            .unwrap();
        out.truncate(out.len() - 4);
        out
    };
    let text = "green tea and more green tea";
    let segments: Vec<_> = (0..2)
        .map(|at| {
            let mut segment = piece(Server, at, Opcode::Text, Part::Whole, deflated(text));
            segment.frame.as_mut().unwrap().compressed = true;
            segment
        })
        .collect();
    assert!(segments[1].bytes.len() < 10);
    let window = Window {
        bits: 15,
        context: Context::Kept,
    };
    let deflate = Deflate {
        client: window,
        server: window,
    };
    let agreed = |stream: &mut Stream| {
        stream.upgrade.as_mut().unwrap().deflate = Some(deflate);
    };
    let told = all(&mut recorded(&segments, 1, agreed)).await.unwrap();
    assert_eq!(told[1], format!("Server text {text} #1 +28 @1"));
    // Compressed, and nobody agreed on that.
    let told = all(&mut recorded(&segments, 1, |_| ())).await;
    assert!(matches!(told, Err(Unfit::Inconsistent)));
}

#[tokio::test]
async fn what_is_not_whole_is_refused_with_its_reason() {
    let whole = conversation();
    let changed = |change: &dyn Fn(&mut Vec<Segment>)| {
        let mut segments = whole.clone();
        change(&mut segments);
        recorded(&segments, 4, |_| ())
    };
    let told = all(&mut changed(&|s| s[7].missing = 5)).await;
    assert!(matches!(told, Err(Unfit::Truncated)));
    let told = all(&mut changed(&|s| drop(s.remove(1)))).await;
    assert!(matches!(told, Err(Unfit::Inconsistent)));
    let told = all(&mut changed(&|s| s[7].frame = None)).await;
    assert!(told.is_ok(), "a side closed the connection");
    let told = all(&mut changed(&|s| s[0].frame = None)).await;
    assert!(matches!(told, Err(Unfit::Unframed)));
    let told = all(&mut changed(&|s| s[0].bytes = vec![0; 1001].into())).await;
    assert!(matches!(told, Err(Unfit::TooLarge { limit: 1000 })));
    let mut more = recorded(&whole, 4, |s| {
        s.upgrade.as_mut().unwrap().server.messages += 1
    });
    assert!(matches!(all(&mut more).await, Err(Unfit::Inconsistent)));
    let mut gone = recorded(&whole, 4, |stream| stream.batches += 1);
    assert!(matches!(
        all(&mut gone).await,
        Err(Unfit::Missing { index: 3 })
    ));
}

#[test]
fn a_stream_that_is_cut_or_no_web_socket_does_not_fit() {
    let of = |change: &dyn Fn(&mut Stream)| {
        let dialogue = recorded(&conversation(), 4, change);
        fit(dialogue.stream())
    };
    assert!(of(&|_| ()).is_ok());
    assert!(matches!(of(&|s| s.truncated = true), Err(Unfit::Truncated)));
    assert!(matches!(
        of(&|s| s.protocol = Protocol::Tcp),
        Err(Unfit::Unframed)
    ));
    assert!(matches!(of(&|s| s.upgrade = None), Err(Unfit::Unframed)));
    let broke = |s: &mut Stream| {
        s.upgrade.as_mut().unwrap().client.unframed = Some("garbage".into());
    };
    assert!(matches!(of(&broke), Err(Unfit::Unframed)));
}
