//! What the Redis backend adds to the port's promises: several processes, a server that goes and
//! comes back, answers that are lost, and nothing left behind.

use std::time::Instant;

use super::*;
use crate::presence::conformance::Subject;
use crate::servers::{Relay, eventually, given, unique};

const GATEWAY: GatewayId = GatewayId(7);
const TTL: Duration = Duration::from_secs(60);
/// The time of a call where the server is to fail, and what may come on top of it.
const CALL: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(5);

struct RedisSubject {
    presence: RedisPresence,
    prefix: String,
}

impl Subject for RedisSubject {
    type Presence = RedisPresence;

    const TTL: Duration = TTL;

    async fn new() -> Self {
        let prefix = format!("chappe-test-{}", unique());
        Self { presence: process(&given("REDIS"), &prefix), prefix }
    }

    fn presence(&self) -> &RedisPresence {
        &self.presence
    }

    /// Moves all ends nearer: what the server's clock would do in that time, without the wait.
    async fn pass(&self, time: Duration) {
        let script = Script::new(
            "for _, gateway in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
                local ends = redis.call('ZINCRBY', KEYS[1], -ARGV[1], gateway)
                for _, key in ipairs({ ARGV[2] .. ':lease:', ARGV[2] .. ':users:' }) do
                    redis.call('PEXPIREAT', key .. gateway, string.format('%.0f', ends))
                end
            end",
        );
        let mut server = server().await;
        let mut pass = script.key(self.presence.leases_key());
        pass.arg(time.as_millis() as u64).arg(&self.presence.prefix);
        pass.invoke_async::<()>(&mut server).await.unwrap();
    }
}

crate::presence_conformance!(RedisSubject);

/// A process of the cluster.
fn process(url: &str, prefix: &str) -> RedisPresence {
    let options = RedisOptions { prefix: prefix.to_owned(), ..RedisOptions::at(url) };
    // Long enough for a machine that is busy.
    RedisPresence::new(RedisOptions { call: Duration::from_secs(20), ..options }).unwrap()
}

