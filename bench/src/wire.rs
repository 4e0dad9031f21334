//! The few WebSocket bytes that a floor and a load generator need: an upgrade, and whole messages.
//!
//! No fragments, no extensions, no text: who sends those ends the measurement.

use anyhow::{Context, Result, bail, ensure};
use chappe_protocol::Encoding;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A binary message.
pub(crate) const BINARY: u8 = 0x2;
/// The peer closes.
pub(crate) const CLOSE: u8 = 0x8;
/// Is the peer there?
pub(crate) const PING: u8 = 0x9;
/// It is.
pub(crate) const PONG: u8 = 0xa;

/// The encoding that every measurement uses.
pub(crate) const ENCODING: Encoding = Encoding::MessagePack;

/// The largest head of a request or a response.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Any 16 bytes will do: the key only shows that the server speaks WebSocket.
const KEY: &str = "Y2hhcHBlLWJlbmNoLWtleQ==";
/// Any mask will do as well, but for zero, which would let the server skip its work.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The head of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) head_bytes: usize,
    pub(crate) payload_bytes: usize,
}

impl Head {
    /// Reads the head at the start of `bytes`; none if it is not complete yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        ensure!(first & 0xf0 == 0x80, "a fragment or an extension, which nobody asked for");
        let (length_bytes, payload_bytes) = match second & 0x7f {
            126 => match rest {
                [a, b, ..] => (2, usize::from(u16::from_be_bytes([*a, *b]))),
                _ => return Ok(None),
            },
            127 => bail!("a message of more than 64 KiB, which no measurement sends"),
            short => (0, usize::from(short)),
        };
        let mut head_bytes = 2 + length_bytes;
        let mut mask = None;
        if second & 0x80 != 0 {
            let Some(key) = bytes.get(head_bytes..head_bytes + 4) else { return Ok(None) };
            mask = Some([key[0], key[1], key[2], key[3]]);
            head_bytes += 4;
        }
        Ok(Some(Self { opcode: first & 0x0f, mask, head_bytes, payload_bytes }))
    }

    /// The bytes of the whole frame.
    pub(crate) const fn frame_bytes(&self) -> usize {
        self.head_bytes + self.payload_bytes
    }
}

/// Appends a frame as a server sends it.
pub(crate) fn write_unmasked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    write_head(opcode, 0, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a frame as a client sends it.
pub(crate) fn write_masked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    write_head(opcode, 0x80, payload.len(), out);
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(MASK, &mut out[start..]);
}

/// Takes a mask off, or puts it on.
pub(crate) fn unmask(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn write_head(opcode: u8, mask_bit: u8, payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload_bytes {
        short @ 0..=125 => out.push(mask_bit | short as u8),
        long => {
            assert!(long <= usize::from(u16::MAX), "no measurement sends more than 64 KiB");
            out.push(mask_bit | 126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
}

/// The request that asks for a WebSocket.
pub(crate) fn upgrade_request(host: &str) -> Vec<u8> {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {}\r\n\r\n",
        ENCODING.subprotocol()
    )
    .into_bytes()
}

/// Answers a complete request at the start of `bytes`: the response and the request's length.
pub(crate) fn answer_upgrade(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let Some(length) = head_length(bytes)? else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..length]).context("a request that is not text")?;
    let key = header(head, "sec-websocket-key").context("a request without a key")?;
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        derive_accept_key(key.as_bytes()),
        ENCODING.subprotocol()
    );
    Ok(Some((response.into_bytes(), length)))
}

/// Checks a complete response at the start of `bytes` and gives its length.
pub(crate) fn accept_upgrade(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(length) = head_length(bytes)? else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..length]).context("a response that is not text")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 101"), "no upgrade: {status}");
    let accept = header(head, "sec-websocket-accept");
    ensure!(accept == Some(&derive_accept_key(KEY.as_bytes())), "an upgrade with a wrong accept");
    Ok(Some(length))
}

fn head_length(bytes: &[u8]) -> Result<Option<usize>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    ensure!(end.is_some() || bytes.len() <= HEAD_BYTES_MAX, "a head that does not end");
    Ok(end.map(|at| at + 4))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_half_a_head_waits() {
        for length in [0, 125, 126, 65_535] {
            let payload = vec![0x5a; length];
            let mut bytes = Vec::new();
            write_masked(BINARY, &payload, &mut bytes);
            let head = Head::parse(&bytes).unwrap().unwrap();
            assert_eq!((head.opcode, head.frame_bytes()), (BINARY, bytes.len()));
            assert_eq!(Head::parse(&bytes[..head.head_bytes - 1]).unwrap(), None);
            let mut found = bytes[head.head_bytes..].to_vec();
            unmask(head.mask.unwrap(), &mut found);
            assert_eq!(found, payload);
        }
    }

    #[test]
    fn a_fragment_ends_the_measurement() {
        assert!(Head::parse(&[0x02, 0x01, b'a']).is_err());
    }

    #[test]
    fn both_ends_agree_on_the_upgrade() {
        let request = upgrade_request("localhost");
        assert!(answer_upgrade(&request[..request.len() - 1]).unwrap().is_none());
        let (response, length) = answer_upgrade(&request).unwrap().unwrap();
        assert_eq!(length, request.len());
        assert_eq!(accept_upgrade(&response).unwrap(), Some(response.len()));
        assert!(accept_upgrade(b"HTTP/1.1 403 Forbidden\r\n\r\n").is_err());
    }
}
