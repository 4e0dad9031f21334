//! The scan of a MessagePack frame: where it ends, how deep it goes, and that it says nothing
//! that JSON could not say (no binary, no extension, no key but a string).

use super::DecodeError;
use crate::{code::ErrorCode, limits};

/// Returns the length of the first value of `bytes`, which is a map whose values may be maps but
/// not arrays: serde would take an array for a struct.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut scanner = Scanner { bytes, at: 0 };
    match bytes.first() {
        Some(0x80..=0x8f | 0xde | 0xdf) => scanner.value()?,
        _ => return Err(DecodeError::new(ErrorCode::Malformed)),
    }
    Ok(scanner.at)
}

/// The top-level `id` of a frame that serde refused, if it has one.
pub(super) fn find_id(frame: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: u32,
    }
    rmp_serde::from_slice::<Id>(frame).ok().map(|frame| frame.id)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// An open map or array: how many values it still lacks.
#[derive(Clone, Copy)]
struct Level {
    map: bool,
    left: usize,
}

/// The head of a value.
enum Head {
    Scalar(usize),
    Array(usize),
    Map(usize),
}

impl Scanner<'_> {
    /// Walks one value without recursion, on a stack of fixed size.
    fn value(&mut self) -> Result<(), DecodeError> {
        let mut stack = [Level { map: false, left: 0 }; limits::DEPTH_MAX];
        let mut depth = 0;
        loop {
            match self.head()? {
                Head::Scalar(length) => self.skip(length)?,
                Head::Array(_) if depth == 1 => return Err(DecodeError::new(ErrorCode::Invalid)),
                Head::Array(left) => Self::open(&mut stack, &mut depth, Level { map: false, left })?,
                Head::Map(left) => {
                    if left > limits::KEYS_MAX {
                        return Err(DecodeError::new(ErrorCode::TooDeep));
                    }
                    Self::open(&mut stack, &mut depth, Level { map: true, left })?;
                }
            }
            // Close what is complete, and read the next key where a map goes on.
            loop {
                let Some(level) = depth.checked_sub(1).map(|top| &mut stack[top]) else {
                    return Ok(());
                };
                if level.left == 0 {
                    depth -= 1;
                    continue;
                }
                level.left -= 1;
                if level.map {
                    self.key()?;
                }
                break;
            }
        }
    }

    fn open(
        stack: &mut [Level; limits::DEPTH_MAX],
        depth: &mut usize,
        level: Level,
    ) -> Result<(), DecodeError> {
        if *depth == limits::DEPTH_MAX {
            return Err(DecodeError::new(ErrorCode::TooDeep));
        }
        stack[*depth] = level;
        *depth += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<(), DecodeError> {
        if !matches!(self.bytes.get(self.at), Some(0xa0..=0xbf | 0xd9..=0xdb)) {
            return Err(DecodeError::new(ErrorCode::Malformed));
        }
        match self.head()? {
            Head::Scalar(length) => self.skip(length),
            _ => Err(DecodeError::new(ErrorCode::Malformed)),
        }
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let marker = self.uint(1)? as u8;
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Head::Scalar(0),
            0x80..=0x8f => Head::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Scalar(usize::from(marker & 0x1f)),
            0xcc | 0xd0 => Head::Scalar(1),
            0xcd | 0xd1 => Head::Scalar(2),
            0xca | 0xce | 0xd2 => Head::Scalar(4),
            0xcb | 0xcf | 0xd3 => Head::Scalar(8),
            0xd9 => Head::Scalar(self.uint(1)?),
            0xda => Head::Scalar(self.uint(2)?),
            0xdb => Head::Scalar(self.uint(4)?),
            0xdc => Head::Array(self.uint(2)?),
            0xdd => Head::Array(self.uint(4)?),
            0xde => Head::Map(self.uint(2)?),
            0xdf => Head::Map(self.uint(4)?),
            0xc1 | 0xc4..=0xc9 | 0xd4..=0xd8 => {
                return Err(DecodeError::new(ErrorCode::Malformed));
            }
        })
    }

    fn uint(&mut self, width: usize) -> Result<usize, DecodeError> {
        let start = self.at;
        self.skip(width)?;
        Ok(self.bytes[start..self.at].iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn skip(&mut self, length: usize) -> Result<(), DecodeError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        self.at = end.ok_or_else(|| DecodeError::new(ErrorCode::Malformed))?;
        Ok(())
    }
}
