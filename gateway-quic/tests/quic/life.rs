//! A connection's life, from the handshake to a close that is heard.

use std::time::Duration;

use chappe_gateway::{
    frontend::ConnectRefused,
    link::{Lane, LinkEnd},
};
use chappe_gateway_quic::Config;
use chappe_protocol::{
    CloseCode, ServerFrame,
    frame::{Closing, Incoming, ServerPing},
};
use quinn::{ConnectionError, TransportConfig};

use crate::{
    Server, certificate,
    client::{Client, config, connect},
    relay::Relay,
    soon,
};

#[track_caller]
pub(crate) fn assert_closed(error: &ConnectionError, code: CloseCode) {
    let ConnectionError::ApplicationClosed(close) = error else { panic!("{error:?}") };
    assert_eq!(close.error_code.into_inner(), u64::from(code.number()), "{close:?}");
}

#[tokio::test]
async fn a_client_signs_in_and_is_answered() {
    let mut server = Server::start();
    let (mut client, _session) = server.signed_in().await;
    for id in 2..100 {
        client.ping(id).await;
    }
}

#[tokio::test]
async fn a_client_that_moves_to_another_address_goes_on() {
    let mut server = Server::start();
    let (mut client, mut session) = server.signed_in().await;
    let before = client.endpoint.local_addr().unwrap();
    for id in 2..200 {
        if id == 100 {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            client.endpoint.rebind(socket).unwrap();
            assert_ne!(client.endpoint.local_addr().unwrap(), before);
        }
        let ping = ServerPing { at: u64::from(id), heads: Vec::new() };
        session.send(Lane::Control, &ServerFrame::Ping { ping }).await;
        let Incoming::Ping(ping) = client.next().await else { panic!("a ping") };
        assert_eq!(ping.at, u64::from(id));
        client.ping(id).await;
        let crate::kernel::Heard::Frame(frame) = session.next().await else { panic!("a frame") };
        assert_eq!(frame.id, id, "nothing is missing and nobody connected again");
    }
}

