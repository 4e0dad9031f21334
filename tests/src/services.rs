//! The servers that a cluster stands on, as `tests/services` starts them, or your own.

use std::{path::PathBuf, process::Stdio};

use tokio::process::Command;

/// What `CHAPPE_TEST_<name>` says. A test that needs it fails without.
pub fn given(name: &str) -> String {
    let name = format!("CHAPPE_TEST_{name}");
    std::env::var(&name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make services` and eval \"$(tests/services/services env)\"")
    })
}

/// Runs `tests/services/<script> <args>`: `kafka kill 2`, `cql pause 1`. Only for servers that
/// these scripts started.
pub async fn run(script: &str, args: &[&str]) {
    let path = PathBuf::from(given("SERVICES")).join(script);
    let mut command = Command::new(path);
    command.args(args).stdin(Stdio::null());
    let ended = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{script} {args:?}: {said}");
}
