//! Other recorded conversations behind the same handshake, for a client that goes on otherwise than the chosen one: one that
//! has been the same up to here, and in which the client then said what this one says.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::{Conversations, Dialogue, Event, Kind, Said, fit};
use crate::playback::script::Unfit;
use crate::record::{Direction, Exchange, Record, RecordId};
use crate::store;

/// How many are looked at for one client.
const MAX_OTHERS: usize = 100;

/// What a client has said and was told so far, as hashes: it takes no room, however much that was.
#[derive(Clone)]
pub(super) struct Followed {
    client: Side,
    server: Side,
}

#[derive(Clone)]
struct Side {
    hash: XxHash3_128,
    messages: u64,
}

impl Side {
    fn new() -> Self {
        Self {
            hash: XxHash3_128::new(),
            messages: 0,
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.messages == other.messages && self.hash.finish_128() == other.hash.finish_128()
    }
}

impl Followed {
    pub(super) fn new() -> Self {
        Self {
            client: Side::new(),
            server: Side::new(),
        }
    }

    pub(super) fn add(&mut self, said: &Said) {
        let side = match said.from {
            Direction::Client => &mut self.client,
            Direction::Server => &mut self.server,
        };
        side.messages += 1;
        side.hash.write(said.kind.as_str().as_bytes());
        side.hash.write(&(said.bytes.len() as u64).to_le_bytes());
        side.hash.write(&said.bytes);
    }

    /// Follows another dialogue to where this one is; gives what its client says next, where that is all the same.
    async fn next_in(&self, dialogue: &mut Dialogue) -> Result<Option<Said>, Unfit> {
        let mut followed = Self::new();
        loop {
            let Event::Said(said) = dialogue.next().await? else {
                return Ok(None);
            };
            if said.from == Direction::Client
                && followed.client.is(&self.client)
                && followed.server.is(&self.server)
            {
                return Ok(Some(said));
            }
            followed.add(&said);
            if followed.client.messages > self.client.messages
                || followed.server.messages > self.server.messages
            {
                return Ok(None);
            }
        }
    }
}

/// Those that were not looked at yet. One that did not fit once never will.
pub(in crate::playback) struct Others {
    handshakes: VecDeque<RecordId>,
    subprotocol: Option<Bytes>,
}

impl Others {
    /// `handshakes` are all that are like `chosen`.
    pub(in crate::playback) fn new(handshakes: Vec<RecordId>, chosen: &Exchange) -> Self {
        let others = handshakes.into_iter().filter(|id| *id != chosen.id);
        Self {
            handshakes: others.take(MAX_OTHERS).collect(),
            subprotocol: subprotocol(chosen),
        }
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            handshakes: VecDeque::new(),
            subprotocol: None,
        }
    }

    /// The first that was the same so far and goes on with this message, read up to behind it; and that message.
    pub(super) async fn find(
        &mut self,
        shared: &Conversations,
        followed: &Followed,
        (kind, bytes): (Kind, &Bytes),
    ) -> Option<(Dialogue, Said)> {
        while let Some(id) = self.handshakes.pop_front() {
            let found = async {
                let Some(mut dialogue) = self.dialogue(shared, id).await? else {
                    return Ok(None);
                };
                let next = followed.next_in(&mut dialogue).await?;
                let next = next.filter(|said| (said.kind, &said.bytes) == (kind, bytes));
                Ok::<_, Unfit>(next.map(|said| (dialogue, said)))
            };
            match found.await {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!(record = %id, %why, "a recorded WebSocket cannot answer")
                }
            }
        }
        None
    }

    async fn dialogue(
        &self,
        shared: &Conversations,
        id: RecordId,
    ) -> Result<Option<Dialogue>, Unfit> {
        let exchange = match shared.shelf.store().get(id).await {
            Ok(Some(Record::Exchange(exchange))) => exchange,
            Ok(_) | Err(store::Error::Sealed { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let switched = exchange.response.as_ref().is_some_and(|r| r.status == 101);
        let stream = exchange
            .stream
            .filter(|_| switched && subprotocol(&exchange) == self.subprotocol);
        let Some(stream) = stream else {
            return Ok(None);
        };
        let stream = shared.stream(stream).await?;
        fit(&stream)?;
        Ok(Some(shared.dialogue(Arc::clone(&stream))))
    }
}

fn subprotocol(exchange: &Exchange) -> Option<Bytes> {
    let response = exchange.response.as_ref()?;
    response.headers.first("sec-websocket-protocol").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::web_socket::dialogue::tests::{piece, recorded};
    use crate::record::{Opcode, Part};
    use Direction::{Client, Server};

    const BEGUN: [(Direction, &str); 3] = [(Client, "a"), (Server, "b"), (Client, "c")];

    fn dialogue(told: &[(Direction, &'static str)]) -> Dialogue {
        let segment = |(from, text): &(Direction, &'static str)| {
            piece(*from, 1, Opcode::Text, Part::Whole, *text)
        };
        let segments: Vec<_> = told.iter().map(segment).collect();
        recorded(&segments, 2, |_| ())
    }

    /// What the client of a dialogue that goes on like that says next, where this much was the same.
    async fn next(
        begun: &[(Direction, &'static str)],
        rest: &[(Direction, &'static str)],
    ) -> Option<Bytes> {
        let mut followed = Followed::new();
        let mut chosen = dialogue(&BEGUN);
        while let Event::Said(said) = chosen.next().await.unwrap() {
            followed.add(&said);
        }
        let mut other = dialogue(&[begun, rest].concat());
        let said = followed.next_in(&mut other).await.unwrap();
        said.map(|said| said.bytes)
    }

    #[tokio::test]
    async fn only_one_that_was_the_same_so_far_and_goes_on_with_its_client_is_followed() {
        assert_eq!(next(&BEGUN, &[(Client, "d")]).await.unwrap(), "d");
        assert_eq!(next(&BEGUN, &[(Server, "d"), (Client, "e")]).await, None);
        assert_eq!(next(&BEGUN, &[]).await, None);
        let told_else = [(Client, "a"), (Server, "x"), (Client, "c")];
        assert_eq!(next(&told_else, &[(Client, "d")]).await, None);
        let cut_else = [(Client, "ac"), (Server, "b"), (Client, "")];
        assert_eq!(next(&cut_else, &[(Client, "d")]).await, None);
        // The order between the sides is each connection's own.
        let other_order = [(Client, "a"), (Client, "c"), (Server, "b")];
        assert_eq!(next(&other_order, &[(Client, "d")]).await.unwrap(), "d");
    }
}
