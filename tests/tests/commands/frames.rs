//! Bad frames: what only a connection can be sent.

use chappe_tests::{Client, Encoding, Transport};
use serde_json::json;

use crate::{after_error, code, world::World};

/// A frame with id 1 as it is written in JSON, the code of its refusal, and whether the refusal
/// names the id.
const TEXTS: &[(&str, &str, bool)] = &[
    ("{\"id\":1", "malformed", false),
    ("{\"id\":1,\"ping\":{}}}", "malformed", false),
    ("[]", "malformed", false),
    ("null", "malformed", false),
    ("\"ping\"", "malformed", false),
    ("{\"id\":1,\"id\":1,\"ping\":{}}", "malformed", false),
    ("{\"id\":1,\"ping\":{},\"p\\u0069ng\":{}}", "malformed", false),
    ("{\"id\":1,\"join\":{\"channel\":\"1\",\"channel\":\"2\"}}", "malformed", false),
    ("{\"id\":1,\"ping\":{},\"x\":\"\\ud800\"}", "malformed", false),
    ("{\"id\":1,\"ping\":{},\"x\":1e999}", "malformed", false),
    ("{\"id\":01,\"ping\":{}}", "malformed", false),
    ("{'id':1,'ping':{}}", "malformed", false),
    ("{\"id\":1,\"ping\":{} /* hi */}", "malformed", false),
    ("{\"id\":1}", "unknown_command", true),
    ("{\"id\":1,\"dance\":{}}", "unknown_command", true),
    ("{\"id\":1,\"Ping\":{}}", "unknown_command", true),
    ("{\"ping\":{}}", "invalid", false),
    ("{\"id\":-1,\"ping\":{}}", "invalid", false),
    ("{\"id\":4294967296,\"ping\":{}}", "invalid", false),
    ("{\"id\":\"1\",\"ping\":{}}", "invalid", false),
    ("{\"id\":1,\"ping\":[]}", "invalid", true),
    ("{\"id\":1,\"ping\":null}", "invalid", true),
    ("{\"id\":1,\"ping\":{},\"join\":{\"channel\":\"1\"}}", "invalid", true),
    ("{\"id\":1,\"nonce\":5,\"ping\":{}}", "invalid", true),
    ("{\"id\":1,\"nonce\":\"\",\"ping\":{}}", "nonce_invalid", true),
    ("{\"id\":1,\"age_ms\":-1,\"ping\":{}}", "invalid", true),
    ("{\"id\":1,\"join\":[\"1\"]}", "invalid", true),
    ("{\"id\":1,\"join\":{\"channel\":{}}}", "invalid", true),
    ("{\"id\":1,\"get_channel\":{\"channel\":\"1\"}}", "invalid", true),
    ("{\"id\":1,\"subscribe\":{\"channels\":\"all\"}}", "invalid", true),
    ("{\"id\":1,\"subscribe\":{\"channels\":[[\"1\",2]]}}", "invalid", true),
    ("{\"id\":1,\"subscribe\":{}}", "invalid", true),
    ("{\"id\":1,\"unsubscribe\":{\"channels\":\"mine\"}}", "invalid", true),
    ("{\"id\":1,\"hello\":{\"token\":\"again\"}}", "already_signed_in", true),
    ("{\"id\":1,\"refresh\":{\"token\":\"none\"}}", "token_invalid", true),
    ("{\"id\":1,\"refresh\":{}}", "invalid", true),
];

/// The same in MessagePack, and what only that can say.
const BYTES: &[(&[u8], &str, bool)] = &[
    (b"\x82\xa2id\x01", "malformed", false),
    (b"\x80", "unknown_command", false),
    (b"\x90", "malformed", false),
    (b"\xc0", "malformed", false),
    (b"\xc1", "malformed", false),
    (b"\x83\xa2id\x01\xa4ping\x80\xd9\x02id\x01", "malformed", false),
    (b"\x83\xa2id\x01\xa4ping\x80\xa1x\xc4\x01a", "malformed", false),
    (b"\x83\xa2id\x01\xa4ping\x80\xa1x\xd4\x01a", "malformed", false),
    (b"\x83\xa2id\x01\xa4ping\x80\xa1x\xa1\xff", "malformed", false),
    (b"\x83\xa2id\x01\xa4ping\x80\xa1x\xcb\x7f\xf8\0\0\0\0\0\0", "malformed", false),
    (b"\x83\xa2id\x01\xa4ping\x80\x01\x01", "malformed", false),
    (b"\x82\xa2id\x01\xa4ping\xdf\xff\xff\xff\xff", "malformed", false),
    (b"\x82\xa2id\x01\xdb\xff\xff\xff\xffping\x80", "malformed", false),
    (b"\x81\xa2id\x01", "unknown_command", true),
    (b"\x82\xa2id\x01\xa5dance\x80", "unknown_command", true),
    (b"\x81\xa4ping\x80", "invalid", false),
    (b"\x82\xa2id\xff\xa4ping\x80", "invalid", false),
    (b"\x82\xa2id\xa11\xa4ping\x80", "invalid", false),
    (b"\x82\xa2id\x01\xa4ping\x90", "invalid", true),
    (b"\x82\xa2id\x01\xa4ping\xc0", "invalid", true),
    (b"\x83\xa2id\x01\xa4ping\x80\xa4join\x81\xa7channel\x01", "invalid", true),
    (b"\x82\xa2id\x01\xa4join\x91\x01", "invalid", true),
    (b"\x82\xa2id\x01\xa4join\x81\xa7channel\xa11", "invalid", true),
    (b"\x82\xa2id\x01\xa9subscribe\x81\xa8channels\x91\x92\x01\x02", "invalid", true),
];

