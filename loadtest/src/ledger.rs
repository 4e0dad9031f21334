//! The ledger: a file to which a run appends what it sends and what becomes of it, one JSON
//! object a line, so that a later `chappe-load audit` can hold the server to it.
//!
//! Lines leave the process within [`FLUSH_EVERY`] of being written and before the run ends. They
//! are not synced to disk: the ledger outlives a killed server, not a crashed machine.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use chappe_protocol::{ChannelId, Rev, Seq};
use serde::{Deserialize, Serialize};

/// How often lines are handed to the system.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(10);

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Line {
    /// A run begins; the lines up to the next are its own.
    Run { run: u64, scenario: String, seed: u64 },
    /// A channel of the run, and a member by whose eyes it can be read.
    Channel { channel: ChannelId, member: u32 },
    /// A message is about to be sent.
    Sent { nonce: String, channel: ChannelId, publisher: u32, number: u32 },
    /// It was acknowledged.
    Acked {
        nonce: String,
        rev: Rev,
        seq: Option<Seq>,
        attempts: u32,
        /// It was refused on the way and sent again, so later ones may stand before it.
        overtaken: bool,
    },
    /// It was refused for good: it must not be there.
    Refused { nonce: String, code: u16, attempts: u32 },
    /// It may or may not be there.
    Unknown { nonce: String, attempts: u32 },
}

/// Appends to a ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: BufWriter<File>,
}

impl Ledger {
    /// Opens a ledger, made if it is not there. A line that a killed run left unfinished is cut.
    pub(crate) fn append(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut end = file.seek(SeekFrom::End(0))?;
        let mut byte = [0];
        while end > 0 {
            file.seek(SeekFrom::Start(end - 1))?;
            file.read_exact(&mut byte)?;
            if byte == [b'\n'] {
                break;
            }
            end -= 1;
        }
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok(Self { file: BufWriter::new(file) })
    }

    pub(crate) fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a ledger. A last line without its end is what a killed run leaves, and is left out.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    use anyhow::Context;
    let file =
        File::open(path).with_context(|| format!("cannot read the ledger {}", path.display()))?;
    let mut reader = BufReader::new(file);
    let (mut lines, mut text) = (Vec::new(), String::new());
    loop {
        text.clear();
        reader.read_line(&mut text)?;
        let Some(line) = text.strip_suffix('\n') else { return Ok(lines) };
        let number = lines.len() + 1;
        let line = serde_json::from_str(line)
            .with_context(|| format!("line {number} of the ledger cannot be read"))?;
        lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_back_up_to_its_last_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let lines = [
            Line::Run { run: 1, scenario: "chat".to_owned(), seed: 2 },
            Line::Channel { channel: ChannelId::new(u64::MAX), member: 3 },
            Line::Unknown { nonce: "n".to_owned(), attempts: 2 },
        ];
        let mut ledger = Ledger::append(&path).unwrap();
        for line in &lines {
            ledger.write(line).unwrap();
        }
        ledger.flush().unwrap();
        assert_eq!(read(&path).unwrap(), lines);
        let mut ledger = Ledger::append(&path).unwrap();
        ledger.file.write_all(b"{\"is\":\"sent\",\"non").unwrap();
        ledger.flush().unwrap();
        assert_eq!(read(&path).unwrap(), lines);
        // The next run goes on behind the last whole line.
        let next = Line::Run { run: 2, scenario: "chat".to_owned(), seed: 2 };
        let mut ledger = Ledger::append(&path).unwrap();
        ledger.write(&next).unwrap();
        ledger.flush().unwrap();
        assert_eq!(read(&path).unwrap(), [&lines[..], &[next]].concat());
    }

    #[test]
    fn a_ledger_with_a_broken_line_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(read(&path).is_err());
    }
}
