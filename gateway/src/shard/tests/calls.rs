//! Commands without a connection, as REST brings them.

use std::net::IpAddr;

use chappe_protocol::{Command, Nonce, command, reply::Reply};

use super::{CHANNEL, Rig};
use crate::{frontend::Call, session::Errand, testing};

fn call(token: String, command: impl Into<Command>) -> Errand {
    Errand::Command(Box::new(Call {
        token,
        peer: IpAddr::from([127, 0, 0, 1]),
        nonce: Some(Nonce::parse("key").unwrap()),
        age_ms: 0,
        command: command.into(),
    }))
}

fn publish() -> command::Publish {
    command::Publish {
        channel: CHANNEL,
        text: Some(chappe_protocol::Text::parse("hello").unwrap()),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
    }
}

#[test]
fn a_call_is_answered_like_a_command_and_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    let ada = rig.reader("ada");
    let number = rig.call(call(testing::token("ada"), publish()));
    assert!(matches!(&rig.answers[&number], Ok(Reply::Change(change)) if change.rev.get() == 2));
    assert_eq!(rig.take(ada)[0]["event"]["nonce"], "key");
    let again = rig.call(call(testing::token("ada"), publish()));
    assert_eq!(rig.answers[&again], rig.answers[&number], "the same key, the same answer");
    assert_eq!(rig.shard.session_count(), 1);
}

#[test]
fn a_call_without_a_good_token_or_with_a_sessions_command_is_refused() {
    let mut rig = Rig::new();
    for (token, command, name) in [
        ("nonsense".to_owned(), Command::from(publish()), "token_invalid"),
        (testing::token("ada"), command::Ping {}.into(), "unknown_command"),
    ] {
        let number = rig.call(call(token, command));
        assert_eq!(rig.answers[&number].as_ref().unwrap_err().name, name);
    }
    assert_eq!(rig.shard.session_count(), 0);
}

#[test]
fn a_join_by_call_waits_for_the_inbox_too() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    rig.leader.inboxes_lag = true;
    let join = command::Join { channel: CHANNEL };
    let number = rig.call(call(testing::token("bob"), join));
    assert!(!rig.answers.contains_key(&number));
    rig.leader.inboxes_lag = false;
    rig.pass(1_500);
    assert!(matches!(&rig.answers[&number], Ok(Reply::Change(change)) if change.inbox.is_none()));
}

#[test]
fn only_admins_and_back_ends_close_sessions() {
    let mut rig = Rig::new();
    let ada = rig.client("ada");
    let user = testing::user("ada");
    let number = rig.call(Errand::CloseSessions { token: testing::token("bob"), user });
    assert_eq!(rig.answers[&number].as_ref().unwrap_err().name, "forbidden");
    assert!(!rig.closed.contains_key(&ada));
}

#[test]
fn a_call_whose_answer_never_comes_is_unknown() {
    let mut rig = Rig::new();
    rig.leader.make(CHANNEL, &[testing::user("ada")]);
    rig.leader.silent = true;
    let number = rig.call(call(testing::token("ada"), publish()));
    rig.pass(10_500);
    assert_eq!(rig.answers[&number].as_ref().unwrap_err().name, "unknown");
    assert_eq!(rig.shard.session_count(), 0);
}
