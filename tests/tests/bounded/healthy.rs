//! Clients that behave: one publishes and waits for each answer, one of each transport reads.
//! Nothing that others do may be noticed by them.

use std::time::Duration;

use chappe_tests::{Client, Server, Transport, fresh, soon};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::member;

/// How often the healthy publisher has something to say.
const PACE: Duration = Duration::from_millis(5);

/// The healthy clients of a channel.
pub(crate) struct Healthy {
    from: u64,
    stop: watch::Sender<bool>,
    publishing: JoinHandle<Vec<(u64, String)>>,
    reading: Vec<JoinHandle<Vec<Value>>>,
}

/// What the healthy clients went through.
pub(crate) struct Outcome {
    /// All events of the channel, in order, as every reader saw them.
    pub(crate) events: Vec<Value>,
    /// How many messages the healthy publisher had acknowledged.
    pub(crate) published: usize,
}

impl Healthy {
    /// They join a channel, and go on until [`Healthy::end`].
    pub(crate) async fn begin(server: &Server, channel: &str) -> Self {
        let mut publisher = member(server, Transport::WsJson, "healthy-publisher", channel).await;
        let mut readers = Vec::new();
        for transport in Transport::ALL {
            let user = format!("healthy-{transport:?}");
            readers.push(member(server, transport, &user, channel).await);
        }
        let mut from = 0;
        for reader in &mut readers {
            let subscribe = json!({"subscribe": {"channels": [{"id": channel}]}});
            let subscribed = reader.ask(subscribe).await.unwrap();
            // Nobody has published yet and all have joined: every one begins at the same revision.
            from = subscribed["channels"][0]["rev"].as_u64().unwrap();
        }
        let last = fresh("last-");
        let reading =
            readers.into_iter().map(|reader| tokio::spawn(read_to(reader, last.clone()))).collect();
        let (stop, stopped) = watch::channel(false);
        let channel = channel.to_owned();
        let publishing =
            tokio::spawn(async move { publish(&mut publisher, &channel, stopped, last).await });
        Self { from, stop, publishing, reading }
    }

    /// Ends them, and fails if any of them lost, repeated or misplaced anything.
    pub(crate) async fn end(self) -> Outcome {
        self.stop.send_replace(true);
        let acked = soon("the last healthy message", self.publishing).await.unwrap();
        let mut seen: Option<Vec<Value>> = None;
        for reader in self.reading {
            let events = soon("a healthy reader's end", reader).await.unwrap();
            for (event, rev) in events.iter().zip(self.from + 1..) {
                assert_eq!(event["rev"], rev, "nothing is missing, repeated or misplaced");
            }
            for (rev, text) in &acked {
                let event = &events[(rev - self.from - 1) as usize];
                assert_eq!(
                    event["body"]["message"]["text"], *text,
                    "what was acknowledged is there"
                );
            }
            // The encodings show the same, so one reader's events stand for all.
            assert!(seen.as_ref().is_none_or(|seen| *seen == events), "all read the same");
            seen = Some(events);
        }
        Outcome { events: seen.unwrap(), published: acked.len() }
    }
}

async fn publish(
    publisher: &mut Client,
    channel: &str,
    stopped: watch::Receiver<bool>,
    last: String,
) -> Vec<(u64, String)> {
    let mut acked = Vec::new();
    loop {
        let over = *stopped.borrow();
        let text = if over { last.clone() } else { format!("healthy {}", acked.len()) };
        let publish = json!({"publish": {"channel": channel, "text": text}});
        let ok = publisher.ask(publish).await.expect("who waits for answers is never refused");
        acked.push((ok["rev"].as_u64().unwrap(), text));
        if over {
            return acked;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Reads until the message that nobody but the healthy publisher can have written.
async fn read_to(mut reader: Client, last: String) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let event = reader.event().await;
        let is_last = event["body"]["message"]["text"] == last;
        events.push(event);
        if is_last {
            return events;
        }
    }
}
