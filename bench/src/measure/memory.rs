//! Resident memory of an idle connection: signed in, subscribed to one channel, 10,000 of them.
//!
//! The clients are in this process. What the server holds before is taken with some connections
//! open already, so that what exists once is not counted ten thousand times over.

use std::time::Duration;

use anyhow::Result;
use chappe_protocol::{ChannelId, Command, command};

use super::{Setting, progress};
use crate::{
    certificate,
    load::{
        generator::Generator,
        quic::{First, QuicLoad},
        session,
        stream::Target,
    },
    process::{Floor, Measured, Server},
    report::{Goal, Round, Row},
};

/// Connections that are open before the first look.
const WARM: usize = 200;
/// How long they idle before a look: what a handshake used may go back first.
const IDLE: Duration = Duration::from_secs(2);
const WEBSOCKET_KIB: Goal = Goal::AtMost(4.0);
const WEBSOCKET_TLS_KIB: Goal = Goal::AtMost(14.0);
const QUIC_RATIO: Goal = Goal::RatioAtMost(1.25);

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let (mut plain, mut tls, mut quic) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=setting.rounds {
        let floor = Some(websocket_floor(setting)?);
        plain.push(Round { floor, ours: websocket(setting, Transport::Plain)? });
        tls.push(Round { floor: None, ours: websocket(setting, Transport::Tls)? });
        quic.push(Round { floor: Some(quic_floor(setting)?), ours: quic_ours(setting)? });
        let last = |rounds: &[Round]| rounds.last().map_or(f64::NAN, |round| round.ours);
        progress(&format!(
            "memory, round {round}: WS {:.2}, WSS {:.2}, QUIC {:.2} KiB a connection",
            last(&plain),
            last(&tls),
            last(&quic),
        ));
    }
    let note = format!(
        "{} connections beside {WARM}, each signed in and subscribed; a socket's buffers in the \
         kernel are not resident memory",
        setting.idle
    );
    Ok(vec![
        Row::size("idle connection, WS", "KiB", WEBSOCKET_KIB, plain).note(note),
        Row::size("idle connection, WSS", "KiB", WEBSOCKET_TLS_KIB, tls),
        Row::size("idle connection, QUIC", "KiB", QUIC_RATIO, quic),
    ])
}

#[derive(Debug, Clone, Copy)]
enum Transport {
    Plain,
    Tls,
}

fn websocket(setting: &Setting, transport: Transport) -> Result<f64> {
    let folder = tempfile::tempdir_in(&setting.dir)?;
    let (certificate, client) = certificate::make(folder.path())?;
    let (certificate, client) = match transport {
        Transport::Plain => (None, None),
        Transport::Tls => (Some(&certificate), Some(client)),
    };
    let server = Server::start(&setting.chappe, &setting.dir, certificate, setting.cores)?;
    let mut generator = Generator::new(Target { addr: server.tcp, tls: client })?;
    session::sign_in(&mut generator, &server.signer, WARM)?;
    let channel = session::create_channel(&mut generator, 0, "idle")?;
    session::subscribe(&mut generator, 0..WARM, channel)?;
    generator.idle(IDLE, &mut |_, _| Ok(()))?;
    let before = server.process.resident_bytes()?;
    session::sign_in(&mut generator, &server.signer, setting.idle)?;
    session::subscribe(&mut generator, WARM..WARM + setting.idle, channel)?;
    generator.idle(IDLE, &mut |_, _| Ok(()))?;
    per_connection(setting, &server.process, before)
}

fn websocket_floor(setting: &Setting) -> Result<f64> {
    let floor = Floor::listening(&["websocket"], setting.cores)?;
    let mut generator = Generator::new(Target { addr: floor.addr, tls: None })?;
    let mut open = |count| {
        generator.open(count, session::WINDOW, &mut |_| None, &mut |_, _| Ok(()))?;
        generator.idle(IDLE, &mut |_, _| Ok(()))
    };
    open(WARM)?;
    let before = floor.process.resident_bytes()?;
    open(setting.idle)?;
    per_connection(setting, &floor.process, before)
}

fn quic_floor(setting: &Setting) -> Result<f64> {
    let folder = tempfile::tempdir_in(&setting.dir)?;
    let (certificate, client) = certificate::make(folder.path())?;
    let (cert, key) = (certificate.cert.to_string_lossy(), certificate.key.to_string_lossy());
    let floor = Floor::listening(&["quic", "--cert", &cert, "--key", &key], setting.cores)?;
    let mut load = QuicLoad::new(floor.addr, &client)?;
    let firsts = |count| vec![First::Byte; count];
    measure_quic(setting, &mut load, &floor.process, [firsts(WARM), firsts(setting.idle)])
}

fn quic_ours(setting: &Setting) -> Result<f64> {
    let folder = tempfile::tempdir_in(&setting.dir)?;
    let (certificate, client) = certificate::make(folder.path())?;
    let server = Server::start(&setting.chappe, &setting.dir, Some(&certificate), setting.cores)?;
    let mut load = QuicLoad::new(server.quic, &client)?;
    // The channel is made on another connection, which stays.
    let mut maker = Generator::new(Target { addr: server.tcp, tls: Some(client) })?;
    session::sign_in(&mut maker, &server.signer, 1)?;
    let channel = session::create_channel(&mut maker, 0, "idle")?;
    let firsts = |users: std::ops::Range<usize>| {
        users
            .map(|user| {
                let commands = vec![server.signer.hello(user)?, subscribe(channel)];
                Ok(First::Commands(commands))
            })
            .collect::<Result<Vec<_>>>()
    };
    let firsts = [firsts(0..WARM)?, firsts(WARM..WARM + setting.idle)?];
    measure_quic(setting, &mut load, &server.process, firsts)
}

fn subscribe(channel: ChannelId) -> Command {
    let these = vec![command::ChannelFrom { id: channel, from: None }];
    let channels = command::Channels::These(these);
    command::Subscribe { channels, incarnation: None }.into()
}

fn measure_quic(
    setting: &Setting,
    load: &mut QuicLoad,
    process: &Measured,
    [warm, idle]: [Vec<First>; 2],
) -> Result<f64> {
    load.open(warm)?;
    load.idle(IDLE)?;
    let before = process.resident_bytes()?;
    load.open(idle)?;
    load.idle(IDLE)?;
    per_connection(setting, process, before)
}

fn per_connection(setting: &Setting, process: &Measured, before: u64) -> Result<f64> {
    let bytes = process.resident_bytes()?.saturating_sub(before);
    Ok(bytes as f64 / 1024.0 / setting.idle as f64)
}
