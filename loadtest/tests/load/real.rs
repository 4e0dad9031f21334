//! The same against the real server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

use crate::{
    command::Bench,
    proxy::{self, Spoil},
};

/// `chappe serve` on ports of its own.
struct Real {
    directory: TempDir,
    run: Value,
    _process: Child,
}

/// The binary: `CHAPPE_BIN`, or the workspace's own as it is now.
fn chappe() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CHAPPE_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_chappe-load")).parent().unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "chappe-server", "--bin", "chappe"]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "chappe does not build");
    profile.join("chappe")
}

/// It starts within a second, and later on a machine that is busy.
const START_MAX: Duration = Duration::from_secs(60);

impl Real {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let any = "127.0.0.1:0";
        let process = tokio::process::Command::new(chappe())
            .args(["serve", "--listen", any, "--quic-listen", any, "--admin-listen", any])
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let up = async {
            loop {
                let written = fs::read(data.join("run.json")).unwrap_or_default();
                if let Ok(run) = serde_json::from_slice(&written) {
                    break run;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let run = tokio::time::timeout(START_MAX, up).await.expect("the server starts in time");
        Self { directory, run, _process: process }
    }

    fn ws(&self) -> String {
        format!("ws://{}", self.run["tcp"].as_str().unwrap())
    }

    fn quic(&self) -> String {
        format!("quic://{}", self.run["quic"].as_str().unwrap())
    }

    /// What it takes to sign in.
    fn trust(&self) -> String {
        let secret = self.directory.path().join("data/secret");
        format!(
            "--secret {} --fingerprint {}",
            secret.display(),
            self.run["fingerprint"].as_str().unwrap()
        )
    }
}

const FANOUT: &str = "fanout --users 5 --channels 2 --rate 50/s --for 2s --settle 5s";

#[tokio::test]
async fn the_real_server_passes_over_every_transport() {
    let server = Real::start().await;
    for url in [server.ws(), server.quic()] {
        for scenario in
            [FANOUT, "chat --users 20 --channels 5 --rate 100/s --for 2s --encoding json"]
        {
            let words = format!("{scenario} --verify {}", server.trust());
            let done = Bench::new().run(&url, &words).await;
            assert_eq!(done.status, Some(0), "{done:?}");
            assert_eq!(done.report["counts"]["acked"], done.report["counts"]["planned"]);
        }
    }
}

#[tokio::test]
async fn one_spoiled_delivery_of_the_real_servers_is_noticed() {
    let server = Real::start().await;
    for (seed, spoil, breach) in
        [(1, Spoil::Drop, "gap"), (2, Spoil::Repeat, "repeated"), (3, Spoil::Swap, "gap")]
    {
        let url = proxy::start(server.ws(), spoil, 100).await;
        let words = format!("{FANOUT} --seed {seed} {}", server.trust());
        let done = Bench::new().run(&url, &words).await;
        assert_eq!(done.status, Some(97), "{spoil:?}: {done:?}");
        assert_eq!(done.breaches(breach), 1, "{spoil:?}: {}", done.out);
        assert_eq!(done.breaches("lost"), 0, "the client has it sent again: {}", done.out);
    }
}
