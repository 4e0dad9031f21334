//! One load generator, its ledger, and what became of it.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use chappe_tests::{chappe_load, cluster::Cluster};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Long enough for a takeover on a busy machine, the load's own waits, and its audit.
const END: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(120);
/// A gateway that has just been frozen or restarted may not let the audit sign in at once.
const AUDITS: usize = 5;
/// What an audit never finds. Nothing stays unknown either: what is not answered is sent again until
/// it is.
const NEVER: [&str; 7] =
    ["lost", "duplicated", "misplaced", "reordered", "refused_but_there", "broken", "unknown"];
/// The exit status of a tool that no server answered.
const UNREACHABLE: i32 = 3;

pub(crate) struct Load {
    process: Option<Child>,
    ledger: PathBuf,
    json: PathBuf,
    output: PathBuf,
    url: String,
}

/// What the audit found.
pub(crate) struct Totals {
    pub(crate) acked: u64,
    pub(crate) retried: u64,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster, round: usize, name: &str, urls: &[String]) -> Self {
        let path = |what: &str| cluster.folder().join(format!("{name}-{round}.{what}"));
        let (ledger, json, output) = (path("ledger"), path("json"), path("out"));
        let mut command = Command::new(chappe_load());
        command.args(["chat", "--users", "8", "--channels", "6", "--rate", "40/s"]);
        command.args(["--for", "1h", "--deadline", "120s", "--settle", "60s", "--lag-max", "60s"]);
        command.args(["--verify", "--seed", &format!("{}", 2 * round + usize::from(name == "ws"))]);
        for url in urls {
            command.args(["--url", url]);
        }
        command.args(["--fingerprint", &cluster.fingerprint()]);
        command.arg("--ledger").arg(&ledger).arg("--secret").arg(cluster.secret());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHAPPE_")) {
            command.env_remove(name);
        }
        let out = fs::File::create(&output).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let process = Some(command.kill_on_drop(true).spawn().unwrap());
        Self { process, ledger, json, output, url: urls[0].clone() }
    }

    /// How many messages were acknowledged so far.
    pub(crate) fn acked(&self) -> usize {
        self.states().values().filter(|state| *state == "acked").count()
    }

    /// How many messages several loads had acknowledged so far.
    pub(crate) fn acked_by(loads: &[Self]) -> usize {
        loads.iter().map(Self::acked).sum()
    }

    /// Waits until so many more are acknowledged, and says how long that took.
    pub(crate) async fn acks_more(&mut self, more: usize) -> Duration {
        let (started, wanted) = (Instant::now(), self.acked() + more);
        let waiting = async {
            while self.acked() < wanted {
                self.assert_runs();
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(SOON, waiting).await.is_err() {
            panic!("no acknowledgement in {SOON:?}:\n{}", self.said());
        }
        started.elapsed()
    }

    /// Ends it as an operator does; it sends again what is not answered, and audits.
    pub(crate) async fn end(&mut self, cluster: &Cluster, what: &str) -> Totals {
        use rustix::process::{Pid, Signal, kill_process};
        let mut process = self.process.take().expect("it runs");
        let pid = process.id().expect("it runs");
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::INT).unwrap();
        let Ok(status) = timeout(END, process.wait()).await else {
            panic!("{what}: the load does not end:\n{}", self.said());
        };
        // 98 says that the machine was too busy for the schedule: the audit was clean all the same.
        let code = status.unwrap().code();
        assert!(matches!(code, Some(0 | 98 | 130)), "{what}: {code:?}:\n{}", self.said());
        let mut audit = Command::new(chappe_load());
        audit.arg("audit").arg("--ledger").arg(&self.ledger).arg("--json").arg(&self.json);
        audit.arg("--secret").arg(cluster.secret()).args(["--url", &self.url]);
        audit.args(["--fingerprint", &cluster.fingerprint()]).stdin(Stdio::null());
        let (mut said, mut code) = (String::new(), None);
        for _ in 0..AUDITS {
            let ended = audit.output().await.unwrap();
            said = String::from_utf8_lossy(&ended.stderr).into_owned();
            code = ended.status.code();
            if code != Some(UNREACHABLE) {
                break;
            }
        }
        let totals = fs::read(&self.json).unwrap_or_else(|_| panic!("{what}: no audit: {said}"));
        let totals: Value = serde_json::from_slice(&totals).unwrap();
        for never in NEVER {
            assert_eq!(totals[never], 0, "{what}, {never}: {totals}\n{}", self.said());
        }
        assert_eq!(code, Some(0), "{what}: {said}");
        let total = |name: &str| totals[name].as_u64().unwrap();
        Totals { acked: total("acked"), retried: total("retried") }
    }

    fn states(&self) -> HashMap<String, String> {
        let text = fs::read_to_string(&self.ledger).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let states = lines.filter_map(|line| {
            Some((line["nonce"].as_str()?.to_owned(), line["is"].as_str()?.to_owned()))
        });
        states.collect()
    }

    fn assert_runs(&mut self) {
        let process = self.process.as_mut().expect("it runs");
        if let Some(status) = process.try_wait().unwrap() {
            panic!("the load ended with {status}:\n{}", self.said());
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}