#[tokio::test]
async fn what_was_said_before_a_close_is_heard_and_then_its_code() {
    let mut server = Server::start();
    for code in CloseCode::ALL {
        let (mut client, session) = server.signed_in().await;
        for at in 0..500 {
            let ping = ServerPing { at, heads: Vec::new() };
            session.send(Lane::Control, &ServerFrame::Ping { ping }).await;
        }
        let closing = Closing::new(*code);
        session.send(Lane::Control, &ServerFrame::Closing { closing: closing.clone() }).await;
        session.close(*code).await;
        let (frames, error) = client.end().await;
        assert_eq!(frames.len(), 501);
        assert_eq!(frames.last(), Some(&Incoming::Closing(closing)));
        assert_closed(&error, *code);
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_all_the_same() {
    let mut server =
        Server::with(Config { linger: Duration::from_millis(300), ..Config::default() });
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(2_048u32.into());
    let config = config(&server.certificate, &[b"chappe/1"], transport);
    let (endpoint, connection) = connect(server.address, config).await.unwrap();
    let (send, recv) = connection.open_bi().await.unwrap();
    let mut client = Client { endpoint, connection, send, recv };
    client.ask(1, crate::client::hello()).await;
    let mut session = server.sessions.recv().await.unwrap();
    session.next().await;
    for at in 0..1_000 {
        let ping = ServerPing { at, heads: Vec::new() };
        session.send(Lane::Control, &ServerFrame::Ping { ping }).await;
    }
    session.close(CloseCode::Slow).await;
    assert_closed(&soon(client.connection.closed()).await, CloseCode::Slow);
    session.end().await;
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_the_end() {
    let mut server = Server::start();
    let (mut client, session) = server.signed_in().await;
    // More than every window and buffer on the way.
    let count = 100_000;
    let sender = tokio::spawn(async move {
        for at in 0..count {
            let ping = ServerPing { at, heads: Vec::new() };
            session.send(Lane::Control, &ServerFrame::Ping { ping }).await;
        }
        session
    });
    let _session = soon(sender).await.unwrap();
    for at in 0..count {
        let Incoming::Ping(ping) = client.next().await else { panic!("a ping") };
        assert_eq!(ping.at, at);
    }
}

#[tokio::test]
async fn the_client_ends_the_connection_by_ending_control_or_with_a_code() {
    let mut server = Server::start();
    let (mut client, mut session) = server.signed_in().await;
    client.send.finish().unwrap();
    assert!(matches!(session.end().await, LinkEnd::Closed(Some(1000))));
    assert_closed(&soon(client.connection.closed()).await, CloseCode::Normal);

    let (client, mut session) = server.signed_in().await;
    client.connection.close(1000u32.into(), b"bye");
    assert!(matches!(session.end().await, LinkEnd::Closed(Some(1000))));

    let (client, mut session) = server.signed_in().await;
    drop(client.connection.clone());
    drop((client.send, client.recv, client.connection));
    assert!(matches!(session.end().await, LinkEnd::Closed(_)));
}

#[tokio::test]
async fn a_client_that_vanished_is_noticed() {
    let config = Config {
        idle_timeout: Duration::from_millis(500),
        keep_alive: Duration::from_secs(60),
        ..Config::default()
    };
    let mut server = Server::with(config);
    let relay = Relay::to(server.address).await;
    let mut client = Client::connect(relay.address, &server.certificate).await.unwrap();
    client.hello().await;
    let mut session = server.sessions.recv().await.unwrap();
    relay.mute_client();
    let LinkEnd::Io(error) = session.end().await else { panic!("an error of the line") };
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn an_idle_connection_is_kept_alive() {
    let config = Config {
        idle_timeout: Duration::from_millis(600),
        keep_alive: Duration::from_millis(150),
        ..Config::default()
    };
    let mut server = Server::with(config);
    let (mut client, _session) = server.signed_in().await;
    // Nobody says anything for three idle timeouts.
    let silence = tokio::time::timeout(Duration::from_millis(1_800), client.connection.closed());
    assert!(silence.await.is_err(), "it is still there");
    client.ping(2).await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let mut server = Server::start();
    let (mut client, _session) = server.signed_in().await;
    let (tls, second) = certificate();
    server.swap.send_replace(tls);
    // The endpoint takes it when it gets round to it.
    let connected = soon(async {
        loop {
            if let Ok(client) = Client::connect(server.address, &second).await {
                return client;
            }
        }
    })
    .await;
    drop(connected);
    assert!(Client::connect(server.address, &server.certificate).await.is_err());
    client.ping(2).await;
}

#[tokio::test]
async fn a_kernel_that_takes_nobody_says_why() {
    let server = Server::start();
    for (refused, code) in
        [(ConnectRefused::Draining, CloseCode::Drain), (ConnectRefused::TooMany, CloseCode::Rate)]
    {
        server.kernel.refuse(Some(refused));
        let config = config(&server.certificate, &[b"chappe/1"], TransportConfig::default());
        let (_endpoint, connection) = connect(server.address, config).await.unwrap();
        assert_closed(&soon(connection.closed()).await, code);
    }
}

#[tokio::test]
async fn a_stopping_server_takes_nobody_and_waits_for_the_rest() {
    let mut server = Server::start();
    let (mut client, session) = server.signed_in().await;
    drop(server.stop);
    // Somebody new is refused; whoever is there goes on until the kernel closes it.
    let refused = soon(async {
        loop {
            match Client::connect(server.address, &server.certificate).await {
                Err(error) => return error,
                Ok(client) => drop(client), // it was before the stop
            }
        }
    })
    .await;
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused:?}");
    client.ping(2).await;
    session.close(CloseCode::Drain).await;
    assert_closed(&client.end().await.1, CloseCode::Drain);
    soon(server.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_has_waited_long_enough_closes_the_rest() {
    let config = Config { stop_timeout: Duration::from_millis(200), ..Config::default() };
    let mut server = Server::with(config);
    let (client, _session) = server.signed_in().await;
    drop(server.stop);
    assert_closed(&soon(client.connection.closed()).await, CloseCode::Drain);
    soon(server.serving).await.unwrap().unwrap();
}
