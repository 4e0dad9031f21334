//! The scan of a JSON frame: where it ends, how deep it goes, and that its strings and keys are
//! sound. The grammar of numbers is left to serde_json, which reads the frame afterwards.

use super::{
    DecodeError,
    nesting::{Kind, Nesting},
};
use crate::code::ErrorCode;

/// Returns the length of the first value of `bytes`, a map, leading white space included.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(DecodeError::new(ErrorCode::Malformed));
    }
    scanner.frame()?;
    Ok(scanner.at)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Walks one value without recursion.
    fn frame(&mut self) -> Result<(), DecodeError> {
        let mut nesting = Nesting::new();
        loop {
            self.skip_space();
            match self.next()? {
                b'{' => {
                    nesting.open(Kind::Map, 0)?;
                    if !self.ends_at_once(b'}') {
                        self.key(&mut nesting)?;
                        continue;
                    }
                    nesting.close();
                }
                b'[' => {
                    nesting.open(Kind::Array, 0)?;
                    if !self.ends_at_once(b']') {
                        continue;
                    }
                    nesting.close();
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.skip_word(),
                _ => return Err(DecodeError::new(ErrorCode::Malformed)),
            }
            if self.close_complete(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes the maps and arrays that it completes, and reads what leads to the
    /// next value. True at the frame's end.
    fn close_complete(&mut self, nesting: &mut Nesting) -> Result<bool, DecodeError> {
        while let Some(level) = nesting.top() {
            let kind = level.kind;
            self.skip_space();
            match (self.next()?, kind) {
                (b',', Kind::Map) => return self.key(nesting).map(|()| false),
                (b',', Kind::Array) => return Ok(false),
                (b'}', Kind::Map) | (b']', Kind::Array) => nesting.close(),
                _ => return Err(DecodeError::new(ErrorCode::Malformed)),
            }
        }
        Ok(true)
    }

    fn key(&mut self, nesting: &mut Nesting) -> Result<(), DecodeError> {
        self.skip_space();
        let start = self.at;
        self.expect(b'"')?;
        let key = self.string()?;
        if key.contains(&b'\\') {
            // The same key can be spelt in many ways.
            let plain: String = serde_json::from_slice(&self.bytes[start..self.at])
                .map_err(|_| DecodeError::new(ErrorCode::Malformed))?;
            nesting.add_key(plain.as_bytes())?;
        } else {
            nesting.add_key(key)?;
        }
        self.skip_space();
        self.expect(b':')
    }

    /// Reads the rest of a string whose opening quote was read, and returns what is between the
    /// quotes.
    fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        loop {
            match self.next()? {
                b'"' => return Ok(&self.bytes[start..self.at - 1]),
                b'\\' => self.escape()?,
                0..=0x1f => return Err(DecodeError::new(ErrorCode::Malformed)),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), DecodeError> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let alone = match self.code_unit()? {
                    0xd800..=0xdbff => {
                        self.next()? != b'\\'
                            || self.next()? != b'u'
                            || !(0xdc00..=0xdfff).contains(&self.code_unit()?)
                    }
                    unit => (0xdc00..=0xdfff).contains(&unit),
                };
                if alone { Err(DecodeError::malformed("a surrogate stands alone")) } else { Ok(()) }
            }
            _ => Err(DecodeError::new(ErrorCode::Malformed)),
        }
    }

    fn code_unit(&mut self) -> Result<u32, DecodeError> {
        (0..4).try_fold(0, |unit, _| {
            let digit = char::from(self.next()?).to_digit(16);
            Ok(unit << 4 | digit.ok_or_else(|| DecodeError::new(ErrorCode::Malformed))?)
        })
    }

    fn ends_at_once(&mut self, end: u8) -> bool {
        self.skip_space();
        let ends = self.peek() == Some(end);
        self.at += usize::from(ends);
        ends
    }

    /// Skips a number, `true`, `false` or `null`.
    fn skip_word(&mut self) {
        let rest = &self.bytes[self.at..];
        let ends = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), DecodeError> {
        if self.next()? == byte { Ok(()) } else { Err(DecodeError::new(ErrorCode::Malformed)) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, DecodeError> {
        let byte = self.peek().ok_or_else(|| DecodeError::new(ErrorCode::Malformed))?;
        self.at += 1;
        Ok(byte)
    }
}
