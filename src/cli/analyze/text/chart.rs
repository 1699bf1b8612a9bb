//! Requests over time as columns of Unicode blocks, with a line of errors below.

use std::fmt::Write;

use super::{PointReport, Timestamp, WIDTH};

/// Columns before the axis.
const AXIS_WIDTH: usize = 10;

/// Columns of the plot.
const PLOT_WIDTH: usize = WIDTH - AXIS_WIDTH - 4;

/// Rows of the plot; each has eight levels.
const ROWS: usize = 5;

/// A few points are drawn wider, up to so many columns each.
const REPEAT_MAX: usize = 8;

/// Filled from below, in eighths.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Widths of a column in seconds that people and cron jobs know; what happens every hour shows no false pattern.
const WIDTHS_S: [i64; 27] = [
    1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600,
    28_800, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_419_200, 4_838_400,
];

/// Seconds of a day: longer charts name days at their axis, shorter ones seconds.
const DAY_S: i64 = 86_400;

/// One column of the chart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Column {
    pub(super) start_s: i64,
    pub(super) seconds: i64,
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// The points in order, times without requests filled in, as many together as it takes to fit.
pub(super) fn columns(points: &[PointReport], width_s: i64) -> Vec<Column> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let seconds = column_width_s(first.start_s, last.start_s, width_s);
    let begin_s = first.start_s.div_euclid(seconds) * seconds;
    let index = |start_s: i64| ((start_s - begin_s) / seconds) as usize;
    let mut columns: Vec<Column> = (0..=index(last.start_s) as i64)
        .map(|number| Column { start_s: begin_s + number * seconds, seconds, ..Column::default() })
        .collect();
    for point in points {
        let column = &mut columns[index(point.start_s)];
        column.requests += point.requests;
        column.errors += point.errors;
    }
    columns
}

/// The least width, a multiple of that of the points, at which the span fits.
fn column_width_s(first_s: i64, last_s: i64, width_s: i64) -> i64 {
    let fits = |wide: &i64| last_s.div_euclid(*wide) - first_s.div_euclid(*wide) < PLOT_WIDTH as i64;
    let known = WIDTHS_S.into_iter().filter(|wide| *wide >= width_s && wide % width_s == 0);
    let doubled = std::iter::successors(Some(width_s), |wide| wide.checked_mul(2));
    known.chain(doubled).find(fits).unwrap_or(i64::MAX)
}

/// Draws the columns, the axes, and the errors where there are any.
pub(super) fn draw(out: &mut String, columns: &[Column], rate: fn(f64) -> String) {
    let rates: Vec<f64> =
        columns.iter().map(|column| column.requests as f64 / column.seconds as f64).collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    let repeat = (PLOT_WIDTH / columns.len()).clamp(1, REPEAT_MAX);
    let levels: Vec<usize> = rates.iter().map(|rate| level(*rate, most, ROWS)).collect();
    for line in (0..ROWS).rev() {
        let label = if line == ROWS - 1 { rate(most) } else { String::new() };
        let drawn: String =
            levels.iter().flat_map(|level| repeated(level.saturating_sub(line * 8), repeat)).collect();
        let _ = writeln!(out, "{label:>AXIS_WIDTH$} ┤{}", drawn.trim_end());
    }
    let width = columns.len() * repeat;
    let _ = writeln!(out, "{:>AXIS_WIDTH$} └{}", "0", "─".repeat(width));
    axis(out, columns, width);
    let errors: Vec<f64> =
        columns.iter().map(|column| column.errors as f64 / column.seconds as f64).collect();
    let most_errors = errors.iter().copied().fold(0.0, f64::max);
    if most_errors > 0.0 {
        let drawn: String =
            errors.iter().flat_map(|errors| repeated(level(*errors, most_errors, 1), repeat)).collect();
        let _ = writeln!(out, "{:>AXIS_WIDTH$}  {}", "5xx", drawn.trim_end());
        let _ = writeln!(out, "{:>AXIS_WIDTH$}  up to {} a second", "", rate(most_errors));
    }
}

/// How many eighths of `rows` a rate fills; what is not zero fills one at least.
fn level(rate: f64, most: f64, rows: usize) -> usize {
    if most > 0.0 { (rate / most * (rows * 8) as f64).ceil() as usize } else { 0 }
}

fn repeated(level: usize, repeat: usize) -> impl Iterator<Item = char> {
    std::iter::repeat_n(LEVELS[level.min(8)], repeat)
}

/// The first and the last column's time below the ends of the axis.
fn axis(out: &mut String, columns: &[Column], width: usize) {
    let (Some(first), Some(last)) = (columns.first(), columns.last()) else { return };
    let is_short = last.start_s - first.start_s < DAY_S;
    let name = |start_s: i64| {
        let format = if is_short { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
        Timestamp::from_second(start_s).map(|time| time.strftime(format).to_string()).unwrap_or_default()
    };
    let (begin, end) = (name(first.start_s), name(last.start_s));
    let gap = width.saturating_sub(begin.len());
    let ends = if columns.len() == 1 {
        begin
    } else if gap > end.len() {
        format!("{begin}{end:>gap$}")
    } else {
        format!("{begin} to {end}")
    };
    let _ = writeln!(out, "{:>AXIS_WIDTH$}  {ends}", "UTC");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(starts_s: &[i64], width_s: i64) -> Vec<PointReport> {
        let point = |start_s: &i64| PointReport {
            start: String::new(),
            seconds: width_s,
            requests: 2,
            errors: 1,
            start_s: *start_s,
        };
        starts_s.iter().map(point).collect()
    }

    #[test]
    fn columns_cover_the_span_and_sum_to_the_points() {
        for starts_s in [
            vec![60],
            vec![60, 120, 300],
            (0..2_000).map(|minute| minute * 60).collect(),
            vec![0, 253_402_300_740],
        ] {
            let columns = columns(&points(&starts_s, 60), 60);
            assert!(!columns.is_empty() && columns.len() <= PLOT_WIDTH);
            assert_eq!(columns.iter().map(|column| column.requests).sum::<u64>(), 2 * starts_s.len() as u64);
            assert_eq!(columns.iter().map(|column| column.errors).sum::<u64>(), starts_s.len() as u64);
        }
        assert!(columns(&[], 1).is_empty());
    }

    #[test]
    fn the_drawing_fits_the_terminal() {
        let mut out = String::new();
        draw(&mut out, &columns(&points(&[0, 1, 2, 90, 4_000], 1), 1), |rate| format!("{rate:.1}"));
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
        assert!(out.contains("00:00:00") && out.contains("5xx") && out.contains('█'), "{out}");
    }
}
