//! A client that says exactly what a test wants said, byte by byte.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The number of the error's code; 0 for none.
    pub(crate) fn code(&self) -> u64 {
        let json = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        json["code"].as_u64().unwrap_or(0)
    }
}

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        Self::over(TcpStream::connect(server).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request with a body (if it has one) and reads the response.
    pub(crate) async fn request(&mut self, request: &str) -> Response {
        self.write(request.as_bytes()).await;
        self.response().await
    }

    /// Reads one response that has a length or none at all.
    pub(crate) async fn response(&mut self) -> Response {
        let mut response = self.head().await;
        let length = response.header("content-length").map_or(0, |text| text.parse().unwrap());
        response.body = self.take(length).await;
        response
    }

    /// Reads the head of a response.
    pub(crate) async fn head(&mut self) -> Response {
        let end = self.until(b"\r\n\r\n").await;
        let head = String::from_utf8(end).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Response { status, headers, body: Vec::new() }
    }

    /// Reads up to and including `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await, "the connection closed after {:?}", self.text());
        }
    }

    pub(crate) async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await, "the connection closed after {:?}", self.text());
        }
        self.read.drain(..length).collect()
    }

    /// Reads to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = timeout(Duration::from_secs(20), self.stream.read(&mut bytes)).await;
        // A reset is an end as well.
        let read = read.expect("the server says something in time").unwrap_or(0);
        self.read.extend_from_slice(&bytes[..read]);
        read > 0
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}
