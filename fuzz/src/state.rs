//! The durable state from any bytes: positions, windows, the account of lines.

use watchpost::agent::ledger::Account;
use watchpost::follow::Position;
use watchpost::window::{FileProgress, Options, Request, WebView, Windows};

use super::Input;

const STARTED_MS: i64 = 1_700_000_000_000;

/// The first byte chooses.
pub fn state(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => position(rest),
        1 => windows(rest),
        _ => account(rest),
    }
}

fn position(data: &[u8]) {
    if let Some(position) = Position::decode(data) {
        // Not the same bytes: those of earlier releases are written in today's form.
        assert_eq!(Position::decode(&position.encode()), Some(position));
    }
}

fn account(data: &[u8]) {
    let mut account = Account::restore(Some(data), 5);
    if account.read < u64::MAX {
        account.read_line();
    }
    account.unparsed_line("no_match");
    let (_, value) = account.change().expect("a line was read");
    let mut again = Account::restore(value.as_deref(), 0);
    assert!(again.change().is_none());
    assert_eq!(again, account);
}

/// Saved entries, parted by 0xFF 0xFF: the key up to the first 0xFE, the value behind it. Before them, one
/// byte says how many of the entries of windows that were really filled are put below.
fn windows(data: &[u8]) {
    let mut input = Input(data);
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> = if input.byte() % 2 == 0 { vec![] } else { filled() };
    while !input.is_empty() {
        let (key, value) = (input.short().to_vec(), input.short().to_vec());
        let at = usize::from(input.byte());
        match entries.get_mut(at) {
            // A value in its place, or a few of its bytes.
            Some(entry) if input.byte() % 2 == 0 => entry.1 = value,
            Some(entry) if !entry.1.is_empty() => {
                let at = usize::from(input.byte()) % entry.1.len();
                entry.1[at] ^= input.byte();
            }
            _ => entries.push((key, value)),
        }
    }
    let pairs = || entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let mut windows = Windows::restore(Options::default(), STARTED_MS, pairs());
    assert_sums(&windows.view());
    use_them(&mut windows);
    assert_sums(&windows.view());
    windows.mark_all_changed();
    let saved: Vec<(Vec<u8>, Vec<u8>)> =
        windows.changes().into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let pairs = saved.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    let again = Windows::restore(Options::default(), STARTED_MS, pairs);
    assert_eq!(again.damaged(), 0, "what this release wrote, it reads");
    assert_eq!(again.view().totals, windows.view().totals);
}

fn filled() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut windows = Windows::new(Options::default(), STARTED_MS);
    use_them(&mut windows);
    windows.changes().into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn use_them(windows: &mut Windows) {
    windows.set_file(1, None);
    for second in 0..25 {
        let now = STARTED_MS + second * 1000;
        let request = Request {
            time_ms: Some(now),
            status: if second % 5 == 0 { 503 } else { 200 },
            bytes_sent: 10,
            request_time_ms: Some(3),
            vhost: Some(if second % 2 == 0 { b"a.example" } else { b"b.example" }),
            route: b"GET /",
            route_row: 0,
        };
        windows.observe(1, now, &request);
        windows.observe_unparsed(now);
        windows.advance(now + 500, &[FileProgress { file: 1, caught_up: true }]);
    }
    for summary in windows.close_summaries(true) {
        let status = summary.status;
        let parts = [status.informational, status.success, status.redirection, status.client_error];
        let sum = parts.iter().sum::<u64>() + status.server_error + status.other;
        assert_eq!(sum, summary.requests, "{}", summary.to_json());
        serde_json::from_str::<serde_json::Value>(&summary.to_json()).expect("a record is JSON");
    }
}

/// Parts sum to totals, whatever was restored.
fn assert_sums(view: &WebView) {
    let totals = &view.totals;
    let status = totals.status;
    let parts = [status.informational, status.success, status.redirection, status.client_error];
    let sum = parts.iter().sum::<u64>() + status.server_error + status.other;
    assert_eq!(sum, totals.requests, "classes");
    assert_eq!(view.vhosts.iter().map(|row| row.requests).sum::<u64>(), totals.requests, "vhosts");
    assert_eq!(view.routes.iter().map(|row| row.requests).sum::<u64>(), totals.requests, "routes");
    serde_json::to_string(view).expect("a view is JSON");
}
