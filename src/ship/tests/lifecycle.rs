//! Start, stop, and the check before either.

use std::time::Duration;

use super::fault_server::{FaultServer, Play, answer};
use super::*;

#[tokio::test]
async fn the_state_follows_what_happens() {
    let busy = answer(503, "Retry-After: 1\r\n", "");
    let server = FaultServer::start(vec![busy, Play::AnswerAndHang(String::new())]).await;
    let rung = Arc::new(Notify::new());
    let bell = Arc::clone(&rung);
    let mailbox = Arc::new(Mailbox::new(Box::new(move || bell.notify_one())));
    let state = || mailbox.delivery(Instant::now()).state;
    assert_eq!(state(), DeliveryState::Off);
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(run(options(&server.url()), Arc::clone(&mailbox), stopping, 1));
    until(|| state() == DeliveryState::Idle).await;
    mailbox.offer(outgoing(1)).expect("the mailbox is free");
    until(|| state() == DeliveryState::Retrying).await;
    assert!(mailbox.delivery(Instant::now()).next_try_in_s.is_some());
    tokio::time::timeout(DEADLINE, rung.notified()).await.expect("a failure is shown at once");
    until(|| server.seen().len() == 2).await;
    let status = mailbox.delivery(Instant::now());
    assert_eq!(
        (status.state, status.next_try_in_s),
        (DeliveryState::Retrying, None),
        "trouble stays visible"
    );
    stop.send_replace(true);
    task.await.expect("no panic").expect("a valid address");
    assert_eq!(state(), DeliveryState::Off);
}

#[tokio::test]
async fn a_stop_while_waiting_is_immediate() {
    let server = FaultServer::start(vec![answer(503, "", "")]).await;
    let mut patient = options(&server.url());
    patient.limits.backoff =
        BackoffLimits { retry_base: 100 * DEADLINE, retry_max: 100 * DEADLINE, ..patient.limits.backoff };
    let rig = Rig::start(patient);
    rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
    until(|| rig.status().state == DeliveryState::Retrying).await;
    let mailbox = Arc::clone(&rig.mailbox);
    rig.finish().await;
    assert!(mailbox.is_free() && mailbox.take_verdict().is_none(), "the batch is not acknowledged");
}

/// Options with which a 429 leaves a gap of this base.
fn pausing(url: &str, base: Duration) -> SenderOptions {
    let mut options = options(url);
    options.limits.backoff = BackoffLimits { retry_base: base, retry_max: base, ..options.limits.backoff };
    options
}

#[tokio::test]
async fn who_was_asked_for_less_pauses_between_batches_and_nobody_else() {
    const BASE: Duration = Duration::from_millis(400);
    for (code, pauses) in [(429, true), (503, false)] {
        let server = FaultServer::start(vec![answer(code, "", "")]).await;
        let rig = Rig::start(pausing(&server.url(), BASE));
        rig.send(1).await;
        let accepted = Instant::now();
        rig.mailbox.offer(outgoing(2)).expect("the verdict is not held up");
        if pauses {
            until(|| rig.status().next_try_in_s.is_some()).await;
            assert_eq!(rig.status().state, DeliveryState::Sending, "nothing failed");
        }
        rig.verdict(2).await;
        // At least half of a gap that one accepted batch has shortened a little.
        assert_eq!(accepted.elapsed() > BASE * 45 / 100, pauses, "{code}: {:?}", accepted.elapsed());
        let status = rig.finish().await;
        assert_eq!((status.delivered_batches, status.failures), (2, 1));
    }
}

#[tokio::test]
async fn a_stop_in_a_pause_is_immediate() {
    let server = FaultServer::start(vec![answer(429, "", "")]).await;
    let rig = Rig::start(pausing(&server.url(), DEADLINE / 10));
    rig.send(1).await;
    rig.mailbox.offer(outgoing(2)).expect("the mailbox is free");
    until(|| rig.status().next_try_in_s.is_some()).await;
    let mailbox = Arc::clone(&rig.mailbox);
    let stopped = Instant::now();
    rig.finish().await;
    assert!(stopped.elapsed() < DEADLINE / 25, "{:?}", stopped.elapsed());
    assert!(mailbox.is_free() && mailbox.take_verdict().is_none(), "the batch is not acknowledged");
    assert_eq!(server.seen().len(), 2, "it was not sent either");
}

#[tokio::test]
async fn a_stop_lets_a_quick_request_end_and_abandons_a_slow_one() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned();
    for (play, grace, expected) in [
        // The status is there; the body ends with its own deadline, within the grace.
        (Play::Drip(head, b"x".to_vec(), Duration::from_millis(10)), DEADLINE, Some(1)),
        (Play::AnswerAndHang(String::new()), Duration::from_millis(50), None),
    ] {
        let server = FaultServer::start(vec![play]).await;
        let mut options = options(&server.url());
        options.limits.answer_body_timeout = BODY_TIMEOUT;
        options.stop_grace = grace;
        let rig = Rig::start(options);
        rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
        until(|| server.seen().len() == 1).await;
        let mailbox = Arc::clone(&rig.mailbox);
        let status = rig.finish().await;
        assert_eq!(mailbox.take_verdict().map(|(seq, _)| seq), expected);
        assert_eq!(status.delivered_batches, u64::from(expected.is_some()));
    }
}

#[tokio::test]
async fn whoever_could_say_stop_being_gone_stops_it() {
    let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(run(options("http://localhost:1/"), mailbox, stopping, 1));
    drop(stop);
    tokio::time::timeout(DEADLINE, task)
        .await
        .expect("it stops")
        .expect("no panic")
        .expect("a valid address");
}

#[tokio::test]
async fn an_address_that_is_none_is_told_without_showing_it() {
    for url in [CANARY, "ftp://h/ZaVnCanaryC4dhaV2", "http://", "https://:99999/ZaVnCanaryC4dhaV2", ""] {
        let (_stop, stopping) = watch::channel(false);
        let options = options(url);
        let debug = format!("{options:?}");
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let error = run(options, mailbox, stopping, 1).await.expect_err("it is no address");
        let told = format!("{error} {error:?} {debug}");
        assert!(told.contains("not a valid http or https address") && !told.contains(CANARY), "{told}");
    }
}

#[tokio::test]
async fn the_check_explains_without_sending_data() {
    for (code, usable, word) in [
        (200, true, "HTTP source"),
        (204, true, "HTTP source"),
        (405, true, "no GET"),
        (302, false, "redirects"),
        (401, false, "token"),
        (404, false, "no HTTP source"),
        (429, false, "rate"),
        (503, false, "at present"),
        (418, false, "no HTTP source gives"),
    ] {
        let server = FaultServer::start(vec![answer(code, "", CANARY)]).await;
        let found = check_with(&options(&server.url())).await.expect("there is an answer");
        assert_eq!((found.status, found.usable), (code, usable));
        assert!(found.explanation.contains(word), "{found:?}");
        let seen = server.seen();
        assert!(seen.len() == 1 && seen[0].head.starts_with("GET ") && seen[0].body.is_empty());
    }
    let server = FaultServer::start(vec![Play::ResetAtAccept, Play::HangAtAccept]).await;
    let reset = check_with(&options(&server.url())).await.expect_err("it was reset");
    let hung = check_with(&hasty(&server.url())).await.expect_err("it hung");
    assert!(!reset.contains(CANARY) && hung == "no answer within 0.4 s", "{reset} {hung}");
    assert_eq!(server.plays_left(), 0);
    let no_address = check_destination(&Secret::new(CANARY)).await.expect_err("it is no address");
    assert!(!no_address.contains(CANARY));
}
