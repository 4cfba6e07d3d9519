//! Keys under which recorded content is sealed: XChaCha20-Poly1305 with random nonces, and a keyed fingerprint.
//!
//! Nonces of 24 random bytes need no counter that would have to survive a crash or be shared by recorders. Every use
//! has a key of its own, derived from the 32 bytes that the operator keeps, so that one use says nothing about another.
//! What is sealed and how it stands in an item is in `wire`; where keys come from is the application's affair.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use super::{Fingerprint, RecordId};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 24;
/// Bytes that sealing adds: the tag behind the content.
pub(super) const TAG_BYTES: usize = 16;
/// A key's name is at most this long, so that an item's outside stays small.
const MAX_ID: usize = 64;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The name.
    #[error("a key's name must be 1 to 64 of A-Z a-z 0-9 _ - .")]
    Id,
    /// The bytes; they are not shown.
    #[error(
        "is no key: it must be 32 bytes as base64 or as 64 hex digits, as `qproxy key generate` prints them"
    )]
    Bytes,
}

/// Why sealed content stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// This node does not have the key.
    #[error("key \"{0}\" is not known here")]
    UnknownKey(Arc<str>),
    /// The key does not fit, or the bytes were changed.
    #[error(
        "it does not open with key \"{0}\": that is another key of this name, or the item was changed"
    )]
    Refused(Arc<str>),
}

impl SealError {
    /// The name used in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownKey(_) => "unknown_key",
            Self::Refused(_) => "refused",
        }
    }
}

/// One key, by its name. What it shows of itself is the name.
pub struct Key {
    id: Arc<str>,
    items: XChaCha20Poly1305,
    summaries: XChaCha20Poly1305,
    summary_nonces: hmac::Key,
    prints: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// A key from its text: base64 or hex, white space around it ignored.
    ///
    /// # Errors
    /// [`InvalidKey`], which never shows the text.
    pub fn parse(id: &str, text: &str) -> Result<Self, InvalidKey> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(legal) {
            return Err(InvalidKey::Id);
        }
        let text = text.trim();
        let bytes = if text.len() == 2 * KEY_BYTES {
            unhex(text)
        } else {
            STANDARD.decode(text).ok()
        };
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES);
        let master = hmac::Key::new(hmac::HMAC_SHA256, &bytes.ok_or(InvalidKey::Bytes)?);
        let derived = |name: &str| hmac::sign(&master, name.as_bytes());
        let cipher = |name: &str| {
            XChaCha20Poly1305::new_from_slice(derived(name).as_ref())
                .expect("SHA-256 gives the 32 bytes that the cipher takes")
        };
        let mac = |name: &str| hmac::Key::new(hmac::HMAC_SHA256, derived(name).as_ref());
        Ok(Self {
            id: id.into(),
            items: cipher("qproxy items 1"),
            summaries: cipher("qproxy summaries 1"),
            summary_nonces: mac("qproxy summary nonces 1"),
            prints: mac("qproxy fingerprints 1"),
        })
    }

    /// The text of a new key: 32 random bytes as base64.
    ///
    /// # Panics
    /// Where the system has no randomness, with which nothing here could work.
    #[must_use]
    pub fn generate() -> String {
        STANDARD.encode(random::<KEY_BYTES>())
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Seals an item's content in place and gives its tag; `beside` is what the item shows.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        beside: &[u8],
        content: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        seal(&self.items, nonce, beside, content)
    }

    /// Opens an item's content, which ends in its tag.
    pub(super) fn open(&self, nonce: &[u8], beside: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        open(&self.items, nonce, beside, data)
    }

    /// The fingerprint as it is indexed: HMAC-SHA256, cut to 128 bits. Without the key nobody can tell which request
    /// has which.
    #[must_use]
    pub fn fingerprint(&self, plain: Fingerprint) -> Fingerprint {
        let tag = hmac::sign(&self.prints, &plain.0.to_be_bytes());
        let (first, _) = tag
            .as_ref()
            .split_first_chunk()
            .expect("SHA-256 gives 32 bytes");
        Fingerprint(u128::from_be_bytes(*first))
    }

    /// Seals the text that stands in a record's summary. The same text of the same record gives the same bytes, as
    /// an index that is filled twice needs it; the nonce is a MAC of both, so no two texts share one.
    #[must_use]
    pub fn cover(&self, record: RecordId, text: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.summary_nonces);
        context.update(record.as_bytes());
        context.update(text);
        let tag = context.sign();
        let (nonce, _) = tag
            .as_ref()
            .split_first_chunk()
            .expect("SHA-256 gives 32 bytes");
        let mut out = nonce.to_vec();
        out.extend_from_slice(text);
        let tag = seal(
            &self.summaries,
            nonce,
            record.as_bytes(),
            &mut out[NONCE_BYTES..],
        );
        out.extend_from_slice(&tag);
        out
    }

    /// Opens what [`Key::cover`] sealed.
    #[must_use]
    pub fn uncover(&self, record: RecordId, covered: &[u8]) -> Option<Vec<u8>> {
        let (nonce, data) = covered.split_at_checked(NONCE_BYTES)?;
        open(&self.summaries, nonce, record.as_bytes(), data)
    }
}

