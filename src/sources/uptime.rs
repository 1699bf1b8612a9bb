//! How long the host is up, and since when.
//!
//! From sysinfo, which has both, in whole seconds.

use sysinfo::System;

use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

static UPTIME: Metric =
    Metric::gauge("system.uptime", "s", "watchpost_host_uptime_seconds", "Time since the host started");
static BOOT_TIME: Metric = Metric::gauge(
    "watchpost.boot_time",
    "s",
    "node_boot_time_seconds",
    "When the host started, in seconds since the Unix epoch",
);

pub(super) static SPEC: Spec = Spec {
    name: "uptime",
    help: "How long the host is up, and since when",
    metrics: &[&UPTIME, &BOOT_TIME],
    make: || Box::new(Uptime),
};

struct Uptime;

impl Source for Uptime {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let missing = |error| SourceError::NotAvailable(format!("no uptime: {error}"));
        out.push(Reading::new(&UPTIME, [], System::uptime().map_err(missing)? as f64));
        out.push(Reading::new(&BOOT_TIME, [], System::boot_time().map_err(missing)? as f64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::value;

    #[test]
    fn the_boot_and_the_time_since_make_now() {
        let (now, mut out) = (Now::read(), Vec::new());
        Uptime.sample(now, &mut out).expect("of this host");
        let sum = value(&out, "system.uptime", &[]).expect("of this host")
            + value(&out, "watchpost.boot_time", &[]).expect("of this host");
        assert!((sum - now.wall as f64 / 1000.0).abs() < 60.0, "{sum}");
    }
}
