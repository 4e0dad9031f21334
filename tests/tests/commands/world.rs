//! What the cases find: channels of each kind, members and messages.

use std::collections::HashMap;

use chappe_tests::{Client, Server, ServerBuilder, Transport};
use serde_json::{Value, json};

use crate::cases::Case;

/// A server with channels, and the names by which the cases call them.
pub(crate) struct World {
    pub(crate) server: Server,
    names: HashMap<&'static str, Value>,
}

impl World {
    /// Alice owns all channels. Bob is a member of all but `closed`. Carol is a member of none.
    /// In `open` there is a message of Alice's (1), a deleted one (2) and one of Bob's (3).
    pub(crate) async fn new() -> Self {
        Self::with(Server::builder()).await
    }

    /// The same with a line between gateway and broker on which every frame is encoded and
    /// delayed, and one in so many is its pipe's last.
    pub(crate) async fn behind_a_bad_line() -> Self {
        let line = "seed=23,delay_us=300,cut_one_in=60";
        Self::with(Server::builder().env("CHAPPE_TEST_UPLINK", line)).await
    }

    async fn with(server: ServerBuilder) -> Self {
        let server = server.start().await;
        let mut alice = Client::signed_in(&server, Transport::WsJson, "alice").await;
        let mut bob = Client::signed_in(&server, Transport::WsJson, "bob").await;
        let (alice_id, bob_id) = (alice.user(), bob.user());

        let mut names = HashMap::new();
        for (name, kind, members) in [
            ("open", "public", vec![&bob_id]),
            ("closed", "private", vec![]),
            ("archived", "public", vec![&bob_id]),
            ("announce", "announcement", vec![&bob_id]),
            ("direct", "direct", vec![&bob_id]),
            ("group", "group", vec![&bob_id]),
        ] {
            let mut create = json!({"kind": kind, "members": members});
            if !matches!(kind, "direct" | "group") {
                create["name"] = name.into();
            }
            let made = alice.ask(json!({"create_channel": create})).await.unwrap();
            names.insert(name, made["channel"].clone());
        }
        let open = names["open"].clone();
        let publish = |text: &str| json!({"publish": {"channel": open, "text": text}});
        alice.ask(publish("one")).await.unwrap();
        alice.ask(publish("two")).await.unwrap();
        alice.ask(json!({"delete": {"channel": open, "seq": 2}})).await.unwrap();
        bob.ask(publish("three")).await.unwrap();
        let archived = &names["archived"];
        bob.ask(json!({"publish": {"channel": archived, "text": "one"}})).await.unwrap();
        alice.ask(json!({"archive_channel": {"channel": archived}})).await.unwrap();
        names.extend([
            ("alice", alice_id.into()),
            ("bob", bob_id.into()),
            ("x65", "x".repeat(65).into()),
            ("x81", "x".repeat(81).into()),
            ("x251", "x".repeat(251).into()),
            ("x4001", "x".repeat(4_001).into()),
            ("x9000", "x".repeat(9_000).into()),
            ("users51", (1..=51).map(|user| Value::from(user.to_string())).collect()),
            ("users101", (1..=101).map(|user| Value::from(user.to_string())).collect()),
            ("levels13", (0..13).fold(Value::Null, |inner, _| json!([inner]))),
            ("levels20", (0..20).fold(Value::Null, |inner, _| json!([inner]))),
            ("keys65", (0..65).map(|key| (format!("k{key}"), Value::Null)).collect()),
        ]);
        Self { server, names }
    }

    /// The case's frame, without an id.
    pub(crate) fn fill_in(&self, case: &Case) -> Value {
        let frame: Value = serde_json::from_str(case.command)
            .unwrap_or_else(|error| panic!("{error}: {}", case.command));
        self.fill(&frame)
    }

    /// How often the line was cut.
    pub(crate) fn cuts(&self) -> usize {
        self.server.log().matches("the line was cut on purpose").count()
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix('$') {
                Some(name) => self.names[name].clone(),
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.clone(), self.fill(value))).collect()
            }
            scalar => scalar.clone(),
        }
    }
}
