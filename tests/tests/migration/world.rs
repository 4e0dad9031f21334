//! What is moved: channels of several kinds, with everything that can be in them, and how clients
//! see it.

use chappe_tests::{Client, Server, Transport, fresh, soon};
use serde_json::{Value, json};

use crate::place::Place;

/// A server with channels, and what is known of them.
pub(crate) struct World {
    pub(crate) server: Server,
    /// All channels; the first is public and has a name.
    pub(crate) channels: Vec<String>,
    name: String,
    /// The first message that alice published, with its nonce, and what she was told.
    published: (Value, Value),
}

async fn insist(client: &mut Client, command: Value) -> Value {
    client.ask(command.clone()).await.unwrap_or_else(|error| panic!("{command}: {error}"))
}

impl World {
    pub(crate) async fn new(place: &Place) -> Self {
        let server = place.begin().await;
        let mut alice = Client::signed_in(&server, Transport::WsJson, "alice").await;
        let mut bob = Client::signed_in(&server, Transport::Quic, "bob").await;
        let (a, b) = (alice.user(), bob.user());
        let name = fresh("general-");
        let made = json!({"create_channel": {"kind": "public", "name": name, "topic": "all"}});
        let general = insist(&mut alice, made).await["channel"].clone();
        insist(&mut bob, json!({"join": {"channel": general}})).await;
        let mut command =
            json!({"publish": {"channel": general, "text": "first", "mentions": [b]}});
        command["nonce"] = fresh("nonce-").into();
        let answer = insist(&mut alice, command.clone()).await;
        for n in 2..=40 {
            let publish = json!({"publish": {"channel": general, "text": format!("message {n}"),
                "data": {"n": n, "pad": "x".repeat(n * 20)}}});
            insist(if n % 2 == 0 { &mut alice } else { &mut bob }, publish).await;
        }
        insist(&mut alice, json!({"edit": {"channel": general, "seq": 2, "text": "TWO"}})).await;
        insist(&mut bob, json!({"delete": {"channel": general, "seq": 3}})).await;
        for (client, emoji) in [(&mut alice, "👍"), (&mut bob, "🎉")] {
            let react = json!({"react": {"channel": general, "seq": 1, "emoji": emoji}});
            insist(client, react).await;
        }
        insist(&mut bob, json!({"mark_read": {"channel": general, "seq": 17}})).await;
        let direct = json!({"create_channel": {"kind": "direct", "members": [b]}});
        let direct = insist(&mut alice, direct).await["channel"].clone();
        let say = json!({"publish": {"channel": direct, "text": "psst", "mentions": [a]}});
        insist(&mut bob, say).await;
        let mut channels = vec![general, direct];
        for kind in ["private", "announcement", "group"] {
            let mut made = json!({"create_channel": {"kind": kind}});
            if kind != "group" {
                made["create_channel"]["name"] = fresh("other-").into();
            } else {
                made["create_channel"]["members"] = json!([b]);
            }
            let made = insist(&mut alice, made).await["channel"].clone();
            insist(&mut alice, json!({"publish": {"channel": made, "text": kind}})).await;
            channels.push(made);
        }
        let private = channels[2].clone();
        insist(&mut alice, json!({"add_member": {"channel": private, "user": b}})).await;
        insist(&mut alice, json!({"remove_member": {"channel": private, "user": b}})).await;
        let text = |id: &Value| id.as_str().unwrap().to_owned();
        let channels = channels.iter().map(text).collect();
        let world = Self { server, channels, name, published: (command, answer) };
        world.settled().await;
        world
    }

    /// Waits until both inboxes have heard of everything: what was removed last is told last.
    async fn settled(&self) {
        let absent = [&self.channels[2], &self.channels[3]];
        soon("both lists", async {
            for (user, absent) in [("alice", &[][..]), ("bob", &absent[..])] {
                let wanted = self.channels.iter().filter(|id| !absent.contains(id)).count();
                loop {
                    let mut client = Client::signed_in(&self.server, Transport::WsJson, user).await;
                    let mine = insist(&mut client, json!({"list_channels": {}})).await;
                    let listed = mine["channels"].as_array().unwrap();
                    let has = |id: &str| listed.iter().any(|one| one["channel"] == id);
                    if listed.len() == wanted && !absent.iter().any(|id| has(id)) {
                        break;
                    }
                }
            }
        })
        .await;
    }

    /// After a move: a retry meets its result, an old cursor is reset, and numbers go on.
    pub(crate) async fn goes_on(&mut self, incarnation: u64) {
        let general = &self.channels[0];
        let (command, answer) = &self.published;
        let mut alice = Client::signed_in(&self.server, Transport::WsJson, "alice").await;
        assert_eq!(alice.hello["incarnation"], incarnation);
        let mut again = command.clone();
        again["age_ms"] = 60_000.into();
        assert_eq!(insist(&mut alice, again).await, *answer);
        let found =
            insist(&mut alice, json!({"get_channel": {"channel": {"name": self.name}}})).await;
        assert_eq!(found["channel"]["id"], *general, "{found}");
        let taken = json!({"create_channel": {"kind": "public", "name": self.name}});
        assert_eq!(alice.ask(taken).await.unwrap_err()["name"], "name_taken");
        let (rev, seq) = (&found["rev"], &found["seq"]);
        let cursor = json!({"incarnation": incarnation - 1, "channels": [[general, 3]]});
        let mut bob = Client::resumed(&self.server, Transport::Quic, "bob", Some(cursor)).await;
        let reset = bob.find("a reset", |frame| frame.get("reset").is_some()).await;
        assert_eq!(reset["reset"]["incarnation"], incarnation, "{reset}");
        let publish = json!({"publish": {"channel": general, "text": "after"}});
        let next = insist(&mut alice, publish).await;
        assert_eq!(next["rev"].as_u64(), rev.as_u64().map(|rev| rev + 1), "{found}");
        assert_eq!(next["seq"].as_u64(), seq.as_u64().map(|seq| seq + 1), "{found}");
        let heard = |frame: &Value| frame["event"]["rev"] == next["rev"];
        bob.find("what is published after the move", heard).await;
        let mark = json!({"mark_read": {"channel": general, "seq": next["seq"]}});
        insist(&mut bob, mark).await;
    }
}

/// Everything that alice and bob can read.
pub(crate) async fn observe(server: &Server, channels: &[String]) -> Value {
    let mut seen = Vec::new();
    for user in ["alice", "bob"] {
        let mut client = Client::signed_in(server, Transport::WsMessagePack, user).await;
        seen.push(insist(&mut client, json!({"list_channels": {}})).await);
        for id in channels {
            let mut commands = vec![json!({"get_channel": {"channel": {"id": id}}})];
            commands.push(json!({"list_members": {"channel": id}}));
            commands.push(json!({"history": {"channel": id, "limit": 200}}));
            for command in commands {
                seen.push(match client.ask(command).await {
                    Ok(found) => found,
                    Err(refused) => {
                        assert_eq!(refused["name"], "not_found", "{refused}");
                        refused["name"].clone()
                    }
                });
            }
        }
    }
    Value::Array(seen)
}
