//! Answers of a real HAProxy, answers made at random, and a slow twin of the reader of CSV.

use super::*;
use proptest::prelude::*;
use std::borrow::ToOwned;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

/// HAProxy 2.6.12 with backends that answer, refuse, are disabled, speak TLS, or fail a check whose comment has quotes.
const STAT_USER: &[u8] = include_bytes!("../../tests/data/haproxy/stat-user.csv");
/// The same at the level `operator`, which is told addresses.
const STAT_OPERATOR: &[u8] = include_bytes!("../../tests/data/haproxy/stat-operator.csv");
/// The same over HTTP, `;csv`.
const STAT_HTTP: &[u8] = include_bytes!("../../tests/data/haproxy/stat-http.csv");
const INFO: &[u8] = include_bytes!("../../tests/data/haproxy/info.txt");
const SERVERS_ODD: &[u8] = include_bytes!("../../tests/data/haproxy/servers-odd.txt");
const SERVERS: &[u8] = include_bytes!("../../tests/data/haproxy/servers-state.txt");

fn rows(answer: &[u8]) -> Vec<StatRow<'_>> {
    stat(answer).expect("an answer").collect::<Result<_, _>>().expect("rows")
}

fn row<'a>(rows: &'a [StatRow<'a>], proxy: &str, server: &str) -> &'a StatRow<'a> {
    rows.iter().find(|row| row.proxy == proxy && row.server == server).expect("a row")
}

#[test]
fn the_rows_of_haproxy() {
    let rows = rows(STAT_USER);
    assert_eq!(rows.len(), 20);
    let front = row(&rows, "www", "FRONTEND");
    assert_eq!(
        (front.kind, front.status.as_deref(), front.mode.as_deref()),
        (Kind::Frontend, Some("OPEN"), Some("http"))
    );
    let numbers = &front.numbers;
    assert_eq!(
        (numbers.req_tot, numbers.stot, numbers.slim, numbers.ereq, numbers.dreq),
        (Some(58), Some(58), Some(500), Some(1), Some(3))
    );
    let classes = [
        numbers.hrsp_1xx,
        numbers.hrsp_2xx,
        numbers.hrsp_3xx,
        numbers.hrsp_4xx,
        numbers.hrsp_5xx,
        numbers.hrsp_other,
    ];
    assert_eq!(classes, [0, 42, 2, 8, 6, 0].map(Some), "they sum to the requests");
    assert_eq!((numbers.ssl_failed_handshake, numbers.qcur, numbers.econ), (Some(2), None, None));
    assert_eq!(
        (numbers.ssl_sess, numbers.h1_open_streams, numbers.h2_open_connections),
        (Some(2), Some(0), Some(0))
    );
    assert_eq!(row(&rows, "www", "tls").kind, Kind::Listener);
    let web = row(&rows, "app", "web1");
    assert_eq!((web.kind, web.status.as_deref(), web.numbers.slim), (Kind::Server, Some("UP"), Some(20)));
    assert_eq!(row(&rows, "app", "web2").numbers.slim, None, "no maxconn");
    assert_eq!(row(&rows, "app", "web3").status.as_deref(), Some("MAINT"));
    let dead = row(&rows, "dead", "gone");
    assert_eq!((dead.numbers.econ, dead.numbers.wretr, dead.numbers.stot), (Some(3), Some(9), Some(12)));
    let raw = row(&rows, "raw", "BACKEND");
    assert_eq!((raw.kind, raw.mode.as_deref(), raw.numbers.hrsp_2xx), (Kind::Backend, Some("tcp"), None));
    // Its last_chk is in quotes and has quotes and a comma.
    let quoted = row(&rows, "quoted", "q1");
    assert_eq!(
        (quoted.status.as_deref(), quoted.numbers.chkdown, quoted.mode.as_deref()),
        (Some("DOWN"), Some(1), Some("http"))
    );
    assert!(rows.iter().all(|row| row.addr.is_none()), "addresses are not for this level");
}

