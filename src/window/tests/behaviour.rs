//! What the windows promise, case by case.

use std::collections::BTreeMap;

use super::*;

fn new() -> Windows {
    Windows::new(Options::default(), T0_S * 1000)
}

/// One request a second for `seconds`, read as they are written.
fn steady(windows: &mut Windows, from_s: i64, seconds: i64) {
    for second in from_s..from_s + seconds {
        windows.observe(1, second * 1000 + 300, &request(second * 1000 + 200, 200));
        windows.advance(second * 1000 + 300, &LIVE);
    }
}

#[test]
fn the_view_has_the_names_of_the_contract() {
    let mut windows = new();
    steady(&mut windows, T0_S, 20);
    windows.observe(1, (T0_S + 20) * 1000, &request((T0_S + 19) * 1000, 502));
    windows.observe_unparsed((T0_S + 20) * 1000);
    windows.advance((T0_S + 21) * 1000, &LIVE);
    let json = serde_json::to_value(windows.view()).unwrap();
    assert_eq!(json["as_of"], (T0_S + 20) * 1000);
    let ten = &json["windows"]["10s"];
    assert_eq!(ten["requests"], 11);
    assert_eq!(ten["qps"], 1.1);
    assert_eq!(ten["errors"], 1);
    assert_eq!(ten["coverage"], 1.0);
    assert_eq!(ten["complete"], true);
    assert_eq!(json["windows"]["1m"]["coverage"], 20.0 / 60.0);
    assert_eq!(json["windows"]["1m"]["complete"], false);
    assert_eq!(json["totals"]["status"]["2xx"], 20);
    assert_eq!(json["totals"]["codes"]["502"], 1);
    assert_eq!(json["totals"]["unparsed"], 1);
    assert_eq!(json["vhosts"][0]["name"], "a.example");
    assert_eq!(json["vhosts"][0]["requests"], 21);
    assert_eq!(json["routes"][0]["latency_s"]["mean"], 0.02);
    assert_eq!(json["latency_s"]["window"], "5m");
    assert!((json["latency_s"]["p99"].as_f64().unwrap() - 0.02).abs() <= 0.0002);
    assert!(json.get("state_damaged").is_none());
}

#[test]
fn the_history_holds_whole_steps_and_null_before_them() {
    let mut windows = new();
    steady(&mut windows, T0_S, 35);
    windows.observe(1, (T0_S + 35) * 1000, &request((T0_S + 34) * 1000, 502));
    windows.advance((T0_S + 36) * 1000, &LIVE);
    let view = windows.view();
    assert_eq!(view.as_of, Some((T0_S + 35) * 1000));
    let history = view.history;
    assert_eq!((history.step_s, history.requests.len(), history.errors.len()), (10, 60, 60));
    assert_eq!(
        history.requests[56..],
        [None, Some(10), Some(10), Some(11)],
        "5 s were observed of the first"
    );
    assert_eq!(history.errors[57..], [Some(0), Some(0), Some(1)]);
    windows.set_unknown(Some("gone".into()));
    assert!(windows.view().history.requests.iter().all(Option::is_none));
}

#[test]
fn unknown_is_null_with_a_reason_and_zero_is_zero() {
    let mut windows = new();
    assert_eq!(windows.view().windows.second.reason.as_deref(), Some("no second is complete yet"));
    windows.advance((T0_S + 100) * 1000, &LIVE);
    let idle = windows.view().windows.minute;
    assert_eq!((idle.requests, idle.qps, idle.error_rate), (Some(0), Some(0.0), None));
    assert!(idle.complete);
    windows.set_unknown(Some("/var/log/nginx/access.log: permission denied".into()));
    windows.advance((T0_S + 110) * 1000, &[]);
    let unknown = windows.view();
    assert_eq!((unknown.windows.minute.requests, unknown.windows.minute.qps), (None, None));
    assert!(unknown.windows.minute.reason.as_deref().unwrap().contains("permission denied"));
    assert!(windows.close_summaries(false).is_empty());
    windows.set_unknown(None);
    assert_eq!(windows.view().windows.minute.requests, Some(0));
}

