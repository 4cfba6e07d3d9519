//! TLS at the listener and towards upstreams, and the authority that decrypts: the one door to rustls for the proxies.

mod server;
mod client;
mod authority;
mod hello;
mod pem;

use std::path::PathBuf;

pub(super) use authority::{Authority, is_refused_by_client};
pub use authority::{AuthorityPem, NewAuthority, authority_certificate};
pub(super) use client::Client;
pub(super) use hello::Hello;
pub(super) use server::Server;

/// A certificate chain and its private key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain, the owner's own first (`tls_cert`).
    pub certificate: PathBuf,
    /// Its private key (`tls_key`).
    pub key: PathBuf,
}

/// Whether clients of a TLS listener have to show a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They are asked, and may have none; one that is not by an authority in this PEM file is refused.
    Optional(PathBuf),
    /// They need one by an authority in this PEM file.
    Required(PathBuf),
}

impl ClientAuth {
    const fn authorities(&self) -> Option<&PathBuf> {
        match self {
            Self::None => None,
            Self::Optional(path) | Self::Required(path) => Some(path),
        }
    }
}

/// Whether an upstream's certificate is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verify {
    /// Its chain, its name and its time.
    #[default]
    Full,
    /// Not at all: whoever answers is believed. For tests only.
    Nothing,
}

/// How TLS with upstreams begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust<'a> {
    /// Authorities in place of the operating system's.
    pub(super) ca: Option<&'a PathBuf>,
    /// What we show where we are asked.
    pub(super) identity: Option<&'a Files>,
    pub(super) verify: Verify,
}
