//! Answers of real exporters, samples made at random, and a slow twin that reads a line with a regular expression.

use super::*;
use proptest::prelude::*;
use regex::Regex;
use std::borrow::ToOwned;
use std::format;
use std::string::{String, ToString};
use std::{thread_local, vec};

/// HAProxy 2.6.12, `/metrics?scope=frontend`.
const HAPROXY: &[u8] = include_bytes!("../../tests/data/prometheus/haproxy.txt");
/// The client library for Python, with every kind that it has, and labels that need every escape.
const CLIENT: &[u8] = include_bytes!("../../tests/data/prometheus/client.txt");
/// The same registry as OpenMetrics, with exemplars.
const CLIENT_OPEN: &[u8] = include_bytes!("../../tests/data/prometheus/client-openmetrics.txt");

fn samples(text: &[u8], dialect: Dialect) -> Vec<Sample<'_>> {
    Samples::new(text, dialect).collect::<Result<_, _>>().expect("samples")
}

fn sample<'a>(samples: &'a [Sample<'a>], name: &str, label: (&str, &str)) -> &'a Sample<'a> {
    let wanted = |sample: &&Sample<'_>| sample.name == name && sample.label(label.0) == Some(label.1);
    samples.iter().find(wanted).expect("a sample")
}

/// The reason for the first line of a text, as its name and its words.
fn reason(text: &str, dialect: Dialect) -> (&'static str, String) {
    let found = Samples::new(text.as_bytes(), dialect).next();
    let bad = found.expect(text).expect_err(text);
    (bad.reason.name(), bad.to_string())
}

#[test]
fn the_counters_of_haproxy() {
    let samples = samples(HAPROXY, Dialect::Prometheus);
    assert_eq!(
        samples.len(),
        HAPROXY.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count()
    );
    let class = |code: &str| {
        let wanted = |sample: &&Sample<'_>| {
            sample.name == "haproxy_frontend_http_responses_total"
                && sample.label("proxy") == Some("www")
                && sample.label("code") == Some(code)
        };
        samples.iter().find(wanted).and_then(Sample::count)
    };
    assert_eq!(["1xx", "2xx", "3xx", "4xx", "5xx", "other"].map(class), [0, 42, 2, 8, 6, 0].map(Some));
    let requests = sample(&samples, "haproxy_frontend_http_requests_total", ("proxy", "www"));
    assert_eq!((requests.kind, requests.is_cumulative(), requests.count()), (Kind::Counter, true, Some(58)));
    let sessions = sample(&samples, "haproxy_frontend_current_sessions", ("proxy", "www"));
    assert_eq!((sessions.kind, sessions.is_cumulative()), (Kind::Gauge, false));
}

#[test]
fn every_kind_in_both_dialects() {
    let text = samples(CLIENT, Dialect::Prometheus);
    let open = samples(CLIENT_OPEN, Dialect::OpenMetrics);
    for samples in [&text, &open] {
        let requests = sample(samples, "shop_requests_total", ("code", "200"));
        assert_eq!(requests.label("path"), Some("/a \"b\"\\c\nd"));
        assert_eq!(
            (requests.kind, requests.is_cumulative(), requests.count()),
            (Kind::Counter, true, Some(7))
        );
        assert!(matches!(
            sample(samples, "shop_requests_total", ("path", "/ü")).labels[1].1,
            Cow::Borrowed("/ü")
        ));
        let bucket = sample(samples, "shop_seconds_bucket", ("le", "+Inf"));
        assert_eq!((bucket.kind, bucket.suffix, bucket.count()), (Kind::Histogram, "_bucket", Some(2)));
        let single = |name: &str| samples.iter().find(|sample| sample.name == name).expect("a sample");
        assert_eq!(single("shop_seconds_sum").value, 3.05);
        assert_eq!(
            (single("shop_bytes_sum").kind, single("shop_bytes_sum").count()),
            (Kind::Summary, Some(12_345_678))
        );
        assert_eq!(single("shop_temperature_celsius").value, f64::NEG_INFINITY);
        assert!(single("shop_unknown").value.is_nan() && single("shop_unknown").count().is_none());
        assert!(
            !single("shop_requests_created").is_cumulative()
                && !single("shop_seconds_created").is_cumulative()
        );
    }
    let kinds = |samples: &[Sample<'_>], name: &str| {
        samples.iter().find(|found| found.name == name).map(|found| found.kind)
    };
    assert_eq!(kinds(&open, "shop_build_info"), Some(Kind::Info));
    assert_eq!(kinds(&open, "shop_state"), Some(Kind::StateSet));
    assert_eq!(kinds(&text, "shop_requests_created"), Some(Kind::Gauge));
    let mut all = Samples::new(CLIENT_OPEN, Dialect::OpenMetrics);
    assert_eq!((all.is_ended(), all.by_ref().count(), all.is_ended()), (false, open.len(), true));
}

