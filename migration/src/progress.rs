//! What is told while an export or import is under way.

use std::fmt;

use chappe_protocol::PartitionId;

/// A step that was made, or what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// These partitions are not led by this process yet.
    NotLed(Vec<PartitionId>),
    /// All partitions refuse clients; what is under way between them is waited for.
    Draining(usize),
    /// Nothing changes any more.
    Sealed,
    /// All partitions take changes again.
    Opened,
    /// An export that was begun before goes on behind this many files.
    GoesOn(u32),
    /// A file was written and is durable.
    Exported {
        /// Its number.
        file: u32,
        /// Rows so far.
        rows: u64,
    },
    /// A file was read and found sound.
    Checked {
        /// Its number.
        file: u32,
        /// Of so many.
        files: u32,
    },
    /// A file's rows are in the target, durably.
    Imported {
        /// Its number.
        file: u32,
        /// Of so many.
        files: u32,
    },
    /// Rows of the target were read back.
    Compared {
        /// So many.
        rows: u64,
        /// Of so many that were exported.
        of: u64,
    },
}

/// Hears of it.
pub type Report<'a> = &'a mut dyn FnMut(Progress);

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLed(partitions) => {
                write!(f, "waiting to lead partition {}", list(partitions))
            }
            Self::Draining(partitions) => {
                write!(f, "sealed for clients; {partitions} partitions are still being drained")
            }
            Self::Sealed => f.write_str("sealed: nothing changes any more"),
            Self::Opened => f.write_str("opened: changes are taken again"),
            Self::GoesOn(files) => write!(f, "goes on behind file {files}"),
            Self::Exported { file, rows } => write!(f, "exported file {file}, {rows} rows so far"),
            Self::Checked { file, files } => write!(f, "checked file {file} of {files}"),
            Self::Imported { file, files } => write!(f, "imported file {file} of {files}"),
            Self::Compared { rows, of } => write!(f, "compared {rows} of {of} rows"),
        }
    }
}

/// Partitions for people: the first few of them, and how many there are beside.
pub(crate) fn list(partitions: &[PartitionId]) -> String {
    let named = partitions.iter().take(LISTED).map(ToString::to_string).collect::<Vec<_>>();
    match partitions.len().saturating_sub(LISTED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

const LISTED: usize = 12;
