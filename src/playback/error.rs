//! What can go wrong in playback, by what the caller can do about it.

/// A failed playback operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The records cannot be read; trying again may help.
    #[error("could not read the records")]
    Store(#[from] crate::store::Error),
    /// The text is no target.
    #[error("`{text}` is no target: {rule}")]
    Target {
        /// What was given.
        text: String,
        /// What it has to be.
        rule: &'static str,
    },
    /// The config does not allow this target.
    #[error("target `{target}` is not allowed: add `{host}` to `playback.allowed_targets`")]
    Refused {
        /// What was asked for.
        target: String,
        /// What the list would have to hold.
        host: String,
    },
    /// A setting is out of its range.
    #[error("`{key}` is {value}: {rule}")]
    Setting {
        /// The key or parameter.
        key: &'static str,
        /// What was given.
        value: String,
        /// What it has to be.
        rule: &'static str,
    },
    /// As many runs as allowed are under way.
    #[error("{running} replay runs are under way, which is the limit: wait, or cancel one")]
    Busy {
        /// How many.
        running: usize,
    },
    /// TLS towards a target cannot be set up.
    #[error("could not set up TLS for {target}")]
    Tls {
        /// The target.
        target: String,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
}
