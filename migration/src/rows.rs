//! A file of rows: blocks with a checksum each, and an end that says how many there were.
//!
//! ```text
//! file    "CHAPROWS" | format u32 | number u32 | block … | end
//! block   bytes u32 (not 0) | entries u32 | crc u32 | entries
//! end     0 u32 | blocks u32 | crc u32
//! ```
//!
//! Integers are little-endian. A checksum is the CRC-32C of the two integers before it and of the
//! block's entries.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;

use chappe_storage::store::ROW_BYTES_MAX;

use crate::entry::Entry;
use crate::folder::{FORMAT, Folder, FolderError, io_error};

/// Writes one file.
pub(crate) struct RowsWriter {
    folder: Folder,
    path: PathBuf,
    file: File,
    block: Vec<u8>,
    entries: u32,
    blocks: u32,
    /// Bytes in the file so far.
    bytes: u64,
}

impl RowsWriter {
    /// Begins the file with this number, over whatever was left of an earlier try.
    pub(crate) fn create(folder: &Folder, number: u32) -> Result<Self, FolderError> {
        let path = folder.rows(number);
        let mut file = folder.create(&path)?;
        let header = [&MAGIC[..], &FORMAT.to_le_bytes(), &number.to_le_bytes()].concat();
        file.write_all(&header).map_err(io_error(&path))?;
        let (folder, bytes) = (folder.clone(), header.len() as u64);
        Ok(Self { folder, path, file, block: Vec::new(), entries: 0, blocks: 0, bytes })
    }

    pub(crate) fn push(&mut self, entry: &Entry) -> Result<(), FolderError> {
        entry.encode(&mut self.block);
        self.entries += 1;
        if self.block.len() >= BLOCK_BYTES { self.write_block() } else { Ok(()) }
    }

    /// Bytes that the file has, or will have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes + self.block.len() as u64
    }

    /// Ends the file: it is durable, and has its name.
    pub(crate) fn finish(mut self) -> Result<(), FolderError> {
        if self.entries > 0 {
            self.write_block()?;
        }
        let end = frame(0, self.blocks, &[]);
        self.file.write_all(&end).map_err(io_error(&self.path))?;
        self.folder.finish(&self.path, &self.file)
    }

    fn write_block(&mut self) -> Result<(), FolderError> {
        let frame = frame(self.block.len() as u32, self.entries, &self.block);
        let written = self.file.write_all(&frame).and_then(|()| self.file.write_all(&self.block));
        written.map_err(io_error(&self.path))?;
        self.bytes += (frame.len() + self.block.len()) as u64;
        self.blocks += 1;
        self.entries = 0;
        self.block.clear();
        Ok(())
    }
}

/// Reads one file.
pub(crate) struct RowsReader {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    blocks: u32,
}

impl RowsReader {
    pub(crate) fn open(folder: &Folder, number: u32) -> Result<Self, FolderError> {
        let path = folder.rows(number);
        let file = BufReader::new(File::open(&path).map_err(io_error(&path))?);
        let mut reader = Self { path, file, at: 0, blocks: 0 };
        let mut header = [0; 16];
        reader.fill(&mut header)?;
        if header[..12] != [&MAGIC[..], &FORMAT.to_le_bytes()].concat() {
            return Err(FolderError::Format { path: reader.path });
        }
        if header[12..] != number.to_le_bytes() {
            return Err(reader.damaged("it is another of the files"));
        }
        Ok(reader)
    }

    /// The entries of the next block; none at the end.
    pub(crate) fn next_block(&mut self) -> Result<Option<Vec<Entry>>, FolderError> {
        let mut head = [0; 12];
        let began = self.at;
        self.fill(&mut head)?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (bytes, entries) = (word(0), word(4));
        if bytes as usize > BLOCK_BYTES_MAX {
            return Err(self.damaged("a block is larger than any"));
        }
        let mut block = vec![0; bytes as usize];
        self.fill(&mut block)?;
        if frame(bytes, entries, &block) != head {
            self.at = began;
            return Err(self.damaged("the checksum of a block is another"));
        }
        if bytes == 0 {
            let at_end = self.file.read(&mut [0]).map_err(io_error(&self.path))? == 0;
            let whole = at_end && entries == self.blocks;
            return if whole { Ok(None) } else { Err(self.damaged("blocks are missing")) };
        }
        self.blocks += 1;
        let mut rest = &block[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let entry = Entry::take(&mut rest);
            found.push(entry.ok_or_else(|| self.damaged("an entry is none of this format"))?);
        }
        if found.len() as u32 != entries {
            return Err(self.damaged("entries are missing"));
        }
        Ok(Some(found))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), FolderError> {
        match self.file.read_exact(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends too early"))
            }
            read => {
                self.at += buffer.len() as u64;
                read.map_err(io_error(&self.path))
            }
        }
    }

    fn damaged(&self, what: &'static str) -> FolderError {
        FolderError::Damaged { path: self.path.clone(), at: self.at, what }
    }
}

/// What stands before a block.
fn frame(bytes: u32, entries: u32, block: &[u8]) -> [u8; 12] {
    let mut frame = [0; 12];
    frame[..4].copy_from_slice(&bytes.to_le_bytes());
    frame[4..8].copy_from_slice(&entries.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..8]), block);
    frame[8..].copy_from_slice(&crc.to_le_bytes());
    frame
}

const MAGIC: [u8; 8] = *b"CHAPROWS";
/// A block is closed when it has this many bytes.
const BLOCK_BYTES: usize = 256 * 1024;
/// No block is larger: it was closed by its last row.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + ROW_BYTES_MAX + 64 * 1024;