/// The samples that the page of the format gives as its example, and what surrounds them.
#[test]
fn lines_of_every_shape() {
    let check = |line: &str, name: &str, labels: &[(&str, &str)], value: f64, timestamp_ms: Option<i64>| {
        let text = format!("{line}\n");
        let found = &samples(text.as_bytes(), Dialect::Prometheus)[0];
        let texts: Vec<_> = found.labels.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        assert_eq!(
            (found.name, texts.as_slice(), found.timestamp_ms),
            (name, labels, timestamp_ms),
            "{line}"
        );
        assert_eq!(found.value.to_bits(), value.to_bits(), "{line}");
    };
    check("a 1", "a", &[], 1.0, None);
    check(":a_b9:c\t1.5e-3 \t", ":a_b9:c", &[], 0.0015, None);
    check(
        "http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000",
        "http_requests_total",
        &[("method", "post"), ("code", "200")],
        1027.0,
        Some(1_395_066_363_000),
    );
    check(
        "  a { b = \"c\" , d=\"\", } +Inf -3982045",
        "a",
        &[("b", "c"), ("d", "")],
        f64::INFINITY,
        Some(-3_982_045),
    );
    check(
        r#"a{b="C:\\DIR\\FILE.TXT",e="\n\"",f="\d}"}-Inf"#,
        "a",
        &[("b", r"C:\DIR\FILE.TXT"), ("e", "\n\""), ("f", r"\d}")],
        f64::NEG_INFINITY,
        None,
    );
    check("a{} nan", "a", &[], f64::NAN, None);
    check("a{b=\" # \"} 1 # {c=\"d\"} 2 3", "a", &[("b", " # ")], 1.0, None);
    check("a 1 2 # {}", "a", &[], 1.0, Some(2));
    check("a 18446744073709551616", "a", &[], 18_446_744_073_709_551_616.0, None);
}

#[test]
fn a_bad_line_says_why_and_the_next_is_read() {
    let check = |line: &str, name: &str, words: &str| {
        assert_eq!(reason(&format!("{line}\n"), Dialect::Prometheus), (name, words.to_owned()), "{line}");
        let text = format!("# a comment\n\n{line}\nlast{{a=\"b\"}} 5\n");
        let found: Vec<_> = Samples::new(text.as_bytes(), Dialect::Prometheus).collect();
        assert_eq!(found[0].as_ref().map_err(|bad| bad.line), Err(3), "{line}");
        assert_eq!(found[1].as_ref().map(Sample::count), Ok(Some(5)), "{line}");
    };
    check("1a 1", "bad_name", "line 1: expected the name of a metric, found `1a 1`");
    check("a-b 1", "bad_name", "line 1: expected the name of a metric, found `a-b 1`");
    check(
        "{\"a.b\",c=\"d\"} 1",
        "bad_name",
        "line 1: expected the name of a metric, found `{\\\"a.b\\\",c=\\\"d\\\"} 1`",
    );
    check("a{b} 1", "bad_label", "line 1: expected a label or the end of the labels, found `b} 1`");
    check(
        "a{b:c=\"\"} 1",
        "bad_label",
        "line 1: expected a label or the end of the labels, found `b:c=\\\"\\\"} 1`",
    );
    check("a{b=\"c} 1", "bad_label", "line 1: expected a label or the end of the labels, found `b=\\\"c} 1`");
    check("a{b=\"c\\", "bad_label", "line 1: expected a label or the end of the labels, found `b=\\\"c\\\\`");
    check("a{,} 1", "bad_label", "line 1: expected a label or the end of the labels, found `,} 1`");
    check(
        "a{b=\"c\" d=\"e\"} 1",
        "bad_label",
        "line 1: expected a label or the end of the labels, found `d=\\\"e\\\"} 1`",
    );
    check("a{b=\"c\",b=\"d\"} 1", "label_twice", "line 1: the label `b` stands there twice");
    check("a", "bad_value", "line 1: expected a number, found ``");
    check("a 0x1p3", "bad_value", "line 1: expected a number, found `0x1p3`");
    check("a 1e999", "bad_value", "line 1: expected a number, found `1e999`");
    check("a 1_000", "bad_value", "line 1: expected a number, found `1_000`");
    check("a 1\r", "bad_value", "line 1: expected a number, found `1\\r`");
    check("a 1 1.5", "bad_timestamp", "line 1: expected a time or the end of the line, found `1.5`");
    check("a 1 2 3", "bad_timestamp", "line 1: expected a time or the end of the line, found `2`");
    check("# TYPE a", "bad_type", "line 1: expected a type of metric, found ``");
    check("# TYPE a counter b", "bad_type", "line 1: expected a type of metric, found `counter b`");
    check("# TYPE \"a\" counter", "bad_name", "line 1: expected the name of a metric, found `\\\"a\\\"`");
    let labels = |count: usize| (0..count).map(|index| format!("l{index}=\"\",")).collect::<String>();
    check(
        &format!("a{{{}}} 1", labels(LABELS_MAX + 1)),
        "too_many_labels",
        "line 1: the line has more than 64 labels",
    );
    let most = format!("a{{{}}} 1\n", labels(LABELS_MAX));
    assert_eq!(samples(most.as_bytes(), Dialect::Prometheus)[0].labels.len(), LABELS_MAX);
    let found: Vec<_> = Samples::new(b"a{b=\"\xff\"} 1\na 2\na 1", Dialect::Prometheus)
        .map(|found| found.map_err(|bad| bad.reason.name()))
        .collect();
    assert_eq!(
        (found[0].clone(), found[2].clone()),
        (Err("not_text"), Err("cut_short")),
        "12 may have been meant"
    );
    assert_eq!(reason("# TYPE a coun", Dialect::Prometheus).0, "cut_short");
}

