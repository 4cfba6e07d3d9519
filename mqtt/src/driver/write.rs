//! From the outbox to the socket, without another copy: large payloads leave from where they lie.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use crate::session::Outbox;

/// Pieces in one vectored write.
const WRITE_PIECES: usize = 64;

pub(super) fn write_once(
    outbox: &mut Outbox,
    writer: &mut (impl AsyncWrite + Unpin),
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let writer = Pin::new(writer);
    // The plain call is the shorter way through the system.
    let result = match outbox.only_piece() {
        Some(piece) => writer.poll_write(context, piece),
        None => {
            let mut slices = [IoSlice::new(&[]); WRITE_PIECES];
            let used = outbox.slices(&mut slices);
            writer.poll_write_vectored(context, &slices[..used])
        }
    };
    match result {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        Poll::Ready(Ok(count)) => {
            outbox.advance(count);
            Poll::Ready(Ok(count))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;

    use super::*;
    use crate::codec::{Publish, QoS, Version};
    use crate::driver::ClientSession;
    use crate::driver::transport::Stream;
    use crate::session::{AckMode, Config, Continuity, OnSessionLost, Session};

    /// Takes so many bytes at once, and remembers where each slice lay.
    #[derive(Debug)]
    struct Recording {
        at_once: usize,
        seen: std::sync::mpsc::Sender<Vec<(usize, usize)>>,
    }

    impl AsyncWrite for Recording {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            slice: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(slice)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let lay = slices.iter().map(|it| (it.as_ptr().addr(), it.len()));
            self.seen.send(lay.collect()).unwrap();
            let total: usize = slices.iter().map(|it| it.len()).sum();
            Poll::Ready(Ok(total.min(self.at_once)))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl tokio::io::AsyncRead for Recording {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_large_payload_leaves_from_where_it_lies_also_over_several_writes() {
        const LARGE: usize = 100_000;
        let mut session: ClientSession = Session::new(&Config {
            version: Version::V311,
            window: 10,
            window_exactly_once: 10,
            continuity: Continuity::default(),
            keep_alive: Duration::ZERO,
            ack_mode: AckMode::Auto,
            receive_maximum: 10,
            topic_alias_maximum: 0,
            on_session_lost: OnSessionLost::default(),
        });
        let large = Bytes::from(vec![7; LARGE]);
        let small = Bytes::from(vec![7; 100]);
        for payload in [&small, &large, &small] {
            let publish = Publish {
                qos: QoS::AtLeastOnce,
                topic: "t".into(),
                payload: payload.clone(),
                ..Publish::default()
            };
            let token = session.publish(publish, Default::default(), Instant::now());
            assert!(token.is_none());
        }
        let (seen, writes) = std::sync::mpsc::channel();
        let at_once = 30_000;
        // As the driver has it: behind the table of all transports.
        let mut stream: Stream = Box::new(Recording { at_once, seen });
        let mut context = Context::from_waker(std::task::Waker::noop());
        while !session.outbox().is_empty() {
            let outbox = session.outbox();
            assert!(write_once(outbox, &mut stream, &mut context).is_ready());
        }
        let slices: Vec<_> = writes.try_iter().flatten().collect();
        let (start, end) = (large.as_ptr().addr(), large.as_ptr().addr() + LARGE);
        let inside: Vec<_> = slices
            .iter()
            .filter(|(at, _)| (start..end).contains(at))
            .collect();
        assert_eq!(inside.first(), Some(&&(start, LARGE)));
        assert!(
            inside.len() >= 3,
            "each write goes on in the same memory: {inside:?}"
        );
        // The small ones share a buffer: for them one more slice would cost more than the copy.
        let copied = small.as_ptr().addr();
        assert!(slices.iter().all(|(at, _)| *at != copied));
    }
}
