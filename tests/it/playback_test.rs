//! Playback over real sockets: answers from the records, replays against a service, live replay.

#![allow(clippy::unwrap_used, reason = "what helps a test is a test, too")]

mod answer;
mod embedded;
mod live;
mod memory;
mod recording;
mod replay;
mod servers;
