//! When a presence backend that failed is asked again: not by every question, each of which would
//! wait for its time-out, but by one in a while.

/// Open after a failure, until somebody found out that the backend is back.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    /// The next question may go through at this time; none while all goes well.
    again_ms: Option<u64>,
}

impl Circuit {
    /// Whether the backend may be asked now. While it is down, one question each [`PAUSE_MS`]
    /// finds out whether it still is.
    pub(super) fn admits(&mut self, now_ms: u64) -> bool {
        match self.again_ms {
            None => true,
            Some(again_ms) if now_ms < again_ms => false,
            Some(_) => {
                self.again_ms = Some(now_ms + PAUSE_MS);
                true
            }
        }
    }

    /// The backend answered.
    pub(super) fn handle_answered(&mut self) {
        self.again_ms = None;
    }

    /// It did not. Returns whether that is new.
    pub(super) fn handle_failed(&mut self, now_ms: u64) -> bool {
        self.again_ms.replace(now_ms + PAUSE_MS).is_none()
    }
}

/// Longer than a question may take, so that no two find out at the same time.
const PAUSE_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_one_question_in_a_while_finds_out_and_an_answer_lets_all_through() {
        let mut circuit = Circuit::default();
        assert!(circuit.admits(0) && circuit.admits(0));
        assert!(circuit.handle_failed(100));
        assert!(!circuit.handle_failed(150), "the second of those under way tells nothing new");
        assert!(!circuit.admits(1_149));
        assert!(circuit.admits(1_150));
        assert!(!circuit.admits(1_151), "one finds out");
        assert!(!circuit.handle_failed(1_900));
        assert!(!circuit.admits(2_899) && circuit.admits(2_900));
        circuit.handle_answered();
        assert!(circuit.admits(2_901) && circuit.admits(2_901));
    }
}
