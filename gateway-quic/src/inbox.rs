//! Cuts a stream into frames: a u32 length, little-endian, before each.

use chappe_protocol::{ErrorCode, limits};

/// What is kept of a frame that is not complete, and nothing else.
pub(crate) struct Inbox {
    partial: Vec<u8>,
    frame_bytes_max: usize,
}

impl Inbox {
    /// For a client that has not said `hello` yet.
    pub(crate) fn new() -> Self {
        Self { partial: Vec::new(), frame_bytes_max: limits::FRAME_BYTES_MAX_BEFORE_HELLO }
    }

    /// The session is signed in and may send large frames.
    pub(crate) fn signed_in(&mut self) {
        self.frame_bytes_max = limits::FRAME_BYTES_MAX;
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_inside_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes what arrived and hands on the frames that it completes.
    ///
    /// Fails on a frame that is longer than it may be, by what it declares and before any of it
    /// is kept, and on an empty one.
    pub(crate) fn handle(
        &mut self,
        mut bytes: &[u8],
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ErrorCode> {
        if self.is_inside_frame() {
            self.fill(&mut bytes, HEADER_BYTES);
            let Some(length) = self.declared(&self.partial)? else { return Ok(()) };
            self.fill(&mut bytes, HEADER_BYTES + length);
            if self.partial.len() < HEADER_BYTES + length {
                return Ok(());
            }
            inbound(&self.partial[HEADER_BYTES..]);
            self.partial = Vec::new(); // an idle connection holds no buffer
        }
        while let Some(length) = self.declared(bytes)? {
            let Some((frame, rest)) = bytes.split_at_checked(HEADER_BYTES + length) else { break };
            inbound(&frame[HEADER_BYTES..]);
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// The length that a header declares, once there is a whole header.
    fn declared(&self, bytes: &[u8]) -> Result<Option<usize>, ErrorCode> {
        let Some(header) = bytes.first_chunk() else { return Ok(None) };
        match u32::from_le_bytes(*header) as usize {
            0 => Err(ErrorCode::Malformed),
            length if length > self.frame_bytes_max => Err(ErrorCode::FrameTooLarge),
            length => Ok(Some(length)),
        }
    }

    /// Moves bytes over until the partial frame has `wanted`. It grows by what comes, never by
    /// what a header declares.
    fn fill(&mut self, bytes: &mut &[u8], wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.partial.extend_from_slice(taken);
        *bytes = rest;
    }
}

const HEADER_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    #[test]
    fn frames_come_out_whole_wherever_the_stream_is_cut() {
        let frames: [&[u8]; 4] = [b"one", b"t", &[7; 300], b"last"];
        let bytes = framed(&frames);
        for piece in 1..bytes.len() {
            let mut inbox = Inbox::new();
            let mut found: Vec<Vec<u8>> = Vec::new();
            for bytes in bytes.chunks(piece) {
                inbox.handle(bytes, &mut |frame| found.push(frame.to_vec())).unwrap();
            }
            assert_eq!(found, frames, "in pieces of {piece}");
            assert!(!inbox.is_inside_frame() && inbox.partial.capacity() == 0);
        }
    }

    #[test]
    fn a_frame_is_refused_by_its_header_before_anything_is_kept() {
        let mut inbox = Inbox::new();
        let mut none = |_: &[u8]| panic!("no frame");
        let small = (limits::FRAME_BYTES_MAX_BEFORE_HELLO as u32).to_le_bytes();
        let large = (limits::FRAME_BYTES_MAX_BEFORE_HELLO as u32 + 1).to_le_bytes();
        assert_eq!(inbox.handle(&large, &mut none), Err(ErrorCode::FrameTooLarge));
        assert_eq!(inbox.handle(&u32::MAX.to_le_bytes(), &mut none), Err(ErrorCode::FrameTooLarge));
        assert_eq!(inbox.handle(&[0; 4], &mut none), Err(ErrorCode::Malformed));
        assert_eq!(inbox.partial.capacity(), 0);
        assert_eq!(inbox.handle(&small, &mut none), Ok(()));

        let mut inbox = Inbox::new();
        inbox.signed_in();
        assert_eq!(inbox.handle(&large, &mut none), Ok(()));
    }

    #[test]
    fn a_header_in_pieces_is_refused_as_well() {
        let mut inbox = Inbox::new();
        let header = u32::MAX.to_le_bytes();
        for byte in &header[..3] {
            assert_eq!(inbox.handle(&[*byte], &mut |_| panic!("no frame")), Ok(()));
        }
        assert_eq!(inbox.handle(&header[3..], &mut |_| {}), Err(ErrorCode::FrameTooLarge));
    }
}
