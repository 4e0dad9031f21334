//! A broken promise is exit status 97, whatever it is, and the report says which.

use crate::{
    command::{Bench, Done},
    proxy::{self, Spoil},
    server::{Fault, Server},
};

const FANOUT: &str = "fanout --users 5 --channels 2 --rate 100/s --for 1s --settle 3s";

async fn spoiled(spoil: Spoil, number: u32) -> Done {
    let server = Server::start(Fault::None).await;
    let url = proxy::start(server.url(), spoil, number).await;
    let done = Bench::new().run(&url, FANOUT).await;
    assert_eq!(done.status, Some(97), "{done:?}");
    done
}

#[tokio::test]
async fn a_dropped_delivery_is_noticed() {
    let done = spoiled(Spoil::Drop, 100).await;
    assert_eq!(done.breaches("gap"), 1, "{}", done.out);
    assert!(done.out.contains("FAILED: a promise was broken"), "{}", done.out);
    assert!(done.out.contains("gap: user "), "{}", done.out);
}

#[tokio::test]
async fn the_dropped_last_delivery_is_noticed() {
    // 100 messages to 5 followers: nothing comes after it that could show the gap.
    let done = spoiled(Spoil::Drop, 500).await;
    assert_eq!(done.breaches("lost"), 1, "{}", done.out);
}

#[tokio::test]
async fn a_repeated_delivery_is_noticed() {
    let done = spoiled(Spoil::Repeat, 100).await;
    assert_eq!(done.breaches("repeated"), 1, "{}", done.out);
}

#[tokio::test]
async fn the_repeated_last_delivery_is_noticed() {
    let done = spoiled(Spoil::Repeat, 500).await;
    assert_eq!(done.breaches("repeated"), 1, "{}", done.out);
}

#[tokio::test]
async fn two_swapped_deliveries_are_noticed() {
    let done = spoiled(Spoil::Swap, 100).await;
    assert_eq!(done.breaches("gap"), 1, "{}", done.out);
}

async fn faulty(fault: Fault, breach: &str) {
    let server = Server::start(fault).await;
    let done = Bench::new().run(&server.url(), &format!("{FANOUT} --verify")).await;
    assert_eq!(done.status, Some(97), "{done:?}");
    assert!(done.breaches(breach) > 0, "{}", done.out);
}

#[tokio::test]
async fn what_is_acknowledged_and_not_stored_is_noticed() {
    faulty(Fault::AcksWithoutStoring, "misplaced").await;
}

#[tokio::test]
async fn what_is_stored_twice_is_noticed() {
    faulty(Fault::StoresTwice, "doubled").await;
}

#[tokio::test]
async fn what_is_refused_and_stored_is_noticed() {
    faulty(Fault::RefusesAndStores, "refused_but_there").await;
}

#[tokio::test]
async fn what_history_does_not_show_is_noticed() {
    faulty(Fault::HidesFromHistory, "not_in_history").await;
}
