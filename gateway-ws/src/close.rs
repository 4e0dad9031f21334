//! Why a WebSocket connection ends: the transport's own codes and the protocol's, and the frames
//! that say so.

use chappe_gateway::link::Framing;
use chappe_protocol::{CloseCode, Encoding, ErrorCode, ServerFrame, WireError, frame::Closing};

/// A client broke a rule of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// How the connection is closed.
    pub(crate) answer: Answer,
    /// The rule.
    pub(crate) rule: &'static str,
}

/// What a client is told that broke a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The rule is WebSocket's: a close code of its own (RFC 6455 §7.4).
    Close(u16),
    /// The rule is the protocol's: its error, its `closing`, and its close code.
    Refuse(ErrorCode),
}

impl Violation {
    pub(crate) const fn protocol(rule: &'static str) -> Self {
        Self { answer: Answer::Close(1002), rule }
    }

    pub(crate) const fn kind(rule: &'static str) -> Self {
        Self { answer: Answer::Close(1003), rule }
    }

    pub(crate) const fn utf8() -> Self {
        Self { answer: Answer::Close(1007), rule: "text is UTF-8" }
    }

    pub(crate) const fn policy(rule: &'static str) -> Self {
        Self { answer: Answer::Close(1008), rule }
    }

    pub(crate) const fn too_large() -> Self {
        Self { answer: Answer::Refuse(ErrorCode::FrameTooLarge), rule: "the message is too large" }
    }

    /// The close code of the answer.
    pub(crate) fn code(&self) -> u16 {
        match self.answer {
            Answer::Close(code) => code,
            Answer::Refuse(code) => close_code(code).number(),
        }
    }

    /// Appends what the client is told, the close frame last.
    pub(crate) fn write(&self, encoding: Encoding, framing: Framing, out: &mut Vec<u8>) {
        if let Answer::Refuse(code) = self.answer {
            let error = WireError::with_message(code, self.rule);
            let closing = Closing::new(close_code(code));
            for frame in [ServerFrame::Error { id: None, error }, ServerFrame::Closing { closing }]
            {
                let mut payload = Vec::new();
                encoding.encode(&frame, &mut payload);
                framing.write(&payload, out);
            }
        }
        write_close(Some(self.code()), self.rule, out);
    }
}

/// How the connection ends after an error that its transport found.
fn close_code(code: ErrorCode) -> CloseCode {
    code.closes().unwrap_or(CloseCode::ProtocolError)
}

/// Appends a close frame. A reason that is too long for one is left out.
pub(crate) fn write_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let reason = if reason.len() <= 123 { reason } else { "" };
    let Some(code) = code else { return out.extend_from_slice(&[0x88, 0]) };
    out.extend_from_slice(&[0x88, 2 + reason.len() as u8]);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a pong with the ping's own payload, which is at most 125 bytes.
pub(crate) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x8a, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Reads the payload of a close frame.
pub(crate) fn read_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::protocol("a close frame is empty or has a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1004 is reserved, 1005, 1006 and 1015 are never on the wire, the rest is unassigned.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::protocol("a close code is one that may be sent"));
    }
    std::str::from_utf8(reason).map_err(|_| Violation::utf8())?;
    Ok(Some(code))
}
