//! A link over QUIC: a control stream for commands and replies, one-way lanes that the server
//! opens for the events, datagrams for signals. Loss in one lane does not hold up another.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use chappe_protocol::CloseCode;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream,
};

use super::{MESSAGE_BYTES_MAX, OUTBOUND_BYTES_MAX};
use crate::error::{Closed, Error};

/// Bytes of each read, on the stack: an idle lane keeps no buffer.
const READ_BYTES: usize = 4 * 1024;
/// Lanes that a server may open.
const LANES_MAX: usize = 64;
/// How long a server may take to close after it ended the control stream: as long as it lets the
/// last events arrive.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a close may take to be told.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One QUIC connection.
pub(crate) struct QuicLink {
    endpoint: Endpoint,
    connection: Connection,
    control: FrameReader,
    /// Present once the server has ended the control stream: the connection's own end follows,
    /// and says why.
    farewell: Option<Boxed<Closed>>,
    control_send: SendStream,
    outbound: BytesMut,
    lanes: Vec<FrameReader>,
    /// The lane that is read first next time, so that a busy one does not starve the others.
    next_lane: usize,
    /// Present once lanes are open.
    next_stream: Option<Boxed<Result<RecvStream, ConnectionError>>>,
    next_datagram: Option<Boxed<Result<Bytes, ConnectionError>>>,
    closing: Option<Boxed<()>>,
}

impl QuicLink {
    pub(crate) async fn open(
        endpoint: Endpoint,
        config: ClientConfig,
        address: SocketAddr,
        name: &str,
    ) -> Result<Self, Error> {
        let connecting = endpoint
            .connect_with(config, address, name)
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        let connection = connecting.await.map_err(refused)?;
        let (control_send, control) = connection.open_bi().await.map_err(refused)?;
        Ok(Self {
            endpoint,
            connection,
            control: FrameReader::new(control),
            farewell: None,
            control_send,
            outbound: BytesMut::new(),
            lanes: Vec::new(),
            next_lane: 0,
            next_stream: None,
            next_datagram: None,
            closing: None,
        })
    }

    pub(super) fn open_lanes(&mut self) {
        self.next_stream = Some(accept(&self.connection));
        self.next_datagram = Some(read_datagram(&self.connection));
    }

    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.outbound.len() >= OUTBOUND_BYTES_MAX {
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn start_send(&mut self, frame: &[u8]) -> Result<(), Closed> {
        let length = u32::try_from(frame.len()).map_err(|_| Closed::broken("a frame too large"))?;
        self.outbound.extend_from_slice(&length.to_le_bytes());
        self.outbound.extend_from_slice(frame);
        Ok(())
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while !self.outbound.is_empty() {
            let written = ready!(Pin::new(&mut self.control_send).poll_write(cx, &self.outbound))
                .map_err(|error| match error {
                quinn::WriteError::ConnectionLost(error) => lost(error),
                error => Closed::broken(error.to_string()),
            })?;
            self.outbound.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        if self.farewell.is_none()
            && let Poll::Ready(frame) = self.control.poll_frame(cx)
        {
            match frame {
                Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
                Ok(None) => self.farewell = Some(closed(&self.connection)),
                Err(closed) => return Poll::Ready(Err(closed)),
            }
        }
        if let Poll::Ready(Err(closed)) = self.poll_lanes_opened(cx) {
            return Poll::Ready(Err(closed));
        }
        if let Some(pending) = &mut self.next_datagram
            && let Poll::Ready(datagram) = pending.as_mut().poll(cx)
        {
            self.next_datagram = Some(read_datagram(&self.connection));
            return Poll::Ready(datagram.map_err(lost));
        }
        if let Poll::Ready(frame) = self.poll_lanes(cx) {
            return Poll::Ready(frame);
        }
        match &mut self.farewell {
            Some(farewell) => farewell.as_mut().poll(cx).map(Err),
            None => Poll::Pending,
        }
    }

    fn poll_lanes_opened(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        loop {
            let Some(pending) = &mut self.next_stream else { return Poll::Pending };
            let stream = ready!(pending.as_mut().poll(cx)).map_err(lost)?;
            if self.lanes.len() == LANES_MAX {
                return Poll::Ready(Err(Closed::broken("the server opened too many lanes")));
            }
            self.lanes.push(FrameReader::lane(stream));
            self.next_stream = Some(accept(&self.connection));
        }
    }

    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        let mut index = 0;
        while index < self.lanes.len() {
            let at = (self.next_lane + index) % self.lanes.len();
            match self.lanes[at].poll_frame(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok(Some(frame))) => {
                    self.next_lane = at + 1;
                    return Poll::Ready(Ok(frame));
                }
                Poll::Ready(Ok(None)) => drop(self.lanes.swap_remove(at)),
                Poll::Ready(Err(closed)) => return Poll::Ready(Err(closed)),
            }
        }
        Poll::Pending
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode) -> Poll<()> {
        let closing = self.closing.get_or_insert_with(|| {
            self.connection.close(u32::from(code.number()).into(), code.name().as_bytes());
            let connection = self.connection.clone();
            let endpoint = self.endpoint.clone();
            Box::pin(async move {
                connection.closed().await;
                // The endpoint may serve other connections, which go on; this one's farewell has
                // left when it is the last, or when the time is up.
                if endpoint.open_connections() <= 1 {
                    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
                }
            })
        });
        closing.as_mut().poll(cx)
    }
}