#[test]
fn fifteen_idle_minutes_then_one_request() {
    let mut windows = new();
    steady(&mut windows, T0_S, 5);
    let mut shipped = Shipped::default();
    for second in 5..910 {
        windows.advance((T0_S + second) * 1000, &LIVE);
        shipped.take(&windows.close_summaries(false));
    }
    assert_eq!(windows.view().windows.quarter.requests, Some(0));
    let at = (T0_S + 910) * 1000;
    windows.observe(1, at + 50, &request(at, 200));
    windows.advance(at + 2_000, &LIVE);
    assert_eq!(windows.view().windows.second.requests, Some(1));
    assert_eq!(windows.view().windows.ten_seconds.requests, Some(1));
    assert_eq!(windows.view().windows.quarter.requests, Some(1));
    assert_eq!(windows.view().latency_s.map(|latency| latency.count), Some(1));
    assert_eq!(shipped.of(T0_S + 10, "_all"), Some(5));
    assert_eq!(shipped.of(T0_S + 500, "_all"), Some(0), "an idle interval is told as zero");
}

#[test]
fn a_burst_after_a_stall_belongs_to_its_seconds() {
    let mut windows = new();
    windows.advance(T0_S * 1000, &LIVE);
    let read_at = (T0_S + 30) * 1000;
    for line in 0..30_000i64 {
        windows.observe(1, read_at, &request(T0_S * 1000 + line, 200));
    }
    windows.advance(read_at + 2_000, &LIVE);
    let view = windows.view();
    assert_eq!(view.windows.minute.requests, Some(30_000));
    assert_eq!(view.windows.minute.qps_peak_1s, Some(1_000));
    assert_eq!(view.totals.late, 0);
}

