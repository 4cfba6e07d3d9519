//! The answer to a WebSocket handshake (RFC 6455 section 4.2.2): what was recorded, with the proof for this client's key.
//!
//! No extension is agreed on, whatever was then: messages are kept inflated for this, and each client may decline it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Response};

use super::head;
use super::refusal::Refusal;
use crate::record::{Response as Recorded, accept_key};

/// The length of a key that is one: 16 bytes in Base64.
const KEY_BYTES: usize = 16;

/// The head that accepts the handshake, and how many recorded fields HTTP has no form for.
pub(super) fn accept(asked: &Parts, recorded: &Recorded) -> Result<(Response<()>, u64), Refusal> {
    if asked
        .headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        return Err(Refusal::WebSocketVersion);
    }
    let key = asked.headers.get(SEC_WEBSOCKET_KEY).filter(|key| {
        let decoded = STANDARD.decode(key.as_bytes().trim_ascii());
        decoded.is_ok_and(|bytes| bytes.len() == KEY_BYTES)
    });
    let key = key.ok_or(Refusal::WebSocketKey)?;
    let (mut response, dropped) = head::build(recorded, false)?;
    let headers = response.headers_mut();
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(accept_key(key.as_bytes()));
    headers.insert(
        SEC_WEBSOCKET_ACCEPT,
        accept.expect("Base64 is printable ASCII"),
    );
    Ok((response, dropped))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;

    use super::*;
    use crate::record::{Body, Headers};

    fn accepted(fields: &[(&str, &str)]) -> Result<Response<()>, Refusal> {
        let recorded = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", "of another key"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Sec-WebSocket-Protocol", "chat.v2"),
            ("Set-Cookie", "a=1"),
        ];
        let recorded = Recorded {
            status: 101,
            headers: recorded
                .iter()
                .map(|(name, value)| (Bytes::from(*name), Bytes::from(*value)))
                .collect(),
            body: Body::inline(Bytes::new()),
            trailers: Headers::default(),
            informational: Vec::new(),
        };
        let request = Request::builder();
        let request = fields.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let (parts, ()) = request.body(()).unwrap().into_parts();
        accept(&parts, &recorded).map(|(response, _)| response)
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn the_proof_is_for_this_key_and_no_extension_is_agreed_on() {
        let response = accepted(&[KEY, VERSION]).ok().unwrap();
        let field = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap())
        };
        assert_eq!(response.status(), 101);
        assert_eq!(
            field("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(field("sec-websocket-extensions"), None);
        assert_eq!(field("sec-websocket-protocol"), Some("chat.v2"));
        assert_eq!(field("upgrade"), Some("websocket"));
        assert_eq!(field("set-cookie"), Some("a=1"));
    }

    #[test]
    fn a_handshake_without_a_key_or_of_another_version_is_refused() {
        let refused = |fields: &[_]| accepted(fields).err().unwrap();
        assert!(matches!(refused(&[VERSION]), Refusal::WebSocketKey));
        let short = ("sec-websocket-key", "dGhl");
        assert!(matches!(refused(&[short, VERSION]), Refusal::WebSocketKey));
        assert!(matches!(refused(&[KEY]), Refusal::WebSocketVersion));
        let old = ("sec-websocket-version", "8");
        assert!(matches!(refused(&[KEY, old]), Refusal::WebSocketVersion));
    }
}
