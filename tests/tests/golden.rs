//! Replays the golden transcripts of `protocol/golden` against a running server, over WebSocket in
//! both encodings and over QUIC; and again with a line between gateway and broker that encodes,
//! delays and cuts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::Path,
    sync::Arc,
};

use chappe_protocol::UserId;
use chappe_tests::{Client, Encoding, Received, Server, ServerBuilder, Transport, fresh, http};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const API_KEY: &str = "a-back-end-of-the-golden-transcripts";

struct Transcript {
    name: String,
    json: Value,
}

fn read_all() -> Vec<Transcript> {
    let golden = Path::new("../protocol/golden");
    let mut all = Vec::new();
    for folder in ["commands", "errors"] {
        for entry in fs::read_dir(golden.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap());
            let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            all.push(Transcript { name, json });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() > 70, "the transcripts are there");
    all
}

/// Every frame between gateway and broker is encoded and delayed, and one in so many is its pipe's
/// last.
const BAD_LINE: &str = "seed=5,delay_us=300,cut_one_in=60";
/// The same without the cuts, for transcripts with signals: one that was under way at a cut is
/// `unknown` and may be lost, because it is delivered at most once. Everything else is exact, as
/// what was under way is asked again or, if it changes something, sent again by its nonce.
const SLOW_LINE: &str = "seed=5,delay_us=300";

/// What lies between gateway and broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing.
    Direct,
    Bad,
    Slow,
}

impl Line {
    fn server(self) -> ServerBuilder {
        let strain = match self {
            Self::Direct => return Server::builder(),
            Self::Bad => BAD_LINE,
            Self::Slow => SLOW_LINE,
        };
        Server::builder().env("CHAPPE_TEST_UPLINK", strain)
    }

    /// The same line as far as a transcript can be exact over it.
    fn exact_for(self, transcript: &Value) -> Self {
        let sends = |step: &Value, command| step["json"].get(command).is_some();
        let mut steps = transcript["steps"].as_array().unwrap().iter();
        let signals = steps.any(|step| sends(step, "typing") || sends(step, "signal"));
        if self == Self::Bad && signals { Self::Slow } else { self }
    }
}

