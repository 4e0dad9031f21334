//! The measurements, one file each.

pub(crate) mod connect;
pub(crate) mod fanout;
pub(crate) mod kept;
pub(crate) mod memory;
pub(crate) mod publish;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::{cpu::Cores, report::Row};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    /// Encode and decode
    Codec,
    /// Allocations of an event
    Allocations,
    /// Append to the embedded log
    LogAppend,
    /// One message to a thousand subscribers
    Fanout,
    /// Acknowledged durable publishes
    Publish,
    /// Connect and sign in
    Connect,
    /// Memory of an idle connection
    Memory,
}

/// What all measurements need.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) cores: Cores,
    pub(crate) chappe: PathBuf,
    /// Where servers and floors keep their data: all on the same disk.
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) effort: Effort,
    /// Idle connections in the measurement of memory.
    pub(crate) idle: usize,
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Full,
    /// A fifth of the work: to see that it runs, not to publish.
    Quick,
}

impl Setting {
    /// An amount of work.
    pub(crate) const fn amount(&self, full: usize) -> usize {
        match self.effort {
            Effort::Full => full,
            Effort::Quick => full / 5,
        }
    }
}

impl Measure {
    /// Measures.
    pub(crate) fn run(self, setting: &Setting) -> Result<Vec<Row>> {
        match self {
            Self::Codec => kept::codec(setting),
            Self::Allocations => kept::allocations(),
            Self::LogAppend => kept::log_append(setting),
            Self::Fanout => fanout::run(setting),
            Self::Publish => publish::run(setting),
            Self::Connect => connect::run(setting),
            Self::Memory => memory::run(setting),
        }
    }
}

/// Says where the run is. Beside the table, so that the table can be redirected.
pub(crate) fn progress(text: &str) {
    eprintln!("  {text}");
}
