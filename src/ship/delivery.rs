//! The `delivery` part of `/status`: how shipping goes, told without the destination's address.
//!
//! It keeps moments and turns them into ages when it is read. It must never decide anything.

use std::time::Instant;

use serde::Serialize;

/// What the sender is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Nothing to send.
    Idle,
    /// A request is under way, or pauses since the destination asked for less; the one before it was answered well.
    Sending,
    /// The last attempt failed in a way that passes; the batch is tried again.
    Retrying,
    /// The destination gives an answer that only a person can change; the data is kept.
    Held,
    /// No sender runs.
    #[default]
    Off,
}

/// The `delivery` object of `/status`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeliveryStatus {
    /// What the sender is doing.
    pub state: DeliveryState,
    /// Batches accepted since the start.
    pub delivered_batches: u64,
    /// Compressed bytes of accepted batches.
    pub sent_bytes: u64,
    /// Attempts that were not accepted.
    pub failures: u64,
    /// Status code of the last answer; null when the last attempt got none.
    pub last_status: Option<u16>,
    /// Why the last failed attempt failed; kept after a success, see its age.
    pub last_error: Option<String>,
    /// Seconds since that failure.
    pub last_error_age_s: Option<f64>,
    /// Seconds since a batch was accepted.
    pub last_success_age_s: Option<f64>,
    /// Seconds until the next attempt, while one is awaited.
    pub next_try_in_s: Option<f64>,
    /// What the destination last complained about while accepting.
    pub last_warning: Option<String>,
    /// Batches accepted with a complaint.
    pub warnings: u64,
}

/// The same with moments instead of ages.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    state: DeliveryState,
    delivered_batches: u64,
    sent_bytes: u64,
    failures: u64,
    last_status: Option<u16>,
    last_error: Option<(String, Instant)>,
    last_success: Option<Instant>,
    next_try: Option<Instant>,
    last_warning: Option<String>,
    warnings: u64,
}

impl Delivery {
    pub(super) fn state(&self) -> DeliveryState {
        self.state
    }

    pub(super) fn set_state(&mut self, state: DeliveryState) {
        self.state = state;
        self.next_try = None;
    }

    /// A request goes out. A trouble that is not over yet stays visible while it is tried again.
    pub(super) fn attempt(&mut self) {
        self.next_try = None;
        if matches!(self.state, DeliveryState::Idle | DeliveryState::Off) {
            self.state = DeliveryState::Sending;
        }
    }

    /// An attempt ended without being accepted.
    pub(super) fn failed(&mut self, status: Option<u16>, error: String, now: Instant) {
        self.failures += 1;
        self.last_status = status;
        self.last_error = Some((error, now));
    }

    /// The next attempt is due at a moment.
    pub(super) fn wait_until(&mut self, state: DeliveryState, due: Instant) {
        self.state = state;
        self.next_try = Some(due);
    }

    /// A batch of so many compressed bytes was accepted.
    pub(super) fn accepted(&mut self, status: Option<u16>, bytes: u64, warning: Option<&str>, now: Instant) {
        self.delivered_batches += 1;
        self.sent_bytes += bytes;
        self.last_status = status;
        self.last_success = Some(now);
        if let Some(warning) = warning {
            self.warnings += 1;
            self.last_warning = Some(warning.to_owned());
        }
    }

    pub(super) fn at(&self, now: Instant) -> DeliveryStatus {
        let age_s = |moment: Instant| now.saturating_duration_since(moment).as_secs_f64();
        DeliveryStatus {
            state: self.state,
            delivered_batches: self.delivered_batches,
            sent_bytes: self.sent_bytes,
            failures: self.failures,
            last_status: self.last_status,
            last_error: self.last_error.as_ref().map(|(text, _)| text.clone()),
            last_error_age_s: self.last_error.as_ref().map(|(_, moment)| age_s(*moment)),
            last_success_age_s: self.last_success.map(age_s),
            next_try_in_s: self.next_try.map(|due| due.saturating_duration_since(now).as_secs_f64()),
            last_warning: self.last_warning.clone(),
            warnings: self.warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_become_ages() {
        let start = Instant::now();
        let mut delivery = Delivery::default();
        let before = serde_json::to_value(delivery.at(start)).expect("it serializes");
        assert_eq!(
            before,
            serde_json::json!({"state": "off", "delivered_batches": 0, "sent_bytes": 0, "failures": 0,
                "last_status": null, "last_error": null, "last_error_age_s": null, "last_success_age_s": null,
                "next_try_in_s": null, "last_warning": null, "warnings": 0})
        );
        delivery.attempt();
        assert_eq!(delivery.state(), DeliveryState::Sending);
        delivery.accepted(Some(200), 70, Some("fields dropped"), start);
        delivery.failed(Some(503), "503 service unavailable".to_owned(), start + Duration::from_secs(2));
        delivery.wait_until(DeliveryState::Retrying, start + Duration::from_secs(9));
        let later = delivery.at(start + Duration::from_secs(5));
        assert_eq!((later.last_success_age_s, later.last_error_age_s), (Some(5.0), Some(3.0)));
        assert_eq!((later.next_try_in_s, later.failures, later.sent_bytes), (Some(4.0), 1, 70));
        assert_eq!((later.warnings, later.last_warning.as_deref()), (1, Some("fields dropped")));
        assert_eq!(delivery.at(start + Duration::from_secs(60)).next_try_in_s, Some(0.0), "never negative");
        delivery.attempt();
        assert_eq!(delivery.state(), DeliveryState::Retrying, "a trouble that is not over stays visible");
    }
}
