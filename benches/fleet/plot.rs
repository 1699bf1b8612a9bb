//! The receiver's load around its return, as SVG.
//!
//! It must never need a library or a script to be read: lines, words, and colours for light and dark.

use std::fmt::Write;

use super::model::measure::Measured;

/// What is shown before and after the return.
const BEFORE_S: usize = 30;
const AFTER_S: usize = 270;
/// Sizes in the units of the drawing.
const WIDTH: f64 = 900.0;
const PANEL_HEIGHT: f64 = 200.0;
const PANEL_STEP: f64 = 286.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 92.0;
/// What the numbers at the side are.
const HEAD: &str = "Requests a second at the receiver, in multiples of the steady state";
const HEAD_Y: f64 = 24.0;
const BOTTOM: f64 = 36.0;
/// Lines across a panel, at most.
const GRID_MAX: f64 = 6.0;
/// Seconds between marks of time.
const MARK_S: usize = 30;

/// Greys that can be read on white and on black, for pages whose colours are not those of the system.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#6e7681}.title{font-weight:600}.small{font-size:11px;fill:#6e7681}\
.grid{stroke:#999;stroke-opacity:.3}.limit{stroke:#6e7681;stroke-dasharray:5 4}.curve{fill:none;stroke-width:1.5}\
.c0{stroke:#d1495b}.c1{stroke:#c98a00}.c2{stroke:#0b6ecf;stroke-width:2}\
.k0{fill:#d1495b}.k1{fill:#c98a00}.k2{fill:#0b6ecf}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.small{fill:#aaa}.limit{stroke:#ddd}\
.c0{stroke:#ff7b8a}.c1{stroke:#e8b339}.c2{stroke:#5cb0ff}.k0{fill:#ff7b8a}.k1{fill:#e8b339}.k2{fill:#5cb0ff}}";

/// Some runs that belong together.
pub(crate) struct Panel {
    /// What they have in common.
    pub(crate) title: &'static str,
    /// What the receiver accepts, in multiples of the steady state.
    pub(crate) limit: f64,
    /// Each with its name; the last one lies on top.
    pub(crate) runs: Vec<(&'static str, Measured)>,
}

/// The whole picture.
pub(crate) fn svg(panels: &[Panel]) -> String {
    let height = TOP + PANEL_STEP * panels.len() as f64 - (PANEL_STEP - PANEL_HEIGHT) + BOTTOM;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Load of the receiver around its return\"><style>{STYLE}</style>\n"
    );
    text(&mut out, "title", LEFT, HEAD_Y, HEAD);
    for (number, panel) in panels.iter().enumerate() {
        draw(&mut out, panel, TOP + PANEL_STEP * number as f64);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, top: f64) {
    let loads: Vec<Vec<f64>> = panel.runs.iter().map(|(_, run)| loads(run)).collect();
    let highest = loads.iter().flatten().copied().fold(panel.limit, f64::max);
    let step = grid_step(highest);
    let ceiling = (highest / step).ceil() * step;
    let x = |second: usize| LEFT + (WIDTH - LEFT - RIGHT) * second as f64 / (BEFORE_S + AFTER_S) as f64;
    let y = |load: f64| top + PANEL_HEIGHT * (1.0 - load / ceiling);
    let end = WIDTH - RIGHT;
    text(out, "words", LEFT, top - 36.0, panel.title);
    let mut key_x = LEFT;
    for (number, (name, _)) in panel.runs.iter().enumerate() {
        let _ = write!(
            out,
            "<rect class=\"k{number}\" x=\"{key_x:.0}\" y=\"{:.0}\" width=\"12\" height=\"4\"/>",
            top - 19.0
        );
        text(out, "key", key_x + 18.0, top - 13.0, name);
        key_x += 40.0 + 7.2 * name.len() as f64;
    }
    let mut level = 0.0;
    while level <= ceiling {
        line(out, "grid", (LEFT, y(level)), (end, y(level)));
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{level}×</text>",
            LEFT - 6.0,
            y(level) + 4.0
        );
        level += step;
    }
    for second in (0..=BEFORE_S + AFTER_S).step_by(MARK_S) {
        let label = match second.checked_sub(BEFORE_S) {
            Some(0) => "return".to_owned(),
            Some(after) => format!("+{after} s"),
            None => format!("−{} s", BEFORE_S - second),
        };
        line(out, "grid", (x(second), top), (x(second), top + PANEL_HEIGHT));
        let _ = writeln!(
            out,
            "<text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x(second),
            top + PANEL_HEIGHT + 16.0
        );
    }
    for (number, loads) in loads.iter().enumerate() {
        let points: Vec<String> =
            loads.iter().enumerate().map(|(at, load)| format!("{:.1} {:.1}", x(at), y(*load))).collect();
        let _ = writeln!(out, "<path class=\"curve c{number}\" d=\"M{}\"/>", points.join("L"));
    }
    line(out, "limit", (x(BEFORE_S), y(panel.limit)), (end, y(panel.limit)));
}

/// Requests of each second around the return, in multiples of the steady state.
fn loads(run: &Measured) -> Vec<f64> {
    let from = run.return_s() - BEFORE_S;
    let shown = run.requests.iter().skip(from).take(BEFORE_S + AFTER_S + 1);
    shown.map(|count| f64::from(*count) / run.steady()).collect()
}

/// A round number that divides a height into a few steps.
fn grid_step(highest: f64) -> f64 {
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];
    steps.into_iter().find(|step| highest / step <= GRID_MAX).unwrap_or(100.0)
}

fn text(out: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\">{words}</text>");
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}
