//! Requests and responses on a byte stream.
//!
//! ```text
//!   "chappe uplink 2\n" from the gateway, the same from the broker; then, both ways,
//!   body bytes u32 little-endian | frame … frame      (MessagePack, see `codec`)
//!   2^31 + word bytes            | word
//! ```
//!
//! What waits together travels together. A body of no bytes is a heartbeat: each side sends one
//! when it sent nothing else for a while, and gives the other up after a longer silence.
//!
//! A word is no frame: the connection itself speaks. The first thing from whoever connects is a
//! [`Word`]: a gateway says who it is, and says it again when that changed; who only wants to know
//! how the broker stands asks, is told in one word, and the connection ends.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{About, Receiver, Sender, codec::Frame};

/// What each side says first.
const PREFACE: &[u8; 16] = b"chappe uplink 2\n";
/// Marks a word.
const WORD: u32 = 1 << 31;
/// The longest word of whoever connects.
pub(super) const WORD_BYTES_MAX: usize = 4 * 1024;
/// The longest word of a broker: how it stands with every partition and every gateway.
pub(super) const STATUS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A body is closed when it has this many bytes.
const BODY_BYTES: usize = 128 * 1024;
/// The largest body that is read. A page of events or messages is the largest frame, far below.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames that are taken from a pipe at once.
const BATCH: usize = 256;
/// Memory that the buffers keep from one body to the next.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;
/// Of a body that is announced so much is reserved at a time: memory follows the bytes.
const READ_BYTES: usize = 64 * 1024;

/// When the other side counts as gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A heartbeat is sent after this time without anything else.
    pub heartbeat: Duration,
    /// The connection ends when nothing came, or nothing could be written, for this long.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(1), silence: Duration::from_secs(4) }
    }
}

/// Says what this is, and hears it from the other side.
pub(super) async fn greet<S>(stream: &mut S, patience: Patience) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting = async {
        stream.write_all(PREFACE).await?;
        stream.flush().await?;
        let mut heard = [0; PREFACE.len()];
        stream.read_exact(&mut heard).await?;
        if heard == *PREFACE { Ok(()) } else { Err(broken("this is no uplink of this version")) }
    };
    timeout(patience.silence, greeting).await.unwrap_or_else(|_| Err(silent()))
}

/// What whoever connects says beside its frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// It is a gateway, and who. First, and again when that changed.
    Gateway(About),
    /// It wants to know how the broker stands, and nothing else.
    Status,
}

/// Says a word.
pub(super) async fn say<W: AsyncWrite + Unpin>(
    to: &mut W,
    word: &impl Serialize,
    patience: Patience,
) -> io::Result<()> {
    let mut body = vec![0; 4];
    rmp_serde::encode::write_named(&mut body, word).map_err(broken)?;
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&(length | WORD).to_le_bytes());
    let saying = async {
        to.write_all(&body).await?;
        to.flush().await
    };
    timeout(patience.silence, saying).await.unwrap_or_else(|_| Err(silent()))
}

/// Hears a word, and takes nothing else.
pub(super) async fn hear<T: DeserializeOwned, R: AsyncRead + Unpin>(
    from: &mut R,
    bytes_max: usize,
    patience: Patience,
) -> io::Result<T> {
    let mut body = Vec::new();
    let hearing = async {
        let length = from.read_u32_le().await?;
        if length & WORD == 0 {
            return Err(broken("no word came where one belongs"));
        }
        read_bytes(from, (length & !WORD) as usize, bytes_max, &mut body).await
    };
    timeout(patience.silence, hearing).await.unwrap_or_else(|_| Err(silent()))?;
    rmp_serde::from_slice(&body).map_err(broken)
}

