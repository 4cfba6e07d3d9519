//! The end of a connection that we end.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

use crate::codec::{DecodeError, ReasonCode, Version};
use crate::error::Disconnected;
use crate::session::Continuity;

use super::turn::{READ_BYTES, Socket};
use super::write::write_once;
use super::{Driver, Farewell, Leave};

/// How long the last bytes may take to leave, and the server to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl Driver {
    /// What to tell the server at the end. A server of 3.1.1 hears only that the program leaves, and only if its will
    /// is not to be published.
    pub(super) fn last_word(&self, ended: &Disconnected) -> Option<ReasonCode> {
        let reason = match ended {
            Disconnected::Requested => match *self.leave.borrow() {
                Leave::Go(Farewell::WithWill) => ReasonCode::DisconnectWithWill,
                Leave::Stay | Leave::Go(Farewell::InOrder) => return Some(ReasonCode::Success),
            },
            Disconnected::Malformed(DecodeError::TooLarge { .. }) => ReasonCode::PacketTooLarge,
            Disconnected::Malformed(_) => ReasonCode::MalformedPacket,
            Disconnected::Violation(violation) => violation.reason(),
            _ => return None,
        };
        (self.shared.config.protocol == Version::V5).then_some(reason)
    }

    /// DISCONNECT after whatever is still in the outbox (3.14). A session that was to outlive connections, but not the
    /// client's stay, ends with it.
    ///
    /// Then reads until the server closes, and throws away what comes: a socket that is closed with something unread, or
    /// that is sent more, answers with a reset, and what it had not delivered by then is lost with the DISCONNECT.
    pub(super) async fn say_goodbye(&mut self, socket: &mut Socket, reason: ReasonCode) {
        let leaves = self.is_leaving();
        let ends = leaves && self.shared.config.continuity() == Continuity::FirstAnew;
        let outbox = self.session.outbox();
        outbox.push_disconnect(reason, ends.then_some(0));
        let goodbye = async {
            while !outbox.is_empty() {
                poll_fn(|context| write_once(outbox, &mut socket.stream, context)).await?;
            }
            socket.stream.flush().await?;
            socket.stream.shutdown().await?;
            socket.received.clear();
            socket.received.reserve(*READ_BYTES.start());
            while socket.stream.read_buf(&mut socket.received).await? > 0 {
                socket.received.clear();
            }
            Ok::<_, std::io::Error>(())
        };
        let said = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
        debug!(in_order = matches!(said, Ok(Ok(()))), "said goodbye");
    }
}
