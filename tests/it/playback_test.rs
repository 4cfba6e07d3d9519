//! Playback over real sockets: answers from the records, replays against a service, live replay.

mod answer;
mod live;
mod memory;
mod recording;
mod replay;
mod servers;
