//! The account of lines: what was read, what a setting kept back, what was lost before it could be spooled.
//!
//! Its value becomes durable in the same record as the positions and the lines that it counts, so it is
//! exact after any crash. What was shipped and what is held the spool knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::follow::StateChange;
use crate::record::{Loss, LossReason};

/// Key of the account in the durable state.
const KEY: &[u8] = b"a/ledger";

/// Counts since the very first start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)] // an account of an earlier release lacks what was added since, and is no worse for it
pub struct Account {
    /// Complete lines of all followed files.
    pub read: u64,
    /// Lines that a setting keeps from being shipped; they are counted all the same.
    pub filtered: u64,
    /// Lines that did not parse, by the name of the reason.
    pub unparsed: BTreeMap<String, u64>,
    /// Lines of which a secret was masked before shipping.
    pub redacted: u64,
    /// Lines shipped without their end, since they were over the limit.
    pub cut: u64,
    /// What was lost in the files, by the name of the reason.
    lost: BTreeMap<String, (u64, u64)>,
    /// Changed since it was last written.
    #[serde(skip)]
    dirty: bool,
}

impl Account {
    /// The account of the last run. Where damage on disk has cost it, it begins with the lines that the spool
    /// has seen, which is all that is still known; an account that is there is taken as it stands.
    pub fn restore(value: Option<&[u8]>, spooled_lines: u64) -> Account {
        let known = value.and_then(|bytes| serde_json::from_slice(bytes).ok());
        known.unwrap_or_else(|| Account { read: spooled_lines, ..Account::default() })
    }

    /// The key under which the durable state holds it.
    pub fn key() -> &'static [u8] {
        KEY
    }

    /// A complete line was read and counted.
    pub fn read_line(&mut self) {
        self.read += 1;
        self.dirty = true;
    }

    /// A line was taken for shipping, or a setting keeps it back.
    pub fn taken_line(&mut self, filtered: bool) {
        self.filtered += u64::from(filtered);
        self.dirty = true;
    }

    /// A line did not parse, for this reason.
    pub fn unparsed_line(&mut self, reason: &'static str) {
        match self.unparsed.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                self.unparsed.insert(reason.to_owned(), 1);
            }
        }
    }

    /// Something was lost before it could be spooled.
    pub fn lose(&mut self, reason: LossReason, loss: Loss) {
        let entry = self.lost.entry(reason.name().to_owned()).or_default();
        entry.0 += loss.lines;
        entry.1 += loss.bytes;
        self.dirty = true;
    }

    /// What was lost so far, by reason.
    pub fn lost(&self) -> impl Iterator<Item = (LossReason, Loss)> {
        LossReason::ALL.into_iter().filter_map(|reason| {
            let (lines, bytes) = self.lost.get(reason.name())?;
            Some((reason, Loss { lines: *lines, bytes: *bytes }))
        })
    }

    /// Whether something was counted that is not durable yet.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The value to make durable, if it changed since the last call.
    pub fn change(&mut self) -> Option<StateChange> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let value = serde_json::to_vec(self).expect("counts and names are always JSON");
        Some((KEY.to_vec(), Some(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let mut account = Account::default();
        assert_eq!(account.change(), None);
        account.read_line();
        account.unparsed_line("no_match");
        account.lose(LossReason::Truncated, Loss { lines: 0, bytes: 9 });
        let (_, value) = account.change().expect("it changed");
        assert_eq!(account.change(), None);
        assert_eq!(Account::restore(value.as_deref(), 7), account);
        assert_eq!(Account::restore(Some(b"garbage"), 7).read, 7);
        assert_eq!(Account::restore(Some(br#"{"read":5}"#), 7).read, 5, "of an earlier release");
    }
}