/// Replays every transcript that a healthy server can be brought to.
async fn replay_all(transport: Transport, line: Line) {
    let shared = Arc::new(line.server().start().await);
    let (mut replayed, mut failed) = (0, Vec::new());
    for Transcript { name, json } in read_all() {
        let elsewhere = transport == Transport::Quic && json.get("transports").is_some();
        if elsewhere || json.get("unprovoked").is_some() {
            continue;
        }
        let exact = line.exact_for(&json);
        let server = match json.get("config") {
            None if exact == line => Arc::clone(&shared),
            None => Arc::new(exact.server().start().await),
            Some(config) => Arc::new(configured(exact.server(), config).start().await),
        };
        // In a task of its own, so that the others go on when one fails.
        let replay = Replay::new(server, transport, &name);
        if tokio::spawn(async move { replay.run(&json).await }).await.is_err() {
            failed.push(name);
        }
        replayed += 1;
    }
    assert!(failed.is_empty(), "over {transport:?} these do not hold: {failed:#?}");
    assert!(replayed > 60, "only {replayed} transcripts were replayed");
    let cuts = shared.log().matches("the line was cut on purpose").count();
    assert_eq!(cuts > 10, line == Line::Bad, "{cuts} cuts over {line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_hold_over_websocket_in_json() {
    replay_all(Transport::WsJson, Line::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_hold_over_websocket_in_messagepack() {
    replay_all(Transport::WsMessagePack, Line::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_hold_over_quic() {
    replay_all(Transport::Quic, Line::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_hold_over_websocket_and_a_bad_line() {
    replay_all(Transport::WsJson, Line::Bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_hold_over_quic_and_a_bad_line() {
    replay_all(Transport::Quic, Line::Bad).await;
}

fn configured(server: ServerBuilder, config: &Value) -> ServerBuilder {
    let settings = config.as_object().unwrap();
    settings.iter().fold(server, |builder, (key, value)| match key.as_str() {
        "api_key" => {
            let digest = Sha256::digest(API_KEY);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            builder.set("auth.api_keys", format!("[{{ name = 'golden', sha256 = '{digest}' }}]"))
        }
        key => builder.set(key, value),
    })
}

struct Replay {
    server: Arc<Server>,
    transport: Transport,
    /// For messages: which transcript, over what.
    name: String,
    actors: HashMap<String, Client>,
    bound: HashMap<String, Value>,
    /// Actors are new users in each replay.
    suffix: String,
}

impl Replay {
    fn new(server: Arc<Server>, transport: Transport, name: &str) -> Self {
        let name = format!("{name} over {transport:?}");
        let (actors, bound) = (HashMap::new(), HashMap::new());
        Self { server, transport, name, actors, bound, suffix: fresh("") }
    }

    async fn run(mut self, transcript: &Value) {
        let mut steps: VecDeque<_> = transcript["steps"].as_array().unwrap().iter().collect();
        while let Some(step) = steps.pop_front() {
            if let Some(actor) = text(step, "connect") {
                self.connect(actor).await;
            } else if let Some(actor) = text(step, "sign_in") {
                self.sign_in(actor).await;
            } else if let Some(actor) = text(step, "from") {
                self.send(actor, step).await;
            } else if text(step, "to").is_some() {
                let mut expected = vec![step];
                while steps.front().is_some_and(|next| text(next, "to").is_some()) {
                    expected.extend(steps.pop_front());
                }
                self.receive(expected).await;
            } else if let Some(actor) = text(step, "closed") {
                let closed = self.actors.get_mut(actor).unwrap().closed().await;
                assert_eq!(closed.map(u64::from), step["code"].as_u64(), "{}", self.name);
                self.actors.remove(actor);
            } else {
                self.request(step).await;
            }
        }
        self.expect_nothing_more().await;
    }

    async fn connect(&mut self, actor: &str) {
        let client = Client::connect(&self.server, self.transport).await;
        self.actors.insert(actor.to_owned(), client);
    }

    async fn sign_in(&mut self, actor: &str) {
        let user = format!("{actor}{}", self.suffix);
        let client = Client::signed_in(&self.server, self.transport, &user).await;
        self.actors.insert(actor.to_owned(), client);
    }

    async fn send(&mut self, actor: &str, step: &Value) {
        let encoding = self.transport.encoding();
        let bytes = match (step.get("json"), encoding) {
            (Some(frame), _) => encoding.write(&self.fill_in(frame)),
            (None, Encoding::Json) => text(step, "raw").unwrap().as_bytes().to_vec(),
            (None, Encoding::MessagePack) => from_hex(text(step, "msgpack").unwrap()),
        };
        self.actors.get_mut(actor).unwrap().send_bytes(bytes).await;
    }

    /// Receives as many frames as are expected. Those of one actor may come in any order.
    async fn receive(&mut self, mut expected: Vec<&Value>) {
        while let Some(first) = expected.first() {
            let actor = text(first, "to").unwrap().to_owned();
            let client = self.actors.get_mut(&actor).unwrap();
            let frame = match client.recv().await {
                Received::Frame(frame) => frame,
                Received::Closed(code) => panic!("{}: closed with {code:?}", self.name),
            };
            let fitting = expected.iter().position(|step| {
                let mut bound = self.bound.clone();
                let fits = text(step, "to") == Some(&actor)
                    && self.unify(&step["json"], &frame, &mut bound);
                if fits {
                    self.bound = bound;
                }
                fits
            });
            match fitting {
                Some(index) => drop(expected.remove(index)),
                None => panic!("{}: expected {} but got {frame}", self.name, first["json"]),
            }
        }
    }

    async fn request(&mut self, step: &Value) {
        let request = &step["http"];
        let put_in = |text: &str| {
            let names = ["user.alice", "token.alice", "api_key", "fill.70000"];
            names.iter().fold(text.to_owned(), |text, name| {
                let value = self.value(name).unwrap();
                text.replace(&format!("${name}"), value.as_str().unwrap())
            })
        };
        let headers = request["headers"].as_object().unwrap().iter();
        let headers: Vec<_> =
            headers.map(|(name, value)| (name.as_str(), put_in(value.as_str().unwrap()))).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = put_in(text(request, "path").unwrap());
        let method = text(request, "method").unwrap();
        let body = put_in(text(request, "body").unwrap_or_default());
        let address = self.server.run().tcp;
        let response = http::request(address, method, &path, &headers, body.as_bytes()).await;
        let expected = &step["response"];
        assert_eq!(Some(u64::from(response.status)), expected["status"].as_u64(), "{}", self.name);
        if let Some(error) = expected["error"].as_object() {
            let problem = response.json();
            let part: Map<_, _> =
                error.keys().map(|key| (key.clone(), problem[key].clone())).collect();
            let mut bound = self.bound.clone();
            let fits = self.unify(&expected["error"], &Value::Object(part), &mut bound);
            assert!(fits, "{}: {problem}", self.name);
        }
    }

    /// Everything that came was expected. (QUIC's lanes have no order with the control stream, so
    /// there it can only be seen of what has come already.)
    async fn expect_nothing_more(&mut self) {
        for (actor, client) in &mut self.actors {
            if !client.hello.is_null() {
                client.send(&json!({"id": 999_999, "ping": {}})).await;
                let _ = client.reply(999_999).await; // whatever it is, it comes last
                assert_eq!(client.left_over(), Vec::<Value>::new(), "{}: {actor}", self.name);
            }
        }
    }

    /// Puts values in the place of `$name`.
    fn fill_in(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => match text.strip_prefix('$') {
                Some(name) => match self.value(name) {
                    Some(value) => {
                        self.bound.insert(name.to_owned(), value.clone());
                        value
                    }
                    None => panic!("{}: ${name} is sent and not known", self.name),
                },
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.fill_in(item)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| (key.clone(), self.fill_in(value))).collect()
            }
            scalar => scalar.clone(),
        }
    }

    /// Whether a value is as expected; names that stood for nothing stand for it from then on.
    fn unify(&self, expected: &Value, value: &Value, bound: &mut HashMap<String, Value>) -> bool {
        match (expected, value) {
            (Value::String(text), value) if text.starts_with('$') => {
                let name = &text[1..];
                match bound.get(name).cloned().or_else(|| self.value(name)) {
                    Some(known) => known == *value,
                    None => {
                        bound.insert(name.to_owned(), value.clone());
                        true
                    }
                }
            }
            (Value::Array(expected), Value::Array(items)) => {
                let mut pairs = expected.iter().zip(items);
                expected.len() == items.len() && pairs.all(|(e, v)| self.unify(e, v, bound))
            }
            (Value::Object(expected), Value::Object(map)) => {
                let mut fields = expected.iter();
                let known = |key: &String| map.get(key).cloned();
                expected.len() == map.len()
                    && fields.all(|(key, e)| known(key).is_some_and(|v| self.unify(e, &v, bound)))
            }
            (expected, value) => expected == value,
        }
    }

    /// What `$name` stands for.
    fn value(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.bound.get(name) {
            return Some(value.clone());
        }
        let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
        let user = format!("{rest}{}", self.suffix);
        Some(match kind {
            "token" => self.server.token(&user).into(),
            "expired" => self.server.expired_token(&user).into(),
            "user" => UserId::of("chappe-dev", &self.server.subject(&user)).to_string().into(),
            "fresh" => fresh(rest).into(),
            "fill" => "x".repeat(rest.parse().unwrap()).into(),
            "many" => {
                (1..=rest.parse::<u32>().unwrap()).map(|id| json!({"id": id.to_string()})).collect()
            }
            "api_key" => API_KEY.into(),
            _ => return None,
        })
    }
}

fn text<'a>(step: &'a Value, key: &str) -> Option<&'a str> {
    step.get(key)?.as_str()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
