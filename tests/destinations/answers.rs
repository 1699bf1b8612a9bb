//! Answers of every kind, and connections that break or hang at every phase.

use std::time::{Duration, SystemTime};

use super::{LINES, Lane, MEMORY_KIB_MAX, Story, peak_memory_kib, side_by_side};
use crate::fault_server::{Act, CANARY, FaultServer, Phase, Then, answer};
use crate::support::number;

/// One after the other, each until it is told and mended: what the answer is, and what the status says of it.
fn passing(cases: &'static [(&'static str, &'static str)]) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        let mut lane = Lane::start();
        for (status, words) in cases {
            lane.suffers_from(answer(status, "", &format!("no {CANARY}")), "retrying", words);
        }
        lane.finish();
    })
}

#[test]
fn statuses_that_pass_are_retried_and_nonsense_is_one_of_them() {
    side_by_side(vec![
        (
            "5xx",
            passing(&[
                ("500 Oops", "500 internal server error: no ***"),
                ("501 X", "501 not implemented: no ***"),
                ("502 X", "502 bad gateway: no ***"),
                ("503 X", "503 service unavailable: no ***"),
            ]),
        ),
        (
            "further 5xx",
            passing(&[
                ("504 X", "504 gateway timeout: no ***"),
                ("505 X", "505 http version not supported: no ***"),
                ("507 X", "507 insufficient storage: no ***"),
            ]),
        ),
        (
            "408 and 429",
            passing(&[
                ("408 X", "408 request timeout: no ***"),
                ("429 X", "429 too many requests: no ***"),
                ("520 X", "520 without a known meaning: no ***"),
            ]),
        ),
        (
            "codes without a meaning",
            passing(&[
                ("599 X", "599 without a known meaning: no ***"),
                ("600 X", "600 without a known meaning: no ***"),
                ("999 X", "999 without a known meaning: no ***"),
                ("503", "503 service unavailable: no ***"),
            ]),
        ),
        (
            "what is no status",
            passing(&[
                ("099 X", "send: "),
                ("1000 X", "send: "),
                ("abc X", "send: "),
                ("-200 OK", "send: "),
                ("2 00", "send: "),
                ("", "send: "),
            ]),
        ),
        ("other protocols", Box::new(other_protocols)),
        ("Retry-After that is nonsense", Box::new(retry_after_nonsense)),
        ("Retry-After", Box::new(retry_after_honoured)),
        ("accepted", Box::new(every_2xx)),
    ]);
}

fn other_protocols() {
    let mut lane = Lane::start();
    for banner in
        ["SSH-2.0-OpenSSH_9.2\r\n", "220 mail.example ESMTP\r\n", "HTTP/3.7 200 OK\r\n\r\n", "\0\0\0\0"]
    {
        lane.suffers_from(Act::new(Phase::Body, banner, Then::Close), "retrying", "send: ");
    }
    lane.finish();
}

fn retry_after_nonsense() {
    let mut lane = Lane::start();
    let words = "429 too many requests";
    for nonsense in ["soon", "-5", "Sun, 22 Nov 2026"] {
        let delivery = lane.suffers_from(limited(nonsense), "retrying", words);
        assert!(delivery["next_try_in_s"].as_f64() < Some(61.0), "{nonsense}: {delivery}");
    }
    lane.finish();
}

fn limited(asked: &str) -> Act {
    answer("429 Slow down", &format!("Retry-After: {asked}\r\n"), "")
}

fn retry_after_honoured() {
    let mut lane = Lane::start();
    let words = "429 too many requests";
    lane.suffers_from(limited("2"), "retrying", words);
    let waits = lane.server.waits();
    assert!(!waits.is_empty() && waits.iter().all(|wait| *wait >= Duration::from_secs(2)), "{waits:?}");
    let date = SystemTime::now() + Duration::from_secs(5);
    lane.suffers_from(limited(&httpdate::fmt_http_date(date)), "retrying", words);
    // A date has no fractions of a second.
    assert!(SystemTime::now() + Duration::from_secs(1) > date, "it came too early");
    // A huge one is cut to five minutes, which nobody waits for here.
    lane.server.stand(limited("99999999999999999999999"));
    lane.write(1);
    let status =
        lane.wait("a long wait", |status| status["delivery"]["next_try_in_s"].as_f64() > Some(200.0));
    assert!(status["delivery"]["next_try_in_s"].as_f64() < Some(302.0), "{}", status["delivery"]);
    lane.server.mend();
    assert_eq!(lane.agent.stop(), Some(0), "the wait does not hold up a stop");
    lane.agent.start();
    lane.wait_shipped("a restart");
    lane.finish();
}

