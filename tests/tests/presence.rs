//! Who is connected, as clients are told: over every frontend, and while Redis is gone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chappe_tests::{Client, Server, Transport, http, services, soon};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

/// A question is answered within a second; a busy machine gets as much again.
const BOUND: Duration = Duration::from_secs(2);

/// What one user is said to be.
async fn presence(client: &mut Client, user: &str) -> String {
    let asked = client.ask(json!({"presence": {"users": [user]}})).await.unwrap();
    assert_eq!(asked["users"][0]["user"], user, "{asked}");
    asked["users"][0]["presence"].as_str().unwrap().to_owned()
}

async fn until(client: &mut Client, user: &str, wanted: &str) {
    let asking = async {
        while presence(client, user).await != wanted {
            sleep(Duration::from_millis(50)).await;
        }
    };
    soon(wanted, asking).await;
}

/// The same over REST.
async fn presence_by_rest(server: &Server, users: &[&str]) -> Value {
    let mut connection = http::Connection::open(server.run().tcp).await;
    let token = format!("Bearer {}", server.token("alice"));
    let path = format!("/v1/presence?users={}", users.join(","));
    let answer = connection.request("GET", &path, &[("authorization", &token)], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["users"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_is_online_and_who_goes_is_offline_over_every_frontend() {
    let server = Server::start().await;
    for transport in Transport::ALL {
        let mut alice = Client::signed_in(&server, transport, "alice").await;
        let name = format!("bob-{transport:?}");
        let bob = Client::signed_in(&server, transport, &name).await;
        let user = bob.user();
        until(&mut alice, &user, "online").await;
        let told = presence_by_rest(&server, &["1", &user]).await;
        let of = |user: &str, presence: &str| json!({"user": user, "presence": presence});
        assert_eq!(told, json!([of("1", "offline"), of(&user, "online")]));
        bob.close().await;
        until(&mut alice, &user, "offline").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_presence_is_unknown_in_time_and_messages_go_on() {
    let redis = services::given("REDIS");
    let line = Line::to(redis.trim_start_matches("redis://").parse().unwrap()).await;
    let server = Server::builder()
        .set("presence.kind", "'redis'")
        .set("presence.url", format!("'redis://{}'", line.address))
        .start()
        .await;
    let mut alice = Client::signed_in(&server, Transport::WsJson, "alice").await;
    let bob = Client::signed_in(&server, Transport::Quic, "bob").await;
    let user = bob.user();
    let made = alice.ask(json!({"create_channel": {"kind": "group"}})).await.unwrap();
    let channel = made["channel"].clone();
    until(&mut alice, &user, "online").await;
    for gone in [State::Cut, State::Frozen] {
        let failures = server.metric("chappe_gateway_presence_failures_total").await;
        line.state.send_replace(gone);
        let begun = Instant::now();
        assert_eq!(presence(&mut alice, &user).await, "unknown", "{gone:?}");
        assert!(begun.elapsed() < BOUND, "{gone:?}: {:?}", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..20 {
            assert_eq!(presence(&mut alice, &user).await, "unknown", "{gone:?}");
            let text = json!({"publish": {"channel": channel, "text": "and yet"}});
            alice.ask(text).await.unwrap();
        }
        let told = presence_by_rest(&server, &[&user]).await;
        assert_eq!(told[0]["presence"], "unknown", "{gone:?}");
        // Twenty that each waited for a dead server would take longer.
        assert!(begun.elapsed() < 4 * BOUND, "{gone:?}: {:?}", begun.elapsed());
        assert!(server.metric("chappe_gateway_presence_failures_total").await > failures);
        assert_eq!(http::get(server.run().admin, "/readyz").await.status, 200);
        line.state.send_replace(State::Open);
        until(&mut alice, &user, "online").await;
    }
    bob.close().await;
    until(&mut alice, &user, "offline").await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections end, and none is let through.
    Cut,
    /// They stay, and nothing comes through.
    Frozen,
}

/// Between the server and Redis.
struct Line {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Line {
    async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, there, watched.clone()));
            }
        });
        Self { address, state }
    }
}

/// Forwards while the line is open. What was interrupted is never taken up again.
async fn forward(mut client: TcpStream, there: SocketAddr, mut state: watch::Receiver<State>) {
    if *state.borrow() == State::Open {
        let Ok(mut server) = TcpStream::connect(there).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            _ = state.wait_for(|state| *state != State::Open) => {}
        }
    }
    let _ = state.wait_for(|state| *state != State::Frozen).await;
}
