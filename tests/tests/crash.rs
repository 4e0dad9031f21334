//! `kill -9` under load: whatever was acknowledged is there, once and in order, and nothing that
//! was refused is.
//!
//! Each round kills the server with at least a thousand messages acknowledged and at least one
//! under way, starts it again on the same data, lets the load come back, and audits the channel's
//! history against the generator's ledger. Three rounds; `CHAPPE_CRASH_ROUNDS` for more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{collections::HashSet, fs, path::Path, time::Duration};

use chappe_tests::{Server, chappe_load, soon};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

const ACKED_MIN: usize = 1_000;
/// How often the ledger is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Long enough for the generator to come back, send again and audit.
const ROUND_TIMEOUT: Duration = Duration::from_secs(120);

/// What a ledger says so far.
#[derive(Default)]
struct Ledger {
    acked: usize,
    /// Sent, and without an answer.
    under_way: usize,
}

fn read(path: &Path) -> Ledger {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut ledger = Ledger::default();
    let mut open = HashSet::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let nonce = line["nonce"].as_str().unwrap_or_default().to_owned();
        match line["is"].as_str() {
            Some("sent") => drop(open.insert(nonce)),
            Some("acked") => {
                ledger.acked += 1;
                open.remove(&nonce);
            }
            _ => drop(open.remove(&nonce)),
        }
    }
    ledger.under_way = open.len();
    ledger
}

/// Waits until a ledger says so.
async fn seen(ledger: &Path, what: &str, enough: impl Fn(&Ledger) -> bool) -> Ledger {
    soon(what, async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let seen = read(ledger);
            if enough(&seen) {
                break seen;
            }
        }
    })
    .await
}

fn load(server: &Server, ledger: &Path, seed: u32) -> Child {
    let quic = seed % 2 == 1;
    let run = server.run();
    let mut command = Command::new(chappe_load());
    command.args(["chat", "--users", "16", "--channels", "4", "--rate", "800/s", "--for", "5s"]);
    command.args(["--deadline", "60s", "--settle", "30s", "--lag-max", "10s", "--verify"]);
    command.args(["--seed", &seed.to_string()]);
    command.arg("--ledger").arg(ledger);
    command.arg("--secret").arg(server.data().join("secret"));
    if quic {
        command.args(["--url", &format!("quic://{}", run.quic)]);
        command.args(["--fingerprint", &run.fingerprint]);
    } else {
        command.args(["--url", &format!("ws://{}", run.tcp)]);
    }
    command.kill_on_drop(true).spawn().unwrap()
}

/// The ledger against the server: what `chappe-load audit` finds.
async fn audit(server: &Server, ledger: &Path, json: &Path) -> Value {
    let mut command = Command::new(chappe_load());
    command.arg("audit").arg("--ledger").arg(ledger).arg("--json").arg(json);
    command.arg("--secret").arg(server.data().join("secret"));
    command.args(["--url", &format!("ws://{}", server.run().tcp)]);
    let status = command.status().await.unwrap();
    let totals = fs::read(json).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    assert!(status.success(), "the audit failed: {totals:?}");
    totals.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_survives_kill_9_under_load() {
    let rounds = std::env::var("CHAPPE_CRASH_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    let mut server = Server::builder().set("log.segment_bytes", "\"4MiB\"").start().await;
    let folder = tempfile::tempdir().unwrap();
    let (mut acked, mut unknown, mut retried) = (0, 0, 0);
    for round in 0..rounds {
        let ledger = folder.path().join(format!("ledger-{round}"));
        let mut load = load(&server, &ledger, round);
        seen(&ledger, "a thousand acknowledgements", |ledger| ledger.acked >= ACKED_MIN).await;
        // Frozen wherever it is, and killed there, once something waits for its answer: as fast as
        // it answers, a look would seldom find anything under way.
        server.signal(Signal::STOP);
        let at_kill = seen(&ledger, "a command under way", |ledger| ledger.under_way > 0).await;
        server.restart().await;
        let ended = tokio::time::timeout(ROUND_TIMEOUT, load.wait()).await;
        let status = ended.expect("the load comes back and ends").unwrap();
        // 98 says that the machine was too busy for the schedule: its latencies mean nothing, and
        // its audit, which was clean, still does.
        let clean = matches!(status.code(), Some(0 | 98));
        assert!(clean, "round {round}: the load's own audit: {status}");
        let totals = audit(&server, &ledger, &folder.path().join("audit.json")).await;
        let total = |name: &str| totals[name].as_u64().unwrap();
        assert!(total("acked") > at_kill.acked as u64, "round {round}: the load came back");
        for never in ["lost", "duplicated", "misplaced", "reordered", "refused_but_there"] {
            assert_eq!(total(never), 0, "round {round}: {never}: {totals}");
        }
        println!(
            "round {round}: {} acked before the kill and {} without an answer; then {} acked, {} \
             sent again",
            at_kill.acked,
            at_kill.under_way,
            total("acked"),
            total("retried"),
        );
        acked += total("acked");
        unknown += at_kill.under_way as u64;
        retried += total("retried");
    }
    println!("{rounds} rounds: {acked} acked, {unknown} unknown at the kill, {retried} retried");
    assert!(acked > 0 && unknown > 0 && retried > 0, "a round without doubt proves nothing");
}
