//! What happened in a partition that ought to be rare, counted for metrics.

/// Counts since they were last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records in the log that do not count: a deposed leader's, or out of their order.
    pub voided: u64,
    /// Ends of a leadership that were not planned.
    pub deposed: u64,
    /// Answers that had to wait for a proof of leadership.
    pub suspended: u64,
    /// Commands that were answered as when they came first.
    pub repeated: u64,
    /// Commands, reads and attaches that were given back to be sent again.
    pub given_back: u64,
}