#[test]
fn a_late_line_corrects_its_second_and_its_interval() {
    let mut windows = new();
    steady(&mut windows, T0_S, 30);
    let mut shipped = Shipped::default();
    shipped.take(&windows.close_summaries(false));
    assert_eq!(shipped.of(T0_S + 20, "_all"), Some(10));
    let before = windows.view().windows.minute.requests.unwrap();
    windows.observe(1, (T0_S + 30) * 1000, &request((T0_S + 15) * 1000, 500));
    let view = windows.view();
    assert_eq!(view.windows.minute.requests, Some(before + 1));
    assert_eq!((view.windows.minute.errors, view.totals.late), (Some(1), 0));
    let corrections = windows.close_summaries(false);
    assert_eq!(corrections.len(), 2);
    assert!(corrections.iter().all(|summary| summary.correction && summary.requests == 1));
    assert!(corrections[0].to_json().contains(r#""correction":true"#));
    windows.observe(1, (T0_S + 30) * 1000, &request((T0_S - 2_000) * 1000, 200));
    assert_eq!(windows.view().totals.late, 1);
    shipped.take(&corrections);
    shipped.take(&windows.close_summaries(true));
    assert_eq!(shipped.all, 32);
    shipped.check_parts();
}

#[test]
fn a_line_from_the_future_is_skewed_and_still_summed() {
    let mut windows = new();
    let now = (T0_S + 5) * 1000;
    windows.observe(1, now, &request(now + FUTURE_TOLERANCE_MS, 200));
    windows.observe(1, now, &request(now + FUTURE_TOLERANCE_MS + 1, 200));
    windows.observe(1, now, &request(EpochMs::MAX, 200));
    windows.observe(1, now, &request(EpochMs::MIN, 200));
    windows.observe(1, now, &Request { time_ms: None, ..request(0, 200) });
    windows.advance(now + 10_000, &LIVE);
    let view = windows.view();
    assert_eq!((view.totals.requests, view.totals.skewed, view.totals.late), (5, 2, 1));
    assert_eq!(view.windows.minute.requests, Some(2));
    let mut shipped = Shipped::default();
    shipped.take(&windows.close_summaries(false));
    assert_eq!(shipped.of(T0_S + 10, "_all"), Some(4));
    assert_eq!(shipped.all, 5);
}

#[test]
fn the_lines_of_an_upgraded_connection_have_no_latency() {
    let mut windows = new();
    let line = Request { request_time_ms: Some(3_600_000), ..request(T0_S * 1000, 101) };
    windows.observe(1, T0_S * 1000, &line);
    windows.advance((T0_S + 15) * 1000, &LIVE);
    let view = windows.view();
    assert_eq!((view.latency_s, view.windows.minute.switched), (None, Some(1)));
    let summaries = windows.close_summaries(false);
    assert!(summaries.iter().all(|summary| summary.latency.count() == 0 && summary.switched == 1));
}

#[test]
fn an_old_log_is_read_in_bounded_room() {
    let mut windows = new();
    let (old_s, now) = (T0_S - 8 * 365 * 86_400, T0_S * 1000);
    let mut shipped = Shipped::default();
    let (mut disk, mut most) = (Disk::new(), 0);
    for hour in 0..72 {
        for minute in 0..60 {
            windows.observe(1, now, &request((old_s + hour * 3600 + minute * 60) * 1000, 200));
        }
        windows.advance(now + hour, &BEHIND);
        assert_eq!(windows.view().as_of, Some((old_s + hour * 3600 + 59 * 60 - 1) * 1000));
        assert_eq!(windows.view().windows.quarter.requests, Some(15));
        shipped.take(&windows.close_summaries(false));
        commit(&mut windows, &mut disk);
        most = most.max(disk.len());
        let (intervals, parts) = windows.intervals.held();
        assert!(intervals <= intervals::OPEN_MAX && parts <= intervals::OPEN_MAX);
    }
    assert!(most < 300, "{most} entries on disk");
    windows.advance(now + 100, &LIVE);
    shipped.take(&windows.close_summaries(false));
    assert_eq!((shipped.all, windows.view().totals.late), (72 * 60, 0));
    assert_eq!(windows.view().as_of, Some((now - 1_000) / 1000 * 1000));
    assert_eq!(windows.view().windows.quarter.requests, Some(0));
    assert!(shipped.by_end.len() <= 2 * 72 * 60, "no summaries of zero for eight years");
}

#[test]
fn nobody_takes_summaries_and_still_the_room_is_bounded() {
    let mut windows = new();
    let (old_s, now) = (T0_S - 30 * 86_400, T0_S * 1000);
    for line in 0..30_000i64 {
        let name = format!("v{}.example", line % 37);
        let line = Request { vhost: Some(name.as_bytes()), ..request((old_s + line * 30) * 1000, 200) };
        windows.observe(1, now, &line);
        assert!(windows.intervals.held().1 <= 4096 + 64);
    }
    windows.advance(now, &BEHIND);
    let mut shipped = Shipped::default();
    shipped.take(&windows.close_summaries(true));
    assert_eq!(shipped.all, 30_000);
    shipped.check_parts();
}

#[test]
fn where_a_route_was_last_found_is_never_taken_on_trust() {
    let (mut asked, mut misled) = (new(), new());
    let mut rows = BTreeMap::new();
    for line in 0..4_000i64 {
        let now = T0_S * 1000 + line * 10;
        // More routes than rows, some of which come again, and hosts in two spellings.
        let route = format!("GET /{}", if line % 3 == 0 { line % 7 } else { line % 301 });
        let vhost: &[u8] = if line % 2 == 0 { b"Shop.example:443" } else { b"shop.example" };
        let base = Request { vhost: Some(vhost), route: route.as_bytes(), ..request(now, 200) };
        let route_row = rows.get(&route).copied().unwrap_or(0);
        let row = asked.observe(1, now, &Request { route_row, ..base });
        misled.observe(1, now, &Request { route_row: (line * 37 % 211) as u16, ..base });
        rows.insert(route, row);
    }
    let shown = |windows: &Windows| serde_json::to_value(windows.view()).unwrap();
    assert_eq!(shown(&asked), shown(&misled));
    assert_eq!(asked.view().vhosts.len(), 1);
}

#[test]
fn old_logs_of_different_days_do_not_close_each_others_intervals() {
    let mut windows = new();
    let now = T0_S * 1000;
    for line in 0..3_000i64 {
        for day in [9, 3, 7] {
            windows.observe(1, now, &request((T0_S - day * 86_400 + line) * 1000, 200));
        }
    }
    let summaries = windows.close_summaries(true);
    let all = summaries.iter().filter(|summary| summary.vhost == "_all");
    assert_eq!(all.clone().map(|summary| summary.requests).sum::<u64>(), 9_000);
    assert_eq!(all.count(), 900, "ten seconds of a day once");
}

#[test]
fn thousands_of_host_names_leave_the_sums_exact() {
    let mut windows = new();
    let mut shipped = Shipped::default();
    let mut disk = Disk::new();
    for line in 0..12_000i64 {
        let now = T0_S * 1000 + line * 10;
        // A random host a line, and two real ones; new real ones appear on the way.
        let name = match line % 4 {
            0 => format!("real{}.example", line / 3000),
            1 => "steady.example".to_owned(),
            _ => format!("h{}.invalid", line * 7919 % 5003),
        };
        let route = format!("/{}", line % 900);
        let base = request(now, if line % 50 == 0 { 503 } else { 200 });
        let line = Request { vhost: Some(name.as_bytes()), route: route.as_bytes(), ..base };
        windows.observe(1, now, &line);
        if now % 1000 == 0 {
            windows.advance(now, &LIVE);
            shipped.take(&windows.close_summaries(false));
            commit(&mut windows, &mut disk);
        }
        if now % 30_000 == 0 {
            windows = reborn(Options::default(), &disk, now);
        }
    }
    windows.advance((T0_S + 121) * 1000, &LIVE);
    let view = windows.view();
    assert_eq!(view.totals.requests, 12_000);
    assert_eq!(view.vhosts.iter().map(|row| row.requests).sum::<u64>(), 12_000);
    let rate: f64 = view.vhosts.iter().filter_map(|row| row.qps).sum();
    assert!((rate - 100.0).abs() < 1e-6, "{rate}");
    assert_eq!(view.routes.iter().map(|row| row.requests).sum::<u64>(), 12_000);
    assert_eq!((view.vhosts.len(), view.routes.len()), (VHOSTS_MAX + 1, ROUTES_MAX + 1));
    assert_eq!(*view.vhosts[0].name, *"steady.example");
    assert!(view.vhosts.iter().any(|row| *row.name == *"real3.example" && row.requests > 600));
    shipped.take(&windows.close_summaries(true));
    assert_eq!(shipped.all, 12_000);
    shipped.check_parts();
}

#[test]
fn an_ordinary_commit_is_small() {
    let mut windows = new();
    let mut disk = Disk::new();
    let mut most = 0;
    for second in T0_S..T0_S + 1_200 {
        for line in 0..200i64 {
            let name = format!("v{}.example", line % 5);
            let route = format!("/{}", line % 20);
            let time = second * 1000 + line * 5;
            let request_time_ms = Some((line * line * 37) as u64 % 2_000);
            let (vhost, route) = (Some(name.as_bytes()), route.as_bytes());
            windows.observe(1, time, &Request { vhost, route, request_time_ms, ..request(time, 200) });
        }
        windows.advance(second * 1000 + 999, &LIVE);
        windows.close_summaries(false);
        most = most.max(commit(&mut windows, &mut disk));
    }
    assert!(most < 8_000, "{most} bytes in a commit");
    let size: usize = disk.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(disk.len() < 1_200 && size < 120_000, "{} entries of {size} bytes", disk.len());
}

#[test]
fn without_a_disk_the_journal_stays_bounded() {
    let mut windows = new();
    for second in T0_S..T0_S + 40_000 {
        windows.observe(1, second * 1000, &request(second * 1000, 200));
        windows.advance(second * 1000, &LIVE);
        windows.close_summaries(false);
        assert!(windows.journal.pending() <= PENDING_MAX + 10);
    }
    let mut disk = Disk::new();
    windows.mark_all_changed();
    commit(&mut windows, &mut disk);
    let again = reborn(Options::default(), &disk, (T0_S + 40_000) * 1000);
    assert_eq!(again.view().totals, windows.view().totals);
    assert_eq!(again.view().latency_s, windows.view().latency_s);
    assert_eq!(again.view().vhosts, windows.view().vhosts);
}

#[test]
fn a_restart_goes_on_and_a_gap_is_told() {
    let mut windows = new();
    steady(&mut windows, T0_S, 100);
    let mut disk = Disk::new();
    commit(&mut windows, &mut disk);
    let later = (T0_S + 130) * 1000;
    let mut resumed = reborn(Options::default(), &disk, later);
    assert_eq!(resumed.view().windows.minute.requests, Some(60));
    // What was written meanwhile is read from the file, so nothing is missing.
    for second in T0_S + 100..T0_S + 130 {
        resumed.observe(7, later, &request(second * 1000, 200));
    }
    resumed.advance(later + 1_000, &[FileProgress { file: 7, caught_up: true }]);
    let minute = resumed.view().windows.minute;
    assert_eq!((minute.requests, minute.coverage, minute.complete), (Some(60), 1.0, true));

    let mut lost = reborn(Options::default(), &disk, later);
    lost.gap(later);
    lost.advance(later + 10_000, &LIVE);
    let minute = lost.view().windows.minute;
    assert_eq!((minute.requests, minute.coverage), (Some(0), 9.0 / 60.0));
    assert!(!minute.complete);
}

#[test]
fn history_read_from_the_beginning_is_observed_and_a_tail_is_not() {
    for (tail, coverage, requests) in [(false, 1.0, 58), (true, 2.0 / 60.0, 0)] {
        let mut windows = new();
        if tail {
            windows.gap(T0_S * 1000);
        }
        for second in T0_S - 300..T0_S {
            windows.observe(1, T0_S * 1000 + 500, &request(second * 1000, 200));
        }
        windows.advance((T0_S + 3) * 1000, &LIVE);
        let minute = windows.view().windows.minute;
        assert_eq!((minute.coverage, minute.requests), (coverage, Some(requests)));
    }
}

#[test]
fn what_is_closed_at_shut_down_is_corrected_after_it() {
    let mut windows = new();
    steady(&mut windows, T0_S, 14);
    let mut shipped = Shipped::default();
    shipped.take(&windows.close_summaries(true));
    let mut disk = Disk::new();
    commit(&mut windows, &mut disk);
    let mut windows = reborn(Options::default(), &disk, (T0_S + 16) * 1000);
    steady(&mut windows, T0_S + 16, 10);
    let summaries = windows.close_summaries(false);
    assert!(summaries.iter().all(|summary| summary.correction == (summary.end_ms == (T0_S + 20) * 1000)));
    shipped.take(&summaries);
    assert_eq!(shipped.of(T0_S + 20, "_all"), Some(4 + 4));
    shipped.take(&windows.close_summaries(true));
    assert_eq!(shipped.all, 24);
}

#[test]
fn a_slow_file_leaves_the_windows_incomplete_and_then_exact() {
    let mut windows = new();
    let now = T0_S * 1000;
    let both = |slow| [FileProgress { file: 1, caught_up: true }, FileProgress { file: 2, caught_up: slow }];
    windows.observe(2, now, &request(now - 7_200_000, 200));
    windows.observe(1, now, &request(now - 1_000, 200));
    windows.advance(now, &both(false));
    assert!(!windows.view().windows.minute.complete);
    for second in 1..3_600 {
        windows.observe(2, now, &request(now - 7_200_000 + second * 2_000, 200));
    }
    windows.advance(now + 1_000, &both(true));
    let view = windows.view();
    assert_eq!((view.windows.minute.requests, view.windows.minute.complete), (Some(31), true));
    assert_eq!(view.windows.quarter.requests, Some(451));
}
