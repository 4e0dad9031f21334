//! Processes of several roles, on the same servers.

use std::net::SocketAddr;

use chappe_tests::{Client, Run, Transport, fresh, http, soon, token};
use serde_json::{Value, json};

use crate::{alone, process::Ground};

fn address(run: &Value, name: &str) -> SocketAddr {
    run[name].as_str().unwrap_or_else(|| panic!("{name} in {run}")).parse().unwrap()
}

#[tokio::test]
async fn a_process_of_three_roles_and_one_of_the_fourth_are_one_service() {
    let _alone = alone().await;
    let ground = Ground::made().await;
    let several = ["--role", "broker", "--role", "gateway-ws", "--role", "gateway-http"];
    let secret = ground.folder().join("secret");
    let secret_file = ("AUTH__SECRET_FILE", secret.to_str().unwrap());
    std::fs::write(&secret, [7; 32]).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut first = ground.serve("several", &several, &[secret_file]);
    let run = first.run().await;
    first.says("ready").await;
    assert_eq!(run["uplink"], ground.uplink);
    assert!(run["quic"].is_null(), "it has not that role: {run}");
    let mut second = ground.serve("one", &["--role", "gateway-quic"], &[secret_file]);
    let other = second.run().await;
    second.says("ready").await;
    assert!(other["tcp"].is_null() && other["uplink"].is_null(), "it has not these roles: {other}");

    // Written over WebSocket at one, heard over QUIC at the other, read over HTTP.
    let (tcp, quic) = (address(&run, "tcp"), address(&other, "quic"));
    let fingerprint = other["fingerprint"].as_str().unwrap().to_owned();
    let at = Run { tcp, quic, admin: tcp, fingerprint, pid: 0 };
    let token = token::mint(ground.folder(), "ann");
    let mut writer = Client::connect_to(&at, Transport::WsJson).await;
    writer.sign_in(&token, None).await;
    let create = json!({"create_channel": {"kind": "public", "name": fresh("roles")}});
    let made = writer.ask(create).await.unwrap();
    let channel = made["channel"].as_str().unwrap();
    let mut reader = Client::connect_to(&at, Transport::Quic).await;
    reader.sign_in(&token, None).await;
    let subscribe = json!({"subscribe": {"channels": [{"id": channel.parse::<u64>().unwrap()}]}});
    reader.ask(subscribe).await.unwrap();
    writer.ask(json!({"publish": {"channel": channel, "text": "to all roles"}})).await.unwrap();
    assert_eq!(reader.event().await["body"]["message"]["text"], "to all roles");
    let bearer = format!("Bearer {token}");
    let path = format!("/v1/channels/{channel}/messages");
    let page = http::request(tcp, "GET", &path, &[("authorization", &bearer)], b"").await;
    assert_eq!(page.json()["messages"][0]["text"], "to all roles");
    // What goes from a channel to an inbox goes over the uplink, also to the same process.
    soon("the channel in its author's list", async {
        loop {
            let mine = writer.ask(json!({"list_channels": {}})).await.unwrap();
            if mine["channels"].as_array().unwrap().iter().any(|one| one["channel"] == channel) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    second.stop().await;
    first.stop().await;
}
