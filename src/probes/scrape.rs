//! Endpoints that answer in Prometheus's text format, scraped side by side.
//!
//! Each has a deadline and gives a part of its own: one that hangs, refuses or answers garbage costs only itself. What is
//! kept is bounded (`foreign.rs`). <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use watchpost_parsers::prometheus::Dialect;

use super::foreign::{Gathered, prometheus};
use super::{Probe, ProbeError, Run, Seen, Spec, http};
use crate::facts::{Facts, Part, PartKind, ProbeState};

/// Between the end of a run and the next.
const INTERVAL: Duration = Duration::from_secs(15);
/// For one answer, from the connection to the last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Endpoints that are asked at a time: each may answer some MiB.
const AT_ONCE_MAX: usize = 4;
/// Of as many as the setting may name, all of which hang.
const DEADLINE: Duration = Duration::from_secs(60);
/// What is asked for. OpenMetrics is read where somebody answers so all the same.
const ACCEPT: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";

pub(super) static SPEC: Spec = Spec {
    name: "scrape",
    help: "metrics of exporters and services that answer in Prometheus's text format",
    setting: "WATCHPOST_SCRAPE",
    metrics: &[],
    interval: INTERVAL,
    deadline: DEADLINE,
    make: |wanted| {
        let targets: Vec<_> = wanted.scrape.iter().cloned().map(Arc::new).collect();
        (!targets.is_empty()).then(|| Box::new(ScrapeProbe { targets, client: http::client() }) as _)
    },
};

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeTarget {
    /// What it is called in records; no other is called so.
    pub name: String,
    /// An `http://` URL.
    pub url: String,
    /// Names of the metrics to keep, or with a `*` at the end what they begin with; empty: all.
    pub only: Vec<String>,
}

impl ScrapeTarget {
    fn wants(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => pattern == name,
        };
        self.only.is_empty() || self.only.iter().any(fits)
    }
}

struct ScrapeProbe {
    targets: Vec<Arc<ScrapeTarget>>,
    client: Client,
}

impl Probe for ScrapeProbe {
    fn run(&mut self) -> Run<'_> {
        Box::pin(self.see())
    }
}

impl ScrapeProbe {
    async fn see(&self) -> Result<Seen, ProbeError> {
        let turns = Arc::new(Semaphore::new(AT_ONCE_MAX));
        // Dropped in the middle, it ends what it began.
        let mut tasks = JoinSet::new();
        for (index, target) in self.targets.iter().enumerate() {
            let (target, client, turns) = (Arc::clone(target), self.client.clone(), Arc::clone(&turns));
            tasks.spawn(async move {
                let _turn = turns.acquire().await;
                (index, part(&client, &target).await)
            });
        }
        let mut parts = Vec::new();
        while let Some(done) = tasks.join_next().await {
            parts.push(
                done.map_err(|error| ProbeError::Failed(format!("a scrape broke an invariant: {error}")))?,
            );
        }
        parts.sort_by_key(|(index, _)| *index);
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        Ok(Seen { readings: Vec::new(), facts: Facts::Parts(parts), again_in: None })
    }
}

async fn part(client: &Client, target: &ScrapeTarget) -> Part {
    let begun = Instant::now();
    let answer = timeout(ANSWER_TIMEOUT, scrape(client, target)).await.unwrap_or_else(|_| {
        let seconds = ANSWER_TIMEOUT.as_secs();
        Err((ProbeState::Failing, format!("{}: no whole answer within {seconds} s", target.url)))
    });
    let took = begun.elapsed();
    let about = |said: String| format!("{}: {said}", target.url);
    let (state, error, gathered) = match answer {
        Err((state, error)) => (state, Some(error), Gathered::default()),
        Ok(gathered) => match gathered.remark() {
            Ok(remark) => (ProbeState::Ok, remark.map(about), gathered),
            Err(error) => (ProbeState::Failing, Some(about(error)), gathered),
        },
    };
    let Gathered { samples, left_out, unread, .. } = gathered;
    Part { kind: PartKind::Target, name: target.name.clone(), state, error, took, samples, left_out, unread }
}

async fn scrape(client: &Client, target: &ScrapeTarget) -> Result<Gathered, (ProbeState, String)> {
    let url = target.url.as_str();
    let request = client.get(url).header(header::ACCEPT, ACCEPT);
    let answer = http::ask(request, url).await.map_err(|error| (ProbeState::Failing, error))?;
    match answer.status {
        StatusCode::OK => {}
        status @ (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
            return Err((ProbeState::Denied, format!("{url} answers {status}; let this host ask there")));
        }
        status => return Err((ProbeState::Failing, format!("{url} answers {status}"))),
    }
    let is_open =
        answer.content_type.is_some_and(|of| of.trim_start().starts_with("application/openmetrics-text"));
    let dialect = if is_open { Dialect::OpenMetrics } else { Dialect::Prometheus };
    Ok(prometheus(&answer.body, dialect, |name| target.wants(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_names_and_beginnings() {
        let only = |only: &[&str]| ScrapeTarget {
            name: "a".to_owned(),
            url: "http://a".to_owned(),
            only: only.iter().map(|pattern| (*pattern).to_owned()).collect(),
        };
        assert!(only(&[]).wants("anything"));
        let some = only(&["node_*", "up"]);
        assert!(some.wants("node_load1") && some.wants("up") && some.wants("node_"));
        assert!(!some.wants("up_since") && !some.wants("nod"));
    }
}