fn every_2xx() {
    let mut lane = Lane::start();
    let statuses =
        ["200 OK", "201 X", "202 X", "203 X", "204 X", "205 X", "206 X", "207 X", "226 X", "299 X", "200 "];
    for status in statuses {
        lane.server.play([answer(status, "", "")]);
        lane.write(1);
        lane.wait_shipped(status);
    }
    for (name, text) in [
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n".to_owned()),
        (
            "a chain of 100",
            "HTTP/1.1 100 Continue\r\n\r\n".repeat(50) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "103 and 200",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
        ),
    ] {
        lane.server.play([Act::new(Phase::Body, text, Then::Close)]);
        lane.write(1);
        lane.wait_shipped(name);
    }
    assert_eq!(lane.server.acts_left(), 0);
    let status = lane.wait("the end", |_| true);
    assert_eq!((number(&status, "/delivery/failures"), number(&status, "/delivery/warnings")), (0, 0));
    let audit = lane.finish();
    assert_eq!(audit.repeats, 0);
}

#[test]
fn a_warning_with_a_200_is_shown_once_as_an_event_and_kept_in_the_status() {
    let mut lane = Lane::start();
    let warning = format!(r#"{{"status":200,"code":"bad.fields","message":"dropped at /http/{CANARY}"}}"#);
    lane.server.stand(answer("200 OK", "", &warning));
    for _ in 0..3 {
        lane.write(LINES);
        lane.wait_shipped("a warning");
    }
    lane.server.mend();
    lane.write(LINES);
    let status = lane.wait_shipped("the warnings");
    let delivery = &status["delivery"];
    assert_eq!(delivery["last_warning"], "bad.fields: dropped at /http/***", "{delivery}");
    assert!(number(delivery, "/warnings") >= 3 && number(delivery, "/failures") == 0, "{delivery}");
    let audit = lane.finish();
    let complaints = audit.events.iter().filter(|event| event.contains("bad.fields")).count();
    assert_eq!(complaints, 1, "{:?}", audit.events);
}

#[test]
fn batches_that_are_refused_or_too_large_are_accounted_for() {
    // Refused: two answers of 400 are doubted, the third is believed, and the next batch goes on.
    let mut lane = Lane::start();
    lane.server.play([answer("400 X", "", ""), answer("400 X", "", "")]);
    lane.write(LINES);
    lane.wait_shipped("two answers of 400");
    lane.server.play(vec![answer("400 X", "", &format!("bad {CANARY}")); 3]);
    let refused: Vec<String> = {
        lane.write(LINES);
        let status = lane.wait("the refusal", |status| number(status, "/ledger/lines/lost") > 0);
        assert_eq!(number(&status, "/ledger/lines/lost"), LINES as u64);
        let lost = &status["ledger"]["lost"][0];
        assert_eq!(
            (lost["reason"].as_str(), number(lost, "/lines")),
            (Some("refused"), LINES as u64),
            "{lost}"
        );
        assert_eq!(status["delivery"]["last_error"], "400 bad request: bad ***");
        lane.written[LINES..].to_vec()
    };
    // Too large: it goes out in halves, and one half in quarters.
    lane.server.play([answer("413 X", "", ""), answer("413 X", "", "")]);
    lane.write(LINES);
    lane.wait("the halves", |status| number(status, "/ledger/lines/shipped") == 2 * LINES as u64);
    assert_eq!(lane.server.acts_left(), 0);
    let audit = lane.finish_without(&refused);
    let given_up = audit.events.iter().filter(|event| event.contains("given up")).count();
    assert_eq!((given_up, audit.repeats), (1, 4), "{:?}", audit.events);
}

#[test]
fn a_connection_that_breaks_at_any_phase_costs_a_repeat_at_most() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut breaks: Vec<(Act, &str)> = vec![
        (Act::new(Phase::Accept, "", Then::Reset), "connection reset"),
        (Act::new(Phase::Accept, "", Then::Close), "send: "),
        (Act::new(Phase::Head, "", Then::Reset), "send: "),
        (Act::new(Phase::MidBody, "", Then::Reset), "send: "),
        (Act::new(Phase::Body, "", Then::Reset), "send: "),
        (Act::new(Phase::Body, "", Then::Close), "send: "),
    ];
    let mut halves: Vec<(Act, &str)> = vec![
        (Act::new(Phase::Body, "HTTP/1.1 20", Then::Close), "send: "),
        (Act::new(Phase::Body, "HTTP/1.1 200 OK\r\nContent-Le", Then::Close), "send: "),
        (Act::new(Phase::Body, "HTTP/1.1 200 OK\r\nX: y", Then::Reset), "send: "),
        (Act::new(Phase::Body, "HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\ncut", Then::Close), "503 "),
        (Act::new(Phase::Head, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", Then::Keep), "503 "),
        (Act::new(Phase::Head, "HTTP/1.1 503 X\r\nConnection: close\r\n\r\n", Then::Close), "503 "),
    ];
    let run = |cases: Vec<(Act, &'static str)>| -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            let mut lane = Lane::start();
            for (act, words) in cases {
                lane.suffers_from(act, "retrying", words);
            }
            lane.finish();
        })
    };
    let stale = move || {
        let mut lane = Lane::start();
        for number in 0..8 {
            // The connection ends without a word, at once or while the next request comes.
            let then = if number % 2 == 0 { Then::Close } else { Then::Keep };
            lane.server.play([Act::new(Phase::Body, ok, then)]);
            lane.write(1);
            lane.wait_shipped("a connection that had ended");
            if number % 4 == 3 {
                lane.server.play([Act::new(Phase::Head, "", Then::Reset)]);
            }
        }
        let status = lane.wait("the end", |_| true);
        assert!(number(&status, "/delivery/failures") <= 1 + 8, "{}", status["delivery"]);
        lane.finish();
    };
    side_by_side(vec![
        ("before the answer", run(breaks.split_off(3))),
        ("at the beginning", run(breaks)),
        ("within the head of the answer", run(halves.split_off(3))),
        ("around the answer", run(halves)),
        ("between two requests", Box::new(stale)),
    ]);
}

