//! Ten thousand connections that do nothing cost little and take nothing from those who do
//! something. Whoever comes when all places are taken is told so.

use std::{process::Stdio, time::Instant};

use chappe_tests::{Client, Server, Transport, allow_open_files, http, quic, soon};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{
    healthy::Healthy,
    in_time, make_channel,
    memory::{Held, MemoryWatch},
};

const IDLE: usize = 10_000;
/// The healthy publisher and its readers.
const HEALTHY: usize = 4;
/// What a server needs open beside its connections.
const FILES: u64 = 500;

/// Idle clients, in a process of their own.
struct Crowd {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    async fn begin(server: &Server, count: usize) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idle-clients"));
        command.arg(server.data()).arg(server.subject("")).arg(count.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut crowd = Self { process, input, output };
        assert_eq!(crowd.line().await, "ready");
        crowd
    }

    /// How many of them are connected.
    async fn open(&mut self) -> usize {
        self.input.as_mut().unwrap().write_all(b"count\n").await.unwrap();
        self.line().await.parse().unwrap()
    }

    /// They go without a word.
    async fn end(mut self) {
        self.input.take();
        assert!(soon("the crowd's end", self.process.wait()).await.unwrap().success());
    }

    async fn line(&mut self) -> String {
        let line = in_time("a word of the crowd", self.output.next_line()).await.unwrap();
        line.expect("the crowd lives")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_cost_little_and_the_next_is_refused() {
    allow_open_files(IDLE as u64 + FILES);
    let server = Server::builder().set("limits.connections", IDLE + HEALTHY).start().await;
    let channel = make_channel(&server).await;
    let healthy = Healthy::begin(&server, &channel).await;
    let idle = Held::read(server.run().pid);
    let memory = MemoryWatch::begin(&server);
    let began = Instant::now();
    let mut crowd = Crowd::begin(&server, IDLE).await;
    let signed_in = began.elapsed();
    let held_kib = Held::read(server.run().pid).resident_kib - idle.resident_kib;

    check_refusals(&server).await;
    assert_eq!(crowd.open().await, IDLE, "nobody was dropped");
    let outcome = healthy.end().await;
    memory.end("ten thousand idle connections");
    println!(
        "{IDLE} connections signed in within {signed_in:?}; {:.1} KiB resident each; {} healthy \
         messages meanwhile",
        held_kib as f64 / IDLE as f64,
        outcome.published
    );

    crowd.end().await;
    // Their places are free again.
    soon("a free place", async { while http::get(server.run().tcp, "/").await.status == 429 {} })
        .await;
    Client::signed_in(&server, Transport::WsJson, "late").await;
}

/// All places are taken: every way in says so.
async fn check_refusals(server: &Server) {
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = http::request(server.run().tcp, "GET", "/v1/ws", &upgrade, b"").await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(
        (&problem["code"], &problem["name"]),
        (&3009.into(), &"too_many_connections".into())
    );
    assert!(refused.header("retry-after").is_some(), "it is told when to come back");

    let refused = quic::dial(server.run(), b"chappe/1").await.unwrap_err();
    let quinn::ConnectionError::ConnectionClosed(close) = &refused else {
        panic!("QUIC refuses the handshake, and not by {refused}");
    };
    assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
}