/// Writes what comes over a pipe until it ends or the stream fails, and between it what `news`
/// gives: it is asked at least once in each heartbeat's time.
pub(super) async fn write<T: Frame, W: AsyncWrite + Unpin>(
    mut from: Receiver<T>,
    mut to: W,
    patience: Patience,
    mut news: impl FnMut() -> Option<Word>,
) -> io::Result<()> {
    let (mut batch, mut body) = (Vec::new(), Vec::new());
    loop {
        let heard = timeout(patience.heartbeat, from.recv(&mut batch, BATCH)).await;
        if heard == Ok(Err(crate::Closed)) {
            return Ok(());
        }
        if let Some(word) = news() {
            say(&mut to, &word, patience).await?;
        }
        let mut frames = batch.drain(..).peekable();
        loop {
            body.clear();
            body.extend_from_slice(&[0; 4]);
            while body.len() < BODY_BYTES
                && let Some(frame) = frames.next()
            {
                frame.encode(&mut body);
            }
            let length = (body.len() - 4) as u32;
            body[..4].copy_from_slice(&length.to_le_bytes());
            let write = async {
                to.write_all(&body).await?;
                to.flush().await
            };
            timeout(patience.silence, write).await.unwrap_or_else(|_| Err(silent()))?;
            if frames.peek().is_none() {
                break;
            }
        }
        body.shrink_to(BUFFER_BYTES_KEPT);
    }
}

/// Reads frames into a pipe until either ends. A pipe that is full makes the other side wait.
/// Words in between go to `told`, which may refuse them.
pub(super) async fn read<T: Frame, R: AsyncRead + Unpin>(
    mut from: R,
    to: Sender<T>,
    patience: Patience,
    mut told: impl FnMut(Word) -> io::Result<()>,
) -> io::Result<()> {
    let mut body = Vec::new();
    loop {
        let read = read_body(&mut from, &mut body);
        let is_word = timeout(patience.silence, read).await.unwrap_or_else(|_| Err(silent()))?;
        if is_word {
            told(rmp_serde::from_slice(&body).map_err(broken)?)?;
            continue;
        }
        let mut rest = &body[..];
        while !rest.is_empty() {
            let before = rest.len();
            let frame = T::take(&mut rest).map_err(broken)?;
            let bytes = before - rest.len();
            if to.send_when_room(frame, bytes).await.is_err() {
                return Ok(());
            }
        }
        body.shrink_to(BUFFER_BYTES_KEPT);
    }
}

/// Whoever is led to speak here says nothing but frames.
pub(super) fn no_words(_: Word) -> io::Result<()> {
    Err(broken("a word came where only frames belong"))
}

/// Whether it was a word.
async fn read_body<R: AsyncRead + Unpin>(from: &mut R, body: &mut Vec<u8>) -> io::Result<bool> {
    let length = from.read_u32_le().await?;
    let is_word = length & WORD != 0;
    let bytes_max = if is_word { WORD_BYTES_MAX } else { BODY_BYTES_MAX };
    read_bytes(from, (length & !WORD) as usize, bytes_max, body).await?;
    Ok(is_word)
}

