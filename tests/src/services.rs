//! The servers that a cluster stands on, as `tests/services` starts them, or your own.

use std::{ops::Deref, path::PathBuf, process::Stdio, thread, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    config::ClientConfig,
};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

/// A node that was away for a minute is back in step within seconds, on a busy machine too.
const REPLICATED: Duration = Duration::from_secs(120);
/// A topic that is not deleted by then stays.
const DELETED: Duration = Duration::from_secs(10);

/// What `CHAPPE_TEST_<name>` says. A test that needs it fails without.
pub fn given(name: &str) -> String {
    let name = format!("CHAPPE_TEST_{name}");
    std::env::var(&name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make services` and eval \"$(tests/services/services env)\"")
    })
}

/// Runs `tests/services/<script> <args>`: `kafka kill 2`, `kafka start 2`. Only for servers that
/// these scripts started.
pub async fn run(script: &str, args: &[&str]) {
    let ended = Command::from(command(script, args)).output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{script} {args:?}: {said}");
}

/// Waits until every partition in Kafka has all its copies again.
pub async fn replicated() {
    let lacking = ["topics", "--describe", "--under-replicated-partitions"];
    let waiting = async {
        loop {
            let ended = Command::from(command("kafka", &lacking)).output().await.unwrap();
            if ended.status.success() && ended.stdout.trim_ascii().is_empty() {
                return;
            }
            sleep(Duration::from_secs(1)).await; // the tool is a process of its own each time
        }
    };
    timeout(REPLICATED, waiting).await.expect("the copies catch up");
}

/// A topic's name. The topic goes with it: each one that stays makes Kafka slower, for every fetch
/// between its nodes looks at all partitions.
pub struct Topic(String);

impl Topic {
    /// That nobody else uses; it is yet to be made.
    pub fn fresh(prefix: &str) -> Self {
        Self(crate::fresh(prefix))
    }
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let name = self.0.clone();
        let delete = move || {
            let mut kafka = ClientConfig::new();
            kafka.set("bootstrap.servers", given("KAFKA"));
            let admin: AdminClient<DefaultClientContext> = kafka.create().ok()?;
            let options = AdminOptions::new().request_timeout(Some(DELETED));
            let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
            // Deleting what is not there is no failure, and a failed test says its own.
            runtime.block_on(admin.delete_topics(&[&name], &options)).ok()
        };
        thread::spawn(delete).join().ok();
    }
}

/// Stops a server from answering, until the guard is resumed or dropped: `pause("cql", &["1"])`.
pub async fn pause(script: &'static str, args: &'static [&'static str]) -> Paused {
    run(script, &[&["pause"], args].concat()).await;
    Paused { script, args }
}

/// A server that does not answer. Others need it: a test that fails meanwhile brings it back, too.
#[must_use = "it answers again when this is dropped"]
pub struct Paused {
    script: &'static str,
    args: &'static [&'static str],
}

impl Paused {
    /// Lets it answer again.
    pub fn resume(self) {}
}

impl Drop for Paused {
    fn drop(&mut self) {
        let ended = command(self.script, &[&["resume"], self.args].concat()).status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} {:?} does not answer again", self.script, self.args);
        }
    }
}

fn command(script: &str, args: &[&str]) -> std::process::Command {
    let path = PathBuf::from(given("SERVICES")).join(script);
    let mut command = std::process::Command::new(path);
    command.args(args).stdin(Stdio::null());
    command
}