fn closed(connection: &Connection) -> Boxed<Closed> {
    let connection = connection.clone();
    Box::pin(async move {
        match tokio::time::timeout(FAREWELL_TIMEOUT, connection.closed()).await {
            Ok(error) => lost(error),
            Err(_) => Closed::broken("the server ended the control stream"),
        }
    })
}

fn accept(connection: &Connection) -> Boxed<Result<RecvStream, ConnectionError>> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

fn read_datagram(connection: &Connection) -> Boxed<Result<Bytes, ConnectionError>> {
    let connection = connection.clone();
    Box::pin(async move { connection.read_datagram().await })
}

/// Cuts a stream into frames: a u32 length, little-endian, before each.
struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    /// A lane begins with a byte that says which one it is.
    awaits_number: bool,
}

impl FrameReader {
    fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new(), awaits_number: false }
    }

    fn lane(stream: RecvStream) -> Self {
        Self { awaits_number: true, ..Self::new(stream) }
    }

    /// The next frame, or none when the stream has ended.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Closed>> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            let mut scratch = [0; READ_BYTES];
            match ready!(self.stream.poll_read(cx, &mut scratch)) {
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(length) => self.buffer.extend_from_slice(&scratch[..length]),
                Err(ReadError::ConnectionLost(error)) => return Poll::Ready(Err(lost(error))),
                Err(error) => return Poll::Ready(Err(Closed::broken(error.to_string()))),
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, Closed> {
        if self.awaits_number && !self.buffer.is_empty() {
            self.buffer.advance(1); // the hash of the channels tells it as well
            self.awaits_number = false;
        }
        let Some(header) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(Closed::broken("the server announced a frame that is too large"));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None); // grows as bytes come, never by what the header declares
        }
        self.buffer.advance(4);
        let frame = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

fn lost(error: ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(closed) => Closed {
            code: u16::try_from(closed.error_code.into_inner()).ok(),
            reason: String::from_utf8_lossy(&closed.reason).into_owned(),
            reconnect_after_ms: None,
        },
        error => Closed::broken(error.to_string()),
    }
}

// By value: this is what `map_err` calls.
#[allow(clippy::needless_pass_by_value)]
fn refused(error: ConnectionError) -> Error {
    if is_certificate_alert(&error) {
        Error::Untrusted(error.to_string())
    } else {
        Error::Unreachable(error.to_string())
    }
}

/// The handshake's own refusals carry the TLS alert in the low byte of a `CRYPTO_ERROR` code:
/// 42 to 49 are about certificates, 51 is a signature that does not fit (RFC 8446 §6.2).
fn is_certificate_alert(error: &ConnectionError) -> bool {
    let ConnectionError::TransportError(error) = error else { return false };
    let alert = u64::from(error.code).checked_sub(0x100);
    matches!(alert, Some(42..=49 | 51))
}