async fn read_bytes<R: AsyncRead + Unpin>(
    from: &mut R,
    length: usize,
    bytes_max: usize,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    if length > bytes_max {
        return Err(broken("a body larger than the uplink takes"));
    }
    body.clear();
    while body.len() < length {
        let want = (length - body.len()).min(READ_BYTES);
        body.reserve(want);
        if (&mut *from).take(want as u64).read_buf(body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

pub(super) fn broken(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other side is silent")
}

#[cfg(test)]
mod tests {
    use chappe_protocol::ChannelId;
    use tokio::io::duplex;

    use super::*;
    use crate::{Detach, Request, pipe};

    const PATIENCE: Patience =
        Patience { heartbeat: Duration::from_millis(100), silence: Duration::from_millis(400) };

    fn detach(number: u64) -> Request {
        Request::Detach(Detach { channel: ChannelId::new(number) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_is_read_in_order_over_silences_and_in_bounds() {
        let (left, right) = duplex(1_000);
        let (gateway, from_gateway) = pipe(1 << 20);
        let (to_broker, mut broker) = pipe::<Request>(500);
        tokio::spawn(write(from_gateway, left, PATIENCE, || None));
        tokio::spawn(read(right, to_broker, PATIENCE, no_words));
        let hearing = tokio::spawn(async move {
            let mut heard = Vec::new();
            while heard.len() < 1_000 {
                broker.recv(&mut heard, 10).await.unwrap();
            }
            heard
        });
        for number in 0..1_000 {
            assert!(gateway.send(detach(number), 1).is_ok());
            if number % 100 == 0 {
                tokio::time::sleep(3 * PATIENCE.silence).await; // heartbeats keep it alive
            }
        }
        assert_eq!(hearing.await.unwrap(), (0..1_000).map(detach).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_is_silent_or_does_not_read_is_given_up() {
        let (_quiet, right) = duplex(1_000);
        let (to_broker, _broker) = pipe::<Request>(500);
        let error = read(right, to_broker, PATIENCE, no_words).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (left, _deaf) = duplex(100);
        let (gateway, from_gateway) = pipe(1 << 20);
        for number in 0..100 {
            assert!(gateway.send(detach(number), 1).is_ok());
        }
        let error = write(from_gateway, left, PATIENCE, || None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_is_no_frame_or_too_large_is_refused() {
        for bytes in [&[255_u8, 255, 255, 255][..], &[2, 0, 0, 0, 0xc1, 0xc1]] {
            let (to_broker, _broker) = pipe::<Request>(500);
            let error = read(bytes, to_broker, PATIENCE, no_words).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let (to_broker, _broker) = pipe::<Request>(500);
        let error = read(&[9, 0, 0, 0, 1][..], to_broker, PATIENCE, no_words).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    fn gateway(connections: u64) -> Word {
        let name = "ws-1".to_owned();
        Word::Gateway(About { process: 9, name, roles: Vec::new(), connections })
    }

    #[tokio::test(start_paused = true)]
    async fn news_are_told_between_frames_and_in_silences() {
        let (left, right) = duplex(1_000);
        let (to_broker, from_gateway) = pipe(1 << 20);
        let (heard, mut broker) = pipe::<Request>(1 << 20);
        let mut connections = 0;
        let news = move || {
            connections += 1;
            (connections <= 3).then(|| gateway(connections))
        };
        tokio::spawn(write(from_gateway, left, PATIENCE, news));
        let (told, mut words) = tokio::sync::mpsc::channel(8);
        let told = move |word| told.try_send(word).map_err(broken);
        tokio::spawn(read(right, heard, PATIENCE, told));
        assert!(to_broker.send(detach(1), 1).is_ok());
        for connections in 1..=3 {
            assert_eq!(words.recv().await, Some(gateway(connections)));
        }
        let mut frames = Vec::new();
        broker.recv(&mut frames, 8).await.unwrap();
        assert_eq!(frames, [detach(1)]);
    }

    #[tokio::test]
    async fn a_word_that_is_too_long_garbage_or_out_of_place_is_refused() {
        let long = (WORD | (WORD_BYTES_MAX as u32 + 1)).to_le_bytes();
        let garbage = [2, 0, 0, 0x80, 0xc1, 0xc1];
        for bytes in [&long[..], &garbage] {
            let (to_broker, _broker) = pipe::<Request>(500);
            let error = read(bytes, to_broker, PATIENCE, |_| Ok(())).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let mut from = bytes;
            let heard = hear::<Word, _>(&mut from, WORD_BYTES_MAX, PATIENCE).await;
            assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        // A frame where the first word belongs, and a word where only frames do.
        let heard = hear::<Word, _>(&mut &[0_u8; 4][..], WORD_BYTES_MAX, PATIENCE).await;
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut bytes = Vec::new();
        say(&mut bytes, &Word::Status, PATIENCE).await.unwrap();
        let (to_gateway, _gateway) = pipe::<Request>(500);
        let error = read(&bytes[..], to_gateway, PATIENCE, no_words).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_stranger_is_told_from_an_uplink() {
        let (mut left, mut right) = duplex(1_000);
        let (a, b) = tokio::join!(greet(&mut left, PATIENCE), greet(&mut right, PATIENCE));
        assert!(a.is_ok() && b.is_ok());
        let (mut left, mut right) = duplex(1_000);
        right.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = greet(&mut left, PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
