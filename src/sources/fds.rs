//! File descriptors of the whole system: at the limit every process fails to open or accept.
//!
//! From `/proc/sys/fs/file-nr`, which sysinfo does not read: allocated, unused (always 0), limit.

use super::proc_file::{self, ratio};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const PATH: &str = "/proc/sys/fs/file-nr";

static ALLOCATED: Metric = Metric::gauge(
    "watchpost.file_descriptor.count",
    "{file_descriptor}",
    "node_filefd_allocated",
    "Open files of all processes",
);
static LIMIT: Metric = Metric::gauge(
    "watchpost.file_descriptor.limit",
    "{file_descriptor}",
    "node_filefd_maximum",
    "Files that all processes together can have open",
);
static UTILIZATION: Metric = Metric::gauge(
    "watchpost.file_descriptor.utilization",
    "1",
    "watchpost_file_descriptor_utilization_ratio",
    "Share of the files that can be open which are",
);

pub(super) static SPEC: Spec = Spec {
    name: "fds",
    help: "Open files of the whole system and their limit",
    metrics: &[&ALLOCATED, &LIMIT, &UTILIZATION],
    make: || Box::new(FileDescriptors),
};

struct FileDescriptors;

impl Source for FileDescriptors {
    fn sample(&mut self, _: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        convert(&proc_file::read(PATH)?, out)
    }
}

fn convert(text: &str, out: &mut Vec<Reading>) -> Result<(), SourceError> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse::<f64>().ok());
    // The limit is the largest 64-bit number where the kernel sets none; a double holds it well enough.
    let (Some(Some(allocated)), Some(Some(limit))) = (words.next(), words.nth(1)) else {
        return Err(SourceError::Format { path: PATH, what: "open files and their limit" });
    };
    out.push(Reading::new(&ALLOCATED, [], allocated));
    out.push(Reading::new(&LIMIT, [], limit));
    out.push(Reading::new(&UTILIZATION, [], ratio(allocated, limit)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tests::value;

    #[test]
    fn reads_the_first_and_the_third_number() {
        let mut out = Vec::new();
        convert("500\t0\t1000\n", &mut out).expect("three numbers");
        assert_eq!(value(&out, "watchpost.file_descriptor.limit", &[]), Some(1000.0));
        assert_eq!(value(&out, "watchpost.file_descriptor.utilization", &[]), Some(0.5));
        assert!(convert("652 0\n", &mut out).is_err());
    }
}
