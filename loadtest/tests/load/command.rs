//! Runs the program.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A directory for a run's files, the server's secret among them.
pub(crate) struct Bench {
    directory: TempDir,
}

/// How a run ended.
#[derive(Debug)]
#[allow(dead_code)] // what is printed when a test fails
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The JSON report, if one was asked for and written.
    pub(crate) report: Value,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), [7; 32]).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a run: a few users for a second or so unless `words` say otherwise. A machine that
    /// is busy with other tests is no reason to call it invalid.
    pub(crate) fn start(&self, url: &str, words: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chappe-load"));
        command.args(words.split_whitespace()).args(["--url", url]);
        if !words.contains("--secret") {
            command.arg("--secret").arg(self.path("secret"));
        }
        command.arg("--json").arg(self.path("report.json"));
        if !words.starts_with("audit") {
            command.args(["--lag-max", "60s"]);
        }
        for name in ["CHAPPE_URL", "CHAPPE_TOKEN", "CHAPPE_CA", "CHAPPE_FINGERPRINT"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().unwrap()
    }

    pub(crate) async fn finish(&self, child: Child) -> Done {
        let output = child.wait_with_output().await.unwrap();
        let report = std::fs::read(self.path("report.json")).unwrap_or_default();
        Done {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            report: serde_json::from_slice(&report).unwrap_or(Value::Null),
        }
    }

    pub(crate) async fn run(&self, url: &str, words: &str) -> Done {
        let child = self.start(url, words);
        self.finish(child).await
    }
}

impl Done {
    /// How often a promise was broken in this way.
    pub(crate) fn breaches(&self, name: &str) -> u64 {
        let breaches = self.report["audit"]["breaches"].as_array().unwrap();
        let of_name = breaches.iter().find(|breach| breach[0] == name);
        of_name.map_or(0, |breach| breach[1].as_u64().unwrap())
    }
}
