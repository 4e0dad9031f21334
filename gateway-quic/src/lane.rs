//! A one-way stream for the events of some channels, opened when the first of them comes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use quinn::{Connection, ConnectionError, SendStream, WriteError};

use crate::meter;

/// A lane on its way to its client.
#[derive(Default)]
pub(crate) enum Outgoing {
    /// Nothing was sent on it yet.
    #[default]
    Unopened,
    /// The client has to allow the stream first.
    Opening(Pin<Box<dyn Future<Output = Result<SendStream, ConnectionError>>>>),
    /// The stream is there, its number is not yet on it.
    Unnumbered(SendStream),
    /// It carries frames.
    Open(SendStream),
}

impl Outgoing {
    /// Hands bytes to the transport and says how many it took.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        number: u8,
        bytes: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        loop {
            match self {
                Self::Unopened => {
                    let connection = connection.clone();
                    *self = Self::Opening(Box::pin(async move { connection.open_uni().await }));
                }
                Self::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => {
                        meter::lane_opened();
                        *self = Self::Unnumbered(stream);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return Poll::Pending,
                },
                Self::Unnumbered(stream) => {
                    match Pin::new(&mut *stream).poll_write(cx, &[number]) {
                        Poll::Ready(Ok(1)) => {
                            let Self::Unnumbered(stream) = std::mem::take(self) else {
                                unreachable!("it was matched as that")
                            };
                            *self = Self::Open(stream);
                        }
                        Poll::Ready(Ok(_)) | Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    }
                }
                Self::Open(stream) => return Pin::new(stream).poll_write(cx, bytes),
            }
        }
    }

    /// Gives up the stream, to be ended.
    pub(crate) fn take(&mut self) -> Option<SendStream> {
        match std::mem::take(self) {
            Self::Unnumbered(stream) | Self::Open(stream) => Some(stream),
            Self::Unopened | Self::Opening(_) => None,
        }
    }
}
