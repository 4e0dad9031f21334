//! A bare epoll loop that speaks WebSocket: the floor of connects and of fan-out.
//!
//! It accepts, upgrades, and sends what one connection sends to all others: one `send` for each
//! connection and for all messages that one read brought, from bytes that were framed once. One
//! thread, no timers, no queue: a socket that does not take a whole send ends the program.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, EventData, EventFlags},
    fd::OwnedFd,
};

use super::{Listening, tell};
use crate::wire::{self, BINARY, CLOSE, Head};

const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 1024;
const SCRATCH_BYTES: usize = 64 * 1024;

/// Serves until the process is ended.
pub(crate) fn run() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port")?;
    tell(&Listening { addr: listener.local_addr()? })?;
    serve(listener)
}

/// Serves on `listener`. Returns only with an error.
pub(crate) fn serve(listener: TcpListener) -> Result<()> {
    // std listens with a backlog of 128 on some systems; again with ours, which is allowed.
    socket2::SockRef::from(&listener).listen(4096)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut floor = Floor {
        epoll,
        listener,
        peers: Vec::new(),
        free: Vec::new(),
        scratch: vec![0; SCRATCH_BYTES],
        frames: Vec::new(),
    };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    loop {
        events.clear();
        epoll::wait(&floor.epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => floor.accept()?,
                index => floor.read(index as usize)?,
            }
        }
    }
}

struct Floor {
    epoll: OwnedFd,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    /// What the current read brought, framed for the others.
    frames: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    upgraded: bool,
    /// An incomplete request or frame. Takes no memory while there is none.
    partial: Vec<u8>,
}

impl Floor {
    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.peers.len());
            epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), EventFlags::IN)?;
            let peer = Some(Peer { stream, upgraded: false, partial: Vec::new() });
            if index == self.peers.len() {
                self.peers.push(peer);
            } else {
                self.peers[index] = peer;
            }
        }
    }

    fn read(&mut self, index: usize) -> Result<()> {
        let Some(peer) = &mut self.peers[index] else { return Ok(()) };
        let count = match peer.stream.read(&mut self.scratch) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => 0, // a reset is an end as well
        };
        if count == 0 || !peer.take(&mut self.scratch[..count], &mut self.frames)? {
            self.peers[index] = None; // closing the socket takes it out of epoll
            self.free.push(index);
        }
        self.deliver(index)
    }

    fn deliver(&mut self, from: usize) -> Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if index != from && peer.upgraded {
                let sent = peer.stream.write(&self.frames).context("send")?;
                ensure!(sent == self.frames.len(), "a subscriber does not keep up");
            }
        }
        self.frames.clear();
        Ok(())
    }
}

impl Peer {
    /// Takes what was read; appends the messages in it to `frames`. Whether the peer goes on.
    fn take(&mut self, bytes: &mut [u8], frames: &mut Vec<u8>) -> Result<bool> {
        if self.partial.is_empty() {
            let (used, goes_on) = self.take_some(bytes, frames)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(goes_on);
        }
        let mut bytes = [&std::mem::take(&mut self.partial), &*bytes].concat();
        let (used, goes_on) = self.take_some(&mut bytes, frames)?;
        self.partial.extend_from_slice(&bytes[used..]);
        Ok(goes_on)
    }

    fn take_some(&mut self, bytes: &mut [u8], frames: &mut Vec<u8>) -> Result<(usize, bool)> {
        let mut at = 0;
        if !self.upgraded {
            let Some((response, length)) = wire::answer_upgrade(bytes)? else {
                return Ok((0, true));
            };
            ensure!(self.stream.write(&response)? == response.len(), "a new socket is full");
            self.upgraded = true;
            at = length;
        }
        while let Some(head) = Head::parse(&bytes[at..])? {
            let end = at + head.frame_bytes();
            let Some(payload) = bytes.get_mut(at + head.head_bytes..end) else { break };
            match head.opcode {
                BINARY => {
                    wire::unmask(head.mask.context("a client that does not mask")?, payload);
                    wire::write_unmasked(BINARY, payload, frames);
                }
                CLOSE => return Ok((bytes.len(), false)),
                other => bail!("a frame of kind {other:#x}, which no measurement sends"),
            }
            at = end;
        }
        Ok((at, true))
    }
}
