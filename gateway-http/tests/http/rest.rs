//! Routes, statuses and bodies, against a kernel that notes what it is asked.

use chappe_gateway_http::routes::{ROUTES, Verb};
use chappe_protocol::{
    Command, ErrorCode, WireError,
    reply::{ChannelsReply, Reply},
};

use crate::{Server, kernel::FakeKernel, request};

/// Every route once: a request, and the command that reaches the kernel.
const CALLS: &[(&str, &str, Option<&str>, u16, &str)] = &[
    ("GET", "/v1/channels", None, 200, r#"{"list_channels":{}}"#),
    (
        "GET",
        "/v1/channels?after=4&limit=9",
        None,
        200,
        r#"{"list_channels":{"after":"4","limit":9}}"#,
    ),
    (
        "GET",
        "/v1/channels?name=g%C3%A9n%22ral",
        None,
        200,
        r#"{"get_channel":{"channel":{"name":"gén\"ral"}}}"#,
    ),
    (
        "POST",
        "/v1/channels",
        Some(r#"{"kind":"public","name":"general"}"#),
        201,
        r#"{"create_channel":{"kind":"public","name":"general"}}"#,
    ),
    ("GET", "/v1/channels/7", None, 200, r#"{"get_channel":{"channel":{"id":"7"}}}"#),
    (
        "PATCH",
        "/v1/channels/7",
        Some(r#"{"topic":""}"#),
        200,
        r#"{"update_channel":{"channel":"7","topic":""}}"#,
    ),
    ("DELETE", "/v1/channels/7", None, 200, r#"{"delete_channel":{"channel":"7"}}"#),
    ("PUT", "/v1/channels/7/archive", None, 200, r#"{"archive_channel":{"channel":"7"}}"#),
    ("DELETE", "/v1/channels/7/archive", None, 200, r#"{"unarchive_channel":{"channel":"7"}}"#),
    (
        "GET",
        "/v1/channels/7/members?limit=3",
        None,
        200,
        r#"{"list_members":{"channel":"7","limit":3}}"#,
    ),
    ("GET", "/v1/presence?users=8,9%2C8", None, 200, r#"{"presence":{"users":["8","9","8"]}}"#),
    ("PUT", "/v1/channels/7/members/@me", None, 200, r#"{"join":{"channel":"7"}}"#),
    ("DELETE", "/v1/channels/7/members/@me", None, 200, r#"{"leave":{"channel":"7"}}"#),
    ("PUT", "/v1/channels/7/members/8", None, 200, r#"{"add_member":{"channel":"7","user":"8"}}"#),
    (
        "PUT",
        "/v1/channels/7/members/8",
        Some(r#"{"role":"admin"}"#),
        200,
        r#"{"add_member":{"channel":"7","user":"8","role":"admin"}}"#,
    ),
    (
        "PATCH",
        "/v1/channels/7/members/8",
        Some(r#"{"role":"moderator"}"#),
        200,
        r#"{"set_role":{"channel":"7","user":"8","role":"moderator"}}"#,
    ),
    (
        "DELETE",
        "/v1/channels/7/members/8",
        None,
        200,
        r#"{"remove_member":{"channel":"7","user":"8"}}"#,
    ),
    (
        "GET",
        "/v1/channels/7/messages?before=40&limit=2",
        None,
        200,
        r#"{"history":{"channel":"7","before":40,"limit":2}}"#,
    ),
    (
        "POST",
        "/v1/channels/7/messages",
        Some(r#"{"text":"hi","mentions":["8"],"later":[[1]]}"#),
        201,
        r#"{"publish":{"channel":"7","text":"hi","mentions":["8"]}}"#,
    ),
    (
        "PATCH",
        "/v1/channels/7/messages/3",
        Some(r#"{"text":"ho"}"#),
        200,
        r#"{"edit":{"channel":"7","seq":3,"text":"ho"}}"#,
    ),
    ("DELETE", "/v1/channels/7/messages/3", None, 200, r#"{"delete":{"channel":"7","seq":3}}"#),
    (
        "PUT",
        "/v1/channels/7/messages/3/reactions/%F0%9F%91%8D/@me",
        None,
        200,
        r#"{"react":{"channel":"7","seq":3,"emoji":"👍"}}"#,
    ),
    (
        "DELETE",
        "/v1/channels/7/messages/3/reactions/+1/@me",
        None,
        200,
        r#"{"unreact":{"channel":"7","seq":3,"emoji":"+1"}}"#,
    ),
    (
        "PUT",
        "/v1/channels/7/read",
        Some(r#"{"seq":3}"#),
        200,
        r#"{"mark_read":{"channel":"7","seq":3}}"#,
    ),
    ("POST", "/v1/channels/7/typing", None, 204, r#"{"typing":{"channel":"7"}}"#),
    (
        "POST",
        "/v1/channels/7/signals",
        Some(r#"{"data":{"x":1}}"#),
        204,
        r#"{"signal":{"channel":"7","data":{"x":1}}}"#,
    ),
];

/// A command as the JSON of its frame, without what says how it was sent.
fn json(command: Command) -> serde_json::Value {
    let frame = chappe_protocol::ClientFrame { id: 0, nonce: None, age_ms: 0, command };
    let mut json = serde_json::to_value(&frame).unwrap();
    json.as_object_mut().unwrap().remove("id");
    json
}

#[tokio::test]
async fn every_route_brings_its_command() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    // One connection for all: each response ends where the next begins.
    let mut client = server.client().await;
    for (method, path, body, status, expect) in CALLS {
        let response = client.request(&request(method, path, *body)).await;
        assert_eq!(response.status, *status, "{method} {path}: {response:?}");
        let [call] = kernel.calls().try_into().expect("one call");
        let expect: serde_json::Value = serde_json::from_str(expect).unwrap();
        assert_eq!(json(call.command), expect, "{method} {path}");
    }
    for route in ROUTES {
        let called = CALLS
            .iter()
            .any(|(_, _, _, _, expect)| expect.starts_with(&format!("{{\"{}\":", route.command)));
        assert!(called, "no call of {}", route.command);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_call_carries_token_nonce_age_and_address() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let response = server
        .request(
            "PUT /v1/channels/7/members/@me HTTP/1.1\r\nhost: x\r\nauthorization: bearer good\r\n\
             idempotency-key: \"n-1\"\r\nidempotency-age-ms: 250\r\n\r\n",
        )
        .await;
    assert_eq!(response.status, 200);
    let [call] = kernel.calls().try_into().expect("one call");
    assert_eq!((call.token.as_str(), call.age_ms), ("good", 250));
    assert_eq!(call.nonce.as_deref(), Some("n-1"));
    assert!(call.peer.is_loopback());
}

#[tokio::test]
async fn only_a_trusted_proxy_tells_the_address() {
    let (kernel, _sessions) = FakeKernel::start();
    let forwarded = "GET /v1/channels HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n\
                     x-forwarded-for: 203.0.113.9\r\n\r\n";
    let server = Server::start(&kernel);
    server.request(forwarded).await;
    assert!(kernel.calls()[0].peer.is_loopback());

    let config = chappe_gateway_http::Config {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..crate::quick()
    };
    let server = Server::with(&kernel, config, None, None);
    server.request(forwarded).await;
    assert_eq!(kernel.calls()[0].peer.to_string(), "203.0.113.9");
}

#[tokio::test]
async fn errors_are_problems_with_the_code_and_when_to_come_again() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    kernel.answer(Err(WireError::new(ErrorCode::SlowMode).retry_after(1_200)));
    let response =
        server.request(&request("POST", "/v1/channels/7/messages", Some(r#"{"text":"x"}"#))).await;
    assert_eq!(response.status, 429);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.header("retry-after"), Some("2"));
    let expect = serde_json::json!({
        "type": "urn:chappe:error:slow_mode",
        "title": "the channel is in slow mode",
        "status": 429,
        "detail": "the channel is in slow mode",
        "code": 1031,
        "name": "slow_mode",
        "message": "the channel is in slow mode",
        "retry_after_ms": 1200,
    });
    assert_eq!(response.json(), expect);
}

#[tokio::test]
async fn every_code_has_its_status() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut client = server.client().await;
    for code in ErrorCode::ALL {
        kernel.answer(Err(WireError::new(*code)));
        let response = client.request(&request("GET", "/v1/channels", None)).await;
        assert_eq!(response.status, code.http_status(), "{code:?}");
        assert_eq!(response.code(), u64::from(code.number()), "{code:?}");
        assert_eq!(response.header("www-authenticate").is_some(), response.status == 401);
    }
}

#[tokio::test]
async fn a_reply_is_the_body_and_a_new_channel_has_a_location() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    kernel.answer(Ok(Reply::Channels(ChannelsReply { channels: Vec::new(), next: None })));
    let response = server.request(&request("GET", "/v1/channels", None)).await;
    assert_eq!(response.body, br#"{"channels":[]}"#);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));

    let body = Some(r#"{"kind":"public","name":"x"}"#);
    let response = server.request(&request("POST", "/v1/channels", body)).await;
    assert_eq!(response.header("location"), Some("/v1/channels/1"));
}

#[tokio::test]
async fn a_batch_answers_each_message_in_its_place() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let body = r#"{"messages":[
        {"channel":"7","text":"a","nonce":"n1"},
        {"channel":"7","text":" "},
        {"channel":"8","text":"b","nonce":"n2","age_ms":30},
        {"channel":"9","text":"c","nonce":""},
        {"text":"d"},
        [1]
    ]}"#;
    let response = server.request(&request("POST", "/v1/messages/batch", Some(body))).await;
    assert_eq!(response.status, 200, "{response:?}");
    let json = response.json();
    let results = json["results"].as_array().unwrap();
    let code = |at: usize| results[at]["error"]["code"].as_u64();
    assert_eq!(results.len(), 6);
    assert!(results[0]["ok"]["rev"].is_number() && results[2]["ok"]["rev"].is_number());
    assert_eq!(
        [code(1), code(3), code(4), code(5)],
        [Some(2010), Some(2016), Some(2005), Some(2005)]
    );
    let mut sent: Vec<_> =
        kernel.calls().into_iter().map(|call| (call.nonce.unwrap(), call.age_ms)).collect();
    sent.sort();
    let sent: Vec<_> = sent.iter().map(|(nonce, age_ms)| (nonce.as_str(), *age_ms)).collect();
    assert_eq!(sent, [("n1", 0), ("n2", 30)]);
}

#[tokio::test]
async fn a_batch_has_at_most_a_hundred_messages() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    for (count, status) in [(0, 422), (1, 200), (100, 200), (101, 422)] {
        let messages = vec![r#"{"channel":"7","text":"a"}"#; count].join(",");
        let body = format!(r#"{{"messages":[{messages}]}}"#);
        let response = server.request(&request("POST", "/v1/messages/batch", Some(&body))).await;
        assert_eq!(response.status, status, "{count}");
    }
}

#[tokio::test]
async fn a_back_end_closes_a_users_sessions() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let response = server.request(&request("DELETE", "/v1/users/77/sessions", None)).await;
    assert_eq!(response.status, 204);
    assert_eq!(kernel.closed(), [chappe_protocol::UserId::new(77)]);
}

#[tokio::test]
async fn a_path_with_another_method_names_those_that_it_has() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    for route in ROUTES {
        let path = route.path.replace("{channel}", "7").replace("{seq}", "3");
        let path = path.replace("{user}", "8").replace("{emoji}", "+1");
        let response = server.request(&request("LINK", &path, None)).await;
        assert_eq!((response.status, response.code()), (405, 4105), "{path}");
        let verb = match route.verb {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        };
        let allow = response.header("allow").unwrap_or_default().to_owned();
        assert!(allow.split(',').any(|method| method.trim() == verb), "{path}: {allow:?}");
    }
}

#[tokio::test]
async fn the_page_allows_its_own_script_alone() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let response = server.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = response.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let tag = response.header("etag").unwrap();
    let again = format!("GET / HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\n\r\n");
    let response = server.request(&again).await;
    assert_eq!((response.status, response.body.len()), (304, 0));
}

#[tokio::test]
async fn a_page_may_ask_if_it_is_ours_or_allowed() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let ask = |origin: &str| {
        format!(
            "GET /v1/channels HTTP/1.1\r\nhost: chat.example.com:7400\r\n\
             authorization: Bearer good\r\norigin: {origin}\r\n\r\n"
        )
    };
    let response = server.request(&ask("https://app.example.com")).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    assert_eq!(response.header("vary"), Some("origin"));

    let response = server.request(&ask("https://chat.example.com:7400")).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), None);

    let forbidden = [
        "null",
        "https://chat.example.com",
        "https://chat.example.com:7401",
        "https://chat.example.com:7400.evil.test",
        "https://app.example.com.evil.test",
        "https://evilapp.example.com",
        "http://app.example.com",
        "",
    ];
    for origin in forbidden {
        let response = server.request(&ask(origin)).await;
        assert_eq!((response.status, response.code()), (403, 4103), "{origin}");
    }

    let preflight = "OPTIONS /v1/channels/7/messages HTTP/1.1\r\nhost: x\r\n\
                     origin: https://app.example.com\r\naccess-control-request-method: POST\r\n\
                     access-control-request-headers: authorization, idempotency-key\r\n\r\n";
    let response = server.request(preflight).await;
    assert_eq!(response.status, 204);
    assert!(response.header("access-control-allow-headers").unwrap().contains("idempotency-key"));
}
