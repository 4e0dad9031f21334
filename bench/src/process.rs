//! The programs that are measured: `chappe serve` and the floors, each a process of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};
use tempfile::TempDir;

use crate::{
    cpu::{self, Cores, CpuTime},
    floor::Listening,
    load::session::Signer,
};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A process that is ended when this is dropped.
pub(crate) struct Measured {
    child: Child,
}

impl Measured {
    /// Starts a program on the server's processor.
    fn start(command: &mut Command, cores: Cores) -> Result<Self> {
        // A child inherits the processor: no moment in which it runs elsewhere.
        cpu::pin(cores.server)?;
        let child = command.spawn();
        cpu::pin(cores.load)?;
        let name = command.get_program().display().to_string();
        Ok(Self { child: child.with_context(|| format!("cannot start {name}"))? })
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Result<CpuTime> {
        CpuTime::of(self.child.id())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).context(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib: u64 = line
            .and_then(|line| line.trim().split(' ').next()?.parse().ok())
            .context("no Rss in smaps_rollup")?;
        Ok(kib * 1024)
    }

    /// Waits until it does next to nothing, so that what it still had to do is not counted.
    pub(crate) fn settle(&self) -> Result<()> {
        const QUIET: f64 = 0.01;
        let end = Instant::now() + START;
        loop {
            let before = self.cpu()?;
            thread::sleep(Duration::from_millis(200));
            if self.cpu()?.since(&before) / 0.2 < QUIET {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the server does not come to rest");
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A floor of this program.
pub(crate) struct Floor {
    pub(crate) process: Measured,
    pub(crate) addr: SocketAddr,
}

impl Floor {
    /// Starts a floor that listens.
    pub(crate) fn listening(args: &[&str], cores: Cores) -> Result<Self> {
        let (process, Listening { addr }) = floor(args, cores)?;
        Ok(Self { process, addr })
    }
}

/// Runs a floor and reads the line that it prints.
pub(crate) fn floor<T: DeserializeOwned>(args: &[&str], cores: Cores) -> Result<(Measured, T)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor").args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Measured::start(&mut command, cores)?;
    let out = process.child.stdout.take().context("no pipe from the floor")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let told = serde_json::from_str(&line)
        .with_context(|| format!("floor {} said {line:?}", args.join(" ")))?;
    Ok((process, told))
}

/// What a running server says of itself.
#[derive(Debug, Deserialize)]
struct Run {
    tcp: SocketAddr,
    quic: SocketAddr,
    admin: SocketAddr,
    pid: u32,
}

/// A certificate for localhost, as files and as a server's name for it.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// A `chappe serve` on a data directory of its own.
pub(crate) struct Server {
    pub(crate) process: Measured,
    pub(crate) tcp: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) signer: Signer,
    _data: TempDir,
}

impl Server {
    /// Starts one below `dir` and waits until it listens.
    pub(crate) fn start(
        chappe: &Path,
        dir: &Path,
        tls: Option<&Certificate>,
        cores: Cores,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("measured-").tempdir_in(dir)?;
        let config = folder.path().join("chappe.toml");
        fs::write(&config, configuration(tls))?;
        let log = folder.path().join("server.log");
        let data = folder.path().join("data");
        let out = fs::File::create(&log)?;
        let mut command = Command::new(chappe);
        command.args(["serve", "--listen", "127.0.0.1:0", "--quic-listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0"]);
        command.arg("--data").arg(&data).arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut process = Measured::start(&mut command, cores)?;
        let run = wait_for_run(&mut process, &data)
            .with_context(|| format!("chappe serve: {}", last_lines(&log)))?;
        let secret = fs::read(data.join("secret")).context("the server's secret")?;
        Ok(Self {
            process,
            tcp: run.tcp,
            quic: run.quic,
            admin: run.admin,
            signer: Signer::new(&secret),
            _data: folder,
        })
    }
}

/// Limits that keep a client honest would here only limit the load.
fn configuration(tls: Option<&Certificate>) -> String {
    let mut text = "[limits]\nconnections_per_address = 20000\nconnections_per_user = 20000\n\
         [limits.rates]\nconnection.per_second = 0\nuser.per_second = 0\n\
         channel.per_second = 0\naddress.per_second = 0\nhandshakes.per_second = 0\n\
         [telemetry]\nfilter = \"warn\"\n"
        .to_owned();
    if let Some(Certificate { cert, key }) = tls {
        text += &format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n");
    }
    text
}

fn wait_for_run(process: &mut Measured, data: &Path) -> Result<Run> {
    let end = Instant::now() + START;
    let path = data.join("run.json");
    while Instant::now() < end {
        if let Some(status) = process.child.try_wait()? {
            bail!("it ended: {status}");
        }
        if let Ok(text) = fs::read(&path) {
            let run: Run = serde_json::from_slice(&text).context("run.json")?;
            ensure!(run.pid == process.child.id(), "run.json is another server's");
            return Ok(run);
        }
        thread::sleep(POLL);
    }
    bail!("it does not listen after {} s", START.as_secs())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
