//! Moving everything from one log and store to another, of whatever kind.
//!
//! ```text
//!   sealed source ──export──> folder: rows, digests, manifest ──import──> new log and store
//!                                                     └──── verify: read back, compare ────┘
//! ```
//!
//! Nothing is decided or projected here: rows are copied with their stamps, and what is copied is
//! compared by count and digest for each channel. It knows no command line and no backend.
#![warn(missing_docs)]

mod compare;
mod digest;
mod entry;
mod export;
mod folder;
mod import;
mod manifest;
mod progress;
mod rows;
mod seal;
mod sums;
mod ticks;

pub use compare::{Difference, Verdict, VerifyError, verify};
pub use digest::Digest;
pub use export::{ExportError, Exporter};
pub use folder::FolderError;
pub use import::{Begun, ImportError, Importer};
pub use manifest::Manifest;
pub use progress::{Progress, Report};
pub use seal::{SealError, open, seal};
