//! Event streams: ids, resuming, refusals, and what a stream costs who does not read it.

use chappe_gateway::{
    frontend::ConnectRefused,
    link::{Lane, LinkEnd},
};
use chappe_protocol::{
    ChannelId, CloseCode, Command, Cursor, Event, EventBody, Incarnation, Rev, ServerFrame, UserId,
    command::Channels,
    event::{ChannelRemovedBody, NothingBody},
    frame::{Closing, Live, Reset, ServerPing, Signalled},
};
use tokio::net::TcpStream;

use crate::{
    Server,
    client::Client,
    kernel::{FakeKernel, HEAD, Heard, MINE, Session, USER},
    quick, request,
};

/// A stream as its reader sees it: blocks of `name: value` lines.
struct Stream {
    client: Client<TcpStream>,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Block(Vec<(String, String)>);

impl Block {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    fn cursor(&self) -> Option<Cursor> {
        self.get("id").map(|id| Cursor::parse(id).unwrap())
    }
}

impl Stream {
    async fn open(server: &Server, query: &str, last_event_id: Option<&str>) -> Self {
        let mut client = server.client().await;
        let mut ask = request("GET", &format!("/v1/events?{query}"), None);
        if let Some(id) = last_event_id {
            ask = ask.replace("\r\n\r\n", &format!("\r\nlast-event-id: {id}\r\n\r\n"));
        }
        client.write(ask.as_bytes()).await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Self { client, text: String::new() }
    }

