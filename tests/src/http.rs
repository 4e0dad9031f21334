//! HTTP/1.1 by hand: requests as they are written, responses as they come, event streams.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::soon;

/// A response that has come in whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, the names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON; null when there is none.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// Asks for a page.
pub async fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path, &[], b"").await
}

/// Sends one request on a connection of its own. A body comes with its length.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut bytes = head(address, method, path, headers);
    if !body.is_empty() {
        bytes += &format!("content-length: {}\r\n", body.len());
    }
    bytes += "connection: close\r\n\r\n";
    send(address, &[bytes.as_bytes(), body].concat()).await
}

/// A connection that is kept for one request after the other.
pub struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    answered: usize,
}

impl Connection {
    /// Opens one.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        Self { address, stream: BufReader::new(stream), answered: 0 }
    }

    /// Sends a request and reads its response. A body comes with its length.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut bytes = head(self.address, method, path, headers);
        if !body.is_empty() {
            bytes += &format!("content-length: {}\r\n", body.len());
        }
        bytes += "\r\n";
        let response = soon("a response", async {
            self.stream.write_all(&[bytes.as_bytes(), body].concat()).await.unwrap();
            read_response(&mut self.stream).await
        });
        let response = response.await;
        self.answered += 1;
        response
    }

    /// How many requests it has had answered.
    pub fn answered(&self) -> usize {
        self.answered
    }
}

/// Sends these very bytes, and reads one response.
pub async fn send(address: SocketAddr, bytes: &[u8]) -> Response {
    soon("a response", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that refuses early stops reading: its answer is there all the same.
        let _ = stream.write_all(bytes).await;
        read_response(&mut BufReader::new(stream)).await
    })
    .await
}

fn head(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    (status, headers)
}

async fn read_response(stream: &mut BufReader<TcpStream>) -> Response {
    let (status, headers) = read_head(stream).await;
    let mut response = Response { status, headers, body: Vec::new() };
    if response.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(stream).await {
            response.body.extend(chunk);
        }
    } else if let Some(length) = response.header("content-length") {
        response.body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut response.body).await.unwrap();
    }
    response
}

async fn read_chunk(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut size = String::new();
    if stream.read_line(&mut size).await.ok()? == 0 {
        return None;
    }
    let size = usize::from_str_radix(size.trim(), 16).ok()?;
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk).await.ok()?;
    chunk.truncate(size);
    (size > 0).then_some(chunk)
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// Its `id`: the cursor after it.
    pub id: Option<String>,
    /// Its `event`.
    pub event: Option<String>,
    /// Its `data`.
    pub data: String,
}

/// A stream of server-sent events.
pub struct EventStream {
    stream: BufReader<TcpStream>,
    text: String,
}

impl EventStream {
    /// Opens one; gives the refusal when the server does not.
    pub async fn open(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Response> {
        soon("an event stream", async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = head(address, "GET", path, headers) + "accept: text/event-stream\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut stream = BufReader::new(stream);
            let (status, headers) = read_head(&mut stream).await;
            if status == 200 {
                return Ok(Self { stream, text: String::new() });
            }
            let mut response = Response { status, headers, body: Vec::new() };
            let length = response.header("content-length").and_then(|length| length.parse().ok());
            response.body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut response.body).await.unwrap();
            Err(response)
        })
        .await
    }

    /// The next event; none when the server has ended the stream. Comments are skipped.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        soon("a server-sent event", async {
            loop {
                while let Some(end) = self.text.find("\n\n") {
                    let block: String = self.text.drain(..end + 2).collect();
                    if let Some(event) = parse_event(&block) {
                        return Some(event);
                    }
                }
                let chunk = read_chunk(&mut self.stream).await?;
                self.text += std::str::from_utf8(&chunk).expect("whole characters");
            }
        })
        .await
    }
}

fn parse_event(block: &str) -> Option<StreamEvent> {
    let field = |name: &str| {
        let prefix = format!("{name}:");
        let lines = block.lines().filter_map(|line| line.strip_prefix(&prefix));
        let lines: Vec<_> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    field("data").map(|data| StreamEvent { id: field("id"), event: field("event"), data })
}
