//! What a handshake agreed on, and what is said in the stream behind it: the messages, where it is WebSocket.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{SEC_WEBSOCKET_EXTENSIONS, UPGRADE};

use super::frames::{Compression, Frames, Piece};
use crate::record::{
    Close, Context, Deflate, Direction, Headers, Opcode, Outcome, Part, Protocol, RecordId, Tally,
    Target, Upgrade, UpstreamFailure, Window,
};

/// The handshake of a stream that is about to begin.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) exchange: RecordId,
    pub(super) protocol: Protocol,
    upgrade: Upgrade,
}

impl Handshake {
    /// Of the request's target and fields, and of the answer's.
    pub(super) fn new(
        exchange: RecordId,
        target: &str,
        request: &Headers,
        response: &HeaderMap,
    ) -> Self {
        let web_socket = response
            .get(UPGRADE)
            .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let protocol = match web_socket {
            true => Protocol::WebSocket,
            false => Protocol::Tcp,
        };
        let upgrade = Upgrade {
            host: shortened(Target(target).host(request)).into(),
            target: shortened(target).into(),
            deflate: deflate(response).filter(|_| web_socket),
            ..Upgrade::default()
        };
        Self {
            exchange,
            protocol,
            upgrade,
        }
    }
}

/// Follows what both sides say after a handshake.
#[derive(Debug)]
pub(super) struct Conversation {
    upgrade: Upgrade,
    /// `None` where it is not WebSocket.
    frames: Option<Box<(Frames, Frames)>>,
    /// Who closed the connection first.
    left: Option<Direction>,
}

impl Conversation {
    /// Pieces have at most `piece` bytes.
    pub(super) fn new(handshake: Handshake, piece: usize) -> Self {
        let compression = match handshake.upgrade.deflate {
            Some(_) => Compression::On,
            None => Compression::Off,
        };
        let frames = |sender| Frames::new(sender, compression, piece);
        let web_socket = handshake.protocol == Protocol::WebSocket;
        Self {
            upgrade: handshake.upgrade,
            frames: web_socket
                .then(|| Box::new((frames(Direction::Client), frames(Direction::Server)))),
            left: None,
        }
    }

    /// Bytes passed, none where that side closed. Gives their messages; the bytes themselves where there are no frames.
    pub(super) fn read(
        &mut self,
        direction: Direction,
        bytes: &Bytes,
        give: &mut impl FnMut(Piece),
    ) {
        if bytes.is_empty() {
            self.left.get_or_insert(direction);
        }
        let close = &mut self.upgrade.close;
        let mut give = |piece: Piece| {
            if close.is_none() {
                *close = closing(direction, &piece);
            }
            give(piece);
        };
        match (&mut self.frames, direction) {
            (None, _) => {
                return give(Piece {
                    bytes: Bytes::copy_from_slice(bytes),
                    frame: None,
                });
            }
            (Some(frames), Direction::Client) => feed(&mut frames.0, bytes, &mut give),
            (Some(frames), Direction::Server) => feed(&mut frames.1, bytes, &mut give),
        }
        if bytes.is_empty() {
            give(Piece {
                bytes: Bytes::new(),
                frame: None,
            });
        }
    }

    /// The connection is over: gives what is held of both sides.
    pub(super) fn finish(&mut self, mut give: impl FnMut(Direction, Piece)) {
        if let Some(frames) = &mut self.frames {
            frames.0.finish(&mut |piece| give(Direction::Client, piece));
            frames.1.finish(&mut |piece| give(Direction::Server, piece));
        }
    }

    /// How it ended. A side that just closes has not ended a WebSocket conversation (RFC 6455 section 7.1.5, code 1006).
    pub(super) fn judge(&self, outcome: Outcome) -> Outcome {
        let spoken = self
            .frames
            .as_ref()
            .is_some_and(|frames| frames.0.unframed().is_none() && frames.1.unframed().is_none());
        match (&outcome, self.left, &self.upgrade.close) {
            (Outcome::Ok, Some(Direction::Client), None) if spoken => Outcome::ClientClosed,
            (Outcome::Ok, Some(Direction::Server), None) if spoken => Outcome::UpstreamFailed(
                UpstreamFailure::Reset,
                "it closed the connection without a Close frame".into(),
            ),
            _ => outcome,
        }
    }

    /// What is known of it at its end.
    pub(super) fn upgrade(self) -> Box<Upgrade> {
        let (client, server) = match self.frames.as_deref() {
            Some((client, server)) => (tally(client), tally(server)),
            None => {
                let foreign = Tally {
                    messages: 0,
                    unframed: Some("it is not WebSocket".into()),
                };
                (foreign.clone(), foreign)
            }
        };
        Box::new(Upgrade {
            client,
            server,
            ..self.upgrade
        })
    }
}

