//! One connection, from its first byte to its end or its way out of HTTP.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use chappe_gateway::frontend::Kernel;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    admission::Place,
    config::{Config, HYPER_HEAD_BYTES_MAX, HYPER_HEADERS_MAX, Plaintext},
    express::{Express, express},
    front::Front,
    meter,
    upgrade::{Socket, Switched, TakeSocket},
};

/// How far the server is on its way down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stopping {
    /// It serves.
    No,
    /// Requests under way are finished, nothing new begins.
    Gracefully,
    /// Everything ends.
    Now,
}

/// What a connection needs beside its socket.
pub(crate) struct Connection<K> {
    pub(crate) front: Front<K>,
    pub(crate) config: Arc<Config>,
    pub(crate) stopping: watch::Receiver<Stopping>,
    pub(crate) place: Place,
}

impl<K: Kernel> Connection<K> {
    /// Serves one connection of a port that has a certificate.
    pub(crate) async fn serve_tls(self, stream: std::net::TcpStream, tls: TlsAcceptor) {
        let config = Arc::clone(&self.config);
        let Ok(stream) = TcpStream::from_std(stream) else { return meter::dropped("io") };
        if config.plaintext == Plaintext::Served {
            match timeout(config.tls_timeout, first_byte(&stream)).await {
                Ok(Ok(TLS_HANDSHAKE)) => {}
                Ok(Ok(_)) => return self.plain(stream, Bytes::new()).await,
                Ok(Err(_)) | Err(_) => return meter::dropped("silent"),
            }
        }
        // Boxed, so that what a handshake needs is not kept for the life of the connection.
        let accept = Box::pin(tls.accept_with(stream, |tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER_BYTES_MAX));
        }));
        match timeout(config.tls_timeout, accept).await {
            Ok(Ok(stream)) => {
                let (io, left) = self.http(Box::new(stream), Bytes::new()).await;
                finish(io, left, |io| Some(Socket::Tls(io))).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                meter::dropped("tls_handshake");
            }
            Err(_) => meter::dropped("tls_timeout"),
        }
    }

    /// Serves one connection without TLS whose client had not sent anything when it was accepted.
    pub(crate) async fn serve_silent(mut self, stream: std::net::TcpStream) {
        let Ok(stream) = TcpStream::from_std(stream) else { return meter::dropped("io") };
        tokio::select! {
            readable = timeout(self.config.head_timeout, stream.readable()) => match readable {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return meter::dropped("io"),
                Err(_) => return meter::dropped("head_timeout"),
            },
            _ = self.stopping.wait_for(|stopping| *stopping > Stopping::No) => return,
        }
        let Ok(stream) = stream.into_std() else { return meter::dropped("io") };
        match express(stream, &self.front) {
            Express::Done => {}
            Express::Other(stream, read) => self.serve_read(stream, read).await,
            // It was readable; that was a false alarm, and hyper waits as well as we do.
            Express::Silent(stream) => self.serve_read(stream, Bytes::new()).await,
        }
    }

    /// Serves one connection without TLS of which something was read already.
    pub(crate) async fn serve_read(self, stream: std::net::TcpStream, read: Bytes) {
        let Ok(stream) = TcpStream::from_std(stream) else { return meter::dropped("io") };
        // A socket that was just registered does not know yet that it can be written to, and
        // hyper drops a refusal that it cannot write at once.
        if stream.writable().await.is_ok() {
            self.plain(stream, read).await;
        }
    }

    async fn plain(self, stream: TcpStream, read: Bytes) {
        let (io, left) = self.http(stream, read).await;
        finish(io, left, |io| io.into_std().ok().map(Socket::Plain)).await;
    }

    /// Serves requests until the last one, and gives back the socket and what is left.
    async fn http<I>(mut self, io: I, read: Bytes) -> (I, Left)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let io = Stallable { io, read, limit: self.config.stall_timeout, stalled: None };
        let mut http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.head_timeout)
            .max_buf_size(HYPER_HEAD_BYTES_MAX)
            .max_headers(HYPER_HEADERS_MAX)
            .serve_connection(TokioIo::new(io), self.front);
        loop {
            let stopping = *self.stopping.borrow_and_update();
            match stopping {
                Stopping::No => {}
                Stopping::Gracefully => Pin::new(&mut http).graceful_shutdown(),
                Stopping::Now => break,
            }
            tokio::select! {
                ended = poll_fn(|cx| http.poll_without_shutdown(cx)) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "an HTTP connection failed");
                        meter::dropped(reason(&error));
                    }
                    break;
                }
                changed = self.stopping.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        let parts = http.into_parts();
        let left = Left {
            read_ahead: parts.read_buf,
            place: self.place,
            taken: parts.service.into_taken(),
        };
        (parts.io.into_inner().io, left)
    }
}

/// What HTTP leaves of a connection beside its socket.
struct Left {
    /// What was read of the socket beyond the last request.
    read_ahead: Bytes,
    place: Place,
    /// Who takes the socket over.
    taken: Option<TakeSocket>,
}

async fn finish<I>(io: I, left: Left, socket: impl FnOnce(I) -> Option<Socket>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let Some(take) = left.taken else { return hang_up(io).await };
    drop(left.place);
    let Some(socket) = socket(io) else { return meter::dropped("io") };
    meter::upgraded();
    // A copy: even an empty slice would keep the whole buffer that it was read into.
    take(Switched { socket, read_ahead: Bytes::copy_from_slice(&left.read_ahead) });
}

/// Closes a socket so that the last answer arrives: closing over unread bytes would make the
/// kernel reset the connection and the client lose what it did not read yet.
async fn hang_up<I: AsyncRead + AsyncWrite + Unpin>(mut io: I) {
    let drained = async {
        io.shutdown().await?;
        let mut unread = [0; 1024];
        for _ in 0..UNREAD_BYTES_MAX / unread.len() {
            if io.read(&mut unread).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Either outcome is the end of the connection.
    drop(timeout(HANG_UP_TIMEOUT, drained).await);
}

async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

fn reason(error: &hyper::Error) -> &'static str {
    if error.is_timeout() {
        "head_timeout"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_incomplete_message() {
        "incomplete"
    } else {
        "io"
    }
}

/// A socket of which something was read already, and whose peer has to read: a write that gets
/// nowhere for too long is an error.
struct Stallable<I> {
    io: I,
    read: Bytes,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Stallable<I> {
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        meter::dropped("stalled");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Stallable<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Stallable<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The first byte of a TLS handshake; no HTTP method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// What rustls may hold of unsent plaintext and records for one connection.
const TLS_BUFFER_BYTES_MAX: usize = 16 * 1024;
/// How long a closed connection may take to say that it has read everything.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read and thrown away of a request that was refused.
const UNREAD_BYTES_MAX: usize = 256 * 1024;
