//! What a process says and does when it starts and something is not there, or not as it must be.

use chappe_tests::{http, services};

use crate::{
    alone,
    process::{Ground, nowhere},
};

const NO_WAIT: (&str, &str) = ("BROKER__WAIT", "0s");
const BROKER: [&str; 2] = ["--role", "broker"];

/// It ends with status 1, and one line says all of this.
async fn ends_saying(ground: &Ground, settings: &[(&str, &str)], wanted: &[&str]) {
    let mut process = ground.serve("ends", &BROKER, settings);
    let status = process.ended().await;
    let said = process.said();
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.trim_end().lines().last().unwrap_or_default();
    for wanted in wanted {
        assert!(last.contains(wanted), "{wanted:?} is not in the last line of\n{said}");
    }
}

#[tokio::test]
async fn a_log_or_a_store_that_is_not_reached_is_named_with_its_address_and_the_reason() {
    let _alone = alone().await;
    let ground = Ground::made().await;
    let kafka = nowhere();
    ends_saying(&ground, &[NO_WAIT, ("LOG__BROKERS", &kafka)], &["Kafka", &kafka, "refused"]).await;
    let store = nowhere();
    ends_saying(&ground, &[NO_WAIT, ("STORE__NODES", &store)], &["store", &store, "refused"]).await;
    let store = services::given("CQL");
    ends_saying(&ground, &[NO_WAIT, ("STORE__PASSWORD", "wrong")], &[&store, "password"]).await;
}

#[tokio::test]
async fn what_waiting_does_not_mend_ends_it_at_once_with_the_command_that_does() {
    let _alone = alone().await;
    let bare = Ground::bare();
    ends_saying(&bare, &[], &["chappe log create"]).await;
    bare.tool(&["schema", "apply", "--replicas", "1"]).await;
    bare.tool(&["log", "create"]).await;
    ends_saying(&bare, &[("LOG__PARTITIONS", "5")], &["4 partitions", "5"]).await;
    ends_saying(&bare, &[("STORE__KEYSPACE", "chappe_nobody_made")], &["chappe schema apply"])
        .await;
}

#[tokio::test]
async fn a_store_that_comes_later_is_waited_for() {
    let _alone = alone().await;
    let ground = Ground::made().await;
    let paused = services::pause("cql", &["1"]).await;
    let mut process = ground.serve("waits", &BROKER, &[]);
    process.says("trying again in").await;
    let said = process.said();
    paused.resume();
    assert!(said.contains(&services::given("CQL")), "{said}");
    process.run().await;
    process.says("ready").await;
    process.stop().await;
}

#[tokio::test]
async fn a_gateway_starts_without_presence_and_without_brokers() {
    let _alone = alone().await;
    let ground = Ground::bare();
    let redis = format!("redis://{}", nowhere());
    let settings = [("PRESENCE__URL", &*redis), ("UPLINK__BROKERS", &nowhere())];
    let mut process = ground.serve("alone", &["--role", "gateway-ws"], &settings);
    let admin = process.run().await["admin"].as_str().unwrap().parse().unwrap();
    process.says("ready").await;
    assert_eq!(http::get(admin, "/readyz").await.status, 200);
    process.stop().await;
}
