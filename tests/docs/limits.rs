//! The table of limits in ARCHITECTURE.md against the constants in the source.

use regex::Regex;

use super::{read, root, words};

/// Rows that the table has at least; fewer mean that it was not found.
const ROWS_MIN: usize = 25;

#[test]
fn the_table_of_limits_is_that_of_the_code() {
    let architecture = read("ARCHITECTURE.md");
    let table: Vec<Vec<&str>> =
        words::rows(&architecture).into_iter().filter(|row| row.len() == 5 && is_constant(row[0])).collect();
    assert!(table.len() >= ROWS_MIN, "{} rows", table.len());
    let complaints: Vec<String> =
        table.iter().filter_map(|row| judge(row, &source_of(row[2])).err()).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_wrong_limit_is_seen() {
    let source = "/// X.\npub(super) const LINE_MAX: usize = PART * 2;\nconst PART: u64 = 1_000 << 1;\n\
                  const WAIT: Duration = Duration::from_secs(5 * 60);\nconst TWICE: u8 = 1;\nconst TWICE: u8 = 1;\n\
                  const LATE_MS_MAX: u64 = 60_000;\nconst FAR_S_MAX: i64 = 900 + 60;";
    let check = |name: &str, value: &str| judge(&[name, value, "`src/x`"], source);
    for (name, value) in [
        ("`LINE_MAX`", "4 000"),
        ("`PART`", "2 000"),
        ("`WAIT`", "300 s"),
        ("`LATE_MS_MAX`", "60 s"),
        ("`FAR_S_MAX`", "960 s"),
    ] {
        assert_eq!(check(name, value), Ok(()), "{name}");
    }
    for (name, value, complaint) in [
        ("`LINE_MAX`", "4 KiB", "4096"),
        ("`WAIT`", "300 ms", "300000"),
        ("`LATE_MS_MAX`", "60 000 s", "60000"),
        ("`GONE`", "1", "0 constants"),
        ("`TWICE`", "1", "2 constants"),
        ("`PART`", "many", "no number"),
    ] {
        let said = check(name, value).expect_err(name);
        assert!(said.contains(complaint), "{said}");
    }
}

/// Whether a cell is the name of a constant in backquotes.
fn is_constant(cell: &str) -> bool {
    let name = cell.trim_matches('`');
    name.len() + 2 == cell.len()
        && name.contains('_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// The text of all files of a module that stands in backquotes.
fn source_of(cell: &str) -> String {
    let files = words::sources(&root().join(cell.trim_matches('`')));
    // Constants of tests are not limits.
    let production = files.into_iter().filter(|(name, _)| name != "tests.rs");
    production.map(|(_, text)| text).collect::<Vec<_>>().join("\n")
}

/// Holds a row (name, value, ..) to the source of its module.
fn judge(row: &[&str], source: &str) -> Result<(), String> {
    let name = row[0].trim_matches('`');
    let told = number_with_unit(row[1]).ok_or_else(|| format!("{name}: {:?} is no number", row[1]))?;
    let (kind, value) = constant(name, source)?;
    // Times are compared in milliseconds, everything else as it stands.
    let value = if kind == "Duration" || !name.contains("_S_") { value } else { value * 1000 };
    if told == value {
        Ok(())
    } else {
        Err(format!("{name}: the table says {} ({told}), the code says {value}", row[1]))
    }
}

/// `64 KiB`, `10 000`, `30 s`: bytes, a count, or milliseconds.
fn number_with_unit(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let digits: String = text[..text.len() - unit.len()].split_whitespace().collect();
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * factor)
}

/// Type and value of a constant that stands in the source once; a `Duration` in milliseconds.
fn constant(name: &str, source: &str) -> Result<(String, u64), String> {
    let definition = format!(r"(?m)^\s*(pub(\([a-z]+\))? )?const {name}: (?<kind>\w+) = (?<value>[^;]+);");
    let definition = Regex::new(&definition).expect("it compiles");
    let found: Vec<(String, String)> = definition
        .captures_iter(source)
        .map(|found| (found["kind"].to_owned(), found["value"].to_owned()))
        .collect();
    let [(kind, value)] = found.as_slice() else {
        return Err(format!("{} constants are called {name}", found.len()));
    };
    let value = value.trim();
    let within = |prefix: &str| value.strip_prefix(prefix)?.strip_suffix(')');
    let (expression, factor) = match (within("Duration::from_secs("), within("Duration::from_millis(")) {
        (Some(seconds), _) => (seconds, 1000),
        (_, Some(milliseconds)) => (milliseconds, 1),
        _ => (value, 1),
    };
    Ok((kind.clone(), evaluate(expression, source)? * factor))
}

/// Numbers and other constants joined by one kind of operator: `64 * 1024`, `4 << 20`, `A + 60`.
fn evaluate(expression: &str, source: &str) -> Result<u64, String> {
    for (operator, apply) in
        [(" << ", (|a, b| a << b) as fn(u64, u64) -> u64), (" + ", |a, b| a + b), (" * ", |a, b| a * b)]
    {
        if let Some((left, right)) = expression.split_once(operator) {
            return Ok(apply(evaluate(left, source)?, evaluate(right, source)?));
        }
    }
    match expression.replace('_', "").parse() {
        Ok(number) => Ok(number),
        Err(_) if expression.contains(char::is_lowercase) => Err(format!("{expression} is not understood")),
        Err(_) => constant(expression, source).map(|(_, value)| value),
    }
}
