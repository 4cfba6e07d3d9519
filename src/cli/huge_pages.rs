//! Memory in small pages.
//!
//! The allocator asks for pages of 2 MiB, of which a node touches a part here and there: one large body then took 50 MiB
//! of memory for 20 MiB of content in motion, and an idle node 11 MiB more than it uses.

use rustix::thread::disable_transparent_huge_pages;

/// Keeps the process to small pages from now on; where the system does not know how, it runs all the same.
pub(super) fn refuse() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "could not refuse huge pages");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_told() {
        refuse();
        assert_eq!(
            rustix::thread::transparent_huge_pages_are_disabled(),
            Ok(true)
        );
    }
}
