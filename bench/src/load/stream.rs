//! A socket that never blocks, plain or with TLS on it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};

/// How long a server may take no byte before the measurement is given up.
const STALL: Duration = Duration::from_secs(10);

/// Where to connect, and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// One client's end of a TCP connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(TcpStream, Box<ClientConnection>),
}

impl Stream {
    /// Connects from `source`: many addresses of this machine have more ports than one.
    pub(crate) fn connect(target: &Target, source: IpAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(target.addr), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        // Blocks for as long as the other end's queue is full: on loopback, hardly ever.
        socket.connect_timeout(&target.addr.into(), STALL).context("connect")?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let socket = TcpStream::from(socket);
        let Some(config) = &target.tls else { return Ok(Self::Plain(socket)) };
        let name = ServerName::try_from("localhost")?;
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        let mut stream = Self::Tls(socket, Box::new(tls));
        stream.flush()?;
        Ok(stream)
    }

    /// The socket, for epoll.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) => socket.as_fd(),
        }
    }

    /// Reads what is there; `WouldBlock` when there is nothing, 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (socket, tls) = match self {
            Self::Plain(socket) => return socket.read(buffer),
            Self::Tls(socket, tls) => (socket, tls),
        };
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
        tls.read_tls(socket)?;
        tls.process_new_packets().map_err(io::Error::other)?;
        self.flush()?;
        let Self::Tls(_, tls) = self else { return Err(ErrorKind::Unsupported.into()) };
        tls.reader().read(buffer)
    }

    /// Sends all of `bytes`, waiting for the server if it must.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    match socket.write(rest) {
                        Ok(count) => rest = &rest[count..],
                        Err(error) if error.kind() == ErrorKind::WouldBlock => writable(socket)?,
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
            Self::Tls(_, tls) => {
                tls.writer().write_all(bytes)?;
                self.flush()
            }
        }
    }

    /// Sends the TLS records that wait.
    fn flush(&mut self) -> io::Result<()> {
        let Self::Tls(socket, tls) = self else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => writable(socket)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn writable(socket: &TcpStream) -> io::Result<()> {
    let timeout = Timespec { tv_sec: STALL.as_secs() as i64, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
