//! The broker on the real embedded log and store: what it promises holds across a restart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{path::Path, sync::Arc, time::Duration};

use chappe_broker::{Config, LocalBroker, Parts, Running, start};
use chappe_protocol::{
    ChannelId, ChannelName, EventBody, Nonce, Rev, Seq, SessionId, Text, UserId,
    command::{CreateChannel, History, MarkRead, Publish},
    message::ChannelKind,
    reply::Change,
};
use chappe_storage::{
    log::segment::{SegmentConfig, SegmentLog},
    store::lsm::LsmStore,
};
use chappe_uplink::{
    Action, Answer, Attach, Broker, Caller, Command, Read, ReadQuery, Receiver, Refusal, Request,
    Response, Sender, Standing, Start,
};
use tokio::time::timeout;

const PARTITIONS: u32 = 4;
const WAIT: Duration = Duration::from_secs(20);

/// One gateway's pipe, and what was heard on it.
struct Gateway {
    requests: Sender<Request>,
    responses: Receiver<Response>,
    heard: Vec<Response>,
    token: u64,
}

impl Gateway {
    fn open(broker: &LocalBroker) -> Self {
        let (requests, responses) = broker.open();
        Self { requests, responses, heard: Vec::new(), token: 0 }
    }

    async fn ask(&mut self, make: impl FnOnce(u64) -> Request) -> Result<Answer, Refusal> {
        self.token += 1;
        let asked = self.token;
        assert!(self.requests.send(make(asked), 100).is_ok());
        loop {
            let mut batch = Vec::new();
            let received = timeout(WAIT, self.responses.recv(&mut batch, 64)).await;
            assert!(received.expect("an answer comes").is_ok());
            self.heard.extend(batch);
            let answer = self.heard.iter().position(
                |heard| matches!(heard, Response::Answer { token, .. } if *token == asked),
            );
            if let Some(at) = answer {
                let Response::Answer { result, .. } = self.heard.remove(at) else { unreachable!() };
                return result.map(|answer| *answer);
            }
        }
    }

    async fn command(
        &mut self,
        user: u64,
        channel: ChannelId,
        nonce: &str,
        action: Action,
    ) -> Result<Change, Refusal> {
        let command = Command {
            token: 0,
            caller: caller(user),
            session: SessionId::new(user),
            attempt: 0,
            position: 0,
            channel,
            nonce: Nonce::parse(nonce).unwrap(),
            client_nonce: true,
            age_ms: 0,
            action,
        };
        let ask = |token| Request::Command(Box::new(Command { token, ..command }));
        match self.ask(ask).await? {
            Answer::Change(change) => Ok(change),
            other => panic!("not a change: {other:?}"),
        }
    }

    async fn read(
        &mut self,
        user: u64,
        channel: ChannelId,
        query: ReadQuery,
    ) -> Result<Answer, Refusal> {
        let caller = Some(caller(user));
        let read = Read { token: 0, caller, channel, at_least: Rev::ZERO, query };
        self.ask(|token| Request::Read(Read { token, ..read })).await
    }

    async fn attach(&mut self, user: u64, channel: ChannelId) -> Result<Start, Refusal> {
        let ask = |token| {
            Request::Attach(Attach { token, channel, caller: Some(caller(user)), from: None })
        };
        match self.ask(ask).await? {
            Answer::Attached(attached) => Ok(attached.start),
            other => panic!("not an attach: {other:?}"),
        }
    }

    /// The texts of the messages that were heard live, in order.
    fn texts(&self) -> Vec<String> {
        let texts = self.heard.iter().filter_map(|heard| match heard {
            Response::Event { event, .. } => match &event.body {
                EventBody::MessageCreated(body) => body.message.text.as_ref(),
                _ => None,
            },
            _ => None,
        });
        texts.map(|text| text.to_string()).collect()
    }
}

fn caller(user: u64) -> Caller {
    Caller { user: UserId::new(user), name: None, standing: Standing::User }
}

fn create(name: &str) -> Action {
    Action::Create(CreateChannel {
        kind: ChannelKind::Public,
        name: Some(ChannelName::parse(name).unwrap()),
        topic: None,
        members: Vec::new(),
    })
}

fn publish(channel: ChannelId, text: &str) -> Action {
    Action::Publish(Publish {
        channel,
        text: Some(Text::parse(text).unwrap()),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
    })
}

fn history() -> ReadQuery {
    let channel = ChannelId::new(0);
    let limit = Some(100);
    ReadQuery::Messages(History { channel, before: None, after: None, around: None, limit })
}