#[test]
fn a_type_holds_for_its_family_alone() {
    let text = b"# TYPE a histogram\na_bucket{le=\"1\"} 1\na_total 1\na 1\nab 1\n# HELP a x\na_sum 1\n# HELP b x\na_sum 1\n\
                 # TYPE b counter\nb 1\n# TYPE b what\nb 1\n";
    let found: Vec<_> =
        Samples::new(text, Dialect::Prometheus).map(|found| found.map(|found| found.kind)).collect();
    let kinds: Vec<_> = found.iter().flatten().copied().collect();
    use Kind::{Counter, Histogram, Untyped};
    assert_eq!(kinds, [Histogram, Untyped, Histogram, Untyped, Histogram, Untyped, Counter, Untyped]);
    assert_eq!(found.iter().filter(|found| found.is_err()).count(), 1);
}

#[test]
fn what_differs_in_openmetrics() {
    let time = |text: &str| {
        let text = format!("a 1 {text}\n");
        let found = Samples::new(text.as_bytes(), Dialect::OpenMetrics).next().expect("a line");
        found.map(|found| found.timestamp_ms).map_err(|bad| bad.reason.name())
    };
    assert_eq!(time("1520879607.789"), Ok(Some(1_520_879_607_789)));
    assert_eq!(time("1520879607"), Ok(Some(1_520_879_607_000)));
    assert_eq!(time("-1.5e3"), Ok(Some(-1_500_000)));
    assert_eq!([time("1e300"), time("NaN"), time("x")], [Err("bad_timestamp"); 3]);
    let text = "a 1\n# EOF\na 2\n";
    assert_eq!(
        Samples::new(text.as_bytes(), Dialect::Prometheus).filter(Result::is_ok).count(),
        2,
        "a comment there"
    );
    let found: Vec<_> = Samples::new(text.as_bytes(), Dialect::OpenMetrics).collect();
    assert_eq!(found[1], Err(BadLine { line: 3, reason: LineReason::AfterEnd }));
    // Its grammar leaves out the last line end if it wants to.
    let mut ended = Samples::new(b"a 1\n# EOF", Dialect::OpenMetrics);
    assert_eq!((ended.by_ref().count(), ended.is_ended()), (1, true));
}

#[test]
fn counts_are_exact_or_none() {
    let count = |value: f64| {
        Sample { name: "a", suffix: "", kind: Kind::Counter, labels: vec![], value, timestamp_ms: None }
            .count()
    };
    assert_eq!(
        [count(0.0), count(-0.0), count(9_007_199_254_740_991.0)],
        [Some(0), Some(0), Some(9_007_199_254_740_991)]
    );
    for value in [0.5, -1.0, 9_007_199_254_740_992.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        assert_eq!(count(value), None, "{value}");
    }
}

/// The slow twin: one expression for a line, one for a label in it.
struct Twin {
    line: Regex,
    label: Regex,
}

impl Twin {
    fn new() -> Twin {
        let label = r#"([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)""#;
        let number = r"[+-]?(?:(?i:nan|inf(?:inity)?)|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)";
        let labels = format!(r"\{{[ \t]*(?:{label}[ \t]*(?:,[ \t]*{label}[ \t]*)*,?[ \t]*)?\}}");
        let line = format!(
            r"^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)(?:[ \t]*({labels})[ \t]*|[ \t]+)(?<value>{number})(?:[ \t]+(?<time>[+-]?[0-9]+))?[ \t]*(?:[ \t]#.*)?$"
        );
        Twin { line: Regex::new(&line).expect("it compiles"), label: Regex::new(label).expect("it compiles") }
    }

