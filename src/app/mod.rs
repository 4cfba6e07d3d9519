//! Joins everything: settings -> bound sockets -> running -> drained.

mod outlet;
mod responder;
mod replays;
pub mod shop;
