//! Who is connected, as clients ask it.

use std::net::IpAddr;

use chappe_protocol::{
    UserId, command,
    reply::{PresenceState, Reply},
};
use serde_json::json;

use super::Rig;
use crate::{frontend::Call, presence::Found, session::Errand, testing};

const ASK: &str = r#"{"id":5,"presence":{"users":["1","2","1"]}}"#;

#[test]
fn each_user_is_answered_in_the_order_asked() {
    let mut rig = Rig::new();
    let ada = rig.client("ada");
    rig.asked();
    rig.send(ada, ASK);
    let (peer, serial, users) = rig.lookups.pop().expect("it was asked");
    assert_eq!(users, [1, 2, 1].map(UserId::new));
    assert!(rig.asked().is_empty(), "no leader is asked");
    rig.shard.handle_presence(peer, serial, Found::Online(vec![true, false, true]));
    rig.pump();
    let of = |user: &str, presence: &str| json!({"user": user, "presence": presence});
    let users = json!([of("1", "online"), of("2", "offline"), of("1", "online")]);
    assert_eq!(rig.take(ada), [json!({"id": 5, "ok": {"users": users}})]);
}

#[test]
fn what_cannot_be_known_is_unknown_and_what_is_too_much_is_refused() {
    let mut rig = Rig::new();
    let ada = rig.client("ada");
    for (found, code, presence) in [
        (Found::Unknown, json!(null), json!("unknown")),
        (Found::Overloaded, json!(1002), json!(null)),
    ] {
        rig.send(ada, ASK);
        let (peer, serial, _) = rig.lookups.pop().expect("it was asked");
        rig.shard.handle_presence(peer, serial, found);
        rig.pump();
        let reply = rig.take(ada).remove(0);
        assert_eq!(reply["error"]["code"], code, "{reply}");
        assert_eq!(reply["ok"]["users"][1]["presence"], presence, "{reply}");
    }
}

#[test]
fn an_answer_that_never_comes_is_unknown_in_the_end_and_one_for_who_left_is_dropped() {
    let mut rig = Rig::new();
    let (ada, bob) = (rig.client("ada"), rig.client("bob"));
    rig.send(ada, ASK);
    rig.send(bob, ASK);
    let (peer, serial, _) = rig.lookups.pop().expect("bob asked");
    rig.shard.handle_gone(bob);
    rig.shard.handle_presence(peer, serial, Found::Unknown);
    rig.cut_pipe(); // leaders have no part in it
    rig.pass(12_000);
    let reply = rig.take(ada).remove(0);
    assert_eq!(reply["ok"]["users"][0]["presence"], "unknown", "{reply}");
}

#[test]
fn a_call_is_answered_too() {
    let mut rig = Rig::new();
    let users = vec![UserId::new(3)];
    let number = rig.call(Errand::Command(Box::new(Call {
        token: testing::token("ada"),
        peer: IpAddr::from([127, 0, 0, 1]),
        nonce: None,
        age_ms: 0,
        command: command::Presence { users }.into(),
    })));
    let (peer, serial, _) = rig.lookups.pop().expect("it was asked");
    rig.shard.handle_presence(peer, serial, Found::Online(vec![false]));
    rig.pump();
    let Ok(Reply::Presence(reply)) = &rig.answers[&number] else { panic!("an answer") };
    assert_eq!(reply.users[0].presence, PresenceState::Offline);
    assert_eq!(rig.shard.session_count(), 0, "nothing is left behind");
}
