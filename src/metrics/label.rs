//! The labels that tell the counters of a family apart, one for each.
//!
//! A family's type says which it has, and a value becomes it with `into`, so that no caller can name another.

use prometheus_client::encoding::EncodeLabelSet;

macro_rules! labels {
    ($($(#[$doc:meta])* $label:ident { $name:ident })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $label {
            $name: &'static str,
        }

        impl From<&'static str> for $label {
            fn from($name: &'static str) -> Self {
                Self { $name }
            }
        }
    )*};
}

labels! {
    /// Why something was dropped, refused or removed.
    Reason { reason }
    /// What something is: an item, an error.
    Kind { kind }
    /// How something ended.
    Outcome { outcome }
    /// What a replayed answer is beside the recorded one.
    Verdict { verdict }
    /// The first digit of a status: `2xx`.
    StatusClass { status_class }
    /// A part of the node.
    Part { part }
}
