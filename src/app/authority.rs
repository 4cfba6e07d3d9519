//! The authority that a forward proxy decrypts with, before there is a proxy: made and handed out.

use std::path::Path;

use crate::proxy::{self, tls};

pub use crate::proxy::tls::NewAuthority;

/// The certificate of an authority alone, in DER.
///
/// # Errors
/// Where the file holds none, or one that is no authority.
pub fn authority_certificate(path: &Path) -> Result<Vec<u8>, proxy::Error> {
    tls::authority_certificate(path)
}