async fn refuse_all(transport: Transport, world: &World) {
    let mut kept: Option<Client> = None;
    let texts = TEXTS.iter().map(|(text, code, has_id)| (text.as_bytes(), *code, *has_id));
    let bytes = BYTES.iter().copied();
    let cases: Vec<_> = match transport.encoding() {
        Encoding::Json => texts.collect(),
        Encoding::MessagePack => bytes.collect(),
    };
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for (frame, name, has_id) in cases {
        let mut client = match kept.take() {
            Some(client) => client,
            None => Client::signed_in(&world.server, transport, "alice").await,
        };
        client.send_bytes(frame.to_vec()).await;
        let what = format!("{} over {transport:?}", String::from_utf8_lossy(frame));
        let reply = client.find(&what, |frame| frame.get("error").is_some()).await;
        assert_eq!(reply["error"]["name"], name, "{what}: {reply}");
        assert_eq!(reply["error"]["code"], code(name).number(), "{what}: {reply}");
        assert_eq!(reply.get("id").is_some(), has_id, "{what}: {reply}");
        if after_error(&mut client, code(name), &what).await {
            kept = Some(client);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused_over_websocket_in_json() {
    refuse_all(Transport::WsJson, &World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused_over_websocket_in_messagepack() {
    refuse_all(Transport::WsMessagePack, &World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused_over_quic() {
    refuse_all(Transport::Quic, &World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused_over_a_bad_line_as_well() {
    let world = World::behind_a_bad_line().await;
    for transport in Transport::ALL {
        refuse_all(transport, &world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_frame_does_not_hold_up_the_next_in_its_message() {
    let world = World::new().await;
    for transport in [Transport::WsJson, Transport::WsMessagePack] {
        let mut client = Client::signed_in(&world.server, transport, "alice").await;
        let encoding = transport.encoding();
        let mut message = encoding.write(&json!({"id": 7, "dance": {}}));
        if encoding == Encoding::Json {
            message.push(b'\n');
        }
        message.extend(encoding.write(&json!({"id": 8, "ping": {}})));
        client.send_bytes(message).await;
        assert_eq!(client.reply(7).await.unwrap_err()["name"], "unknown_command");
        assert_eq!(client.reply(8).await, Ok(json!({})));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_hello_only_a_small_frame_is_taken() {
    let world = World::new().await;
    for transport in Transport::ALL {
        for command in [json!({"list_channels": {}}), json!({"subscribe": {"channels": "mine"}})] {
            let mut client = Client::connect(&world.server, transport).await;
            let error = client.ask(command.clone()).await.unwrap_err();
            assert_eq!(error["name"], "hello_required", "{command} over {transport:?}");
            let what = format!("{command} over {transport:?}");
            assert!(!after_error(&mut client, code("hello_required"), &what).await);
        }
        let mut client = Client::connect(&world.server, transport).await;
        client.send(&json!({"id": 1, "hello": {"token": "x".repeat(9_000)}})).await;
        assert_too_large(&mut client, "9 KB before hello").await;
    }
}

/// Says of a frame that it is too large, and closes as the table says.
async fn assert_too_large(client: &mut Client, what: &str) {
    let what = format!("{what} over {:?}", client.transport());
    let reply = client.find(&what, |frame| frame.get("error").is_some()).await;
    assert_eq!(reply["error"]["name"], "frame_too_large", "{what}: {reply}");
    assert_eq!(reply.get("id"), None, "nothing of it was read");
    assert!(!after_error(client, code("frame_too_large"), &what).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_the_limit_is_refused_with_its_code_and_one_at_it_is_taken() {
    let world = World::new().await;
    for transport in Transport::ALL {
        let mut client = Client::signed_in(&world.server, transport, "alice").await;
        let frame = |pad: usize| {
            let frame = json!({"id": 7, "ping": {}, "x": "y".repeat(pad)});
            transport.encoding().write(&frame)
        };
        let pad = 65_536 - (frame(60_000).len() - 60_000);
        assert_eq!(frame(pad).len(), 65_536);
        client.send_bytes(frame(pad)).await;
        assert_eq!(client.reply(7).await, Ok(json!({})), "{transport:?}");
        client.send_bytes(frame(pad + 1)).await;
        assert_too_large(&mut client, "64 KiB and a byte").await;
    }
}
