//! A real server: its own process, data directory and ports.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{binary::chappe, fresh, http, soon, token};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running server. It is killed when it is dropped, and its data directory removed.
pub struct Server {
    folder: TempDir,
    data: PathBuf,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    process: Option<Child>,
    run: Option<Run>,
    subjects: String,
}

/// Where a server listens, as its `run.json` says.
#[derive(Debug, Clone)]
pub struct Run {
    /// HTTP and WebSocket.
    pub tcp: SocketAddr,
    /// QUIC.
    pub quic: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// `sha256:` and the digest of the certificate.
    pub fingerprint: String,
    /// The process.
    pub pid: u32,
}

impl Run {
    /// Reads where the server of this data directory listens; none while it does not.
    pub fn read(data: &Path) -> Option<Self> {
        let run: Value = serde_json::from_slice(&fs::read(data.join("run.json")).ok()?).ok()?;
        let address = |name: &str| run[name].as_str()?.parse().ok();
        Some(Self {
            tcp: address("tcp")?,
            quic: address("quic")?,
            admin: address("admin")?,
            fingerprint: run["fingerprint"].as_str()?.to_owned(),
            pid: u32::try_from(run["pid"].as_u64()?).ok()?,
        })
    }
}

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct ServerBuilder {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    /// A data directory that is there already.
    data: Option<PathBuf>,
    /// What makes users' names those of this server.
    subjects: Option<String>,
}

impl ServerBuilder {
    /// Sets a key of the configuration, as `log.segment_bytes`, to a TOML value.
    #[must_use]
    pub fn set(mut self, key: &str, toml: impl ToString) -> Self {
        self.settings.retain(|(name, _)| name != key);
        self.settings.push((key.to_owned(), toml.to_string()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps its data in a directory of the caller's.
    #[must_use]
    pub fn on(mut self, data: PathBuf) -> Self {
        self.data = Some(data);
        self
    }

    /// Takes the users of another server for its own.
    #[must_use]
    pub fn with_users_of(mut self, other: &Server) -> Self {
        self.subjects = Some(other.subjects.clone());
        self
    }

    /// Starts it, and waits until it listens.
    pub async fn start(self) -> Server {
        let folder = tempfile::Builder::new().prefix("chappe-test-").tempdir().unwrap();
        let Self { settings, environment, data, subjects } = self;
        let data = data.unwrap_or_else(|| folder.path().join("data"));
        let subjects = subjects.unwrap_or_else(|| fresh(""));
        let (process, run) = (None, None);
        let mut server = Server { folder, data, settings, environment, process, run, subjects };
        server.start_again().await;
        server
    }
}

impl Server {
    /// A server with the default configuration.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A server with settings.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Where it listens.
    pub fn run(&self) -> &Run {
        self.run.as_ref().expect("the server runs")
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A good token of a user. Users of different servers are different users.
    pub fn token(&self, user: &str) -> String {
        token::mint(&self.data(), &self.subject(user))
    }

    /// An expired token of a user.
    pub fn expired_token(&self, user: &str) -> String {
        token::mint_expired(&self.data(), &self.subject(user))
    }

    /// The subject of a user's tokens.
    pub fn subject(&self, user: &str) -> String {
        format!("{user}{}", self.subjects)
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await.unwrap();
        }
    }

    /// Asks it to stop as an operator does. It goes on running until it has drained.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it has stopped by itself, and returns whether it says that all went well.
    pub async fn stopped(&mut self) -> bool {
        let mut process = self.process.take().expect("the server runs");
        soon("the server's end", process.wait()).await.unwrap().success()
    }

    /// Sends it a signal: `STOP` freezes it, `CONT` lets it go on.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.run().pid as i32).expect("a process has a number");
        kill_process(pid, signal).unwrap();
    }

    /// Starts it on the same data and the same ports, and waits until it listens.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let config = self.folder.path().join("chappe.toml");
        fs::write(&config, self.config()).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(chappe());
        command.arg("serve").arg("--config").arg(&config).arg("--data").arg(self.data());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHAPPE_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = command.kill_on_drop(true).spawn().unwrap();
        self.run = Some(self.wait_until_it_listens(&mut process).await);
        self.process = Some(process);
        soon("readiness", self.wait_until_it_is_ready()).await;
    }

    /// Kills it and starts it again.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The value of a metric, summed over its labels; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = http::get(self.run().admin, "/metrics").await;
        assert_eq!(page.status, 200);
        let lines = page.text().lines().map(str::to_owned).collect::<Vec<_>>();
        let values = lines.iter().filter_map(|line| {
            let (metric, value) = line.rsplit_once(' ')?;
            let (metric, _) = metric.split_once('{').unwrap_or((metric, ""));
            (metric == name).then(|| value.parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.run().pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    async fn wait_until_it_listens(&self, process: &mut Child) -> Run {
        let deadline = Instant::now() + START_TIMEOUT;
        let data = self.data();
        let pid = process.id();
        loop {
            if let Some(run) = Run::read(&data).filter(|run| Some(run.pid) == pid) {
                return run;
            }
            if let Some(status) = process.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the server does not start:\n{}", self.log());
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn wait_until_it_is_ready(&self) {
        while http::get(self.run().admin, "/readyz").await.status != 200 {
            sleep(POLL_INTERVAL).await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn config(&self) -> String {
        // The ports of the first start stay, so that clients find the server again.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let [tcp, quic, admin] =
            self.run.as_ref().map_or([any; 3], |run| [run.tcp, run.quic, run.admin]);
        let mut lines =
            format!("listen.tcp = '{tcp}'\nlisten.quic = '{quic}'\nlisten.admin = '{admin}'\n");
        for (key, value) in &self.settings {
            lines += &format!("{key} = {value}\n");
        }
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("the server's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