    fn read(&self, line: &str) -> Option<Read> {
        let groups = self.line.captures(line)?;
        let inside = groups.get(2).map_or("", |found| found.as_str());
        let label = |found: regex::Captures<'_>| (found[1].to_owned(), unescaped(&found[2]));
        let labels: Vec<_> = self.label.captures_iter(inside).map(label).collect();
        let is_known = |index: usize| labels[..index].iter().any(|(name, _)| *name == labels[index].0);
        if (0..labels.len()).any(is_known) {
            return None;
        }
        let value: f64 = groups.name("value")?.as_str().parse().expect("a number");
        let time = match groups.name("time") {
            Some(found) => Some(found.as_str().parse().ok()?),
            None => None,
        };
        Some((groups[1].to_owned(), labels, value.to_bits(), time))
    }
}

/// Name, labels, the bits of the value, and the timestamp.
type Read = (String, Vec<(String, String)>, u64, Option<i64>);

fn unescaped(value: &str) -> String {
    let (mut out, mut letters) = (String::new(), value.chars());
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some(escaped @ ('"' | '\\')) => out.push(escaped),
            other => out.extend(['\\'].into_iter().chain(other)),
        }
    }
    out
}

thread_local! {
    static TWIN: Twin = Twin::new();
}

/// A label value as the format wants it written.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

proptest! {
    /// Pieces of lines, mostly nearly right: the twin says whether it is a sample, and which.
    #[test]
    fn a_line_is_what_the_slow_twin_says(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("a"), Just("b:c"), Just("{"), Just("}"), Just("a=\"x\""), Just("b=\"\\\"\\n\\\\\\x\""), Just("\""), Just("="), Just(","),
                Just(" "), Just("\t"), Just("1"), Just("-2.5e3"), Just("NaN"), Just("+Inf"), Just("."), Just("\\"), Just("#"), Just("é"),
            ], 0..9),
        start in prop_oneof![Just(""), Just("a "), Just("a{b=\"c\"} "), Just("a{"), Just("a{b=\"c\",d=\"é\"")],
        end in prop_oneof![Just(""), Just(" 1"), Just("} 1"), Just("\"} 1 7"), Just(" 1 # {")],
    ) {
        let line = [start, &pieces.concat(), end].concat();
        prop_assume!(!line.trim_start_matches([' ', '\t']).starts_with('#') && !line.trim_matches([' ', '\t']).is_empty());
        let text = format!("{line}\n");
        let found = Samples::new(text.as_bytes(), Dialect::Prometheus).next().expect("a line");
        let expected = TWIN.with(|twin| twin.read(&line));
        let found = found.ok().map(|found| {
            let labels: Vec<_> = found.labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
            (found.name.to_owned(), labels, found.value.to_bits(), found.timestamp_ms)
        });
        prop_assert_eq!(found, expected, "{}", line);
    }

    #[test]
    fn what_is_written_is_read_back(
        made in proptest::collection::vec(
            ("[a-zA-Z_:][a-zA-Z0-9_:]{0,6}", proptest::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,3}", any::<String>(), 0..5), any::<f64>(), any::<Option<i64>>()),
            0..6),
    ) {
        let mut text = String::new();
        for (name, labels, value, time) in &made {
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let time = time.map(|time| format!(" {time}")).unwrap_or_default();
            text.push_str(&format!("{name}{{{}}} {value:?}{time}\n", labels.join(",")));
        }
        let found = samples(text.as_bytes(), Dialect::Prometheus);
        prop_assert_eq!(found.len(), made.len());
        for (found, (name, labels, value, time)) in found.iter().zip(&made) {
            prop_assert_eq!((found.name, found.timestamp_ms), (name.as_str(), *time));
            prop_assert!(found.value.to_bits() == value.to_bits() || (found.value.is_nan() && value.is_nan()));
            prop_assert_eq!(found.labels.len(), labels.len());
            for ((name, value), (wanted_name, wanted)) in found.labels.iter().zip(labels) {
                prop_assert_eq!((*name, value.as_ref()), (wanted_name.as_str(), wanted.as_str()));
                let needs_escapes = wanted.contains(['\\', '"', '\n']);
                prop_assert_eq!(matches!(value, Cow::Owned(_)), needs_escapes);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, near in "[a{}=\"\\\\ #\n1TYPE,.]{0,40}") {
        for text in [&bytes[..], near.as_bytes()] {
            for dialect in [Dialect::Prometheus, Dialect::OpenMetrics] {
                let lines = text.split(|byte| *byte == b'\n').count();
                prop_assert!(Samples::new(text, dialect).count() <= lines);
            }
        }
    }
}
