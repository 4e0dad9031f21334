//! The scan of a JSON frame: where it ends, how deep it goes.
//!
//! It checks structure alone; serde_json checks the values' own grammar afterwards.

use super::DecodeError;
use crate::{code::ErrorCode, limits};

/// Returns the length of the first value of `bytes`, leading white space included.
///
/// The value is a map, and the maps' keys that hold commands hold maps: serde would take an
/// array for a struct, and so give one frame two spellings.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(DecodeError::new(ErrorCode::Malformed));
    }
    scanner.value()?;
    Ok(scanner.at)
}

/// The top-level `id` of a frame that serde refused, if it has one.
pub(super) fn find_id(frame: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: u32,
    }
    serde_json::from_slice::<Id>(frame).ok().map(|frame| frame.id)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// An open map or array.
#[derive(Clone, Copy)]
struct Level {
    map: bool,
    keys: usize,
}

impl Scanner<'_> {
    /// Walks one value without recursion, on a stack of fixed size.
    fn value(&mut self) -> Result<(), DecodeError> {
        let mut stack = [Level { map: false, keys: 0 }; limits::DEPTH_MAX];
        let mut depth = 0;
        loop {
            self.skip_space();
            match self.next()? {
                open @ (b'{' | b'[') => {
                    if depth == limits::DEPTH_MAX {
                        return Err(DecodeError::new(ErrorCode::TooDeep));
                    }
                    // The frame is a map, and so is each command's body.
                    if open == b'[' && depth == 1 {
                        return Err(DecodeError::new(ErrorCode::Invalid));
                    }
                    stack[depth] = Level { map: open == b'{', keys: 0 };
                    depth += 1;
                    self.skip_space();
                    if self.peek() == Some(if open == b'{' { b'}' } else { b']' }) {
                        self.at += 1;
                        depth -= 1;
                    } else {
                        if open == b'{' {
                            self.key(&mut stack[depth - 1])?;
                        }
                        continue;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.scalar(),
                _ => return Err(DecodeError::new(ErrorCode::Malformed)),
            }
            // A value is complete: close what it completes.
            loop {
                let Some(level) = depth.checked_sub(1).map(|top| &mut stack[top]) else {
                    return Ok(());
                };
                self.skip_space();
                match (self.next()?, level.map) {
                    (b',', true) => {
                        self.key(level)?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => depth -= 1,
                    _ => return Err(DecodeError::new(ErrorCode::Malformed)),
                }
            }
        }
    }

    fn key(&mut self, level: &mut Level) -> Result<(), DecodeError> {
        level.keys += 1;
        if level.keys > limits::KEYS_MAX {
            return Err(DecodeError::new(ErrorCode::TooDeep));
        }
        self.skip_space();
        self.expect(b'"')?;
        self.string()?;
        self.skip_space();
        self.expect(b':')
    }

    /// Skips the rest of a string whose opening quote was read.
    fn string(&mut self) -> Result<(), DecodeError> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => drop(self.next()?),
                _ => {}
            }
        }
    }

    fn scalar(&mut self) {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
        self.at += end.unwrap_or(rest.len());
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