#[test]
fn the_same_over_http_and_for_an_operator() {
    let operator = rows(STAT_OPERATOR);
    assert_eq!(row(&operator, "app", "web6").addr.as_deref(), Some("[::1]:28081"));
    assert_eq!(row(&operator, "app", "sock").addr.as_deref(), Some("unix"));
    assert_eq!(rows(STAT_HTTP).len(), operator.len());
    assert!(is_whole(STAT_USER) && is_whole(INFO) && is_whole(SERVERS));
    assert!(!is_whole(STAT_HTTP) && !is_whole(&STAT_USER[..STAT_USER.len() - 1]));
}

/// Every cut: what is given was in the whole answer, and what was cut is said or follows the last whole row.
#[test]
fn a_cut_answer_gives_no_other_row() {
    let whole = rows(STAT_USER);
    for length in 0..STAT_USER.len() {
        let Ok(answer) = stat(&STAT_USER[..length]) else { continue };
        for (index, found) in answer.enumerate() {
            match found {
                Ok(row) => assert_eq!(row, whole[index], "cut after {length}"),
                Err(bad) => assert_eq!(bad.reason, RowReason::CutShort, "cut after {length}"),
            }
        }
    }
    for length in 0..INFO.len() {
        let Ok(cut) = info(&INFO[..length]) else { continue };
        assert!(INFO[length - 1] == b'\n' && cut.name == "HAProxy", "cut after {length}");
    }
    let whole: Vec<_> = servers_state(SERVERS).expect("an answer").collect();
    for length in 0..SERVERS.len() {
        let Ok(answer) = servers_state(&SERVERS[..length]) else { continue };
        for (index, found) in answer.enumerate() {
            assert!(found == whole[index] || found.is_err_and(|bad| bad.reason == RowReason::CutShort));
        }
    }
}

#[test]
fn versions_differ_in_their_columns() {
    let found = rows(b"# pxname,type,svname,req_tot,\na,0,FRONTEND,7,\n");
    assert_eq!((found[0].server.as_ref(), found[0].status.as_deref()), ("FRONTEND", None));
    assert_eq!(found[0].numbers, Numbers { req_tot: Some(7), ..Numbers::default() });
    let check = |answer: &str, name: &str, words: &str| {
        let reason = stat(answer.as_bytes()).expect_err(answer);
        assert_eq!((reason.name(), reason.to_string().as_str()), (name, words), "{answer}");
    };
    check("", "empty", "the answer is empty");
    check("\n\n", "empty", "the answer is empty");
    check("# pxn", "cut_short", "the answer ends in the middle of a line");
    check("# pxname,svname,type", "cut_short", "the answer ends in the middle of a line");
    check(
        "Permission denied\n\n",
        "other",
        "expected an answer that begins with `# pxname,`, found `Permission denie`",
    );
    check("# pxname,svname,\n", "missing", "the answer has no type");
    check("# pxname,svname,type,stot,stot,\n", "twice", "the answer has stot more than once");
    let wide = format!("# pxname,svname,type,{}\n", ",".repeat(COLUMNS_MAX));
    check(&wide, "too_many_columns", "the answer has more than 512 columns");
}