fn seal(
    cipher: &XChaCha20Poly1305,
    nonce: &[u8; NONCE_BYTES],
    beside: &[u8],
    content: &mut [u8],
) -> [u8; TAG_BYTES] {
    cipher
        .encrypt_inout_detached(&XNonce::from(*nonce), beside, InOutBuf::from(content))
        .expect("an item is shorter than the 256 GiB that one nonce covers")
        .into()
}

fn open(cipher: &XChaCha20Poly1305, nonce: &[u8], beside: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let (content, tag) = data.split_last_chunk::<TAG_BYTES>()?;
    let mut content = content.to_vec();
    let buffer = InOutBuf::from(content.as_mut_slice());
    let tag = Tag::from(*tag);
    cipher
        .decrypt_inout_detached(&XNonce::from(nonce), beside, buffer, &tag)
        .ok()?;
    Some(content)
}

/// Random bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has randomness");
    bytes
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| text.as_bytes().chunks(2).map(pair).collect())?
}

/// The keys that a node has: one to write with, all to read with. Empty where nothing is sealed.
#[derive(Debug, Default)]
pub struct Keyring(Vec<Key>);

impl Keyring {
    /// A ring of keys, the one to write with first.
    #[must_use]
    pub const fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// The key of this name.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| *key.id == *id)
    }

    /// The key to write with.
    #[must_use]
    pub fn writing(&self) -> Option<&Key> {
        self.0.first()
    }

    /// Every fingerprint under which a request may be indexed here: the plain one of what came unsealed, then that of
    /// each key, the oldest first.
    pub fn fingerprints(
        &self,
        plain: Fingerprint,
    ) -> impl Iterator<Item = Fingerprint> + Send + '_ {
        let keyed = self.0.iter().rev().map(move |key| key.fingerprint(plain));
        std::iter::once(plain).chain(keyed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_either_writing_and_never_shows_itself() {
        let text = Key::generate();
        let bytes = STANDARD.decode(&text).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let print = |text: &str| Key::parse("k", text).unwrap().fingerprint(Fingerprint(7));
        assert_eq!(print(&text), print(&format!(" {hex}\n")));
        assert_ne!(print(&text), print(&Key::generate()));
        for bad in [
            "",
            "abcd",
            &hex[2..],
            &STANDARD.encode([1; 31]),
            &"zz".repeat(32),
        ] {
            let error = Key::parse("k", bad).unwrap_err();
            assert_eq!(error, InvalidKey::Bytes, "{bad}");
            assert!(
                bad.is_empty() || !error.to_string().contains(bad),
                "{error}"
            );
        }
        for id in ["", "a b", "é", &"x".repeat(65)] {
            assert_eq!(Key::parse(id, &text).unwrap_err(), InvalidKey::Id, "{id}");
        }
        let shown = format!("{:?}", Key::parse("k", &text).unwrap());
        assert_eq!(shown, "Key { id: \"k\", .. }");
    }

    /// What stored records were written with has to stay what it is.
    #[test]
    fn derived_keys_do_not_change() {
        let key = Key::parse("k", &"07".repeat(32)).unwrap();
        let record = RecordId::from_u128(9);
        assert_eq!(
            key.uncover(record, &key.cover(record, b"text")).unwrap(),
            b"text"
        );
        assert_eq!(key.cover(record, b"text"), key.cover(record, b"text"));
        assert_eq!(
            key.uncover(RecordId::from_u128(8), &key.cover(record, b"text")),
            None
        );
        assert_eq!(
            format!("{:032x}", key.fingerprint(Fingerprint(1)).0),
            "88d9602ec099b5e9e903c8fe43bd4295"
        );
    }
}
