//! `chappe config check`: reads the configuration as `serve` would.

use std::path::Path;

use super::Failure;
use crate::config::Config;

/// Prints what is in force.
pub(super) fn run(file: Option<&Path>) -> Result<(), Failure> {
    let config = Config::load(file).map_err(|error| Failure::Usage(error.into()))?;
    let text = serde_json::to_string_pretty(&config).map_err(anyhow::Error::from)?;
    println!("{text}");
    eprintln!("configuration is valid");
    Ok(())
}
