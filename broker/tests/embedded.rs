//! The broker on the real embedded log and store: what it promises holds across a restart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod gateway;

use std::{path::Path, sync::Arc};

use chappe_broker::{Config, LocalBroker, Parts, Running, start};
use chappe_protocol::{ChannelId, ChannelName, EventBody, Rev, Seq, UserId, command::MarkRead};
use chappe_storage::{
    log::segment::{SegmentConfig, SegmentLog},
    store::lsm::LsmStore,
};
use chappe_uplink::{Action, Answer, ReadQuery, Response, Start};
use tokio::time::timeout;

use gateway::{Gateway, WAIT, create, history, publish};

const PARTITIONS: u32 = 4;

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