async fn run(dir: &Path) -> (LocalBroker, Running) {
    let log = SegmentLog::open(&dir.join("log"), PARTITIONS, SegmentConfig::default()).unwrap();
    let store = LsmStore::open(dir.join("store")).unwrap();
    let started =
        start(Config::default(), Parts::alone(Arc::new(log), Arc::new(store))).await.unwrap();
    timeout(WAIT, started.1.leads_all()).await.expect("all partitions are led");
    started
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart_and_its_retry_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, running) = run(dir.path()).await;
    let mut gateway = Gateway::open(&broker);
    let channel = ChannelId::created_by(UserId::new(1), "c");
    let made = gateway.command(1, channel, "c", create("general")).await.unwrap();
    assert_eq!(made.rev, Rev::new(1));
    assert_eq!(gateway.attach(2, channel).await.unwrap(), Start::After(Rev::new(1)));
    gateway.command(2, channel, "j", Action::Join).await.unwrap();
    let mut sent = Vec::new();
    for i in 0..50 {
        let text = format!("message {i}");
        let nonce = format!("n{i}");
        sent.push(gateway.command(2, channel, &nonce, publish(channel, &text)).await.unwrap());
    }
    assert_eq!(gateway.texts().len(), 50, "each live event comes before its answer");
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    drop((broker, gateway));

    let (broker, running) = run(dir.path()).await;
    let mut gateway = Gateway::open(&broker);
    for (i, change) in sent.iter().enumerate() {
        let text = format!("message {i}");
        let nonce = format!("n{i}");
        let again = gateway.command(2, channel, &nonce, publish(channel, &text)).await.unwrap();
        assert_eq!(again, *change);
    }
    let Ok(Answer::Messages(page)) = gateway.read(3, channel, history()).await else {
        panic!("no page");
    };
    let texts: Vec<_> =
        page.messages.iter().map(|m| m.text.as_ref().unwrap().to_string()).collect();
    assert_eq!(texts, (0..50).map(|i| format!("message {i}")).collect::<Vec<_>>());
    assert_eq!(page.rev, Rev::new(52));
    let events = ReadQuery::Events { after: Rev::ZERO, limit: 1_000 };
    let Ok(Answer::Events(events)) = gateway.read(3, channel, events).await else {
        panic!("no events");
    };
    assert_eq!(
        events.events.iter().map(|e| e.rev.get()).collect::<Vec<_>>(),
        (1..=52).collect::<Vec<_>>()
    );
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}

#[tokio::test]
async fn a_join_reaches_the_users_own_list_and_a_name_finds_its_channel() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, running) = run(dir.path()).await;
    let mut gateway = Gateway::open(&broker);
    let inbox = ChannelId::inbox(UserId::new(2));
    gateway.attach(2, inbox).await.unwrap();
    let channel = ChannelId::created_by(UserId::new(1), "c");
    gateway.command(1, channel, "c", create("General")).await.unwrap();
    let name = ChannelName::parse("gENERAL").unwrap();
    let found = gateway.read(2, channel, ReadQuery::Resolve(name)).await.unwrap();
    assert!(matches!(found, Answer::Resolved(found) if found.channel == channel));
    let taken = ChannelId::created_by(UserId::new(2), "d");
    let refused = gateway.command(2, taken, "d", create("general")).await.unwrap_err();
    assert_eq!(refused.code, chappe_protocol::ErrorCode::NameTaken);

    let joined = gateway.command(2, channel, "j", Action::Join).await.unwrap();
    let added = |heard: &Response| match heard {
        Response::Event { event, .. } => matches!(
            &event.body,
            EventBody::ChannelAdded(body) if body.channel == channel && body.rev == joined.rev
        ),
        _ => false,
    };
    timeout(WAIT, async {
        while !gateway.heard.iter().any(added) {
            let mut batch = Vec::new();
            gateway.responses.recv(&mut batch, 64).await.unwrap();
            gateway.heard.extend(batch);
        }
    })
    .await
    .expect("the inbox hears of it");
    let mark = MarkRead { channel, seq: Seq::new(1) };
    gateway.command(2, inbox, "m", Action::MarkRead(mark)).await.unwrap();
    let mine = ReadQuery::MyChannels { after: None, limit: 10 };
    let Ok(Answer::MyChannels(mine)) = gateway.read(2, inbox, mine).await else {
        panic!("no list");
    };
    assert_eq!(mine.channels.len(), 1);
    assert_eq!((mine.channels[0].channel, mine.channels[0].read), (channel, Seq::new(1)));
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}
