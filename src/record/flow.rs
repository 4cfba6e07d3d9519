//! How content flowed: the messages of gRPC, and when each part of a response came.
//!
//! Both are lists with a limit, so that an exchange of any length has a record of bounded size; past it the
//! counts go on.

use std::sync::Arc;

/// How the content of an exchange flowed, as far as that says more than its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flow {
    /// What was called, where it was gRPC.
    pub grpc: Option<Box<Grpc>>,
    /// When the parts of the response's content came; empty where it came at once.
    pub pace: Vec<Beat>,
}

/// A part of a response's content and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// From the exchange's start to the part's first byte, microseconds.
    pub at_us: u64,
    /// How many bytes it had.
    pub bytes: u64,
}

/// A gRPC call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// The service, with its package: `shop.v1.Orders`.
    pub service: Arc<str>,
    /// The method: `Place`.
    pub method: Arc<str>,
    /// `grpc-status`: 0 is success. `None` where the call ended without one.
    pub status: Option<u32>,
    /// `grpc-message`, percent-decoded; empty where there is none.
    pub message: Arc<str>,
    /// What the client sent.
    pub request: Messages,
    /// What it was sent.
    pub response: Messages,
}

/// The length-prefixed messages of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Messages {
    /// How many were whole.
    pub count: u64,
    /// Whether the content ended within one.
    pub broken: bool,
    /// The first [`Messages::LISTED`] of them.
    pub first: Vec<Message>,
}

impl Messages {
    /// How many messages of a direction are listed one by one.
    pub const LISTED: usize = 256;
}

/// One length-prefixed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where its prefix stands in the content, from 0.
    pub offset: u64,
    /// Its length without the prefix of 5 bytes.
    pub bytes: u32,
    /// Whether it is compressed, with what `grpc-encoding` says.
    pub compressed: bool,
    /// From the exchange's start to its last byte, microseconds.
    pub at_us: u64,
}

impl Grpc {
    /// Service and method of a path, `/shop.v1.Orders/Place`.
    #[must_use]
    pub fn call(path: &str) -> (&str, &str) {
        let path = path.strip_prefix('/').unwrap_or(path);
        path.rsplit_once('/').unwrap_or((path, ""))
    }

    /// Whether a `content-type` is gRPC's. gRPC-Web is another protocol, with its trailers in the content.
    #[must_use]
    pub fn is_content_type(value: &[u8]) -> bool {
        let rest = value.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_service_and_a_method() {
        assert_eq!(
            Grpc::call("/shop.v1.Orders/Place"),
            ("shop.v1.Orders", "Place")
        );
        assert_eq!(Grpc::call("/a/b/C"), ("a/b", "C"));
        assert_eq!(Grpc::call("/odd"), ("odd", ""));
    }

    #[test]
    fn grpc_is_told_from_what_only_starts_like_it() {
        for (text, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(Grpc::is_content_type(text.as_bytes()), is, "{text}");
        }
    }
}
