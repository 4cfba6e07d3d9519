//! Joins everything: settings -> bound sockets -> running -> drained.

pub mod shop;
