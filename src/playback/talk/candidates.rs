//! Which recorded streams a client may be repeating: fewer with each byte that it says.
//!
//! All candidates have heard the same bytes, the client's so far. One of them leads: it is what the client is answered
//! from, until the client says something that only others have. Those may have said other things themselves (a server's
//! greeting often holds a random number); those that said the same come first.

use crc32fast::Hasher;

use super::seats::{Seats, Visitor};
use crate::playback::script::{Piece, Script, Step, Unfit};
use crate::record::{Direction, RecordId};

/// What a server has said, in a few bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Spoken {
    bytes: u64,
    hash: Hasher,
}

impl Spoken {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn is(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.hash.clone().finalize() == other.hash.clone().finalize()
    }
}

/// One recorded stream, as far as the client has followed it.
#[derive(Debug)]
pub(super) struct Candidate {
    script: Script,
    pub(super) step: Step,
    /// When the step before was over, microseconds since the stream's start.
    pub(super) before_us: u64,
    /// How much of the step's bytes the client has said.
    done: usize,
    spoken: Spoken,
}

impl Candidate {
    pub(super) async fn new(mut script: Script) -> Result<Self, Unfit> {
        let step = script.next().await?;
        Ok(Self {
            script,
            step,
            before_us: 0,
            done: 0,
            spoken: Spoken::default(),
        })
    }

    pub(super) fn id(&self) -> RecordId {
        self.script.stream().id
    }

    /// How many bytes are held of it.
    pub(super) fn held(&self) -> usize {
        let piece = match &self.step {
            Step::Said(piece) => piece.bytes.len(),
            _ => 0,
        };
        self.script.held() + piece
    }

    /// Goes on to the next step.
    pub(super) async fn advance(&mut self) -> Result<(), Unfit> {
        if let Step::Said(piece) = &self.step
            && piece.from == Direction::Server
        {
            self.spoken.add(&piece.bytes);
        }
        self.before_us = self.step.at_us().unwrap_or(self.before_us);
        self.done = 0;
        self.step = self.script.next().await?;
        Ok(())
    }

    /// Whether the server does something now.
    pub(super) fn speaks(&self) -> bool {
        self.step.by() == Some(Direction::Server)
    }

    /// What the client says now.
    fn expects(&self) -> Option<&Piece> {
        match &self.step {
            Step::Said(piece) if piece.from == Direction::Client => Some(piece),
            _ => None,
        }
    }

    /// Whether the client may close now.
    fn expects_close(&self) -> bool {
        matches!(&self.step, Step::Closed { by, .. } if *by == Direction::Client)
            || self.step == Step::End
    }

    fn room(&self) -> usize {
        self.expects()
            .map_or(0, |piece| piece.bytes.len() - self.done)
    }

    /// The first place in `got` that is not what is expected; 0 where nothing is.
    fn difference(&self, got: &[u8]) -> Option<usize> {
        let Some(piece) = self.expects() else {
            return Some(0);
        };
        piece.difference(self.done, got).map(|at| at - self.done)
    }
}

/// What the client said that no candidate has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Strayed {
    pub(super) record: RecordId,
    /// Where in all that the client says.
    pub(super) offset: u64,
    pub(super) expected: Expected,
    /// Where in what was given it differs.
    pub(super) at: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// These bytes; the difference is at this place of them.
    Bytes(bytes::Bytes, usize),
    /// The client closes.
    Close,
    /// Nothing: the recorded connection was gone.
    Nothing,
}

/// Who is to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Server,
    Client,
    /// Some candidates say the one, some the other.
    Open,
}

/// The streams that the client may be repeating.
#[derive(Debug)]
pub(super) struct Candidates {
    alive: Vec<Candidate>,
    /// In `alive`, the one that the client is answered from.
    leader: Option<RecordId>,
    visitor: Visitor,
}

impl Candidates {
    /// In the order in which they were recorded.
    pub(super) const fn new(alive: Vec<Candidate>, visitor: Visitor) -> Self {
        Self {
            alive,
            leader: None,
            visitor,
        }
    }

