//! How many files and connections the process may have open at once.
//!
//! Every segment of a log keeps its file open, beside two sockets per connection: the usual soft limit of 1024
//! is too little. It is raised to the hard limit, as servers that do not use `select(2)` may.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit as far as it goes; without that the node runs all the same.
pub(super) fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    let shown = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::info!(
            before = shown(before.current),
            now = shown(getrlimit(Resource::Nofile).current),
            "limit on open files"
        ),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            let limit = shown(before.current);
            tracing::warn!(error, limit, "could not raise the limit on open files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let lower = Rlimit {
            current: Some(hard.unwrap_or(u64::MAX).min(1024)),
            maximum: hard,
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        raise_limit();
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (hard, hard));
    }
}