#[test]
fn a_bad_row_says_why_and_the_next_is_read() {
    let check = |row: &str, name: &str, words: &str| {
        let answer = format!("# pxname,svname,type,stot,status,\n{row}\nb,BACKEND,1,5,UP,\n");
        let found: Vec<_> = stat(answer.as_bytes()).expect("an answer").collect();
        let bad = found[0].as_ref().expect_err(row);
        assert_eq!((bad.reason.name(), bad.to_string().as_str()), (name, words), "{row}");
        assert_eq!(found.last().expect("a row").as_ref().map(|row| row.numbers.stot), Ok(Some(5)), "{row}");
    };
    check("a,x,2", "fields", "line 2: the row has 3 fields, the header 6");
    check("a,x,2,1,UP,,", "fields", "line 2: the row has 7 fields, the header 6");
    check("a,x,2,-1,UP,", "bad_number", "line 2: expected a number that stot can have, found `-1`");
    check(
        "a,x,2,18446744073709551616,UP,",
        "bad_number",
        "line 2: expected a number that stot can have, found `1844674407370955`",
    );
    check("a,x,9,1,UP,", "bad_number", "line 2: expected a number that type can have, found `9`");
    check("a,,2,1,UP,", "missing", "line 2: the row has no svname");
    check("a,x,2,1,\"UP,", "cut_short", "line 2: the text ends in the middle of the row");
    check("a,x,2,1,\"UP\" ,", "stray_quote", "line 2: a quote stands where none can");
    check("a,x,2,1,U\"P,", "stray_quote", "line 2: a quote stands where none can");
    let bytes = b"# pxname,svname,type,status,\na,x,2,\xff,\n";
    let found: Vec<_> = stat(bytes).expect("an answer").collect();
    assert_eq!(found, [Err(BadRow { line: 2, reason: RowReason::NotText { column: "status" } })]);
}

#[test]
fn quotes_hold_commas_quotes_and_line_ends() {
    let answer = b"# pxname,svname,type,status,last_chk,\na,\"x\",2,\"say \"\"UP\"\", twice\",\"1\n2\n\",\nb,y,2,no,,\na\n";
    let found: Vec<_> = stat(answer).expect("an answer").collect();
    let status = |index: usize| found[index].as_ref().map(|row| row.status.as_deref());
    assert_eq!(status(0), Ok(Some("say \"UP\", twice")));
    assert_eq!(status(1), Ok(Some("no")));
    assert_eq!(found[2], Err(BadRow { line: 6, reason: RowReason::Fields { expected: 6, found: 1 } }));
}

/// Each line opens a quote that the text never closes, or closes it where none can stand: minutes, if a row were read to the end
/// for each.
#[test]
fn a_hostile_answer_is_read_in_linear_time() {
    const LINES: usize = 300_000;
    for line in ["a,\"\n", "a,\"\"\"\n", "\",,\"\n", "a,b\"\n", ",\"\"\n", "\"\n", ",\n"] {
        for first in ["", "a,\"", "\"\"\""] {
            let mut answer = String::from("# pxname,svname,type,\n");
            answer.push_str(first);
            answer.push_str(&line.repeat(LINES));
            let bad = stat(answer.as_bytes()).expect("an answer").filter(Result::is_err).count();
            assert!(bad > 0 && bad <= LINES + 1, "{line:?}: {bad}");
        }
    }
}

#[test]
fn the_facts_of_haproxy() {
    let found = info(INFO).expect("an answer");
    assert_eq!((found.name, found.version), ("HAProxy", Some("2.6.12-1+deb12u4")));
    assert_eq!(
        (found.uptime_sec, found.cum_req, found.cum_conns, found.curr_conns),
        (Some(13), Some(63), Some(168), Some(0))
    );
    assert_eq!((found.maxconn, found.dropped_logs, found.idle_pct), (Some(500), Some(0), Some(99)));
    assert!(found.pid.is_some() && found.ssl_rate.is_some());
    assert_eq!(
        (found.get("description"), found.get("Nbthread"), found.get("Unstoppable Jobs")),
        (Some("\"edge, first\""), Some("2"), Some("0"))
    );
    assert_eq!((found.get("nothing"), found.unread), (None, 0));
}