#[test]
fn answers_without_an_end_are_cut_and_take_no_memory() {
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let chunked = |status: &str| format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let bodies = move || {
        let mut lane = Lane::start();
        let endless = |status: &str| {
            Act::new(Phase::Body, chunked(status), Then::Close).for_ever(chunk.clone(), Duration::ZERO)
        };
        lane.server.play([endless("200 OK")]);
        lane.write(LINES);
        lane.wait_shipped("an endless 200");
        lane.suffers_from(endless("503 X"), "retrying", "503 service unavailable: xxx");
        let header = Act::new(Phase::Body, "HTTP/1.1 200 OK\r\n", Then::Close);
        let header = header.for_ever(format!("X-A: {}\r\n", "y".repeat(1000)), Duration::ZERO);
        lane.suffers_from(header, "retrying", "send: ");
        let one = Act::new(Phase::Body, "HTTP/1.1 200 OK\r\nX-A: ", Then::Close)
            .for_ever("z".repeat(1000), Duration::ZERO);
        lane.suffers_from(one, "retrying", "send: ");
        let bomb = {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 128 << 20), &mut gzip)
                .expect("memory");
            gzip.finish().expect("memory")
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
        lane.server.play([Act::new(Phase::Body, [head.into_bytes(), bomb].concat(), Then::Keep)]);
        lane.write(LINES);
        let status = lane.wait_shipped("a bomb");
        assert!(number(&status, "/delivery/warnings") >= 2, "{}", status["delivery"]);
        let (said, peak_kib) = (lane.server.said_bytes(), peak_memory_kib(lane.agent.id()));
        println!("answers without an end: {said} bytes said, {peak_kib} KiB at most of {MEMORY_KIB_MAX}");
        lane.finish();
    };
    side_by_side(vec![("without an end", Box::new(bodies)), ("slow", Box::new(slow_under_load))]);
}

