//! One timer wheel for all connections of a shard: a connection is in one slot, and what is due
//! for it is looked up when the slot comes round.

/// Slots of a quarter second, half a minute in all; what is due later is looked at once a round.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<u32>>,
    /// The tick in which each connection is looked at, by its index; 0 for none.
    armed: Vec<u64>,
    /// The next tick.
    tick: u64,
    count: usize,
    due: Vec<u32>,
}

const TICK_MS: u64 = 250;
const SLOTS: u64 = 128;

impl Wheel {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            armed: Vec::new(),
            tick: now_ms / TICK_MS + 1,
            count: 0,
            due: Vec::new(),
        }
    }

    /// Has a connection looked at when `due_ms` is over, or at the end of a round if that is
    /// earlier. An earlier time replaces a later one.
    pub(crate) fn arm(&mut self, connection: u32, due_ms: u64) {
        let tick = (due_ms / TICK_MS + 1).clamp(self.tick, self.tick + SLOTS - 1);
        let index = connection as usize;
        if self.armed.len() <= index {
            self.armed.resize(index + 1, 0);
        }
        let armed = self.armed[index];
        if armed != 0 && armed <= tick {
            return;
        }
        if armed == 0 {
            self.count += 1;
        }
        self.armed[index] = tick;
        self.slots[(tick % SLOTS) as usize].push(connection);
    }

    /// A connection is gone.
    pub(crate) fn disarm(&mut self, connection: u32) {
        if let Some(armed) = self.armed.get_mut(connection as usize)
            && std::mem::take(armed) != 0
        {
            self.count -= 1;
        }
    }

    /// The next connection that is to be looked at.
    pub(crate) fn poll_due(&mut self, now_ms: u64) -> Option<u32> {
        loop {
            if let Some(connection) = self.due.pop() {
                // Who was armed for another tick since is looked at then.
                let armed = &mut self.armed[connection as usize];
                if *armed != 0 && *armed < self.tick {
                    *armed = 0;
                    self.count -= 1;
                    return Some(connection);
                }
                continue;
            }
            if self.tick * TICK_MS > now_ms {
                return None;
            }
            let slot = (self.tick % SLOTS) as usize;
            std::mem::swap(&mut self.due, &mut self.slots[slot]);
            self.tick += 1;
        }
    }

    /// When the next tick is, if anyone is to be looked at.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        (self.count > 0).then_some(self.tick * TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        std::iter::from_fn(|| wheel.poll_due(now_ms)).collect()
    }

    #[test]
    fn a_connection_is_due_within_a_tick_after_its_time() {
        let mut wheel = Wheel::new(1_000);
        wheel.arm(7, 2_000);
        assert_eq!(due(&mut wheel, 2_000), [0_u32; 0]);
        assert_eq!(due(&mut wheel, 2_250), [7]);
        assert_eq!(due(&mut wheel, 60_000), [0_u32; 0]);
        assert_eq!(wheel.next_ms(), None);
    }

    #[test]
    fn an_earlier_time_replaces_a_later_one_and_not_the_other_way() {
        let mut wheel = Wheel::new(0);
        wheel.arm(1, 20_000);
        wheel.arm(1, 5_000);
        wheel.arm(1, 9_000);
        assert_eq!(due(&mut wheel, 4_999), [0_u32; 0]);
        assert_eq!(due(&mut wheel, 5_250), [1]);
        assert_eq!(due(&mut wheel, 31_000), [0_u32; 0], "the later entry is void");
    }

    #[test]
    fn what_is_due_after_a_round_is_looked_at_once_a_round() {
        let mut wheel = Wheel::new(0);
        wheel.arm(1, 3_600_000);
        assert_eq!(due(&mut wheel, 32_000), [1]);
    }

    #[test]
    fn who_is_gone_is_not_due_and_his_successor_is_due_at_his_own_time() {
        let mut wheel = Wheel::new(0);
        wheel.arm(3, 1_000);
        wheel.disarm(3);
        wheel.arm(3, 8_000);
        assert_eq!(due(&mut wheel, 7_999), [0_u32; 0]);
        assert_eq!(due(&mut wheel, 8_250), [3]);
    }

    #[test]
    fn a_stall_makes_everyone_due_that_was_missed() {
        let mut wheel = Wheel::new(0);
        wheel.arm(1, 1_000);
        wheel.arm(2, 30_000);
        let mut seen = due(&mut wheel, 500_000);
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    }
}