#[test]
fn facts_that_are_none() {
    let found = info(b"Name: HAProxy\nPid: 7\nodd\nx: \xff\n\n").expect("an answer");
    assert_eq!((found.pid, found.version, found.unread), (Some(7), None, 2));
    let check = |answer: &str, name: &str, words: &str| {
        let reason = info(answer.as_bytes()).expect_err(answer);
        assert_eq!((reason.name(), reason.to_string().as_str()), (name, words), "{answer}");
    };
    check("Name: HAProxy\nPid: 7", "cut_short", "the answer ends in the middle of a line");
    check("Name: \n", "missing", "the answer has no Name");
    check("Name: HAProxy\nPid: x7\n", "bad_number", "expected a number for Pid, found `x7`");
    check("Name: HAProxy\nPid: 7\nPid: 7\n", "twice", "the answer has Pid more than once");
    check("Name: HAProxy\nName: b\n", "twice", "the answer has Name more than once");
    check("Version: 2.6\n", "other", "expected an answer that begins with `Name: `, found `Version: 2.6\\n`");
    let mut long = String::from("Name: HAProxy\n");
    for index in 0..INFO_LINES_MAX {
        long.push_str(&format!("n{index}: {index}\n"));
    }
    long.push_str("Pid: 9\n");
    let found = info(long.as_bytes()).expect("an answer");
    assert_eq!(
        (found.pid, found.get("n254"), found.get("n255"), found.unread),
        (Some(9), Some("254"), None, 2)
    );
}

#[test]
fn the_servers_of_haproxy() {
    let found: Vec<_> = servers_state(SERVERS).expect("an answer").collect::<Result<_, _>>().expect("rows");
    let server = |backend: &str, server: &str| {
        *found.iter().find(|row| row.backend == backend && row.server == server).expect("a row")
    };
    assert_eq!(found.len(), 10);
    // One speaks TLS; for the other only its checks do.
    assert_eq!((server("secure", "tls1").use_ssl, server("secure", "tls2").use_ssl), (Some(1), Some(0)));
    let web = server("app", "web1");
    assert_eq!(
        (web.address, web.port, web.operation),
        (Some("127.0.0.1"), Some(28081), Some(Operation::Running))
    );
    assert_eq!(web.admin, Some(Admin(0)));
    assert_eq!(server("app", "web2").operation, Some(Operation::Stopped));
    let disabled = server("app", "web3").admin.expect("a state");
    assert!(disabled.is_maintenance() && !disabled.is_drain());
    assert!(!Admin(4).is_maintenance(), "it was disabled at first, and is enabled");
    assert_eq!(
        (server("app", "web6").address, server("app", "sock").address, server("app", "sock").port),
        (Some("::1"), None, Some(0))
    );
}

/// What HAProxy 2.6.12 prints for `no-ssl`, for ports that are offsets, and for servers without an address.
#[test]
fn servers_that_are_set_up_oddly() {
    let found: Vec<_> =
        servers_state(SERVERS_ODD).expect("an answer").collect::<Result<_, _>>().expect("rows");
    let told: Vec<_> =
        found.iter().map(|row| (row.server, row.address.is_some(), row.port, row.use_ssl)).collect();
    let expected = [
        ("a", true, Some(1), Some(1)),
        ("b", true, Some(2), Some(0)),
        ("less", true, None, Some(0)),
        ("more", true, Some(100), Some(0)),
        ("t1", false, Some(80), Some(0)),
        ("t2", false, Some(80), Some(0)),
        ("abns", false, Some(0), Some(0)),
    ];
    assert_eq!(told, expected);
    assert!(found[4].admin.is_some_and(Admin::is_maintenance), "its name is not resolved");
}

