//! Logs to standard error, metrics to the admin listener.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config;

/// Starts logging. `RUST_LOG` overrides the configured filter.
pub(crate) fn start(config: &config::Telemetry) -> anyhow::Result<PrometheusHandle> {
    let filter =
        EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&config.filter))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    if config.json {
        registry.with(layer.json()).try_init()?;
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()?;
    }
    // Seconds: from a tenth of a millisecond to ten seconds.
    let buckets = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
    Ok(PrometheusBuilder::new().set_buckets(&buckets)?.install_recorder()?)
}