    /// The next block, over the chunks that it comes in.
    async fn next(&mut self) -> Option<Block> {
        let end = loop {
            if let Some(at) = self.text.find("\n\n") {
                break at;
            }
            let length = self.client.until(b"\r\n").await;
            let length = std::str::from_utf8(&length).unwrap().trim();
            let length = usize::from_str_radix(length, 16).unwrap();
            self.text += std::str::from_utf8(&self.client.take(length).await).unwrap();
            self.client.until(b"\r\n").await;
            if length == 0 {
                return None;
            }
        };
        let block: String = self.text.drain(..end + 2).collect();
        let lines = block.trim_end().lines().map(|line| line.split_once(": ").unwrap());
        Some(Block(lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

fn event(channel: ChannelId, rev: u64) -> Event {
    Event {
        channel,
        rev: Rev::new(rev),
        by: USER,
        at: 1_700_000_000_000,
        nonce: None,
        body: EventBody::Nothing(NothingBody {}),
    }
}

async fn send(session: &Session, event: &Event) {
    session.send(Lane::Control, &ServerFrame::Event { event }).await;
}

/// Skips `hello` and gives the subscriptions that were asked for.
async fn subscriptions(session: &mut Session, count: usize) -> Vec<(Channels, Option<u32>)> {
    let mut asked = Vec::new();
    let Heard::Frame(hello) = session.next().await else { panic!("a hello") };
    assert!(matches!(hello.command, Command::Hello(_)));
    while asked.len() < count {
        let Heard::Frame(frame) = session.next().await else { panic!("a frame") };
        let Command::Subscribe(subscribe) = frame.command else { panic!("a subscribe") };
        asked.push((subscribe.channels, subscribe.incarnation.map(|incarnation| incarnation.0)));
    }
    asked
}

#[tokio::test]
async fn events_come_with_the_cursor_as_their_id() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut stream = Stream::open(&server, "channels=1,9", None).await;
    let mut session = sessions.recv().await.unwrap();
    assert_eq!(session.describe.transport, "sse");
    let asked = subscriptions(&mut session, 1).await;
    let Channels::These(channels) = &asked[0].0 else { panic!("named channels") };
    assert_eq!(channels.iter().map(|channel| channel.id.get()).collect::<Vec<_>>(), [1, 9]);

    let first = stream.next().await.unwrap();
    assert_eq!(first.get("event"), Some("subscribed"));
    send(&session, &event(ChannelId::new(9), 6)).await;
    let block = stream.next().await.unwrap();
    assert_eq!(block.get("event"), Some("event"));
    let data: serde_json::Value = serde_json::from_str(block.get("data").unwrap()).unwrap();
    assert_eq!(data["event"]["rev"], 6);
    let held = vec![(ChannelId::new(1), HEAD), (ChannelId::new(9), Rev::new(6))];
    assert_eq!(block.cursor(), Some(Cursor { incarnation: Incarnation(3), channels: held }));
}

#[tokio::test]
async fn a_last_event_id_resumes_after_it() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let cursor = Cursor {
        incarnation: Incarnation(2),
        channels: vec![(ChannelId::new(1), Rev::new(3)), (ChannelId::new(4), Rev::new(8))],
    };
    let _named = Stream::open(&server, "channels=1,9", Some(&cursor.to_text())).await;
    let mut session = sessions.recv().await.unwrap();
    let asked = subscriptions(&mut session, 1).await;
    let (Channels::These(channels), Some(2)) = &asked[0] else { panic!("{asked:?}") };
    let from: Vec<_> =
        channels.iter().map(|one| (one.id.get(), one.from.map(|rev| rev.get()))).collect();
    assert_eq!(from, [(1, Some(3)), (9, None)]);

    // All channels have no place for a cursor: those that it holds are asked for first.
    let _mine = Stream::open(&server, "channels=mine", Some(&cursor.to_text())).await;
    let mut session = sessions.recv().await.unwrap();
    let asked = subscriptions(&mut session, 2).await;
    let Channels::These(channels) = &asked[0].0 else { panic!("{asked:?}") };
    assert_eq!(channels.len(), 2);
    assert_eq!((&asked[1].0, asked[1].1), (&Channels::Mine, None));
}

#[tokio::test]
async fn the_cursor_follows_resets_and_forgets_what_the_user_left() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut stream = Stream::open(&server, "channels=mine", None).await;
    let session = sessions.recv().await.unwrap();
    stream.next().await.unwrap();

    let reset = Reset { channel: MINE[0], base: Rev::new(40), incarnation: Incarnation(4) };
    session.send(Lane::Control, &ServerFrame::Reset { reset }).await;
    let block = stream.next().await.unwrap();
    assert_eq!(block.get("event"), Some("reset"));
    let cursor = block.cursor().unwrap();
    assert_eq!(cursor.incarnation, Incarnation(4));
    assert_eq!(cursor.channels[0], (MINE[0], Rev::new(40)));

    let removed = ChannelRemovedBody { channel: MINE[1], rev: Rev::new(7) };
    let body = EventBody::ChannelRemoved(removed);
    let inbox = ChannelId::inbox(USER);
    send(&session, &Event { channel: inbox, body, ..event(inbox, 2) }).await;
    let cursor = stream.next().await.unwrap().cursor().unwrap();
    assert_eq!(cursor.channels, [(MINE[0], Rev::new(40))], "neither the inbox nor what was left");

    let live = Live { channel: MINE[0], rev: Rev::new(40) };
    session.send(Lane::Control, &ServerFrame::Live { live }).await;
    let block = stream.next().await.unwrap();
    assert_eq!((block.get("event"), block.get("id")), (Some("live"), None), "it did not move");
}

#[tokio::test]
async fn a_long_cursor_is_written_once_for_many_events() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let ids: Vec<_> = (1..=50).map(|id| id.to_string()).collect();
    let mut stream = Stream::open(&server, &format!("channels={}", ids.join(",")), None).await;
    let session = sessions.recv().await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(first.get("id"), None);
    assert_eq!(stream.next().await.unwrap().cursor().unwrap().channels.len(), 50);

    send(&session, &event(ChannelId::new(7), 6)).await;
    assert_eq!(stream.next().await.unwrap().get("event"), Some("event"));
    let block = stream.next().await.unwrap();
    assert_eq!(block.get("data"), None, "an id alone tells a client nothing else");
    assert!(block.cursor().unwrap().channels.contains(&(ChannelId::new(7), Rev::new(6))));
}

#[tokio::test]
async fn a_ping_is_a_comment_and_the_reader_answers_it_by_reading() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut stream = Stream::open(&server, "channels=1", None).await;
    let mut session = sessions.recv().await.unwrap();
    subscriptions(&mut session, 1).await;
    stream.next().await.unwrap();
    let ping = ServerPing { at: 1, heads: Vec::new() };
    session.send(Lane::Control, &ServerFrame::Ping { ping }).await;
    let block = stream.next().await.unwrap();
    assert_eq!(block.0, [(String::new(), "ping".to_owned())]);
    let Heard::Frame(frame) = session.next().await else { panic!("a pong") };
    assert!(matches!(frame.command, Command::Pong(_)));
}

