//! A TCP connection that does not have to be woken for each byte (`SO_RCVLOWAT`, socket(7)).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that have to have come before a read is woken, for the connection at the bottom of a stream. It goes into
/// effect with the next read that is tried; a lower one wakes for what is there.
#[derive(Debug, Clone)]
pub(in crate::driver) struct LowWater(Arc<AtomicU32>);

impl LowWater {
    /// Whether it has an effect on this system.
    pub(in crate::driver) const WORKS: bool = cfg!(any(target_os = "android", target_os = "linux"));

    pub(in crate::driver) fn set(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Seldom a new one: no other processor is to lose sight of it.
        if self.0.load(Ordering::Relaxed) != bytes {
            self.0.store(bytes, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
pub(in crate::driver) struct Tcp {
    stream: TcpStream,
    wanted: LowWater,
    /// What the system knows.
    set: u32,
}

impl Tcp {
    pub(super) fn new(stream: TcpStream) -> (Self, LowWater) {
        let wanted = LowWater(Arc::new(AtomicU32::new(1)));
        let tcp = Self {
            stream,
            wanted: wanted.clone(),
            set: 1,
        };
        (tcp, wanted)
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let wanted = this.wanted.0.load(Ordering::Relaxed);
        if wanted != this.set {
            this.set = wanted;
            set_receive_low_water(&this.stream, wanted);
        }
        Pin::new(&mut this.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A system that cannot goes on to wake for each byte.
#[cfg(any(target_os = "android", target_os = "linux"))]
#[allow(unsafe_code, reason = "no crate has a safe way to set this option")]
fn set_receive_low_water(stream: &TcpStream, bytes: u32) {
    use std::os::fd::AsRawFd;

    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let size = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the pointer is to an integer of `size` bytes,
    // which is what the option takes.
    let _ = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size,
        )
    };
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn set_receive_low_water(_: &TcpStream, _: u32) {}

#[cfg(test)]
#[cfg(any(target_os = "android", target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const A_WHILE: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    async fn pair() -> (Tcp, LowWater, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (theirs, _) = listener.accept().await.unwrap();
        theirs.set_nodelay(true).unwrap();
        let (tcp, low_water) = Tcp::new(ours.unwrap());
        (tcp, low_water, theirs)
    }

    /// What one read brings; nothing where nothing comes within the time.
    async fn read_within(time: Duration, tcp: &mut Tcp) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 1000];
        let read = tokio::time::timeout(time, tcp.read(&mut buffer)).await;
        buffer.truncate(read.ok()?.unwrap());
        Some(buffer)
    }

    async fn read(tcp: &mut Tcp) -> Vec<u8> {
        read_within(LONG, tcp).await.expect("something comes")
    }

    async fn assert_nothing_comes(tcp: &mut Tcp) {
        assert_eq!(read_within(A_WHILE, tcp).await, None);
    }

    #[tokio::test]
    async fn less_than_that_wakes_nobody_and_the_rest_makes_it_come_together() {
        let (mut tcp, low_water, mut theirs) = pair().await;
        theirs.write_all(b"a").await.unwrap();
        assert_eq!(read(&mut tcp).await, b"a");
        low_water.set(10);
        assert_nothing_comes(&mut tcp).await;
        theirs.write_all(b"1234").await.unwrap();
        assert_nothing_comes(&mut tcp).await;
        theirs.write_all(b"567890").await.unwrap();
        assert_eq!(read(&mut tcp).await, b"1234567890");
    }

    #[tokio::test]
    async fn a_lower_one_wakes_for_what_is_there() {
        let (mut tcp, low_water, mut theirs) = pair().await;
        low_water.set(1000);
        assert_nothing_comes(&mut tcp).await;
        theirs.write_all(b"1234").await.unwrap();
        assert_nothing_comes(&mut tcp).await;
        low_water.set(1);
        assert_eq!(read(&mut tcp).await, b"1234");
    }

    #[tokio::test]
    async fn the_end_of_the_connection_wakes_for_what_is_there() {
        let (mut tcp, low_water, mut theirs) = pair().await;
        low_water.set(1000);
        assert_nothing_comes(&mut tcp).await;
        theirs.write_all(b"1234").await.unwrap();
        drop(theirs);
        assert_eq!(read(&mut tcp).await, b"1234");
        assert_eq!(read(&mut tcp).await, b"");
    }
}