/// A destination that takes everything, only slowly: the spool fills, then the log waits, and memory does not grow.
fn slow_under_load() {
    let mut lane = Lane::start_with(FaultServer::start(), "http", |agent| {
        agent.set("SPOOL_MAX", "1MiB");
        agent.set("BATCH_MAX", "100KB");
    });
    lane.server.stand(answer("200 OK", "", "").after(Duration::from_millis(700)));
    let mut random = fastrand::Rng::with_seed(5);
    // Numbers spread over the line, so that it compresses badly and the cap is reached.
    lane.write_lines(60_000, |line| line.replace("/page/", &format!("/{:032x}/", random.u128(..))));
    let status = lane.wait("back-pressure", |status| {
        status["spool"]["state"] == "full" && number(status, "/files/0/lag_bytes") > 0
    });
    assert!(number(&status, "/spool/bytes") <= 1 << 20, "{}", status["spool"]);
    assert_eq!(number(&status, "/delivery/failures"), 0, "slow is no failure: {}", status["delivery"]);
    lane.server.mend();
    lane.wait_shipped("slowness");
    let audit = lane.finish();
    assert_eq!(audit.repeats, 0);
}

/// What takes as long as the limits of the sender are: 30 s a request, 10 s a connection, 12 s and more until an
/// answer for a person is doubted.
#[test]
fn hangs_are_cut_and_what_a_person_mends_is_found_mended() {
    let hang = |phase, say: &'static str, words: &'static str| -> Story {
        let story = move || {
            let mut lane = Lane::start();
            lane.outlasts(Act::new(phase, say, Then::Hang), words);
            lane.finish();
        };
        (say, Box::new(story))
    };
    let drip = |say: &'static str, drop: String, pause| -> Story {
        let story = move || {
            let mut lane = Lane::start();
            let act = Act::new(Phase::Body, say, Then::Close).for_ever(drop, pause);
            lane.outlasts(act, "no answer within 30 s");
            lane.finish();
        };
        (say, Box::new(story))
    };
    let hold = |status: &'static str, words: &'static str| -> Story {
        let story = move || {
            let mut lane = Lane::start();
            let elsewhere = FaultServer::at("127.0.0.2:0".parse().expect("an address"));
            let location = format!("Location: {}\r\n", elsewhere.url("http", "127.0.0.2"));
            let delivery = lane.suffers_from(answer(status, &location, CANARY), "held", words);
            let error = delivery["last_error"].as_str().unwrap_or_default();
            assert!(error.contains("the data is kept"), "{error}");
            assert_eq!(elsewhere.connections(), 0, "a redirect was followed");
            let audit = lane.finish();
            assert!(audit.repeats <= 2, "held is tried slowly: {}", audit.repeats);
        };
        (status, Box::new(story))
    };
    let late = "no answer within 30 s";
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
    side_by_side(vec![
        hang(Phase::Accept, "", late),
        hang(Phase::Body, "", late),
        hang(Phase::Body, "HTTP/1.1 2", late),
        hang(Phase::Body, "HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\n", "503 service unavailable"),
        drip("HTTP/1.1 200 OK\r\nX-Slow: ", "a".to_owned(), Duration::from_secs(1)),
        drip("HTTP/1.1 100 Continue\r\n\r\n", interim, Duration::from_millis(20)),
        hold("301 X", "301 moved permanently: redirects are not followed"),
        hold("302 X", "302 found: redirects are not followed"),
        hold("307 X", "307 temporary redirect: redirects are not followed"),
        hold("308 X", "308 permanent redirect: redirects are not followed"),
        hold("401 X", "401 unauthorized: the token in WATCHPOST_SUMO_URL is not accepted"),
        hold("403 X", "403 forbidden: the token in WATCHPOST_SUMO_URL is not accepted"),
        hold("404 X", "404 not found: there is no HTTP source at WATCHPOST_SUMO_URL"),
        hold("415 X", "415 unsupported media type: this answer will not change by itself"),
        hold("422 X", "422 unprocessable entity: this answer will not change by itself"),
    ]);
}