async fn server() -> MultiplexedConnection {
    let client = redis::Client::open(given("REDIS")).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn keys(prefix: &str) -> Vec<String> {
    let pattern = format!("{{{prefix}}}*");
    redis::cmd("KEYS").arg(pattern).query_async(&mut server().await).await.unwrap()
}

fn users(ids: std::ops::Range<u64>) -> Vec<UserId> {
    ids.map(UserId::new).collect()
}

/// A process behind a relay, with a short time for its calls, and a gateway with a user.
async fn behind_a_relay() -> (RedisPresence, Relay) {
    let url = given("REDIS");
    let relay = Relay::to(url.trim_start_matches("redis://")).await;
    let options = RedisOptions {
        prefix: format!("chappe-test-{}", unique()),
        call: CALL,
        ..RedisOptions::at(format!("redis://{}", relay.address()))
    };
    let presence = RedisPresence::new(options).unwrap();
    eventually("a lease", async || presence.renew(GATEWAY, TTL).await.is_ok()).await;
    eventually("a user", async || presence.update(GATEWAY, &users(1..2), &[]).await.is_ok()).await;
    (presence, relay)
}

/// Every call fails, each in its time.
async fn assert_unavailable(presence: &RedisPresence) {
    let begin = Instant::now();
    presence.renew(GATEWAY, TTL).await.unwrap_err();
    presence.update(GATEWAY, &users(2..3), &[]).await.unwrap_err();
    presence.online(&users(1..2)).await.unwrap_err();
    presence.changes(GATEWAY, &users(1..2)).await.unwrap_err();
    presence.end(GATEWAY).await.unwrap_err();
    presence.check().await.unwrap_err();
    assert!(begin.elapsed() < 6 * CALL + SLACK, "{:?}", begin.elapsed());
}

async fn assert_all_as_before(presence: &RedisPresence) {
    eventually("the server is reached again", async || presence.check().await.is_ok()).await;
    assert_eq!(presence.renew(GATEWAY, TTL).await, Ok(true));
    assert_eq!(presence.online(&users(1..3)).await, Ok(vec![true, false]));
}

#[tokio::test]
async fn calls_fail_while_redis_is_gone_and_work_again_when_it_is_back() {
    let (presence, relay) = behind_a_relay().await;
    for _ in 0..2 {
        relay.cut();
        assert_unavailable(&presence).await;
        relay.restore();
        assert_all_as_before(&presence).await;
    }
}

/// Its network swallows everything: the connection looks alive, and is given up all the same.
#[tokio::test]
async fn calls_fail_in_time_while_redis_hangs_and_work_again_when_it_does_not() {
    let (presence, relay) = behind_a_relay().await;
    relay.freeze();
    assert_unavailable(&presence).await;
    relay.restore();
    assert_all_as_before(&presence).await;
}

/// The server has begun a lease without users, and nobody was told: to whoever holds the one before
/// it, it must not look as if he held it still.
#[tokio::test]
async fn a_lease_whose_beginning_was_not_answered_begins_again() {
    let (presence, relay) = behind_a_relay().await;
    let key = presence.lease_key(GATEWAY);
    let stored = async || -> Option<u64> {
        redis::cmd("GET").arg(&key).query_async(&mut server().await).await.unwrap()
    };
    let mut ended = server().await;
    redis::cmd("DEL")
        .arg(&[&key, &presence.users_key(GATEWAY.0)])
        .exec_async(&mut ended)
        .await
        .unwrap();
    relay.mute();
    presence.renew(GATEWAY, TTL).await.unwrap_err();
    assert!(stored().await.is_some(), "the server was asked");
    relay.restore();
    eventually("the server is reached again", async || presence.check().await.is_ok()).await;
    presence.update(GATEWAY, &users(1..2), &[]).await.unwrap_err();
    assert_eq!(presence.renew(GATEWAY, TTL).await, Ok(false));
    presence.update(GATEWAY, &users(1..2), &[]).await.unwrap();
    assert_eq!(presence.renew(GATEWAY, TTL).await, Ok(true));
    assert_eq!(presence.online(&users(1..2)).await, Ok(vec![true]));
}

#[tokio::test]
async fn a_lease_ends_by_the_clock_of_the_server() {
    let RedisSubject { presence, prefix } = RedisSubject::new().await;
    presence.renew(GATEWAY, Duration::from_millis(300)).await.unwrap();
    presence.update(GATEWAY, &users(1..2), &[]).await.unwrap();
    let offline = async || presence.online(&users(1..2)).await == Ok(vec![false]);
    eventually("the lease ends", offline).await;
    eventually("nothing is left of it", async || keys(&prefix).await.is_empty()).await;
    assert_eq!(presence.renew(GATEWAY, TTL).await, Ok(false));
}

#[tokio::test]
async fn processes_see_each_others_users() {
    let RedisSubject { presence: one, prefix } = RedisSubject::new().await;
    let two = process(&given("REDIS"), &prefix);
    let other = GatewayId(8);
    one.renew(GATEWAY, TTL).await.unwrap();
    assert_eq!(one.changes(GATEWAY, &users(1..2)).await, Ok(Vec::new()));
    // A gateway that the first process has never heard of.
    two.renew(other, TTL).await.unwrap();
    two.update(other, &users(1..2), &[]).await.unwrap();
    let told = PresenceChange { user: UserId::new(1), online: true };
    assert_eq!(one.changes(GATEWAY, &users(1..2)).await, Ok(vec![told]));
    // A lease is of the process that began it.
    two.update(GATEWAY, &users(2..3), &[]).await.unwrap_err();
    two.changes(GATEWAY, &users(1..2)).await.unwrap_err();
    two.end(other).await.unwrap();
    let told = PresenceChange { user: UserId::new(1), online: false };
    assert_eq!(one.changes(GATEWAY, &users(1..2)).await, Ok(vec![told]));
}

#[tokio::test]
async fn prefixes_are_apart() {
    let (one, two) = (RedisSubject::new().await, RedisSubject::new().await);
    one.presence.renew(GATEWAY, TTL).await.unwrap();
    one.presence.update(GATEWAY, &users(1..2), &[]).await.unwrap();
    assert_eq!(two.presence.online(&users(1..2)).await, Ok(vec![false]));
    assert_eq!(two.presence.renew(GATEWAY, TTL).await, Ok(false));
}

/// More than one script call, and more than one part within a script, can take.
#[tokio::test]
async fn many_users_come_and_go_at_once() {
    let RedisSubject { presence, .. } = RedisSubject::new().await;
    presence.renew(GATEWAY, TTL).await.unwrap();
    presence.changes(GATEWAY, &users(0..20_000)).await.unwrap();
    presence.update(GATEWAY, &users(0..12_001), &[]).await.unwrap();
    presence.update(GATEWAY, &users(15_000..20_000), &users(0..10_001)).await.unwrap();
    let online = presence.online(&users(0..20_000)).await.unwrap();
    for (user, online) in (0..).zip(online) {
        assert_eq!(online, (10_001..12_001).contains(&user) || user >= 15_000, "{user}");
    }
    let told = presence.changes(GATEWAY, &users(0..20_000)).await.unwrap();
    assert!(told.iter().all(|change| change.online), "the others were undone");
    assert_eq!(told.len(), 7_000);
}

#[tokio::test]
async fn nothing_is_kept_of_a_gateway_that_ended() {
    let RedisSubject { presence, prefix } = RedisSubject::new().await;
    presence.renew(GATEWAY, TTL).await.unwrap();
    presence.update(GATEWAY, &users(1..3), &[]).await.unwrap();
    assert_eq!(keys(&prefix).await.len(), 3);
    presence.end(GATEWAY).await.unwrap();
    assert_eq!(keys(&prefix).await, [""; 0]);
    assert!(lock(&presence.leases).is_empty());
}

async fn limited() -> RedisPresence {
    let limits =
        PresenceLimits { gateways_max: 2, users_per_gateway_max: 3, watched_per_gateway_max: 3 };
    let presence = RedisPresence { limits, ..RedisSubject::new().await.presence };
    presence.renew(GATEWAY, TTL).await.unwrap();
    presence
}

#[tokio::test]
async fn an_update_beyond_the_limit_is_refused_and_changes_nothing() {
    let presence = limited().await;
    presence.update(GATEWAY, &users(0..2), &[]).await.unwrap();
    let refused = presence.update(GATEWAY, &users(2..5), &users(0..1)).await;
    assert_eq!(refused, Err(PresenceError("more than 3 users of one gateway".to_owned())));
    let online = presence.online(&users(0..5)).await;
    assert_eq!(online, Ok(vec![true, true, false, false, false]));
    // What leaves makes room, and who is there already takes none.
    presence.update(GATEWAY, &users(1..4), &users(0..1)).await.unwrap();
    let online = presence.online(&users(0..5)).await;
    assert_eq!(online, Ok(vec![false, true, true, true, false]));
}

#[tokio::test]
async fn gateways_and_watches_beyond_the_limit_are_refused() {
    let presence = limited().await;
    presence.renew(GatewayId(8), TTL).await.unwrap();
    let refused = presence.renew(GatewayId(9), TTL).await;
    assert_eq!(refused, Err(PresenceError("more than 2 gateways".to_owned())));
    assert_eq!(presence.renew(GATEWAY, TTL).await, Ok(true));
    presence.end(GatewayId(8)).await.unwrap();
    assert_eq!(presence.renew(GatewayId(9), TTL).await, Ok(false));
    assert_eq!(presence.changes(GATEWAY, &users(0..3)).await, Ok(Vec::new()));
    presence.changes(GATEWAY, &users(0..4)).await.unwrap_err();
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_does_not_show_it() {
    let url = given("REDIS").replacen("redis://", "redis://somebody:sesame@", 1);
    let presence = process(&url, "chappe-test");
    let error = presence.check().await.unwrap_err();
    assert!(!error.to_string().contains("sesame"), "{error}");
    assert!(!format!("{presence:?}").contains("sesame"));
}

#[test]
fn another_address_is_refused() {
    for url in ["", "127.0.0.1:6379", "http://127.0.0.1:6379"] {
        let refused = RedisPresence::new(RedisOptions::at(url));
        assert_eq!(refused.unwrap_err(), RedisOptionsError::Url, "{url}");
    }
}
