//! A view of the board as the JSON of `/status` and `/healthz`, with a bound on every list and every string.
//!
//! Must never grow with what stands in a log: names and errors come from outside.

use serde_json::{Map, Value, json};

use super::board::View;
use super::health;

/// Entries of any list or object; the rest is left off and counted in `left_off`.
const ENTRIES_MAX: usize = 1_000;
/// Bytes of any string: a path of the longest kind fits (PATH_MAX of linux/limits.h).
const STRING_BYTES_MAX: usize = 4_096;
/// Levels of nesting; the contract needs six.
const DEPTH_MAX: usize = 16;

/// The answer of `/status`: the snapshot, its age, the reasons of `/healthz`, and what the bounds left off.
pub(super) fn status(view: &View) -> Value {
    let mut answer = serde_json::to_value(&*view.snapshot).unwrap_or_default();
    answer["problems"] = health::reasons(&view.snapshot, view.ages).into();
    answer["age_s"] = json!((view.ages.snapshot.as_secs_f64() * 1_000.0).round() / 1_000.0);
    let mut left_off = Map::new();
    bound(&mut answer, "", 0, &mut left_off);
    answer["left_off"] = Value::Object(left_off);
    answer
}

/// The answer of `/healthz` and whether it is good.
pub(super) fn health(view: &View) -> (bool, Value) {
    let reasons = health::reasons(&view.snapshot, view.ages);
    if reasons.is_empty() {
        return (true, json!({"status": "ok"}));
    }
    let mut answer = json!({"status": "bad", "reasons": reasons});
    bound(&mut answer, "", 0, &mut Map::new());
    (false, answer)
}

/// Cuts `value` to the bounds; `left_off` gets the number of entries cut, by JSON pointer.
fn bound(value: &mut Value, pointer: &str, depth: usize, left_off: &mut Map<String, Value>) {
    if depth > DEPTH_MAX {
        *value = Value::Null;
        return;
    }
    let entries = match value {
        Value::String(text) => return cut(text),
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => return,
    };
    if entries > ENTRIES_MAX && left_off.len() < ENTRIES_MAX {
        left_off.insert(pointer.to_owned(), json!(entries - ENTRIES_MAX));
    }
    match value {
        Value::Array(items) => {
            items.truncate(ENTRIES_MAX);
            for (index, item) in items.iter_mut().enumerate() {
                bound(item, &format!("{pointer}/{index}"), depth + 1, left_off);
            }
        }
        Value::Object(members) => {
            if entries > ENTRIES_MAX {
                *members = std::mem::take(members).into_iter().take(ENTRIES_MAX).collect();
            }
            for (name, member) in members.iter_mut() {
                bound(member, &format!("{pointer}/{name}"), depth + 1, left_off);
            }
        }
        _ => {}
    }
}

fn cut(text: &mut String) {
    if text.len() > STRING_BYTES_MAX {
        let mark = '…';
        text.truncate(text.floor_char_boundary(STRING_BYTES_MAX - mark.len_utf8()));
        text.push(mark);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::board::Board;
    use super::super::snapshot::{FileStatus, Snapshot};
    use super::*;

    #[test]
    fn lists_and_strings_are_bounded_and_say_so() {
        let board = Board::new();
        let name = "é".repeat(STRING_BYTES_MAX);
        let now = Instant::now();
        let snapshot = Snapshot {
            web: json!({"vhosts": vec![json!({"name": name}); ENTRIES_MAX + 7]}).into(),
            files: vec![FileStatus::default(); ENTRIES_MAX + 1],
            problems: vec!["clock: stepped".to_owned()],
            ..Snapshot::default()
        };
        board.publish_at(snapshot, now);
        let answer = status(&board.view_at(now + Duration::from_millis(1_500)).expect("posted"));
        assert_eq!(answer["left_off"], json!({"/web/vhosts": 7, "/files": 1}));
        assert_eq!(answer["files"].as_array().map(Vec::len), Some(ENTRIES_MAX));
        let shown = answer.pointer("/web/vhosts/0/name").and_then(Value::as_str).expect("a name");
        assert!(shown.len() <= STRING_BYTES_MAX && shown.ends_with("é…"), "{}", shown.len());
        assert_eq!(answer["age_s"], json!(1.5));
        assert_eq!(answer["problems"], json!(["clock: stepped"]));
    }

    #[test]
    fn nesting_ends() {
        let mut value = json!(1);
        for _ in 0..DEPTH_MAX * 2 {
            value = json!([value]);
        }
        bound(&mut value, "", 0, &mut Map::new());
        let depth = value.to_string().bytes().filter(|byte| *byte == b'[').count();
        assert_eq!(depth, DEPTH_MAX + 1);
    }
}
