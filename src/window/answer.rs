//! How the windows answer the status port: from their parts to the `web` object.

use std::sync::Arc;

use super::Windows;
use super::counts::Counts;
use super::recent::{SLOT_S, slot_of};
use super::sketch::Sketch;
use super::top::{Cell, Table};
use super::view::{
    HistoryView, LatencyView, RouteLatencyView, RouteView, TotalsView, VhostView, WINDOWS_S, WebView,
    WindowView, WindowsView, ratio,
};

/// Slots of the rates of vhosts and routes: one minute.
const RATE_SLOTS: i64 = 6;
/// Slots of the latency view: five minutes.
const LATENCY_VIEW_SLOTS: i64 = 30;
/// Its name in the view.
const LATENCY_WINDOW: &str = "5m";
/// Length of a step of the history, in seconds.
const HISTORY_STEP_S: i64 = 10;
/// Steps of the history: ten minutes.
const HISTORY_STEPS: i64 = 60;

impl Windows {
    /// The `web` object of `/status`.
    pub fn view(&self) -> WebView {
        self.view_unsorted().sorted()
    }

    /// The same, with vhosts and routes in no order: the numbers of this moment, to be sorted when they are shown.
    pub fn view_unsorted(&self) -> WebView {
        WebView {
            as_of: self.watermark.second.map(|second| second * 1000),
            lateness_s: self.watermark.lateness_ms() as f64 / 1000.0,
            windows: self.windows_view(),
            history: self.history_view(),
            totals: self.totals_view(),
            latency_s: self.latency_view(),
            vhosts: self.vhost_views(),
            routes: self.route_views(),
            state_damaged: self.damaged,
        }
    }

    fn windows_view(&self) -> WindowsView {
        let [second, ten_seconds, minute, five_minutes, quarter] =
            WINDOWS_S.map(|length_s| self.window(length_s));
        WindowsView { second, ten_seconds, minute, five_minutes, quarter }
    }

    fn window(&self, length_s: i64) -> WindowView {
        if let Some(reason) = &self.unknown {
            return WindowView::unknown(reason);
        }
        let Some(end) = self.watermark.second else {
            return WindowView::unknown("no second is complete yet");
        };
        let start = (end - length_s).max(self.observed_from);
        WindowView::new(&self.ring.sum(start, end), length_s, end - start, self.watermark.behind)
    }

    fn history_view(&self) -> HistoryView {
        let end = self.watermark.second.filter(|_| self.unknown.is_none());
        let steps = (0..HISTORY_STEPS).rev().map(|ago| {
            let to = end? - ago * HISTORY_STEP_S;
            let from = to - HISTORY_STEP_S;
            (from >= self.observed_from).then(|| self.ring.sum(from, to).counts)
        });
        let steps: Vec<Option<Counts>> = steps.collect();
        let count = |of: fn(&Counts) -> u64| steps.iter().map(|step| step.as_ref().map(of)).collect();
        HistoryView {
            step_s: HISTORY_STEP_S,
            requests: count(|counts| counts.requests()),
            errors: count(|counts| counts.errors()),
        }
    }

    /// What was counted since the state began.
    pub fn totals_view(&self) -> TotalsView {
        let totals = &self.totals;
        TotalsView {
            requests: totals.counts.requests(),
            unparsed: totals.unparsed,
            late: totals.late,
            skewed: totals.skewed,
            status: totals.counts.status(),
            codes: (0u16..).zip(totals.codes.iter().copied()).filter(|(_, count)| *count > 0).collect(),
            bytes_sent: totals.counts.bytes_sent(),
        }
    }

    /// The slot in which the watermark lies: slots before it are complete. `None` where unknown.
    fn slots_end(&self) -> Option<i64> {
        self.watermark.second.filter(|_| self.unknown.is_none()).map(slot_of)
    }

    fn newest_slot(&self, end: i64) -> i64 {
        self.ring.newest().map_or(end, |second| slot_of(second).max(end))
    }

    fn latency_view(&self) -> Option<LatencyView> {
        // The slot of the watermark is still filling; a quantile, unlike a rate, may count it.
        let end = self.slots_end()? + 1;
        let start = end - LATENCY_VIEW_SLOTS;
        if !self.latency.reaches(start, self.newest_slot(end)) {
            return None;
        }
        let mut sketch = Sketch::default();
        self.latency.range(start, end).for_each(|slot| sketch.merge(slot));
        (sketch.count() > 0).then(|| LatencyView {
            p50: sketch.quantile_s(0.5),
            p90: sketch.quantile_s(0.9),
            p95: sketch.quantile_s(0.95),
            p99: sketch.quantile_s(0.99),
            max: sketch.max_s(),
            count: sketch.count(),
            sum: sketch.sum_s(),
            window: LATENCY_WINDOW,
        })
    }

    /// The slots of the rates, and the seconds of them that were observed. `None` where unknown.
    fn rate_slots(&self, table: &Table) -> Option<(i64, i64, i64)> {
        let end = self.slots_end()?;
        // The first slot that was wholly observed.
        let observed = slot_of(self.observed_from + SLOT_S - 1);
        let start = (end - RATE_SLOTS).max(observed);
        let known = start < end && table.reaches(start, self.newest_slot(end));
        known.then_some((start, end, (end - start) * SLOT_S))
    }

    fn vhost_views(&self) -> Vec<VhostView> {
        let slots = self.rate_slots(&self.vhosts);
        let (start, end, _) = slots.unwrap_or_default();
        let rows = self.vhosts.rows(start, end).into_iter();
        rows.map(|(name, tally, cell)| VhostView {
            name: Arc::clone(name),
            requests: tally.requests,
            qps: qps(&cell, slots),
            error_rate: ratio(cell.errors, cell.requests),
        })
        .collect()
    }

    fn route_views(&self) -> Vec<RouteView> {
        let slots = self.rate_slots(&self.routes);
        let (start, end, _) = slots.unwrap_or_default();
        let rows = self.routes.rows(start, end).into_iter();
        rows.map(|(name, tally, cell)| RouteView {
            name: Arc::clone(name),
            requests: tally.requests,
            qps: qps(&cell, slots),
            error_rate: ratio(cell.errors, cell.requests),
            latency_s: (cell.latency_count > 0).then(|| RouteLatencyView {
                mean: cell.latency_sum_ms as f64 / cell.latency_count as f64 / 1000.0,
                max: cell.latency_max_ms as f64 / 1000.0,
                count: cell.latency_count,
            }),
        })
        .collect()
    }
}

fn qps(cell: &Cell, slots: Option<(i64, i64, i64)>) -> Option<f64> {
    slots.map(|(_, _, seconds)| cell.requests as f64 / seconds as f64)
}
