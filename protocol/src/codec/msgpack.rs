//! The scan of a MessagePack frame: where it ends, how deep it goes, and that it says nothing
//! that JSON could not say (no binary, no extension, no number that is not finite, no string that
//! is not UTF-8, no key but a string).

use super::{
    DecodeError,
    nesting::{Kind, Nesting},
};
use crate::code::ErrorCode;

/// Returns the length of the first value of `bytes`, a map.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut scanner = Scanner { bytes, at: 0 };
    match bytes.first() {
        Some(0x80..=0x8f | 0xde | 0xdf) => scanner.frame()?,
        _ => return Err(DecodeError::new(ErrorCode::Malformed)),
    }
    Ok(scanner.at)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The head of a value: what follows it, and how much of it.
enum Head {
    /// This many bytes without meaning for the scan.
    Scalar(usize),
    Text(usize),
    Float32,
    Float64,
    Array(usize),
    Map(usize),
}

impl<'a> Scanner<'a> {
    /// Walks one value without recursion.
    fn frame(&mut self) -> Result<(), DecodeError> {
        let mut nesting = Nesting::new();
        loop {
            match self.head()? {
                Head::Scalar(length) => drop(self.take(length)?),
                Head::Text(length) => drop(self.text(length)?),
                Head::Float32 => finite(f32::from_bits(self.uint(4)? as u32).into())?,
                Head::Float64 => finite(f64::from_bits(self.uint(8)?))?,
                Head::Array(items) => nesting.open(Kind::Array, items)?,
                Head::Map(entries) => nesting.open(Kind::Map, entries)?,
            }
            if self.close_complete(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// After a value or a head: closes the maps and arrays that lack nothing more, and reads the
    /// next key where a map goes on. True at the frame's end.
    fn close_complete(&mut self, nesting: &mut Nesting) -> Result<bool, DecodeError> {
        while let Some(level) = nesting.top() {
            if level.left == 0 {
                nesting.close();
                continue;
            }
            level.left -= 1;
            if level.kind == Kind::Map {
                self.key(nesting)?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn key(&mut self, nesting: &mut Nesting) -> Result<(), DecodeError> {
        match self.head()? {
            Head::Text(length) => nesting.add_key(self.text(length)?),
            _ => Err(DecodeError::malformed("a key is a string")),
        }
    }

    fn head(&mut self) -> Result<Head, DecodeError> {
        let marker = self.take(1)?[0];
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Head::Scalar(0),
            0x80..=0x8f => Head::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Text(usize::from(marker & 0x1f)),
            0xca => Head::Float32,
            0xcb => Head::Float64,
            0xcc | 0xd0 => Head::Scalar(1),
            0xcd | 0xd1 => Head::Scalar(2),
            0xce | 0xd2 => Head::Scalar(4),
            0xcf | 0xd3 => Head::Scalar(8),
            0xd9 => Head::Text(self.uint(1)? as usize),
            0xda => Head::Text(self.uint(2)? as usize),
            0xdb => Head::Text(self.uint(4)? as usize),
            0xdc => Head::Array(self.uint(2)? as usize),
            0xdd => Head::Array(self.uint(4)? as usize),
            0xde => Head::Map(self.uint(2)? as usize),
            0xdf => Head::Map(self.uint(4)? as usize),
            0xc1 | 0xc4..=0xc9 | 0xd4..=0xd8 => {
                return Err(DecodeError::malformed("binary and extension values are not used"));
            }
        })
    }

    fn text(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let text = self.take(length)?;
        match std::str::from_utf8(text) {
            Ok(_) => Ok(text),
            Err(_) => Err(DecodeError::malformed("a string is not UTF-8")),
        }
    }

    fn uint(&mut self, width: usize) -> Result<u64, DecodeError> {
        Ok(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| DecodeError::new(ErrorCode::Malformed))?;
        self.at += length;
        Ok(taken)
    }
}

fn finite(number: f64) -> Result<(), DecodeError> {
    if number.is_finite() { Ok(()) } else { Err(DecodeError::malformed("a number is not finite")) }
}
