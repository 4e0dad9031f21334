//! The load against the floors: what they deliver passes the audit, over plain sockets, and both
//! ends agree.

use std::{net::TcpListener, sync::mpsc, thread, time::Duration};

use anyhow::Result;
use quinn::{Endpoint, VarInt};

use super::{
    audit::Audit,
    generator::Generator,
    link::Heard,
    quic::{First, QuicLoad},
    stream::Target,
};
use crate::{certificate, floor, sample, wire};

const SUBSCRIBERS: usize = 20;

fn floor() -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(|| floor::websocket::serve(listener));
    Target { addr, tls: None }
}

fn publish(generator: &mut Generator, numbers: &[usize]) {
    let mut frames = Vec::new();
    for number in numbers {
        wire::write_masked(wire::BINARY, &sample::event(*number), &mut frames);
    }
    generator.send(0, &frames).unwrap();
}

fn receive(generator: &mut Generator, audit: &mut Audit, deliveries: usize) -> Result<()> {
    while audit.deliveries() < deliveries as u64 {
        generator.turn(&mut |link, heard| match heard {
            Heard::Message(payload) => audit.take(link - 1, payload),
            Heard::Upgraded => Ok(()),
        })?;
    }
    Ok(())
}

fn subscribers(floor: Target) -> (Generator, Audit) {
    let mut generator = Generator::new(floor).unwrap();
    let mut nothing = |_: usize| None;
    generator.open(SUBSCRIBERS + 1, 4, &mut nothing, &mut |_, _| Ok(())).unwrap();
    (generator, Audit::new(SUBSCRIBERS))
}

#[test]
fn what_the_floor_delivers_passes_the_audit() {
    let (mut generator, mut audit) = subscribers(floor());
    publish(&mut generator, &[0]);
    receive(&mut generator, &mut audit, SUBSCRIBERS).unwrap();
    let burst: Vec<_> = (1..=16).collect();
    publish(&mut generator, &burst);
    receive(&mut generator, &mut audit, 17 * SUBSCRIBERS).unwrap();
    assert_eq!(audit.deliveries(), 17 * SUBSCRIBERS as u64);
}

#[test]
fn a_message_that_is_left_out_is_found() {
    let (mut generator, mut audit) = subscribers(floor());
    publish(&mut generator, &[0, 2]);
    assert!(receive(&mut generator, &mut audit, 2 * SUBSCRIBERS).is_err());
}

#[test]
fn a_closed_connection_frees_its_place_in_the_floor() {
    let floor = floor();
    let (mut generator, _) = subscribers(floor.clone());
    generator.close();
    let (mut generator, mut audit) = subscribers(floor);
    publish(&mut generator, &[0]);
    receive(&mut generator, &mut audit, SUBSCRIBERS).unwrap();
}

#[test]
fn idle_quic_connections_live_on_the_floor() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let (made, client) = certificate::make(folder.path()).unwrap();
    let config = floor::quic::config(&made.cert, &made.key).unwrap();
    let (tell, told) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send(endpoint.clone()).unwrap();
            floor::quic::serve(endpoint.clone()).await;
            endpoint.wait_idle().await; // says goodbye first
        });
    });
    let endpoint = told.recv().unwrap();
    let mut load = QuicLoad::new(endpoint.local_addr().unwrap(), &client).unwrap();
    load.open(vec![First::Byte; 3]).unwrap();
    load.idle(Duration::from_millis(50)).unwrap();
    endpoint.close(VarInt::from_u32(7), b"");
    assert!(load.idle(Duration::from_millis(500)).is_err(), "an end must be noticed");
}
