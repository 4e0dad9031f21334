//! Many links in one thread: a bare epoll loop at the other end of the measurement.
//!
//! A generator that was slow would not change what is measured, the server's processor time for
//! each delivery, but only how long it takes.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};

use super::{
    link::{Heard, Link},
    stream::Target,
};

const EVENTS_MAX: usize = 1024;
const SCRATCH_BYTES: usize = 256 * 1024;
/// Nothing at all for this long: the server hangs.
const SILENCE: Duration = Duration::from_secs(20);
/// Connections from one source address, well below its number of ports.
const LINKS_PER_SOURCE: usize = 4_000;

/// Connections to one server, numbered from 0.
pub(crate) struct Generator {
    target: Target,
    epoll: OwnedFd,
    links: Vec<Link>,
    events: Vec<Event>,
    scratch: Vec<u8>,
    sources: Sources,
}

impl Generator {
    /// A generator without connections.
    pub(crate) fn new(target: Target) -> Result<Self> {
        Ok(Self {
            target,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            links: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            scratch: vec![0; SCRATCH_BYTES],
            sources: Sources::default(),
        })
    }

    /// How many connections there are.
    pub(crate) const fn len(&self) -> usize {
        self.links.len()
    }

    /// Opens `count` more connections, at most `window` of them on their way at once.
    ///
    /// A connection that is upgraded sends what `first` gives it and is done once a message came
    /// back, or at once if there is nothing to send. `check` sees each message.
    pub(crate) fn open(
        &mut self,
        count: usize,
        window: usize,
        first: &mut dyn FnMut(usize) -> Option<Vec<u8>>,
        check: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let from = self.links.len();
        let mut done = 0;
        let mut to_send = Vec::new();
        while done < count {
            while self.links.len() - from < count && self.links.len() - from - done < window {
                self.connect()?;
            }
            self.turn(&mut |index, heard| {
                match heard {
                    Heard::Upgraded => match first(index) {
                        Some(frames) => to_send.push((index, frames)),
                        None => done += 1,
                    },
                    Heard::Message(payload) => {
                        check(index, payload)?;
                        done += usize::from(index >= from);
                    }
                }
                Ok(())
            })?;
            for (index, frames) in to_send.drain(..) {
                self.send(index, &frames)?;
            }
        }
        Ok(())
    }

    /// Sends bytes that are framed and masked already.
    pub(crate) fn send(&mut self, index: usize, frames: &[u8]) -> Result<()> {
        self.links[index].send(frames)
    }

    /// Waits until something comes and tells it all.
    pub(crate) fn turn(
        &mut self,
        heard: &mut dyn FnMut(usize, Heard<'_>) -> Result<()>,
    ) -> Result<()> {
        let events = self.wait(SILENCE)?;
        ensure!(events > 0, "nothing came for {} s", SILENCE.as_secs());
        self.read(heard)
    }

    /// Takes what comes within `time`, as an idle client does.
    pub(crate) fn idle(
        &mut self,
        time: Duration,
        heard: &mut dyn FnMut(usize, Heard<'_>) -> Result<()>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(());
            }
            self.wait(rest)?;
            self.read(heard)?;
        }
    }

    /// Closes every connection.
    pub(crate) fn close(&mut self) {
        for mut link in self.links.drain(..) {
            link.close();
        }
    }

    fn connect(&mut self) -> Result<()> {
        let source = self.sources.next();
        let index = self.links.len();
        let link = Link::open(&self.target, source)
            .with_context(|| format!("connection {} of many", index + 1))?;
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, link.stream().socket(), data, EventFlags::IN)?;
        self.links.push(link);
        Ok(())
    }

    fn wait(&mut self, time: Duration) -> Result<usize> {
        let timeout =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error).context("epoll"),
        }
    }

    fn read(&mut self, heard: &mut dyn FnMut(usize, Heard<'_>) -> Result<()>) -> Result<()> {
        for event in &self.events {
            let index = event.data.u64() as usize;
            let link = &mut self.links[index];
            link.read(&mut self.scratch, &mut |what| heard(index, what))
                .with_context(|| format!("connection {index}"))?;
        }
        Ok(())
    }
}

/// Addresses of this machine to connect from.
#[derive(Default)]
struct Sources {
    used: usize,
}

impl Sources {
    fn next(&mut self) -> IpAddr {
        // Each process and each generator starts elsewhere, so that ports in TIME_WAIT from the
        // one before are no matter.
        let block = self.used / LINKS_PER_SOURCE;
        self.used += 1;
        Ipv4Addr::new(127, 0, 1 + (std::process::id() % 200) as u8, 1 + (block % 250) as u8).into()
    }
}
