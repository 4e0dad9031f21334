//! The other ways in which a run ends.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    command::Bench,
    server::{Fault, Server},
};

#[tokio::test]
async fn a_server_that_keeps_its_promises_passes() {
    let server = Server::start(Fault::None).await;
    for scenario in ["fanout --users 5 --channels 2", "chat --users 20 --channels 5"] {
        let words = format!(
            "{scenario} --rate 200/s --for 1s --arrivals poisson --verify --assert p99<60s \
             --assert rate>1/s"
        );
        let done = Bench::new().run(&server.url(), &words).await;
        assert_eq!(done.status, Some(0), "{done:?}");
        let counts = &done.report["counts"];
        let sent = counts["sent"].as_u64().unwrap();
        assert!(sent > 100, "{counts}");
        assert_eq!(counts["acked"], sent);
        assert_eq!(counts["planned"], sent);
        assert_eq!(done.report["latency"]["delivery"]["count"], counts["deliveries"]);
        assert_eq!(done.report["audit"]["deliveries_due"], counts["deliveries"]);
        assert_eq!(done.report["latency"]["schedule_lag"]["count"], sent);
        assert_eq!(done.report["verdict"], "passed");
        assert!(done.report["environment"]["cores"].as_u64().unwrap() > 0);
        assert!(!done.report["environment"]["kernel"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_run_with_the_same_seed_finds_what_the_last_one_made() {
    let server = Server::start(Fault::None).await;
    let bench = Bench::new();
    for users in [5, 5, 9] {
        let words = format!("chat --users {users} --channels 3 --rate 50/s --for 500ms --verify");
        let done = bench.run(&server.url(), &words).await;
        assert_eq!(done.status, Some(0), "{done:?}");
    }
}

#[tokio::test]
async fn a_rate_that_is_not_reached_is_98() {
    let server = Server::start(Fault::None).await;
    let words = "fanout --users 2 --rate 1M/s --for 300ms --settle 60s";
    let done = Bench::new().run(&server.url(), words).await;
    assert_eq!(done.status, Some(98), "{done:?}");
    assert!(done.out.contains("INVALID: the figures mean nothing"), "{}", done.out);
    let counts = &done.report["counts"];
    let number = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!(number("planned"), number("sent") + number("withheld") + number("unsent"));
}

#[tokio::test]
async fn a_missed_threshold_is_99() {
    let server = Server::start(Fault::None).await;
    let words = "fanout --users 2 --rate 50/s --for 500ms --assert p99<1us --assert max<1h";
    let done = Bench::new().run(&server.url(), words).await;
    assert_eq!(done.status, Some(99), "{done:?}");
    assert!(done.out.contains("p99<1us: MISSED"), "{}", done.out);
    assert!(done.out.contains("max<1h: met"), "{}", done.out);
}

#[tokio::test]
async fn nobody_there_is_3() {
    let done = Bench::new().run("ws://127.0.0.1:1", "fanout --users 2 --for 1s").await;
    assert_eq!(done.status, Some(3), "{done:?}");
}

#[tokio::test]
async fn wrong_use_is_2() {
    for words in [
        "fanout --rate fast",
        "fanout --channels 1001",
        "fanout --assert speed<1ms",
        "chat --users 0",
        "audit",
    ] {
        let done = Bench::new().run("ws://127.0.0.1:1", words).await;
        assert_eq!(done.status, Some(2), "{words}: {done:?}");
    }
    let done = Bench::new().run("ftp://127.0.0.1:1", "fanout").await;
    assert_eq!(done.status, Some(2), "{done:?}");
}

#[tokio::test]
async fn a_refused_sign_in_is_1_and_says_why() {
    let server = Server::start(Fault::None).await;
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_chappe-load"))
        .args(["fanout", "--users", "2", "--url", &server.url(), "--token", "nonsense"])
        .env_remove("CHAPPE_TOKEN")
        .output();
    let output = child.await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("token_invalid (3003)"), "{err}");
}

#[tokio::test]
async fn an_interrupt_ends_the_run_with_its_summary() {
    let server = Server::start(Fault::None).await;
    let bench = Bench::new();
    let child = bench.start(&server.url(), "fanout --users 2 --rate 50/s --for 1h");
    while server.published() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let done = bench.finish(child).await;
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.out.contains("(interrupted)"), "{}", done.out);
    assert!(done.report["counts"]["acked"].as_u64().unwrap() >= 20);
}
