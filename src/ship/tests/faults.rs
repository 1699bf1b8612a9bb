//! Every way in which one request can go wrong.

use std::time::{Duration, SystemTime};

use super::fault_server::{FaultServer, Play, answer};
use super::*;

fn ok_without_end(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_batch_arrives_with_its_headers() {
    let (status, server) = survives(vec![]).await;
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, outgoing(1).body);
    let head = seen[0].head.to_lowercase();
    assert!(head.starts_with("post /receiver/v1/http/"), "{head}");
    let user_agent = format!("user-agent: watchpost/{}", env!("CARGO_PKG_VERSION"));
    for line in [
        "content-encoding: gzip",
        "content-type: application/x-www-form-urlencoded",
        "content-length: 19",
        "x-sumo-category: watchpost/nginx/access",
        "x-sumo-name: nginx-access",
        "x-sumo-host: web1",
        "x-sumo-fields: env=prod",
        "idempotency-key: agent/1/1",
        // user:pwZaVnCanaryC4dhaV2, as the address has it
        "authorization: basic dxnlcjpwd1phvm5dyw5hcnldngroyvyy",
        &user_agent,
    ] {
        assert!(head.lines().any(|told| told == line), "{line} in {head}");
    }
    assert_eq!((status.failures, status.sent_bytes, status.last_error), (0, 19, None));
}

#[tokio::test]
async fn passing_statuses_are_retried_with_the_same_bytes() {
    let statuses = [408, 429, 500, 501, 502, 503, 504, 520, 599, 600];
    let (status, server) = survives(statuses.iter().map(|code| answer(*code, "", "busy")).collect()).await;
    assert_eq!((status.failures, server.seen().len()), (10, 11));
    assert_eq!(status.last_error.as_deref(), Some("600 without a known meaning: busy"));
    assert_eq!(server.connections(), 1, "answers of known length leave the connection usable");
}

#[tokio::test]
async fn answers_for_a_person_hold_the_data_and_heal_without_a_restart() {
    for code in [300, 301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 410, 415, 422, 431, 499] {
        let elsewhere = format!("Location: http://localhost:1/{CANARY}\r\n");
        let server = FaultServer::start(vec![answer(code, &elsewhere, CANARY); 2]).await;
        let mut held = options(&server.url());
        held.limits.backoff.hold_base = Duration::from_millis(100);
        let rig = Rig::start(held);
        rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
        until(|| rig.status().state == DeliveryState::Held).await;
        let status = rig.status();
        assert!(status.next_try_in_s.is_some(), "{status:?}");
        let error = status.last_error.unwrap_or_default();
        assert!(error.starts_with(&code.to_string()) && error.contains("the data is kept: ***"), "{error}");
        assert_eq!(rig.verdict(1).await, Verdict::Accepted { warning: None });
        assert_eq!(rig.finish().await.failures, 2);
        server.assert_all_equal();
    }
}

#[tokio::test]
async fn three_refusals_are_believed_and_no_fewer() {
    survives(vec![answer(400, "", ""), answer(400, "", "")]).await;
    let server = FaultServer::start(vec![
        answer(400, "", ""),
        answer(503, "", ""),
        answer(400, "", ""),
        answer(400, "", &format!("no {CANARY}")),
    ])
    .await;
    let rig = Rig::start(options(&server.url()));
    let refused = Verdict::Refused { status: 400, message: "400 bad request: no ***".to_owned() };
    assert_eq!(rig.send(1).await, refused);
    assert_eq!(rig.send(2).await, Verdict::Accepted { warning: None }, "the next batch goes on");
    let status = rig.finish().await;
    assert_eq!((status.failures, status.delivered_batches), (4, 1));
}

#[tokio::test]
async fn too_large_is_told_at_once() {
    let server = FaultServer::start(vec![answer(413, "", "")]).await;
    let rig = Rig::start(options(&server.url()));
    assert_eq!(rig.send(1).await, Verdict::TooLarge { status: 413 });
    let status = rig.finish().await;
    assert_eq!((status.failures, status.last_status, status.delivered_batches), (1, Some(413), 0));
}

