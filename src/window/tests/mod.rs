//! The windows against an oracle over the raw list of requests, and through the calls that the
//! agent makes.

mod behaviour;
mod properties;

use std::collections::BTreeMap;

use super::*;

/// A Tuesday in 2023; a multiple of ten minutes.
pub(super) const T0_S: i64 = 1_700_000_400;

/// What the agent keeps of the windows between two lives.
pub(super) type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn commit(windows: &mut Windows, disk: &mut Disk) -> usize {
    let changes = windows.changes();
    let bytes = changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
    for (key, value) in changes {
        match value {
            Some(value) => disk.insert(key, value),
            None => disk.remove(&key),
        };
    }
    bytes
}

pub(super) fn reborn(options: Options, disk: &Disk, started_ms: EpochMs) -> Windows {
    let entries = disk.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let windows = Windows::restore(options, started_ms, entries);
    assert_eq!(windows.damaged(), 0);
    windows
}

pub(super) fn request(time_ms: EpochMs, status: u16) -> Request<'static> {
    Request {
        time_ms: Some(time_ms),
        status,
        bytes_sent: 100,
        request_time_ms: Some(20),
        vhost: Some(b"a.example"),
        route: b"/",
        route_row: 0,
    }
}

pub(super) const LIVE: [FileProgress; 1] = [FileProgress { file: 1, caught_up: true }];
pub(super) const BEHIND: [FileProgress; 1] = [FileProgress { file: 1, caught_up: false }];

pub(super) fn by_name(view: &WindowsView) -> [(&'static str, i64, &WindowView); 5] {
    [
        ("1s", 1, &view.second),
        ("10s", 10, &view.ten_seconds),
        ("1m", 60, &view.minute),
        ("5m", 300, &view.five_minutes),
        ("15m", 900, &view.quarter),
    ]
}

/// The oracle: counts the raw list of (second, status), with no idea of rings or lateness.
pub(super) fn check_windows(view: &WebView, raw: &[(i64, u16)], observed_from: i64) -> Result<(), String> {
    let end = view.as_of.expect("a watermark") / 1000;
    for (name, length_s, window) in by_name(&view.windows) {
        let start = (end - length_s).max(observed_from);
        let inside = || raw.iter().filter(|(second, _)| (start..end).contains(second));
        let requests = inside().count() as u64;
        let errors = inside().filter(|(_, status)| (500..600).contains(status)).count() as u64;
        let peak = (start..end).map(|s| raw.iter().filter(|(second, _)| *second == s).count() as u64).max();
        if end <= start {
            if window.requests.is_some() || window.reason.is_none() || window.coverage != 0.0 {
                return Err(format!("{name}: nothing observed, yet {window:?}"));
            }
            continue;
        }
        let expected = WindowView {
            requests: Some(requests),
            qps: Some(requests as f64 / (end - start) as f64),
            errors: Some(errors),
            error_rate: (requests > 0).then(|| errors as f64 / requests as f64),
            coverage: (end - start) as f64 / length_s as f64,
            qps_peak_1s: peak,
            client_errors: Some(inside().filter(|(_, status)| status / 100 == 4).count() as u64),
            client_closed: Some(inside().filter(|(_, status)| *status == 499).count() as u64),
            switched: Some(inside().filter(|(_, status)| *status == 101).count() as u64),
            bytes_sent: Some(requests * 100),
            ..window.clone()
        };
        if *window != expected {
            return Err(format!("{name}:\n got {window:?}\nwant {expected:?}"));
        }
    }
    Ok(())
}

/// What the summaries handed out so far say: requests by interval end and vhost.
#[derive(Clone, Default)]
pub(super) struct Shipped {
    by_end: BTreeMap<(EpochMs, String), u64>,
    pub(super) all: u64,
    pub(super) unparsed: u64,
    pub(super) sketched: u64,
}

impl Shipped {
    pub(super) fn take(&mut self, summaries: &[Summary]) {
        for summary in summaries {
            let status = summary.status;
            let classes = status.informational + status.success + status.redirection;
            let classes = classes + status.client_error + status.server_error + status.other;
            assert_eq!(classes, summary.requests);
            if summary.vhost == "_all" {
                self.all += summary.requests;
                self.unparsed += summary.unparsed.expect("_all tells of unparsed lines");
                self.sketched += summary.latency.count();
            }
            *self.by_end.entry((summary.end_ms, summary.vhost.clone())).or_default() += summary.requests;
        }
    }

    /// The vhosts of every interval sum to its `_all`.
    pub(super) fn check_parts(&self) {
        let mut sums: BTreeMap<EpochMs, (u64, u64)> = BTreeMap::new();
        for ((end, vhost), requests) in &self.by_end {
            let (all, parts) = sums.entry(*end).or_default();
            *(if vhost == "_all" { all } else { parts }) += requests;
        }
        sums.iter().for_each(|(end, (all, parts))| assert_eq!(all, parts, "interval ending {end}"));
    }

    pub(super) fn of(&self, end_s: i64, vhost: &str) -> Option<u64> {
        self.by_end.get(&(end_s * 1000, vhost.to_owned())).copied()
    }
}
