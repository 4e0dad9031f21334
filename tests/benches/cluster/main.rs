//! What a cluster costs, and how long what fails is felt: three brokers and three gateways on the
//! servers of `tests/services`.
//!
//! `make bench-cluster`, or with `tests/services/services run` and what is to be measured:
//! `cargo bench -p chappe-tests --bench cluster -- gaps publish latency`
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says where")]

mod floor;
mod gaps;
mod latency;
mod publish;
mod scene;

use chappe_tests::cluster::Cluster;

use scene::Scene;

fn main() {
    let known = ["gaps", "publish", "latency"];
    let chosen: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let Some(unknown) = chosen.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("{unknown} is none of {}", known.join(", "));
        std::process::exit(2);
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // The budget is large enough for a round: what the projection owes is told beside it.
        let mut cluster = Cluster::plan().start().await;
        let scene = Scene::set(&cluster).await;
        if wanted("publish") {
            publish::run(&cluster, &scene).await;
        }
        if wanted("latency") {
            latency::run(&cluster, &scene).await;
        }
        if wanted("gaps") {
            gaps::run(&mut cluster, &scene).await;
        }
    });
}
