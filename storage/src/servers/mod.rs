//! The servers that tests of backends run against: where they are, and a relay to be cut.
#![allow(dead_code)] // not every set of features has every backend
#![allow(clippy::unwrap_used)] // what fails here fails a test

mod relay;

pub(crate) use relay::Relay;

/// What `CHAPPE_TEST_<name>` says. A test without its server fails, and says how to get one.
#[track_caller]
pub(crate) fn given(name: &str) -> String {
    let name = format!("CHAPPE_TEST_{name}");
    std::env::var(&name).unwrap_or_else(|_| {
        panic!("{name} is not set: `make services`, then `eval \"$(tests/services/services env)\"`")
    })
}

/// A name that no other test has.
pub(crate) fn unique() -> String {
    format!("{:016x}", getrandom::u64().expect("the system has randomness"))
}

/// Waits until `is` holds; a minute is for a machine that is busy, and then the test fails.
#[track_caller]
pub(crate) fn eventually<F>(
    what: &'static str,
    mut is: impl FnMut() -> F,
) -> impl Future<Output = ()>
where
    F: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    async move {
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while !is().await {
            assert!(tokio::time::Instant::now() < end, "{caller}: never: {what}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
