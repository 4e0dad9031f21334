//! Runs over restarts of the server, and their ledger afterwards.

use std::time::Duration;

use crate::{
    command::{Bench, Done},
    server::{Fault, Server},
};

/// A run during which the server is gone for a while, and the audit of its ledger.
async fn over_a_restart(fault: Fault) -> (Done, Done) {
    let server = Server::start(fault).await;
    let bench = Bench::new();
    let ledger = bench.path("ledger").display().to_string();
    let words =
        format!("chat --users 10 --channels 3 --rate 300/s --for 2s --settle 5s --ledger {ledger}");
    let run = bench.start(&server.url(), &words);
    published(&server, 200).await;
    let before = server.fall_silent();
    published(&server, before + 10).await;
    server.crash();
    tokio::time::sleep(Duration::from_millis(300)).await; // a restart takes its time
    server.come_back();
    let run = bench.finish(run).await;
    let audit = bench.run(&server.url(), &format!("audit --ledger {ledger}")).await;
    (run, audit)
}

async fn published(server: &Server, count: u64) {
    while server.published() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_restart_is_survived_without_loss() {
    let (run, audit) = over_a_restart(Fault::None).await;
    assert_eq!(run.status, Some(0), "{run:?}");
    let count = |name: &str| run.report["counts"][name].as_u64().unwrap();
    assert!(count("reconnects") >= 10, "{}", run.report["counts"]);
    assert_eq!(count("sent"), count("acked"));

    assert_eq!(audit.status, Some(0), "{audit:?}");
    assert_eq!(audit.report["acked"], count("acked"));
    assert!(count("retried") >= 10, "{}", run.report["counts"]);
    assert_eq!(audit.report["retried"], count("retried"));
    assert_eq!(audit.report["lost"], 0);
}

#[tokio::test]
async fn what_a_restart_loses_is_noticed_in_the_run_and_by_the_ledger() {
    let (run, audit) = over_a_restart(Fault::ForgetsAtRestart).await;
    assert_eq!(run.status, Some(97), "{run:?}");
    assert_eq!(audit.status, Some(97), "{audit:?}");
    assert!(audit.report["lost"].as_u64().unwrap() > 0, "{}", audit.out);
}

#[tokio::test]
async fn a_nonce_that_a_restart_forgets_is_noticed_in_the_run_and_by_the_ledger() {
    let (run, audit) = over_a_restart(Fault::ForgetsNonces).await;
    assert_eq!(run.status, Some(97), "{run:?}");
    assert!(run.breaches("doubled") >= 10, "{}", run.out);
    assert_eq!(audit.status, Some(97), "{audit:?}");
    assert!(audit.report["duplicated"].as_u64().unwrap() >= 10, "{}", audit.out);
}

#[tokio::test]
async fn two_runs_share_a_ledger() {
    let server = Server::start(Fault::None).await;
    let bench = Bench::new();
    let ledger = bench.path("ledger").display().to_string();
    let mut acked = 0;
    for _ in 0..2 {
        let words = format!("chat --users 5 --rate 100/s --for 500ms --ledger {ledger}");
        let run = bench.run(&server.url(), &words).await;
        assert_eq!(run.status, Some(0), "{run:?}");
        acked += run.report["counts"]["acked"].as_u64().unwrap();
    }
    let audit = bench.run(&server.url(), &format!("audit --ledger {ledger}")).await;
    assert_eq!(audit.status, Some(0), "{audit:?}");
    assert_eq!((&audit.report["runs"], &audit.report["acked"]), (&2.into(), &acked.into()));
}
