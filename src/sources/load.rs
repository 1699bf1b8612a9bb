//! The load average: how many tasks ran, were ready to run or waited for disks.
//!
//! From sysinfo, which has it whole.

use sysinfo::System;

use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

static LOAD: Metric = Metric::gauge(
    "watchpost.load_average",
    "{task}",
    "watchpost_load_average",
    "Tasks that run, are ready to run or wait for disks, averaged over the window",
)
.by(&["window"], &[""])
.named_by_value(&[("1m", "node_load1"), ("5m", "node_load5"), ("15m", "node_load15")]);

pub(super) static SPEC: Spec = Spec {
    name: "load",
    help: "Load averages of 1, 5 and 15 minutes",
    metrics: &[&LOAD],
    make: || Box::new(Load),
};

struct Load;

impl Source for Load {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let load = System::load_average()
            .map_err(|error| SourceError::NotAvailable(format!("no load average: {error}")))?;
        for (window, value) in [("1m", load.one), ("5m", load.five), ("15m", load.fifteen)] {
            out.push(Reading::new(&LOAD, [window], value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_names_that_dashboards_know() {
        let mut out = Vec::new();
        Load.sample(Now::read(), &mut out).expect("of this host");
        let names: Vec<_> = out.iter().map(Reading::prometheus_name).collect();
        assert_eq!(names, ["node_load1", "node_load5", "node_load15"]);
        assert!(out.iter().all(|reading| reading.prometheus_labels().is_empty()));
    }
}
