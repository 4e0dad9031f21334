//! One gateway's pipe to a broker, and what it asks in tests. Each test uses a part.
#![allow(dead_code, reason = "each test uses a part")]

use std::time::Duration;

use chappe_broker::LocalBroker;
use chappe_protocol::{
    ChannelId, ChannelName, EventBody, Incarnation, Nonce, Rev, SessionId, Text, UserId,
    command::{CreateChannel, History, Publish},
    message::ChannelKind,
    reply::Change,
};
use chappe_uplink::{
    Action, Answer, Attach, Broker, Caller, Command, Read, ReadQuery, Receiver, Refusal, Request,
    Response, Sender, Standing, Start,
};
use tokio::time::timeout;

pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// One gateway's pipe, and what was heard on it.
pub(crate) struct Gateway {
    requests: Sender<Request>,
    pub(crate) responses: Receiver<Response>,
    pub(crate) heard: Vec<Response>,
    token: u64,
}

impl Gateway {
    pub(crate) fn open(broker: &LocalBroker) -> Self {
        let (requests, responses) = broker.open();
        Self { requests, responses, heard: Vec::new(), token: 0 }
    }

    pub(crate) async fn ask(
        &mut self,
        make: impl FnOnce(u64) -> Request,
    ) -> Result<Answer, Refusal> {
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

    pub(crate) async fn command(
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

    pub(crate) async fn read(
        &mut self,
        user: u64,
        channel: ChannelId,
        query: ReadQuery,
    ) -> Result<Answer, Refusal> {
        let caller = Some(caller(user));
        let read = Read { token: 0, caller, channel, at_least: Rev::ZERO, query };
        self.ask(|token| Request::Read(Read { token, ..read })).await
    }

    pub(crate) async fn attach(&mut self, user: u64, channel: ChannelId) -> Result<Start, Refusal> {
        self.attach_from(user, channel, None).await
    }

    pub(crate) async fn attach_from(
        &mut self,
        user: u64,
        channel: ChannelId,
        from: Option<(Incarnation, Rev)>,
    ) -> Result<Start, Refusal> {
        let caller = Some(caller(user));
        let ask = |token| Request::Attach(Attach { token, channel, caller, from });
        match self.ask(ask).await? {
            Answer::Attached(attached) => Ok(attached.start),
            other => panic!("not an attach: {other:?}"),
        }
    }

    /// The texts of the messages that were heard live, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
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

pub(crate) fn create(name: &str) -> Action {
    Action::Create(CreateChannel {
        kind: ChannelKind::Public,
        name: Some(ChannelName::parse(name).unwrap()),
        topic: None,
        members: Vec::new(),
    })
}

pub(crate) fn publish(channel: ChannelId, text: &str) -> Action {
    Action::Publish(Publish {
        channel,
        text: Some(Text::parse(text).unwrap()),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
    })
}

pub(crate) fn history() -> ReadQuery {
    let channel = ChannelId::new(0);
    let limit = Some(100);
    ReadQuery::Messages(History { channel, before: None, after: None, around: None, limit })
}
