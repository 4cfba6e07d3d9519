//! The recorded answer as a result carries it, where it stands in for that of a target that is down.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use crate::record::Response;

/// Content over this is left out: a result stays a small message, and the record has the rest.
const MAX_CONTENT: usize = 16 << 10;

/// A recorded answer, as far as it fits a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StandIn {
    /// The status.
    pub status: u16,
    /// Name and value of each field, in order.
    pub headers: Vec<(String, String)>,
    /// How many bytes of content passed.
    pub bytes: u64,
    /// Whether fewer were kept.
    pub truncated: bool,
    /// The content, where it is small and text; neither this nor `base64` where it is large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The content, where it is small and no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl StandIn {
    pub(super) fn of(recorded: &Response) -> Self {
        let lossy = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let headers = recorded.headers.iter();
        let body = &recorded.body;
        let small = body.chunks == 0 && body.inline.len() <= MAX_CONTENT;
        let content = small.then_some(&body.inline);
        let text = content.and_then(text);
        Self {
            status: recorded.status,
            headers: headers.map(|(n, v)| (lossy(n), lossy(v))).collect(),
            bytes: body.bytes,
            truncated: body.truncated,
            base64: content
                .filter(|_| text.is_none())
                .map(|bytes| STANDARD.encode(bytes)),
            text,
        }
    }
}

/// Text that JSON does not blow up: control characters take six bytes there.
fn text(bytes: &Bytes) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let plain = |c: char| !c.is_ascii_control() || matches!(c, '\t' | '\n' | '\r');
    text.chars().all(plain).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, Headers};

    fn recorded(inline: &'static [u8], chunks: u32) -> Response {
        let mut headers = Headers::default();
        headers.push("X-One".into(), Bytes::from_static(b"\xff"));
        Response {
            status: 201,
            headers,
            body: Body {
                chunks,
                bytes: 9,
                ..Body::inline(Bytes::from_static(inline))
            },
            trailers: Headers::default(),
            informational: Vec::new(),
        }
    }

    #[test]
    fn carries_small_content_as_text_or_base64_and_leaves_large_content_out() {
        let content = |recorded: &Response| {
            let answer = StandIn::of(recorded);
            assert_eq!((answer.status, answer.bytes), (201, 9));
            assert_eq!(answer.headers, [("X-One".into(), "\u{fffd}".into())]);
            (answer.text, answer.base64)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(content(&recorded(b"tea\n", 0)), (some("tea\n"), None));
        assert_eq!(content(&recorded(b"\x00\x01", 0)), (None, some("AAE=")));
        assert_eq!(content(&recorded(b"\xff", 0)), (None, some("/w==")));
        assert_eq!(content(&recorded(b"", 3)), (None, None));
        assert_eq!(
            content(&recorded(&[b'x'; MAX_CONTENT + 1], 0)),
            (None, None)
        );
    }
}
