//! The counters of others: nginx's page, HAProxy's answers, the text of exporters.

use watchpost_parsers::haproxy::{self, Numbers};
use watchpost_parsers::prometheus::{Dialect, LABELS_MAX, Samples};
use watchpost_parsers::stub_status::{StubStatus, stub_status as read};

use super::{Input, assert_plain};

/// What is read is what nginx prints, byte for byte; and what is printed here is read.
pub fn stub_status(data: &[u8]) {
    match read(data) {
        Ok(page) => assert_eq!(printed(&page).as_bytes(), data),
        Err(reason) => assert_plain(&reason.to_string()),
    }
    let mut input = Input(data);
    let page = StubStatus {
        active: input.number(),
        accepted: input.number(),
        handled: input.number(),
        requests: input.number(),
        reading: input.number(),
        writing: input.number(),
        waiting: input.number(),
    };
    let text = printed(&page);
    assert_eq!(read(text.as_bytes()), Ok(page), "{text}");
    let cut = usize::from(input.byte()) % text.len();
    assert!(read(&text.as_bytes()[..cut]).is_err(), "cut after {cut}: {text}");
}

fn printed(page: &StubStatus) -> String {
    let StubStatus { active, accepted, handled, requests, reading, writing, waiting } = page;
    format!(
        "Active connections: {active} \nserver accepts handled requests\n {accepted} {handled} {requests} \n\
         Reading: {reading} Writing: {writing} Waiting: {waiting} \n"
    )
}

/// Any answer, to all three; and one that is written here.
pub fn haproxy(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count() as u64;
    match haproxy::stat(data) {
        Ok(rows) => {
            let mut last = 1;
            for row in rows {
                match row {
                    Ok(row) => assert!(!row.proxy.is_empty() && !row.server.is_empty(), "{row:?}"),
                    Err(bad) => {
                        assert_plain(&bad.to_string());
                        assert!(bad.line > last && bad.line <= lines, "{bad:?} after line {last}");
                        last = bad.line;
                    }
                }
            }
        }
        Err(reason) => assert_plain(&reason.to_string()),
    }
    match haproxy::info(data) {
        Ok(info) => {
            assert!(!info.name.is_empty() && info.unread <= lines);
            assert!(data.ends_with(b"\n"), "a cut answer");
            assert_eq!(
                info.pid.is_some(),
                info.get("Pid").is_some() || (info.pid.is_some() && info.unread > 0)
            );
        }
        Err(reason) => assert_plain(&reason.to_string()),
    }
    match haproxy::servers_state(data) {
        Ok(servers) => {
            for server in servers {
                match server {
                    Ok(server) => assert!(!server.backend.contains(' ') && server.address != Some("-")),
                    Err(bad) => assert_plain(&bad.to_string()),
                }
            }
        }
        Err(reason) => assert_plain(&reason.to_string()),
    }
    written_stat(data);
}

/// Rows of any text and number, written as HAProxy does, come back; and a cut changes none of those before it.
fn written_stat(data: &[u8]) {
    let mut input = Input(data);
    let (mut text, mut made) = (String::from("# pxname,svname,type,status,last_chk,stot,\n"), Vec::new());
    while !input.is_empty() && made.len() < 16 {
        let status = String::from_utf8_lossy(input.short()).into_owned();
        let number = (input.byte() > 20).then(|| input.number());
        let quoted = |text: &str| match text.contains([',', '"', '\n']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text.to_owned(),
        };
        let digits = number.map(|number| number.to_string()).unwrap_or_default();
        text.push_str(&format!("a,b,2,{},{},{digits},\n", quoted(&status), quoted(&status)));
        made.push((status, number));
    }
    let rows: Result<Vec<_>, _> = haproxy::stat(text.as_bytes()).expect("a header").collect();
    let rows = rows.unwrap_or_else(|bad| panic!("{bad}: {text:?}"));
    let found: Vec<_> =
        rows.iter().map(|row| (row.status.as_deref().unwrap_or_default().to_owned(), row.numbers)).collect();
    let expected: Vec<_> =
        made.into_iter().map(|(status, stot)| (status, Numbers { stot, ..Numbers::default() })).collect();
    assert_eq!(found, expected, "{text:?}");
    let cut = text.len() - usize::from(input.byte()) % text.len();
    if let Ok(cut_rows) = haproxy::stat(&text.as_bytes()[..cut]) {
        let whole = cut_rows.take_while(Result::is_ok).flatten().zip(&rows).all(|(cut, row)| cut == *row);
        assert!(whole, "cut after {cut}: {text:?}");
    }
}

/// The first byte chooses the dialect, the rest is the text: each line by itself gives what it gives among the others.
pub fn prometheus(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let dialect = if choice % 2 == 0 { Dialect::Prometheus } else { Dialect::OpenMetrics };
    let mut samples = Samples::new(text, dialect);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for found in &mut samples {
        match found {
            Ok(sample) => {
                assert!(
                    sample.labels.len() <= LABELS_MAX && sample.name.ends_with(sample.suffix),
                    "{sample:?}"
                );
                assert!(sample.labels.iter().all(|(name, _)| sample.label(name).is_some()));
                assert!(sample.count().is_none_or(|count| count as f64 == sample.value), "{sample:?}");
                good.push((sample.name, sample.labels, sample.value.to_bits(), sample.timestamp_ms));
            }
            Err(reason) => {
                assert_plain(&reason.to_string());
                bad.push(reason.line);
            }
        }
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    assert!(bad.is_sorted_by(|one, next| one < next) && bad.iter().all(|line| *line <= lines.len() as u64));
    if samples.is_ended() && dialect == Dialect::OpenMetrics {
        return;
    }
    let alone: Vec<_> = lines
        .iter()
        .flat_map(|line| Samples::new(line, dialect).flatten())
        .map(|sample| (sample.name, sample.labels, sample.value.to_bits(), sample.timestamp_ms))
        .collect();
    assert_eq!(good, alone);
    written_sample(text);
}

/// Any text as the value of a label, and any number.
fn written_sample(data: &[u8]) {
    let mut input = Input(data);
    let label = String::from_utf8_lossy(input.short()).into_owned();
    let value = f64::from_le_bytes(std::array::from_fn(|_| input.byte()));
    let escaped = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let text = format!("a{{b=\"{escaped}\"}} {value:?} # {{c=\"d\"}} 1\n");
    let sample =
        Samples::new(text.as_bytes(), Dialect::Prometheus).next().expect("a line").expect("a sample");
    assert_eq!(sample.label("b"), Some(label.as_str()), "{text:?}");
    assert!(
        sample.value.to_bits() == value.to_bits() || (sample.value.is_nan() && value.is_nan()),
        "{text:?}"
    );
}