#[tokio::test]
async fn a_warning_is_accepted_kept_and_counted() {
    let body = format!(r#"{{"status":200,"id":"A","code":"bad.fields","message":"dropped {CANARY}"}}"#);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let server = FaultServer::start(vec![answer(200, "", &body), Play::Answer(chunked)]).await;
    let rig = Rig::start(options(&server.url()));
    let warned = Verdict::Accepted { warning: Some("bad.fields: dropped ***".to_owned()) };
    assert_eq!(rig.send(1).await, warned);
    assert_eq!(rig.send(2).await, warned);
    assert_eq!(rig.send(3).await, Verdict::Accepted { warning: None });
    let status = rig.finish().await;
    assert_eq!((status.warnings, status.delivered_batches, status.failures), (2, 3, 0));
    assert_eq!(status.last_warning.as_deref(), Some("bad.fields: dropped ***"), "kept after a clean answer");
}

#[tokio::test]
async fn broken_connections_are_retried() {
    let (status, _) = survives(vec![
        Play::ResetAtAccept,
        Play::ResetAfterHeaders,
        Play::ResetAfterBody,
        Play::AnswerAndClose(String::new()),
        Play::AnswerAndClose("HTTP/1.1 200".to_owned()),
        Play::AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Le".to_owned()),
        Play::AnswerAndClose("SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        Play::AnswerAndClose("HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\ncut".to_owned()),
    ])
    .await;
    assert_eq!(status.failures, 8);
    assert_eq!(status.last_error.as_deref(), Some("503 service unavailable: cut"));
}

#[tokio::test]
async fn hangs_end_at_the_deadline() {
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n";
    let server = FaultServer::start(vec![
        Play::HangAtAccept,
        Play::AnswerAndHang(String::new()),
        Play::AnswerAndHang("HTTP/1.1 200 OK\r\nX-Slow:".to_owned()),
        Play::Drip("HTTP/1.1 200 OK\r\nX-Slow: ".to_owned(), b"a".to_vec(), Duration::from_millis(20)),
        Play::AnswerAndHang(busy.to_owned()),
    ])
    .await;
    let rig = Rig::start(hasty(&server.url()));
    assert_eq!(rig.send(1).await, Verdict::Accepted { warning: None });
    let status = rig.finish().await;
    assert!(status.failures >= 5 && status.delivered_batches == 1, "{status:?}");
    server.assert_all_equal();
}

#[tokio::test]
async fn once_the_status_says_accepted_the_body_cannot_change_it() {
    let chunked = ok_without_end("Transfer-Encoding: chunked\r\n");
    let endless = Play::Drip(chunked.clone(), b"4000\r\n".to_vec(), Duration::from_millis(20));
    let flood = format!("400\r\n{}\r\n", "x".repeat(1024)).into_bytes();
    for (play, warned) in [
        (Play::AnswerAndHang(ok_without_end("Content-Length: 10\r\n")), false),
        (Play::AnswerAndClose(ok_without_end("Content-Length: 10\r\n")), false),
        (Play::AnswerAndHang(chunked.clone()), false),
        (Play::AnswerAndClose(format!("{chunked}zz\r\n")), false),
        (endless, true),
        (Play::Drip(chunked, flood, Duration::ZERO), true),
    ] {
        let name = format!("{play:?}");
        let server = FaultServer::start(vec![play]).await;
        let mut brief = options(&server.url());
        brief.limits.answer_body_timeout = BODY_TIMEOUT;
        let rig = Rig::start(brief);
        let start = std::time::Instant::now();
        let Verdict::Accepted { warning } = rig.send(1).await else { panic!("{name:.60}") };
        assert!(start.elapsed() < DEADLINE / 2, "{name:.60}");
        if let Some(warning) = &warning {
            assert!(warned && warning.chars().count() <= 303, "{name:.60}: {warning}");
        }
        assert_eq!(rig.send(2).await, Verdict::Accepted { warning: None });
        let status = rig.finish().await;
        assert_eq!((status.delivered_batches, status.failures), (2, 0), "{name:.60} {status:?}");
        assert_eq!(server.seen().len(), 2, "nothing was sent twice");
    }
}

#[tokio::test]
async fn the_connection_is_reused_and_its_end_survived() {
    let closing = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
    let old = "HTTP/1.0 200 OK\r\n\r\n".to_owned();
    let unannounced = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    let server = FaultServer::start(vec![
        answer(200, "", ""),
        answer(204, "", ""),
        Play::AnswerAndClose(closing),
        Play::AnswerAndClose(old),
        Play::AnswerAndClose(unannounced),
        answer(200, "", ""),
    ])
    .await;
    let rig = Rig::start(options(&server.url()));
    for seq in 1..=7 {
        assert_eq!(rig.send(seq).await, Verdict::Accepted { warning: None }, "{seq}");
    }
    assert_eq!(rig.finish().await.delivered_batches, 7);
    assert_eq!(server.connections(), 4, "three requests, then one each until the server stops closing");
}

#[tokio::test]
async fn an_early_answer_is_an_answer() {
    survives(vec![Play::AnswerEarly("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned())]).await;
}

/// Far more than the buffers of a connection hold, so that the sender is still writing when the fault comes.
#[tokio::test]
async fn faults_amid_a_large_body_are_survived() {
    let early = |status: u16| Play::AnswerEarly(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
    let server = FaultServer::start(vec![
        Play::ResetAfterHeaders,
        early(503),
        Play::ResetAfterBody,
        answer(200, "", ""),
        early(413),
    ])
    .await;
    let rig = Rig::start(options(&server.url()));
    let large = |seq| Outgoing { body: vec![7; 16 * 1024 * 1024], ..outgoing(seq) };
    assert_eq!(rig.send_batch(large(1)).await, Verdict::Accepted { warning: None });
    assert_eq!(rig.send_batch(large(2)).await, Verdict::TooLarge { status: 413 });
    let status = rig.finish().await;
    assert_eq!((status.failures, status.delivered_batches, status.sent_bytes), (4, 1, 16 * 1024 * 1024));
    let whole = server.seen().iter().filter(|seen| seen.body == large(1).body).count();
    assert!(whole >= 2, "{whole}");
}

#[tokio::test]
async fn retry_after_is_waited_for_in_both_forms() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    for (asked, least_ms) in [("3600".to_owned(), 300), (date, 300), ("0".to_owned(), 0), ("x".to_owned(), 0)]
    {
        let server = FaultServer::start(vec![answer(429, &format!("Retry-After: {asked}\r\n"), "")]).await;
        let rig = Rig::start(options(&server.url()));
        let start = std::time::Instant::now();
        assert_eq!(rig.send(1).await, Verdict::Accepted { warning: None });
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(least_ms), "{asked}: {waited:?}");
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_destination_that_is_not_there_is_awaited() {
    let server = FaultServer::start(vec![]).await;
    let url = server.url();
    // A port that nobody listens on: bound, never listening, given up at the end of the test.
    let unused = tokio::net::TcpSocket::new_v4().expect("a socket");
    unused.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let port = unused.local_addr().expect("it is bound").port();
    let rig = Rig::start(options(&url.replace(&server.address.port().to_string(), &port.to_string())));
    rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
    until(|| rig.status().failures >= 3).await;
    let status = rig.status();
    assert_eq!((status.state, status.last_status), (DeliveryState::Retrying, None));
    assert_eq!(status.last_error.as_deref(), Some("connect: connection refused"));
    rig.finish().await;

    let rig = Rig::start(hasty("http://no-such-host.invalid/receiver/v1/http/ZaVnCanaryC4dhaV2"));
    rig.mailbox.offer(outgoing(1)).expect("the mailbox is free");
    until(|| rig.status().failures >= 1).await;
    let error = rig.status().last_error.unwrap_or_default();
    assert!(
        ["connect: dns: ", "connect: timed out", "no answer"].iter().any(|words| error.starts_with(words)),
        "{error}"
    );
    rig.finish().await;
}
