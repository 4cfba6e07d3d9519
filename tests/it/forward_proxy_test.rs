//! The forward proxy from outside: curl and others through a node, nginx behind it, nobody's own parts mocked.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod world;
mod requests;
mod tunnels;
mod decrypted;
mod playback;
mod authority;
