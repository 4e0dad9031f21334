//! The scan of a MessagePack frame: where it ends, how deep it goes, that no map has a key twice,
//! and that it holds no kind of value that JSON lacks (no binary, no extension, no key but a
//! string).

use super::nesting::{Kind, Nesting, Unsound};

/// Returns the length of the first value of `bytes`, a map.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, Unsound> {
    let mut scanner = Scanner { bytes, at: 0 };
    match bytes.first() {
        Some(0x80..=0x8f | 0xde | 0xdf) => scanner.frame()?,
        _ => return Err(Unsound::Malformed),
    }
    Ok(scanner.at)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The head of a value: what follows it, and how much of it.
enum Head {
    Bytes(u32),
    Text(u32),
    Array(u32),
    Map(u32),
}

impl<'a> Scanner<'a> {
    /// Walks one value without recursion.
    fn frame(&mut self) -> Result<(), Unsound> {
        let mut nesting = Nesting::new();
        loop {
            match self.head()? {
                Head::Bytes(length) | Head::Text(length) => drop(self.take(length)?),
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
    fn close_complete(&mut self, nesting: &mut Nesting) -> Result<bool, Unsound> {
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

    fn key(&mut self, nesting: &mut Nesting) -> Result<(), Unsound> {
        match self.head()? {
            Head::Text(length) => nesting.add_key(self.take(length)?),
            _ => Err(Unsound::KeyNotText),
        }
    }

    fn head(&mut self) -> Result<Head, Unsound> {
        let marker = *self.bytes.get(self.at).ok_or(Unsound::Malformed)?;
        self.at += 1;
        Ok(match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Head::Bytes(0),
            0x80..=0x8f => Head::Map(u32::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(u32::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Text(u32::from(marker & 0x1f)),
            0xcc | 0xd0 => Head::Bytes(1),
            0xcd | 0xd1 => Head::Bytes(2),
            0xca | 0xce | 0xd2 => Head::Bytes(4),
            0xcb | 0xcf | 0xd3 => Head::Bytes(8),
            0xd9 => Head::Text(self.uint(1)?),
            0xda => Head::Text(self.uint(2)?),
            0xdb => Head::Text(self.uint(4)?),
            0xdc => Head::Array(self.uint(2)?),
            0xdd => Head::Array(self.uint(4)?),
            0xde => Head::Map(self.uint(2)?),
            0xdf => Head::Map(self.uint(4)?),
            0xc1 | 0xc4..=0xc9 | 0xd4..=0xd8 => return Err(Unsound::Binary),
        })
    }

    fn uint(&mut self, width: u32) -> Result<u32, Unsound> {
        Ok(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], Unsound> {
        let (taken, _) =
            self.bytes[self.at..].split_at_checked(length as usize).ok_or(Unsound::Malformed)?;
        self.at += length as usize;
        Ok(taken)
    }
}
