//! The scan of a JSON frame: where it ends, how deep it goes, and that no map has a key twice.
//! The grammar of numbers and the escapes of strings are left to serde_json, which reads the
//! whole frame afterwards.

use super::nesting::{Kind, Nesting, Unsound};

/// Returns the length of the first value of `bytes`, a map, leading white space included.
pub(super) fn scan(bytes: &[u8]) -> Result<usize, Unsound> {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(Unsound::Malformed);
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
    fn frame(&mut self) -> Result<(), Unsound> {
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
                _ => return Err(Unsound::Malformed),
            }
            if self.close_complete(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes the maps and arrays that it completes, and reads what leads to the
    /// next value. True at the frame's end.
    fn close_complete(&mut self, nesting: &mut Nesting) -> Result<bool, Unsound> {
        while let Some(level) = nesting.top() {
            let kind = level.kind;
            self.skip_space();
            match (self.next()?, kind) {
                (b',', Kind::Map) => return self.key(nesting).map(|()| false),
                (b',', Kind::Array) => return Ok(false),
                (b'}', Kind::Map) | (b']', Kind::Array) => nesting.close(),
                _ => return Err(Unsound::Malformed),
            }
        }
        Ok(true)
    }

    fn key(&mut self, nesting: &mut Nesting) -> Result<(), Unsound> {
        self.skip_space();
        let start = self.at;
        self.expect(b'"')?;
        match self.string()? {
            Spelling::Plain => nesting.add_key(&self.bytes[start + 1..self.at - 1])?,
            Spelling::Escaped => {
                let key: String = serde_json::from_slice(&self.bytes[start..self.at])
                    .map_err(|_| Unsound::Malformed)?;
                nesting.add_key(key.as_bytes())?;
            }
        }
        self.skip_space();
        self.expect(b':')
    }

    /// Skips the rest of a string whose opening quote was read.
    fn string(&mut self) -> Result<Spelling, Unsound> {
        let mut spelling = Spelling::Plain;
        loop {
            self.skip_to_quote_or_escape();
            match self.next()? {
                b'"' => return Ok(spelling),
                _ => {
                    spelling = Spelling::Escaped;
                    self.next()?;
                }
            }
        }
    }

    /// Looks at eight bytes at a time: of what zero bytes the words below have, the lowest is
    /// certain, and it is the one that counts.
    fn skip_to_quote_or_escape(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
        let rest = &self.bytes[self.at..];
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word);
            let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * 0x5c));
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        self.at += tail.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(tail.len());
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

    fn expect(&mut self, byte: u8) -> Result<(), Unsound> {
        if self.next()? == byte { Ok(()) } else { Err(Unsound::Malformed) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Unsound> {
        let byte = self.peek().ok_or(Unsound::Malformed)?;
        self.at += 1;
        Ok(byte)
    }
}

/// How a string is spelt: as it is, or with escapes, so that one key has many spellings.
#[derive(Clone, Copy)]
enum Spelling {
    Plain,
    Escaped,
}