    pub(super) const fn visitor(&self) -> Visitor {
        self.visitor
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<u128> {
        self.alive.iter().map(|c| c.id().as_u128()).collect()
    }

    pub(super) const fn leader(&self) -> Option<RecordId> {
        self.leader
    }

    pub(super) fn turn(&self) -> Turn {
        let speakers = self.alive.iter().filter(|c| c.speaks()).count();
        match speakers {
            0 => Turn::Client,
            all if all == self.alive.len() => Turn::Server,
            _ => Turn::Open,
        }
    }

    /// Whether every candidate has come to its end, but for the client's close.
    pub(super) fn are_through(&self) -> bool {
        self.alive.iter().all(Candidate::expects_close)
    }

    /// Decides an open turn: the client goes on with `got` where a candidate has that, else the server speaks.
    pub(super) fn decide(&mut self, got: &[u8], closed: bool) {
        let goes_on = |candidate: &Candidate| match got {
            [] => closed && candidate.expects_close(),
            got => {
                let seen = &got[..got.len().min(candidate.room())];
                !seen.is_empty() && candidate.difference(seen).is_none()
            }
        };
        if self.alive.iter().any(goes_on) {
            self.alive.retain(goes_on);
        } else {
            self.alive.retain(Candidate::speaks);
        }
        self.shrink();
    }

    /// The client says these bytes; gives how many of them were looked at, at least one where there are any.
    pub(super) async fn hear(&mut self, got: &[u8]) -> Result<usize, Lost> {
        let rooms = self.alive.iter().map(Candidate::room);
        let count = rooms
            .filter(|room| *room > 0)
            .min()
            .unwrap_or(1)
            .min(got.len());
        let got = &got[..count];
        if self.alive.iter().all(|c| c.difference(got).is_some()) {
            return Err(Lost::Strayed(Box::new(self.strayed(got))));
        }
        self.alive.retain(|c| c.difference(got).is_none());
        for candidate in &mut self.alive {
            candidate.done += count;
        }
        self.advance(|c| c.room() == 0).await?;
        Ok(count)
    }

    /// The client closes its side; tells whether a candidate has that.
    pub(super) async fn hear_close(&mut self) -> Result<bool, Torn> {
        if !self.alive.iter().any(Candidate::expects_close) {
            return Ok(false);
        }
        self.alive.retain(Candidate::expects_close);
        self.advance(|c| c.step != Step::End).await?;
        Ok(true)
    }

    /// The one to answer from, as it is the server's turn.
    pub(super) fn lead(&mut self, spoken: &Spoken, seats: &Seats) -> Option<&mut Candidate> {
        let stays = self.alive.iter().any(|c| Some(c.id()) == self.leader);
        if !stays {
            let agree = self.alive.iter().any(|c| c.spoken.is(spoken));
            let eligible = self.alive.iter().filter(|c| !agree || c.spoken.is(spoken));
            let ids: Vec<RecordId> = eligible.map(Candidate::id).collect();
            let chosen = seats.change(self.visitor, self.leader, &ids)?;
            self.leader = Some(chosen);
        }
        self.alive.iter_mut().find(|c| Some(c.id()) == self.leader)
    }

    /// The leader has spoken: what the others have the server say and do now is passed over.
    pub(super) async fn pass_over(&mut self) -> Result<(), Torn> {
        while self.alive.iter().any(Candidate::speaks) {
            self.advance(Candidate::speaks).await?;
        }
        Ok(())
    }

    /// One step on for each candidate for which it is time. One that cannot be read is none any more.
    async fn advance(&mut self, due: impl Fn(&Candidate) -> bool) -> Result<(), Torn> {
        let mut failed = Vec::new();
        for candidate in &mut self.alive {
            if due(candidate)
                && let Err(why) = candidate.advance().await
            {
                failed.push((candidate.id(), why));
            }
        }
        self.alive
            .retain(|c| failed.iter().all(|(id, _)| *id != c.id()));
        self.shrink();
        match failed.pop() {
            Some((record, why)) if self.alive.is_empty() => Err(Torn { record, why }),
            _ => Ok(()),
        }
    }

    fn shrink(&mut self) {
        if self.alive.len() * 4 < self.alive.capacity() {
            self.alive.shrink_to_fit();
        }
    }

    /// The candidate that the client followed for longest; of several, the leader.
    fn strayed(&self, got: &[u8]) -> Strayed {
        let far = |candidate: &&Candidate| {
            let leads = Some(candidate.id()) == self.leader;
            (candidate.difference(got), leads)
        };
        let best = self.alive.iter().rev().max_by_key(far);
        let best = best.expect("there is one while the client speaks");
        let at = best.difference(got).unwrap_or(0);
        Strayed {
            record: best.id(),
            offset: best.expects().map_or_else(
                || best.script.said(Direction::Client),
                |piece| piece.offset + (best.done + at) as u64,
            ),
            expected: match (&best.step, best.expects()) {
                (_, Some(piece)) => Expected::Bytes(piece.bytes.clone(), best.done + at),
                (Step::End, _) => Expected::Nothing,
                _ => Expected::Close,
            },
            at,
        }
    }
}

/// The last stream that fitted cannot be read any further.
#[derive(Debug)]
pub(super) struct Torn {
    pub(super) record: RecordId,
    pub(super) why: Unfit,
}

/// Why a client cannot be followed any further.
#[derive(Debug)]
pub(super) enum Lost {
    Strayed(Box<Strayed>),
    Torn(Torn),
}

impl From<Torn> for Lost {
    fn from(torn: Torn) -> Self {
        Self::Torn(torn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::script::tests::{script, script_without_batches};
    use crate::playback::talk::seats::Repeat;

    async fn candidates(streams: &[&str]) -> Candidates {
        let mut alive = Vec::new();
        for (at, text) in streams.iter().enumerate() {
            let script = script(at as u128 + 1, text);
            alive.push(Candidate::new(script).await.unwrap());
        }
        Candidates::new(alive, Visitor::test())
    }

    fn ids(candidates: &Candidates) -> Vec<u128> {
        candidates.ids()
    }

    fn seats() -> Seats {
        Seats::new(Repeat::Last)
    }

    #[tokio::test]
    async fn fewer_are_left_with_each_byte() {
        let mut all = candidates(&["c:abc s:1", "c:abd s:2", "c:x s:3"]).await;
        assert_eq!(
            all.hear(b"ab").await.unwrap(),
            1,
            "one has only one byte to say"
        );
        assert_eq!(ids(&all), [1, 2]);
        assert_eq!(all.hear(b"b").await.unwrap(), 1);
        assert_eq!(all.hear(b"d").await.unwrap(), 1);
        assert_eq!((ids(&all), all.turn()), (vec![2], Turn::Server));
    }

    #[tokio::test]
    async fn what_nobody_has_is_told_by_the_one_that_was_followed_for_longest() {
        let mut all = candidates(&["c:axxx s:1", "c:abcd s:2"]).await;
        let Err(Lost::Strayed(strayed)) = all.hear(b"abcX").await else {
            panic!("was taken")
        };
        assert_eq!(
            (strayed.record.as_u128(), strayed.offset, strayed.at),
            (2, 3, 3)
        );
        assert_eq!(strayed.expected, Expected::Bytes("abcd".into(), 3));
    }

    #[tokio::test]
    async fn a_longer_question_is_waited_for_and_decided_by_what_comes() {
        for (then, left) in [("", vec![1]), ("d", vec![2]), ("x", vec![1])] {
            let mut all = candidates(&["c:abc s:1 c:x s:9", "c:abcd s:2"]).await;
            assert_eq!(all.hear(b"abc").await.unwrap(), 3);
            assert_eq!(all.turn(), Turn::Open);
            all.decide(then.as_bytes(), false);
            assert_eq!(ids(&all), left, "{then:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_turns_to_another_stream_is_followed_past_what_differed_before() {
        // Each greeting is another, as MySQL's; what follows tells the streams apart.
        let mut all = candidates(&[
            "s:salt1 c:one s:1",
            "s:salt2 c:two s:2",
            "s:salt1 c:two s:3",
        ])
        .await;
        let (seats, mut spoken) = (seats(), Spoken::default());
        let leader = all.lead(&spoken, &seats).unwrap();
        assert_eq!(leader.id().as_u128(), 1);
        leader.advance().await.unwrap();
        spoken.add(b"salt1");
        all.pass_over().await.unwrap();
        assert_eq!(all.hear(b"two").await.unwrap(), 3);
        assert_eq!(ids(&all), [2, 3]);
        let leader = all.lead(&spoken, &seats).unwrap();
        assert_eq!(leader.id().as_u128(), 3, "it had greeted in the same words");
    }

    #[tokio::test]
    async fn a_close_is_a_thing_that_clients_say() {
        let mut all = candidates(&["c:a c. s:whole s.", "c:a s:at-once c. s."]).await;
        assert_eq!(all.hear(b"a").await.unwrap(), 1);
        assert_eq!(all.turn(), Turn::Open);
        all.decide(b"", true);
        assert_eq!(ids(&all), [1]);
        assert!(all.hear_close().await.unwrap());
        assert_eq!(all.turn(), Turn::Server);
        let mut early = candidates(&["c:ab s:1"]).await;
        assert!(!early.hear_close().await.unwrap());
    }

    #[tokio::test]
    async fn a_stream_with_missing_segments_is_no_candidate() {
        let broken = script_without_batches(9);
        assert!(matches!(
            Candidate::new(broken).await,
            Err(Unfit::Missing { index: 0 })
        ));
    }

    /// Says one recorded stream's words, each when the one before was answered; gives the answers.
    async fn follow(streams: &[Vec<(&str, &str)>], which: usize) -> Vec<String> {
        let texts: Vec<String> = streams
            .iter()
            .map(|words| {
                let turns = words.iter().map(|(c, s)| format!("c:{c} s:{s}"));
                turns.collect::<Vec<_>>().join(" ")
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut all = candidates(&texts).await;
        let (seats, mut spoken, mut answers) = (seats(), Spoken::default(), Vec::new());
        for (word, _) in &streams[which] {
            let mut said = word.as_bytes();
            loop {
                match all.turn() {
                    Turn::Client if said.is_empty() => break,
                    Turn::Client => said = &said[all.hear(said).await.unwrap()..],
                    Turn::Open => all.decide(said, false),
                    Turn::Server => {
                        let mut answer = String::new();
                        let leader = all.lead(&spoken, &seats).unwrap();
                        while let Step::Said(piece) = leader.step.clone()
                            && leader.speaks()
                        {
                            spoken.add(&piece.bytes);
                            answer.push_str(std::str::from_utf8(&piece.bytes).unwrap());
                            leader.advance().await.unwrap();
                        }
                        all.pass_over().await.unwrap();
                        answers.push(answer);
                        break;
                    }
                }
            }
        }
        answers
    }

    proptest::proptest! {
        /// A client that repeats a recorded stream is never lost, and each answer is one that a stream has to the same words.
        #[test]
        fn whoever_repeats_a_stream_is_answered_as_such_a_stream_was(
            streams in proptest::collection::vec(
                proptest::collection::vec((0usize..4, 0usize..3), 1..4), 1..6),
            which in 0usize..6,
        ) {
            let words = |turns: &Vec<(usize, usize)>| -> Vec<(&str, &str)> {
                let word = |(c, s): &(usize, usize)| (["a", "b", "ab", "ba"][*c], ["1", "22", "3"][*s]);
                turns.iter().map(word).collect()
            };
            let streams: Vec<_> = streams.iter().map(words).collect();
            let which = which % streams.len();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let answers = runtime.block_on(follow(&streams, which));
            proptest::prop_assert_eq!(answers.len(), streams[which].len());
            for (turn, answer) in answers.iter().enumerate() {
                let asked = |words: &[(&str, &str)]| -> Vec<String> {
                    words.iter().take(turn + 1).map(|(c, _)| (*c).to_owned()).collect()
                };
                let same = streams.iter().filter(|words| asked(words) == asked(&streams[which]));
                let possible: Vec<_> = same.filter_map(|words| words.get(turn)).map(|w| w.1).collect();
                proptest::prop_assert!(possible.contains(&answer.as_str()), "{} of {:?}", answer, possible);
            }
        }
    }
}