#[tokio::test]
async fn a_refused_stream_is_a_problem_and_not_a_stream() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    for (path, status, code) in [
        ("/v1/events", 422, 2005),
        ("/v1/events?channels=", 422, 2005),
        ("/v1/events?channels=general", 422, 2005),
        ("/v1/events?channels=1&channels=2", 422, 2005),
        ("/v1/events?channels=1,,2", 422, 2005),
    ] {
        let response = server.request(&request("GET", path, None)).await;
        assert_eq!((response.status, response.code()), (status, code), "{path}");
    }
    let many: Vec<_> = (1..=1_001).map(|id| id.to_string()).collect();
    let path = format!("/v1/events?channels={}", many.join(","));
    let response = server.request(&request("GET", &path, None)).await;
    assert_eq!((response.status, response.code()), (409, 2021));

    let ask = request("GET", "/v1/events?channels=1", None);
    let bad = ask.replace("\r\n\r\n", "\r\nlast-event-id: nonsense\r\n\r\n");
    assert_eq!(server.request(&bad).await.status, 422);
    let mut client = server.client().await;
    client.write(ask.replace("GET", "HEAD").as_bytes()).await;
    assert_eq!(client.head().await.status, 405);

    let response = server.request(&ask.replace("good", "bad")).await;
    assert_eq!((response.status, response.code()), (401, 3003));
    assert!(matches!(sessions.recv().await.unwrap().end().await, LinkEnd::Closed(_)));

    kernel.refuse(Some(ConnectRefused::Draining));
    let response = server.request(&ask).await;
    assert_eq!((response.status, response.code()), (503, 3007));
    kernel.refuse(Some(ConnectRefused::TooMany));
    assert_eq!(server.request(&ask).await.status, 429);
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let (kernel, mut sessions) = FakeKernel::start();
    let config = chappe_gateway_http::Config { event_streams_max: 1, ..quick() };
    let server = Server::with(&kernel, config, None, None);
    let stream = Stream::open(&server, "channels=1", None).await;
    let mut session = sessions.recv().await.unwrap();
    let response = server.request(&request("GET", "/v1/events?channels=1", None)).await;
    assert_eq!((response.status, response.code()), (503, 1002));
    // The place is free again once the reader is gone.
    drop(stream);
    assert!(matches!(session.end().await, LinkEnd::Closed(None)));
    Stream::open(&server, "channels=1", None).await;
}

#[tokio::test]
async fn a_closed_link_ends_the_stream_after_its_last_word() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut stream = Stream::open(&server, "channels=1", None).await;
    let mut session = sessions.recv().await.unwrap();
    stream.next().await.unwrap();
    let mut closing = Closing::new(CloseCode::Drain);
    closing.reconnect_after_ms = Some(700);
    session.send(Lane::Control, &ServerFrame::Closing { closing }).await;
    session.close(CloseCode::Drain).await;
    let block = stream.next().await.unwrap();
    assert_eq!((block.get("event"), block.get("retry")), (Some("closing"), Some("700")));
    assert_eq!(stream.next().await, None);
    let end = session.end().await;
    assert!(matches!(end, LinkEnd::Closed(Some(1012) | None)), "{end:?}");
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_the_link_and_loses_signals_alone() {
    let (kernel, mut sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut stream = Stream::open(&server, "channels=1", None).await;
    let session = sessions.recv().await.unwrap();
    stream.next().await.unwrap();
    // More than the pipe and the sockets' buffers hold, while nobody reads.
    let text = "x".repeat(4_000);
    let data = chappe_protocol::Data::new(serde_json::Value::String(text)).unwrap();
    let signal = Signalled { channel: MINE[0], by: UserId::new(1), data: Some(data) };
    for rev in 6..3_006 {
        send(&session, &event(MINE[0], rev)).await;
        let signal = ServerFrame::Signal { signal: signal.clone() };
        session.send(Lane::Signals, &signal).await;
    }
    let mut revs = Vec::new();
    let mut signals = 0;
    while revs.len() < 3_000 {
        let block = stream.next().await.unwrap();
        match block.get("event") {
            Some("signal") => signals += 1,
            _ => revs.push(block.cursor().unwrap().channels[0].1.get()),
        }
    }
    assert!(revs.iter().copied().eq(6..3_006), "every event, once, in order");
    assert!(signals < 3_000, "signals give way");
}