#[test]
fn servers_of_other_versions() {
    // HAProxy 2.2 ends with the column srvrecord.
    let found: Vec<_> = servers_state(
        b"1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_port srvrecord\n\
          2 x 1 a 127.0.0.1 2 0 4294967286 -\n2 x 2 b 127.0.0.1 7 8 80 -\n2 x 3\n2 x 2 b 127.0.0.1 2 0 4294967296 -\n2 x 4 \xff - 2 0 1 -\n2 x",
    )
    .expect("an answer")
    .collect();
    let first = found[0].expect("a server");
    assert_eq!((first.port, first.use_ssl), (None, None));
    let second = found[1].expect("a server");
    assert_eq!(
        (second.operation, second.admin.map(Admin::is_drain)),
        (Some(Operation::Other(7)), Some(true))
    );
    let reasons: Vec<_> = found[2..]
        .iter()
        .map(|row| row.expect_err("a bad row"))
        .map(|bad| (bad.line, bad.reason.name()))
        .collect();
    assert_eq!(reasons, [(5, "fields"), (6, "bad_number"), (7, "not_text"), (8, "cut_short")]);
    let check = |answer: &str, words: &str| {
        assert_eq!(servers_state(answer.as_bytes()).expect_err(answer).to_string(), words);
    };
    check(
        "Can't find backend.\n\n",
        "expected an answer that begins with `1\\n# `, found `Can\\'t find backe`",
    );
    check(
        "2\n# be_name srv_name\n",
        "expected an answer that begins with `1\\n# `, found `2\\n# be_name srv_`",
    );
    check("1\n# be_name srv_id\n", "the answer has no srv_name");
    check("1\n# be_name srv_name be_name\n", "the answer has be_name more than once");
    check("1\n# be_name srv_name", "the answer ends in the middle of a line");
}

/// The slow twin: a character at a time, each field a string of its own. None for what HAProxy does not write.
fn naive_csv(text: &str) -> Option<Vec<Vec<String>>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut in_quotes, mut was_quoted, mut is_new) = (false, false, true);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if in_quotes && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' if in_quotes => (in_quotes, was_quoted) = (false, true),
            _ if in_quotes => field.push(letter),
            '\n' if row.is_empty() && is_new => {}
            ',' | '\n' => {
                row.push(core::mem::take(&mut field));
                (was_quoted, is_new) = (false, true);
                if letter == '\n' {
                    rows.push(core::mem::take(&mut row));
                }
                continue;
            }
            '"' if is_new => in_quotes = true,
            _ if was_quoted || letter == '"' => return None,
            _ => field.push(letter),
        }
        is_new = letter == '\n' && row.is_empty() && is_new && !in_quotes;
    }
    (is_new && row.is_empty()).then_some(rows)
}

/// A field as `csv_enc_append` writes it.
fn encoded(field: &str) -> String {
    if !field.contains(['\n', '\r', ',', '"']) {
        field.to_owned()
    } else {
        format!("\"{}\"", field.replace('"', "\"\""))
    }
}

/// What a row should give, as texts: proxy, server, status, last_chk (unread) and two numbers.
type Made = (String, String, String, String, Option<u64>, Option<u64>);

prop_compose! {
    fn made()(
        proxy in "[a-z_.:-]{1,5}",
        server in "[a-z\",]{1,3}",
        status in "[A-Z ,\"\n\u{e4}]{0,5}",
        check in "[a-z,\"\n ]{0,6}",
        numbers in any::<(Option<u64>, Option<u64>)>(),
    ) -> Made {
        (proxy, server, status, check, numbers.0, numbers.1)
    }
}

