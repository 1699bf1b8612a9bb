//! The queue of events: one event for each agent, in slots of a millisecond.
//!
//! A heap would spend most of the time of a run on itself. It must never hold two events of one agent.

/// Slots of a turn; no wait is longer than so many milliseconds (nine minutes).
const SLOTS: u64 = 1 << 19;
/// No agent.
const NONE: u32 = u32::MAX;

/// Every agent in the slot of its next event.
pub(super) struct Wheel {
    /// The first agent of each slot.
    slots: Vec<u32>,
    /// The agent behind an agent in its slot.
    behind: Vec<u32>,
    waiting: u32,
    now_ms: u64,
}

impl Wheel {
    pub(super) fn new(agents: u32) -> Wheel {
        let slots = usize::try_from(SLOTS).expect("it is small");
        Wheel { slots: vec![NONE; slots], behind: vec![NONE; agents as usize], waiting: 0, now_ms: 0 }
    }

    /// Has an agent come up at a moment that is not yet over.
    pub(super) fn add(&mut self, agent: u32, at_ms: u64) {
        let ahead_ms = at_ms.checked_sub(self.now_ms).expect("no event lies in the past");
        assert!(ahead_ms < SLOTS, "a wait of {ahead_ms} ms is longer than a turn of the wheel");
        let slot = &mut self.slots[(at_ms % SLOTS) as usize];
        self.behind[agent as usize] = std::mem::replace(slot, agent);
        self.waiting += 1;
    }

    /// Moves on to the next event; who is up at that moment goes to `due`.
    pub(super) fn next(&mut self, due: &mut Vec<u32>) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        loop {
            let slot = &mut self.slots[(self.now_ms % SLOTS) as usize];
            let mut agent = std::mem::replace(slot, NONE);
            while agent != NONE {
                due.push(agent);
                agent = self.behind[agent as usize];
            }
            self.now_ms += 1;
            if !due.is_empty() {
                self.waiting -= u32::try_from(due.len()).expect("no more than there are agents");
                return Some(self.now_ms - 1);
            }
        }
    }
}
