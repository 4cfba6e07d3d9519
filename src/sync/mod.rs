//! The bus.
#![allow(dead_code)]
mod topics;
mod frame;
mod notice;
mod unacked;
mod packer;
mod flow;
mod ledger;
mod quarantine;
