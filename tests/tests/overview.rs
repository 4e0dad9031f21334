//! `chappe cluster` on a real cluster: who leads what and who is connected, and what it shows when
//! a broker is gone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{net::SocketAddr, time::Duration};

use chappe_tests::{
    Client, Run, Server, Transport, chappe,
    cluster::{Cluster, Part},
    http, soon, token,
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

/// A broker that was killed is noticed within its session, and others take over.
const SETTLED: Duration = Duration::from_secs(60);

/// What programs are shown, and the exit status.
async fn look(cluster: &Cluster) -> (Value, Option<i32>) {
    let shown = cluster.run(&["cluster", "--json"]).await;
    let report = serde_json::from_slice(&shown.stdout).unwrap();
    (report, shown.status.code())
}

/// Looks until it is as wanted.
async fn until(cluster: &Cluster, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let looking = async {
        loop {
            last = look(cluster).await.0;
            if wanted(&last) {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let seen = timeout(SETTLED, looking).await;
    assert!(seen.is_ok(), "{what}: {last:#}");
    last
}

/// It would take their partitions, and lead none of them for as long as it waits for the others.
async fn nothing_is_exported_beside_brokers(cluster: &Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("export").display().to_string();
    let ended = cluster.run(&["export", "--to", &to]).await;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && said.contains("stop all of them first"), "{said}");
    assert_eq!(look(cluster).await.0["sound"], true, "they lead what they led");
}

fn led_by<'a>(report: &'a Value, address: &str) -> Vec<&'a Value> {
    let partitions = report["partitions"].as_array().unwrap().iter();
    partitions.filter(|of| of["leader"] == address).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_is_shown_as_silent_and_its_partitions_as_led_by_others() {
    let mut cluster = Cluster::plan().start().await;
    let brokers: Vec<String> = {
        let brokers = cluster.of(Part::Broker).into_iter();
        brokers.map(|index| cluster.nodes[index].listen.to_string()).collect()
    };
    let everything = until(&cluster, "everything is led by all three", |report| {
        report["sound"] == true && brokers.iter().all(|one| !led_by(report, one).is_empty())
    });
    let report = everything.await;
    assert_eq!(report["partitions"].as_array().unwrap().len(), 12);
    assert_eq!(report["problems"].as_array().unwrap().len(), 0, "{report:#}");
    let of = |report: &Value, address: &str| -> Value {
        let mut rows = report["brokers"].as_array().unwrap().iter();
        rows.find(|row| row["address"] == address).cloned().unwrap()
    };
    for address in &brokers {
        let row = of(&report, address);
        assert_eq!(row["leads"], led_by(&report, address).len(), "{row:#}");
        assert!(row["up_ms"].as_u64() > Some(0) && row["pipes"].as_u64() > Some(0), "{row:#}");
    }
    for partition in report["partitions"].as_array().unwrap() {
        let number = |name: &str| partition[name].as_u64().unwrap();
        assert_eq!(number("lag"), number("end") - number("checkpoint"), "{partition:#}");
        assert!(partition["generation"].as_str().unwrap().starts_with("1."), "{partition:#}");
    }
    gateways_say_who_they_are(&cluster).await;
    nothing_is_exported_beside_brokers(&cluster).await;

    let victim = cluster.of(Part::Broker)[0];
    cluster.kill(victim).await;
    let report = until(&cluster, "the others lead everything", |report| {
        of(report, &brokers[0])["error"].is_string() && report["sound"] == true
    });
    let report = report.await;
    assert!(led_by(&report, &brokers[0]).is_empty(), "{report:#}");
    assert_eq!(led_by(&report, &brokers[1]).len() + led_by(&report, &brokers[2]).len(), 12);
    let problem = report["problems"][0].as_str().unwrap();
    assert!(problem.starts_with(&format!("broker {} does not answer", brokers[0])), "{problem}");
    let shown = cluster.run(&["cluster"]).await;
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0), "{text}");
    assert!(text.contains("no answer") && text.contains("every partition is led\n"), "{text}");

    for broker in &cluster.of(Part::Broker)[1..] {
        cluster.kill(*broker).await;
    }
    let (report, status) = look(&cluster).await;
    assert_eq!((status, report["sound"].as_bool()), (Some(3), Some(false)), "{report:#}");
}

/// Each of the three gateways is listed with its role, its pipes to all brokers and the connections
/// that it holds.
async fn gateways_say_who_they_are(cluster: &Cluster) {
    let ws = &cluster.nodes[cluster.of(Part::Ws)[0]];
    let port = ws.listen.port();
    let own = |report: &Value| -> Value {
        let rows = report["gateways"].as_array().unwrap().iter();
        let named = |row: &&Value| row["name"].as_str().unwrap().ends_with(&format!(":{port}"));
        rows.clone().find(named).cloned().unwrap_or_default()
    };
    let before = until(cluster, "the gateways are listed", |report| {
        report["gateways"].as_array().unwrap().len() == 3 && report["connections"] == 0
    });
    let before = before.await;
    let mut roles: Vec<_> = before["gateways"].as_array().unwrap().iter().collect();
    roles.sort_by_key(|row| row["roles"].to_string());
    let roles: Vec<_> = roles.iter().map(|row| row["roles"][0].as_str().unwrap()).collect();
    assert_eq!(roles, ["gateway-quic", "gateway-ws", "gateway-ws"]);
    assert!(own(&before)["pipes"].as_u64() >= Some(3), "{before:#}");
    let mut alice = sign_in(cluster, ws.listen, "alice").await;
    until(cluster, "a connection is counted", |report| own(report)["connections"] == 1).await;
    // Who is connected to one gateway is online to those of another.
    let other = cluster.nodes[cluster.of(Part::Ws)[1]].listen;
    let bob = sign_in(cluster, other, "bob").await;
    let seen = async {
        let question = json!({"presence": {"users": [bob.user()]}});
        while alice.ask(question.clone()).await.unwrap()["users"][0]["presence"] != "online" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    soon("bob is online", seen).await;
    bob.close().await;
    alice.close().await;
    until(cluster, "and its end", |report| report["connections"] == 0).await;
}

async fn sign_in(cluster: &Cluster, at: SocketAddr, user: &str) -> Client {
    let run = Run { tcp: at, quic: at, admin: at, fingerprint: String::new(), pid: 0 };
    let mut client = Client::connect_to(&run, Transport::WsJson).await;
    client.sign_in(&token::mint(&cluster.folder(), user), None).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_alone_shows_itself() {
    let server = Server::start().await;
    let alice = Client::signed_in(&server, Transport::Quic, "alice").await;
    let admin = server.run().admin;
    let counted = async {
        while http::get(admin, "/cluster").await.json()["connections"] != 1 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    soon("its connection is counted", counted).await;
    let tool = async |args: &[&str]| {
        let mut command = Command::new(chappe());
        command.arg("cluster").args(args).env_remove("CHAPPE_CONFIG");
        soon("the tool's end", command.output()).await.unwrap()
    };
    let shown = tool(&["--json", "--admin", &admin.to_string()]).await;
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let report: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((report["sound"].as_bool(), report["connections"].as_u64()), (Some(true), Some(1)));
    assert_eq!(led_by(&report, report["brokers"][0]["address"].as_str().unwrap()).len(), 64);
    alice.close().await;
    // It has no uplink, and a configuration that names none is not enough.
    assert_eq!(tool(&[]).await.status.code(), Some(2));
    let nobody = tool(&["--admin", "127.0.0.1:1"]).await;
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
}
