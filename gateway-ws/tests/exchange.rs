//! A client of the usual library against a gateway over real sockets.

mod support;

use support::{Client, Server};

#[tokio::test]
async fn a_message_reaches_a_subscriber_and_its_author_is_told() {
    let server = Server::start().await;
    server.channel(7, &["ada", "bob"]);
    for encoding in [chappe_protocol::Encoding::Json, chappe_protocol::Encoding::MessagePack] {
        let mut ada = Client::connect(&server, encoding, "ada").await;
        let mut bob = Client::connect(&server, encoding, "bob").await;
        bob.ask(r#"{"id":2,"subscribe":{"channels":[{"id":"7"}]}}"#).await;
        let ok = ada.ask(r#"{"id":2,"publish":{"channel":"7","text":"hello"}}"#).await;
        let event = bob.next().await;
        assert_eq!(event["event"]["rev"], ok["ok"]["rev"], "{event} {ok}");
        assert_eq!(event["event"]["body"]["message"]["text"], "hello");
        ada.close().await;
        bob.close().await;
    }
}
