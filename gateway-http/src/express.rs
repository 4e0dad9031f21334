//! The short way out of HTTP: a client that opens a WebSocket sends one small request, often
//! before its connection is accepted. It is read and answered right there, without a task, a
//! timer, a buffer or a registration; whatever is not exactly that goes the long way.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use bytes::Bytes;
use chappe_gateway::frontend::Kernel;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, request::Parts};

use crate::{
    front::Front,
    meter,
    routes::WEBSOCKET_PATH,
    upgrade::{Socket, Switched},
};

/// How far the short way led.
pub(crate) enum Express {
    /// To its end: the socket is taken, or broken.
    Done,
    /// Nowhere: this was read, and hyper goes on from it.
    Other(TcpStream, Bytes),
    /// The client has not sent anything yet.
    Silent(TcpStream),
}

/// Tries the short way with what a fresh, non-blocking socket has to be read.
pub(crate) fn express<K: Kernel>(mut stream: TcpStream, front: &Front<K>) -> Express {
    let mut buffer = [0; HEAD_BYTES_MAX];
    let bytes = match stream.read(&mut buffer) {
        Ok(0) => return Express::Done,
        Ok(length) => &buffer[..length],
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Express::Silent(stream),
        Err(_) => return Express::Done,
    };
    let accepted = parse(bytes)
        .and_then(|(parts, length)| front.express(parts).map(|accepted| (accepted, length)));
    let Some((accepted, length)) = accepted else {
        return Express::Other(stream, Bytes::copy_from_slice(bytes));
    };
    let head = switching(&accepted.headers);
    // A fresh socket's buffer takes these few bytes at once, or something is wrong with it.
    if !matches!(stream.write(&head), Ok(written) if written == head.len()) {
        meter::dropped("io");
        return Express::Done;
    }
    meter::upgraded();
    let read_ahead = Bytes::copy_from_slice(&bytes[length..]);
    (accepted.take)(Switched { socket: Socket::Plain(stream), read_ahead });
    Express::Done
}

/// Reads a complete, well-formed request for the WebSocket route, and nothing else.
fn parse(bytes: &[u8]) -> Option<(Parts, usize)> {
    // What begins otherwise need not be parsed twice.
    if !bytes.starts_with(b"GET ") || !bytes[4..].starts_with(WEBSOCKET_PATH.as_bytes()) {
        return None;
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else { return None };
    let uri: Uri = head.path?.parse().ok()?;
    if head.version != Some(1) || uri.path() != WEBSOCKET_PATH || uri.authority().is_some() {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some((request.into_parts().0, length))
}

fn switching(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A larger head goes the long way.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// More headers go the long way.
const FIELDS_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_request_for_the_route_is_read() {
        let request = |start: &str| format!("{start}\r\nhost: x\r\nupgrade: websocket\r\n\r\n");
        let (parts, length) =
            parse((request("GET /v1/ws?a=b HTTP/1.1") + "first frame").as_bytes()).unwrap();
        assert_eq!((parts.uri.path(), parts.uri.query()), ("/v1/ws", Some("a=b")));
        assert_eq!(parts.headers.len(), 2);
        assert_eq!(length, request("GET /v1/ws?a=b HTTP/1.1").len());

        for start in [
            "GET /v1/wsx HTTP/1.1",
            "GET /v1/ws/ HTTP/1.1",
            "GET /v1/ws HTTP/1.0",
            "POST /v1/ws HTTP/1.1",
            "GET http://y/v1/ws HTTP/1.1",
            "GET /v1/ws HTTP/1.1\r\nbad header",
        ] {
            assert!(parse(request(start).as_bytes()).is_none(), "{start}");
        }
        let whole = request("GET /v1/ws HTTP/1.1");
        for length in 0..whole.len() {
            assert!(parse(&whole.as_bytes()[..length]).is_none(), "cut at {length}");
        }
        let many: String = (0..60).map(|n| format!("x-{n}: 1\r\n")).collect();
        assert!(parse(format!("GET /v1/ws HTTP/1.1\r\n{many}\r\n").as_bytes()).is_none());
    }
}
