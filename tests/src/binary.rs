//! The binaries that are tested.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The binary: `CHAPPE_BIN`, or the workspace's own, built from what is there now in the profile
/// of the test itself.
pub fn chappe() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CHAPPE_BIN") {
        Some(path) => path.into(),
        None => build("chappe-server", "chappe"),
    })
}

/// The load generator: `CHAPPE_LOAD_BIN`, or the workspace's own.
pub fn chappe_load() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CHAPPE_LOAD_BIN") {
        Some(path) => path.into(),
        None => build("chappe-loadtest", "chappe-load"),
    })
}

fn build(package: &str, binary: &str) -> PathBuf {
    // Tests run in TARGET/PROFILE/deps.
    let test = env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", package, "--bin", binary]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    // Tests run in their package's folder. A path compiled in would be that of whichever clone
    // filled a shared target folder.
    cargo.current_dir("..");
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().unwrap();
    assert!(status.success(), "{binary} does not build");
    profile.join(binary)
}
