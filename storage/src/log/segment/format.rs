//! The file `format`: which version of the layout this log has, and how many partitions.
//!
//! Text, so that a person can read it. It is written once, after the first segment.

/// The version of the layout that this code reads and writes.
pub(super) const FORMAT: u32 = 1;

/// The file's name.
pub(super) const FORMAT_NAME: &str = "format";

/// Why the file is not one that this code understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatError {
    /// It has another version.
    Version(u32),
    /// Its text or its checksum is wrong.
    Damaged,
}

/// The text for a log with so many partitions.
pub(super) fn encode(partitions: u32) -> String {
    let text = format!("chappe log\nformat {FORMAT}\npartitions {partitions}\n");
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text}crc {crc:08x}\n")
}

/// The number of partitions in the text.
pub(super) fn decode(text: &[u8]) -> Result<u32, FormatError> {
    let text = std::str::from_utf8(text).map_err(|_| FormatError::Damaged)?;
    let (covered, crc) = text
        .split_at_checked(text.len().saturating_sub(CRC_LINE_BYTES))
        .ok_or(FormatError::Damaged)?;
    if crc != format!("crc {:08x}\n", crc32c::crc32c(covered.as_bytes())) {
        return Err(FormatError::Damaged);
    }
    let mut lines = covered.lines();
    if lines.next() != Some("chappe log") {
        return Err(FormatError::Damaged);
    }
    match number(lines.next(), "format ")? {
        FORMAT => number(lines.next(), "partitions "),
        other => Err(FormatError::Version(other)),
    }
}

const CRC_LINE_BYTES: usize = "crc 00000000\n".len();

fn number(line: Option<&str>, name: &str) -> Result<u32, FormatError> {
    let digits = line.and_then(|line| line.strip_prefix(name)).ok_or(FormatError::Damaged)?;
    digits.parse().map_err(|_| FormatError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_text_round_trips() {
        assert_eq!(decode(encode(64).as_bytes()), Ok(64));
    }

    #[test]
    fn another_version_is_named() {
        let text = "chappe log\nformat 2\nwhatever\n";
        let text = format!("{text}crc {:08x}\n", crc32c::crc32c(text.as_bytes()));
        assert_eq!(decode(text.as_bytes()), Err(FormatError::Version(2)));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let text = encode(64).into_bytes();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), Err(FormatError::Damaged), "bit {bit}");
        }
        for length in 0..text.len() {
            assert_eq!(decode(&text[..length]), Err(FormatError::Damaged), "{length} bytes");
        }
    }
}
