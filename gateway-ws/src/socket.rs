//! The byte stream below a WebSocket: TCP, or TLS over it.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use rustix::net::SendFlags;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A socket whose handshake was done elsewhere, and that is to live on another runtime.
pub trait Settle: Send + 'static {
    /// The stream that it becomes.
    type Settled: Socket;

    /// Registers the socket with the runtime that it is called on, and no longer with the one
    /// that it came from, if there was one.
    fn settle(self) -> io::Result<Self::Settled>;
}

/// A byte stream that a link can be made of.
pub trait Socket: AsyncRead + Unpin + Send + Sized + 'static {
    /// Writes what can be written at once; 0 when nothing can. `waker` is woken when what stayed
    /// in buffers below can go on; a socket without such buffers does not look at it.
    fn try_send(&mut self, waker: &Option<Waker>, bytes: &[u8]) -> io::Result<usize>;

    /// Ready when more can be written.
    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when nothing waits in buffers below.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says that nothing more will be written.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Registered nowhere yet, and non-blocking: nothing has to be undone first.
impl Settle for std::net::TcpStream {
    type Settled = TcpStream;

    fn settle(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self)
    }
}

impl Settle for TcpStream {
    type Settled = Self;

    fn settle(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

impl Settle for TlsStream<TcpStream> {
    type Settled = Self;

    fn settle(mut self) -> io::Result<Self> {
        let (tcp, session) = self.get_mut();
        // rustls gives its socket back only without the session: a second descriptor of the same
        // connection takes its place, and the first one is closed.
        let again = std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?);
        *tcp = TcpStream::from_std(again)?;
        session.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        Ok(self)
    }
}

impl Socket for TcpStream {
    fn try_send(&mut self, _: &Option<Waker>, bytes: &[u8]) -> io::Result<usize> {
        // Past libc, whose `send` is a point where a thread may be cancelled: in a process with
        // threads it pays for that with atomics, some percent of a small send.
        let send =
            || Ok(rustix::net::send(&*self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?);
        match self.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            written => written,
        }
    }

    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn poll_flushed(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

impl Socket for TlsStream<TcpStream> {
    fn try_send(&mut self, waker: &Option<Waker>, bytes: &[u8]) -> io::Result<usize> {
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()));
        let written = match Pin::new(&mut *self).poll_write(&mut cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        match Pin::new(self).poll_flush(&mut cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(written), // the rest goes when the waker is woken
        }
    }

    fn poll_sendable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.get_ref().1.wants_write() {
            return Pin::new(self).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

/// What rustls may hold back for a client that does not read.
const TLS_BUFFER_BYTES: usize = 16 * 1024;