fn feed(frames: &mut Frames, bytes: &[u8], give: &mut impl FnMut(Piece)) {
    match bytes {
        [] => frames.finish(give),
        _ => frames.read(bytes, give),
    }
}

fn tally(frames: &Frames) -> Tally {
    Tally {
        messages: frames.messages(),
        unframed: frames.unframed().map(Into::into),
    }
}

/// What a whole Close frame says (RFC 6455 section 5.5.1).
fn closing(from: Direction, piece: &Piece) -> Option<Close> {
    let frame = piece.frame?;
    if frame.opcode != Opcode::Close || frame.part != Part::Whole {
        return None;
    }
    let (code, reason) = match piece.bytes.split_first_chunk::<2>() {
        Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
        None => (None, &b""[..]),
    };
    Some(Close {
        from,
        code,
        reason: String::from_utf8_lossy(reason).into(),
    })
}

/// What was agreed on for `permessage-deflate` (RFC 7692 section 7.1); `None` where it was not, or where what the
/// server answered is not clear.
fn deflate(response: &HeaderMap) -> Option<Deflate> {
    let answers = response.get_all(SEC_WEBSOCKET_EXTENSIONS).iter();
    let mut extensions = answers
        .filter_map(|answer| answer.to_str().ok())
        .flat_map(|answer| answer.split(','));
    extensions.find_map(|extension| {
        let mut parts = extension.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        let whole = Window {
            bits: 15,
            context: Context::Kept,
        };
        let (mut client, mut server) = (whole, whole);
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let bits = value.trim().trim_matches('"').parse::<u8>();
            let bits = bits.ok().filter(|bits| (8..=15).contains(bits));
            match name.trim() {
                "client_no_context_takeover" => client.context = Context::Fresh,
                "server_no_context_takeover" => server.context = Context::Fresh,
                "client_max_window_bits" => client.bits = bits?,
                "server_max_window_bits" => server.bits = bits?,
                _ => return None,
            }
        }
        Some(Deflate { client, server })
    })
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(Upgrade::TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(extensions: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, "WebSocket".parse().unwrap());
        for extension in extensions {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, extension.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_answer_tells_how_each_side_compresses() {
        let window = |bits, context| Window { bits, context };
        let (kept, fresh) = (Context::Kept, Context::Fresh);
        for (extensions, agreed) in [
            (vec![], None),
            (vec!["x-other"], None),
            (
                vec!["permessage-deflate"],
                Some((window(15, kept), window(15, kept))),
            ),
            (
                vec![
                    "x-other, Permessage-Deflate; server_no_context_takeover; client_max_window_bits=10",
                ],
                Some((window(10, kept), window(15, fresh))),
            ),
            (
                vec![
                    "x-other",
                    "permessage-deflate;client_no_context_takeover; server_max_window_bits=\"8\"",
                ],
                Some((window(15, fresh), window(8, kept))),
            ),
            (vec!["permessage-deflate; server_max_window_bits=99"], None),
            (vec!["permessage-deflate; unheard_of"], None),
        ] {
            let agreed = agreed.map(|(client, server)| Deflate { client, server });
            assert_eq!(deflate(&answer(&extensions)), agreed, "{extensions:?}");
        }
    }

    #[test]
    fn a_side_that_just_closes_has_not_ended_the_conversation() {
        let handshake = || {
            let id = RecordId::from_u128(1);
            Handshake::new(id, "/chat", &Headers::default(), &answer(&[]))
        };
        let close = Bytes::from_static(&[0x88, 2, 3, 233]);
        let gone = Bytes::new();
        let ended = |read: &[(Direction, &Bytes)]| {
            let mut conversation = Conversation::new(handshake(), 100);
            for (direction, bytes) in read {
                conversation.read(*direction, bytes, &mut |_| ());
            }
            let outcome = conversation.judge(Outcome::Ok);
            (
                outcome.as_str(),
                conversation.upgrade().close.and_then(|close| close.code),
            )
        };
        let (client, server) = (Direction::Client, Direction::Server);
        assert_eq!(
            ended(&[(client, &gone), (server, &gone)]),
            ("client_closed", None)
        );
        assert_eq!(
            ended(&[(server, &gone), (client, &gone)]),
            ("upstream_failed", None)
        );
        let all = [(server, &close), (server, &gone), (client, &gone)];
        assert_eq!(ended(&all), ("ok", Some(1001)));
    }
}
