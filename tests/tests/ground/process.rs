//! One process with a configuration of its own, from its start to its end.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use chappe_tests::{chappe, services};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A start, or an end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic and a keyspace that nobody else uses, and processes on them.
pub(crate) struct Ground {
    folder: TempDir,
    name: services::Topic,
    /// Where its brokers take gateways.
    pub(crate) uplink: String,
}

pub(crate) struct Process {
    child: Child,
    pub(crate) data: PathBuf,
    log: PathBuf,
}

/// An address where nobody listens.
pub(crate) fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Ground {
    /// With nothing made yet.
    pub(crate) fn bare() -> Self {
        let folder = tempfile::Builder::new().prefix("chappe-start-").tempdir().unwrap();
        fs::write(folder.path().join("chappe.toml"), "").unwrap();
        Self { folder, name: services::Topic::fresh("start"), uplink: nowhere() }
    }

    /// With a topic and tables.
    pub(crate) async fn made() -> Self {
        let ground = Self::bare();
        ground.tool(&["schema", "apply", "--replicas", "1"]).await;
        ground.tool(&["log", "create"]).await;
        ground
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn tool(&self, args: &[&str]) {
        let ended = self.command(args, &[]).output().await.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "chappe {args:?}: {said}");
    }

    /// Starts `chappe serve` with these settings beside those of the servers.
    pub(crate) fn serve(&self, name: &str, args: &[&str], settings: &[(&str, &str)]) -> Process {
        let data = self.folder.path().join(name);
        let log = self.folder.path().join(format!("{name}.log"));
        let mut command = self.command(&[&["serve"], args].concat(), settings);
        for listen in ["--listen", "--quic-listen", "--admin-listen"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        command.args(["--uplink-listen", &self.uplink]);
        command.arg("--data").arg(&data).kill_on_drop(true);
        let out = fs::File::create(&log).unwrap();
        command.stdout(out.try_clone().unwrap()).stderr(out);
        Process { child: command.spawn().unwrap(), data, log }
    }

    fn command(&self, args: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(chappe());
        command.args(args).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHAPPE_")) {
            command.env_remove(name);
        }
        let standing = [
            ("LOG__KIND", "kafka".to_owned()),
            ("LOG__BROKERS", services::given("KAFKA")),
            ("LOG__TOPIC", self.name.to_owned()),
            ("LOG__GROUP", self.name.to_owned()),
            ("LOG__PARTITIONS", "4".to_owned()),
            ("STORE__KIND", "scylla".to_owned()),
            ("STORE__NODES", services::given("CQL")),
            ("STORE__KEYSPACE", self.name.replace('-', "_")),
            ("STORE__USER", services::given("CQL_USER")),
            ("STORE__PASSWORD", services::given("CQL_PASSWORD")),
            ("PRESENCE__KIND", "redis".to_owned()),
            ("PRESENCE__URL", services::given("REDIS")),
            ("UPLINK__BROKERS", self.uplink.clone()),
            ("AUTH__DEVELOPMENT", "true".to_owned()),
            ("GATEWAY__DRAIN", "1s".to_owned()),
        ];
        command.env("CHAPPE_CONFIG", self.folder.path().join("chappe.toml"));
        for (name, value) in standing {
            command.env(format!("CHAPPE_{name}"), value);
        }
        for (name, value) in settings {
            command.env(format!("CHAPPE_{name}"), value);
        }
        command
    }
}

impl Process {
    /// What `run.json` says, once it listens.
    pub(crate) async fn run(&mut self) -> Value {
        let path = self.data.join("run.json");
        let waiting = async {
            loop {
                if let Some(run) =
                    fs::read(&path).ok().and_then(|it| serde_json::from_slice(&it).ok())
                {
                    return run;
                }
                self.assert_runs();
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(run) => run,
            Err(_) => panic!("it does not listen:\n{}", self.said()),
        }
    }

    /// Waits until it says something.
    pub(crate) async fn says(&mut self, wanted: &str) {
        let waiting = async {
            while !self.said().contains(wanted) {
                self.assert_runs();
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("it never says {wanted:?}:\n{}", self.said());
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it does not end:\n{}", self.said()),
        }
    }

    /// Stops it as an operator does.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().expect("it runs");
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
        let status = self.ended().await;
        assert!(status.success(), "{status}:\n{}", self.said());
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended with {status}:\n{}", self.said());
        }
    }
}
