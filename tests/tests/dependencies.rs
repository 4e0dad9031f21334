//! What a process stands on beside itself: tried by `chappe doctor` and over the admin listener,
//! and never in the way of a start.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fs, net::SocketAddr, path::Path, process::Output};

use chappe_tests::{Client, Server, Transport, chappe, fresh, http, services, soon};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::watch,
};

async fn tool(args: &[&str], config: &Path, data: &Path) -> Output {
    let mut command = Command::new(chappe());
    command.args(args).arg("--config").arg(config).env("CHAPPE_DATA", data);
    soon("a tool's end", command.output()).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn dependencies(server: &Server) -> Value {
    let answer = http::get(server.run().admin, "/dependencies").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_alone_keeps_its_files_itself() {
    let server = Server::start().await;
    let tried = dependencies(&server).await;
    assert_eq!(tried.as_array().unwrap().len(), 1, "{tried:#}");
    assert_eq!((&tried[0]["section"], tried[0].get("error")), (&json!("blobs"), None), "{tried:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_tried_with_a_small_object_and_one_that_is_gone_keeps_nobody_from_starting() {
    let url = services::given("S3");
    let line = Line::to(url.trim_start_matches("http://").parse().unwrap()).await;
    let (access, secret) = (services::given("S3_ACCESS_KEY"), services::given("S3_SECRET_KEY"));
    let blobs = [
        ("blobs.kind", "s3".to_owned()),
        ("blobs.url", format!("http://{}", line.address)),
        ("blobs.bucket", fresh("chappe")),
        ("blobs.access_key", access),
        ("blobs.secret_key", secret),
    ];
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("chappe.toml");
    let lines: String = blobs.iter().map(|(key, value)| format!("{key} = '{value}'\n")).collect();
    fs::write(&config, lines).unwrap();

    let missing = tool(&["doctor"], &config, folder.path()).await;
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    let made = tool(&["blobs", "create"], &config, folder.path()).await;
    assert!(made.status.success(), "{made:?}");
    let again = tool(&["blobs", "create"], &config, folder.path()).await;
    assert!(again.status.success(), "{again:?}");
    let doctor = tool(&["doctor"], &config, folder.path()).await;
    let line_of =
        |text: &str| text.lines().find(|line| line.contains("blobs at")).unwrap().to_owned();
    assert!(line_of(&said(&doctor)).starts_with("ok   blobs at http://"), "{}", said(&doctor));
    assert_eq!(doctor.status.code(), Some(0), "{}", said(&doctor));

    line.cut.send_replace(true);
    let doctor = tool(&["doctor"], &config, folder.path()).await;
    assert!(line_of(&said(&doctor)).starts_with("BAD  blobs at"), "{}", said(&doctor));
    assert!(said(&doctor).contains("the blob store is unavailable"), "{}", said(&doctor));
    assert_eq!(doctor.status.code(), Some(1), "{}", said(&doctor));
    // It starts all the same, is ready and takes messages, and says what is missing.
    let plan = blobs
        .iter()
        .fold(Server::builder(), |plan, (key, value)| plan.set(key, format!("'{value}'")));
    let server = plan.start().await;
    let tried = dependencies(&server).await;
    let error = tried[0]["error"].as_str().unwrap();
    assert!(error.contains("the blob store is unavailable"), "{tried:#}");
    assert_eq!(http::get(server.run().admin, "/readyz").await.status, 200);
    let mut alice = Client::signed_in(&server, Transport::WsJson, "alice").await;
    alice.ask(json!({"create_channel": {"kind": "group"}})).await.unwrap();
    line.cut.send_replace(false);
    let tried = dependencies(&server).await;
    assert_eq!(tried[0].get("error"), None, "{tried:#}");
}

/// Between us and the server.
struct Line {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Line {
    async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, watched) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cut = watched.clone();
                tokio::spawn(async move {
                    if *cut.borrow() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(there).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { address, cut }
    }
}