proptest! {
    #[test]
    fn what_haproxy_writes_is_read_back(
        made in proptest::collection::vec(made(), 0..6),
        order in Just(vec!["svname", "status", "last_chk", "req_tot", "bout", "type", "later"]).prop_shuffle(),
    ) {
        let mut answer = format!("# pxname,{},\n", order.join(","));
        for (proxy, server, status, check, requests, bytes) in &made {
            let number = |number: &Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            answer.push_str(&encoded(proxy));
            for column in &order {
                answer.push(',');
                answer.push_str(&match *column {
                    "svname" => encoded(server),
                    "status" => encoded(status),
                    "req_tot" => number(requests),
                    "bout" => number(bytes),
                    "type" => "2".to_owned(),
                    _ => encoded(check),
                });
            }
            answer.push_str(",\n");
        }
        answer.push('\n');
        let found = rows(answer.as_bytes());
        prop_assert_eq!(found.len(), made.len());
        for (row, (proxy, server, status, _, requests, bytes)) in found.iter().zip(&made) {
            prop_assert_eq!((row.proxy.as_ref(), row.server.as_ref()), (proxy.as_str(), server.as_str()));
            prop_assert_eq!(row.status.as_deref().unwrap_or_default(), status.as_str());
            let numbers = Numbers { req_tot: *requests, bout: *bytes, ..Numbers::default() };
            prop_assert_eq!((row.kind, row.numbers), (Kind::Server, numbers));
        }
    }

    /// Near CSV: where all is well the twin gives the same, and where it is not one of the rows is bad.
    #[test]
    fn fields_are_those_of_the_slow_twin(body in "(a|,|\"|\"\"|\n|2|a,x,2,\n){0,24}") {
        let answer = format!("# pxname,svname,type,\n{body}");
        let found: Vec<_> = stat(answer.as_bytes()).expect("an answer").collect();
        let is_well = |row: &Vec<String>| {
            row.len() == 4 && !row[0].is_empty() && !row[1].is_empty() && row[2].len() == 1 && "0123".contains(&row[2])
        };
        match naive_csv(&body) {
            Some(rows) if rows.iter().all(is_well) => {
                let texts: Vec<_> = found.iter().flatten().map(|row| (row.proxy.to_string(), row.server.to_string())).collect();
                let expected: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
                prop_assert_eq!((texts, found.iter().filter(|row| row.is_err()).count()), (expected, 0));
            }
            _ => prop_assert!(found.iter().any(Result::is_err), "{:?}", found),
        }
    }

    #[test]
    fn servers_are_read_back(
        servers in proptest::collection::vec(("[a-z.:_-]{1,6}", any::<(u16, u8, u8, Option<u32>)>()), 0..6),
        order in Just(vec!["be_name", "srv_name", "srv_addr", "srv_port", "srv_op_state", "srv_admin_state", "srv_use_ssl", "x"]).prop_shuffle(),
    ) {
        let mut answer = format!("1\n# {}\n", order.join(" "));
        for (name, (port, state, use_ssl, address)) in &servers {
            let address = address.map_or("-".to_owned(), |address| std::net::Ipv4Addr::from(address).to_string());
            let fields: Vec<String> = order.iter().map(|column| match *column {
                "be_name" => "back".to_owned(),
                "srv_name" => name.clone(),
                "srv_addr" => address.clone(),
                "srv_port" => port.to_string(),
                "srv_op_state" => (state % 4).to_string(),
                "srv_admin_state" => state.to_string(),
                "srv_use_ssl" => use_ssl.to_string(),
                _ => "-".to_owned(),
            }).collect();
            answer.push_str(&format!("{}\n", fields.join(" ")));
        }
        answer.push('\n');
        let found: Vec<_> = servers_state(answer.as_bytes()).expect("an answer").collect::<Result<_, _>>().expect("rows");
        prop_assert_eq!(found.len(), servers.len());
        for (row, (name, (port, state, use_ssl, address))) in found.iter().zip(&servers) {
            let operation = [Operation::Stopped, Operation::Starting, Operation::Running, Operation::Stopping][usize::from(state % 4)];
            prop_assert_eq!((row.backend, row.server), ("back", name.as_str()));
            prop_assert_eq!((row.port, row.use_ssl), (Some(*port), Some(*use_ssl)));
            prop_assert_eq!((row.operation, row.admin), (Some(operation), Some(Admin(u64::from(*state)))));
            prop_assert_eq!(row.address.map(str::to_owned), address.map(|address| std::net::Ipv4Addr::from(address).to_string()));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let answers = [b"# pxname,svname,type,stot,\n".as_slice(), b"Name: HAProxy\n", b"1\n# be_name srv_name srv_port\n", b""];
        for start in answers {
            let answer = [start, &bytes].concat();
            let _ = stat(&answer).map(Iterator::count);
            let _ = info(&answer);
            let _ = servers_state(&answer).map(Iterator::count);
        }
    }
}
