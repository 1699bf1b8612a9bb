//! How full filesystems are, in bytes and in inodes; whether they can be written; whether they answer.
//!
//! Which there are is read from `/proc/self/mountinfo` (mounts.rs), how full they are is asked with
//! statvfs(3) on threads of their own (mailbox.rs). Not from sysinfo: it has no inodes, and asks
//! within the caller's thread, which a dead NFS server or a stuck FUSE process then stops for good.
//!
//! Invariant: [`Source::sample`] here never waits longer than [`mailbox::ANSWER_WAIT`].

mod mailbox;
mod mounts;

use std::path::Path;
use std::sync::Arc;

use self::mailbox::{Answer, Mailbox, Space};
use self::mounts::Mount;
use super::proc_file::{self, ratio};
use super::{Source, SourceError, Spec};
use crate::clock::Now;
use crate::record::{Metric, Reading};

const MOUNTS_PATH: &str = "/proc/self/mountinfo";

const ATTRIBUTES: &[&str] = &["system.device", "system.filesystem.mountpoint", "system.filesystem.type"];
const LABELS: &[&str] = &["device", "mountpoint", "fstype"];
const BY_STATE: &[&str] =
    &["system.device", "system.filesystem.mountpoint", "system.filesystem.type", "system.filesystem.state"];
const LABELS_BY_STATE: &[&str] = &["device", "mountpoint", "fstype", ""];

static USAGE: Metric = Metric::gauge(
    "system.filesystem.usage",
    "By",
    "watchpost_filesystem_usage_bytes",
    "Space in each state; free is what an ordinary user can take, reserved is free for root alone",
)
.by(BY_STATE, LABELS_BY_STATE)
.named_by_value(&[
    ("used", "watchpost_filesystem_used_bytes"),
    ("free", "node_filesystem_avail_bytes"),
    ("reserved", "watchpost_filesystem_reserved_bytes"),
]);
static LIMIT: Metric =
    Metric::gauge("system.filesystem.limit", "By", "node_filesystem_size_bytes", "Size of the filesystem")
        .by(ATTRIBUTES, LABELS);
static UTILIZATION: Metric = Metric::gauge(
    "system.filesystem.utilization",
    "1",
    "watchpost_filesystem_utilization_ratio",
    "Share of the space open to ordinary users that is used, as df tells it",
)
.by(ATTRIBUTES, LABELS);
static INODES: Metric = Metric::gauge(
    "watchpost.filesystem.inode.usage",
    "{inode}",
    "watchpost_filesystem_inodes",
    "Inodes in each state; none where the filesystem makes them as needed",
)
.by(BY_STATE, LABELS_BY_STATE)
.named_by_value(&[("used", "watchpost_filesystem_files_used"), ("free", "node_filesystem_files_free")]);
static INODE_LIMIT: Metric = Metric::gauge(
    "watchpost.filesystem.inode.limit",
    "{inode}",
    "node_filesystem_files",
    "Inodes that the filesystem can have; none where it makes them as needed",
)
.by(ATTRIBUTES, LABELS);
static INODE_UTILIZATION: Metric = Metric::gauge(
    "watchpost.filesystem.inode.utilization",
    "1",
    "watchpost_filesystem_inode_utilization_ratio",
    "Share of the inodes that is used",
)
.by(ATTRIBUTES, LABELS);
static READ_ONLY: Metric = Metric::gauge(
    "watchpost.filesystem.read_only",
    "1",
    "node_filesystem_readonly",
    "1 if nothing can be written to it, as after an error on its device; else 0",
)
.by(ATTRIBUTES, LABELS);
static HUNG: Metric = Metric::gauge(
    "watchpost.filesystem.hung",
    "1",
    "watchpost_filesystem_hung",
    "1 while the filesystem does not answer, and its other values are withheld; else 0",
)
.by(ATTRIBUTES, LABELS);
static FAILED: Metric = Metric::gauge(
    "watchpost.filesystem.error",
    "1",
    "node_filesystem_device_error",
    "1 if the filesystem answered with an error; else 0",
)
.by(ATTRIBUTES, LABELS);
static LEFT_OUT: Metric = Metric::gauge(
    "watchpost.filesystem.left_out",
    "{filesystem}",
    "watchpost_filesystem_left_out",
    "Filesystems that are not told of since there are too many",
);

pub(super) static SPEC: Spec = Spec {
    name: "filesystem",
    help: "Space and inodes of filesystems, whether they can be written and whether they answer",
    metrics: &[
        &USAGE,
        &LIMIT,
        &UTILIZATION,
        &INODES,
        &INODE_LIMIT,
        &INODE_UTILIZATION,
        &READ_ONLY,
        &HUNG,
        &FAILED,
        &LEFT_OUT,
    ],
    make: || Box::new(Filesystem { mailbox: Mailbox::new(Arc::new(statvfs)) }),
};

struct Filesystem {
    mailbox: Mailbox,
}

impl Source for Filesystem {
    fn sample(&mut self, now: Now, out: &mut Vec<Reading>) -> Result<(), SourceError> {
        let (mounts, left_out) = mounts::parse(&proc_file::read(MOUNTS_PATH)?);
        if mounts.is_empty() {
            return Err(SourceError::NotAvailable("no filesystem of this host is on a device".to_owned()));
        }
        out.push(Reading::new(&LEFT_OUT, [], left_out as f64));
        self.push_all(&mounts, now, out);
        Ok(())
    }
}

impl Filesystem {
    fn push_all(&mut self, mounts: &[Mount], now: Now, out: &mut Vec<Reading>) {
        let points: Vec<&Path> = mounts.iter().map(|mount| Path::new(&mount.point)).collect();
        self.mailbox.ask(&points, now.monotonic);
        for (mount, point) in mounts.iter().zip(points) {
            let answer = self.mailbox.answer(point, now.monotonic);
            push(mount, &answer, out);
        }
    }
}

fn statvfs(point: &Path) -> std::io::Result<Space> {
    let answer = rustix::fs::statvfs(point)?;
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Ok(Space {
        size_bytes: bytes(answer.f_blocks),
        free_bytes: bytes(answer.f_bfree),
        available_bytes: bytes(answer.f_bavail),
        inodes: answer.f_files,
        inodes_free: answer.f_ffree,
    })
}

fn push(mount: &Mount, answer: &Answer, out: &mut Vec<Reading>) {
    let at = [mount.device.as_str(), &mount.point, &mount.kind];
    let flag = |metric, set: bool| Reading::new(metric, at, f64::from(u8::from(set)));
    // The kernel tells this without asking the filesystem, so it is known even of one that hangs.
    out.push(flag(&READ_ONLY, mount.is_read_only));
    out.push(flag(&HUNG, *answer == Answer::Hung));
    out.push(flag(&FAILED, *answer == Answer::Failed));
    if let Answer::Known(space) = answer {
        push_space(at, space, out);
    }
}

fn push_space(at: [&str; 3], space: &Space, out: &mut Vec<Reading>) {
    let [device, point, kind] = at;
    let by_state =
        |metric, state, value: u64| Reading::new(metric, [device, point, kind, state], value as f64);
    let used = space.size_bytes.saturating_sub(space.free_bytes);
    out.push(by_state(&USAGE, "used", used));
    out.push(by_state(&USAGE, "free", space.available_bytes));
    out.push(by_state(&USAGE, "reserved", space.free_bytes.saturating_sub(space.available_bytes)));
    out.push(Reading::new(&LIMIT, at, space.size_bytes as f64));
    // As df tells it: a filesystem is full when ordinary users can write no more.
    let share = ratio(used as f64, used as f64 + space.available_bytes as f64);
    out.push(Reading::new(&UTILIZATION, at, share));
    if space.inodes == 0 {
        return; // btrfs, xfs on some mounts, network filesystems
    }
    let used = space.inodes.saturating_sub(space.inodes_free);
    out.push(by_state(&INODES, "used", used));
    out.push(by_state(&INODES, "free", space.inodes_free));
    out.push(Reading::new(&INODE_LIMIT, at, space.inodes as f64));
    out.push(Reading::new(&INODE_UTILIZATION, at, ratio(used as f64, space.inodes as f64)));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sources::tests::value;

    /// Far longer than a sample may take; a test that waits as long has failed.
    const PATIENCE: Duration = Duration::from_secs(10);
    const SPACE: Space =
        Space { size_bytes: 1000, free_bytes: 300, available_bytes: 250, inodes: 10, inodes_free: 4 };

    fn mount(point: &str) -> Mount {
        Mount {
            device: "/dev/vda".to_owned(),
            point: point.to_owned(),
            kind: "ext4".to_owned(),
            is_read_only: point == "/ro",
        }
    }

    fn at<'a>(point: &'a str, state: &'a str) -> Vec<&'a str> {
        let mut at = vec!["/dev/vda", point, "ext4"];
        at.extend((!state.is_empty()).then_some(state));
        at
    }

    #[test]
    fn the_states_sum_to_the_size_and_the_share_is_that_of_df() {
        let mut out = Vec::new();
        push(&mount("/ro"), &Answer::Known(SPACE), &mut out);
        let usage = |state| value(&out, "system.filesystem.usage", &at("/ro", state)).expect("told");
        assert_eq!((usage("used"), usage("free"), usage("reserved")), (700.0, 250.0, 50.0));
        assert_eq!(value(&out, "system.filesystem.utilization", &at("/ro", "")), Some(0.7368));
        assert_eq!(value(&out, "watchpost.filesystem.inode.utilization", &at("/ro", "")), Some(0.6));
        assert_eq!(value(&out, "watchpost.filesystem.read_only", &at("/ro", "")), Some(1.0));
        let known = out.len();
        push(&mount("/"), &Answer::Known(Space { inodes: 0, ..SPACE }), &mut out);
        assert_eq!(out.len() - known, known - 4, "no inodes are told where there are none");
    }

    #[test]
    fn a_mount_that_hangs_is_told_so_delays_nothing_and_heals() {
        // statvfs of /hangs answers only once the test lets it; any other answers at once.
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let ask = move |point: &Path| {
            if point == Path::new("/hangs") {
                held.lock().expect("one holder").recv_timeout(PATIENCE).map_err(std::io::Error::other)?;
            }
            Ok(SPACE)
        };
        let mut source = Filesystem { mailbox: Mailbox::new(Arc::new(ask)) };
        let mounts = [mount("/hangs"), mount("/")];
        let start = Now::read();
        let mut sample = |after_s: u64| {
            let mut out = Vec::new();
            let began = Instant::now();
            let now = Now { monotonic: start.monotonic + Duration::from_secs(after_s), ..start };
            source.push_all(&mounts, now, &mut out);
            assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
            let tells = |point| {
                let hung = value(&out, "watchpost.filesystem.hung", &at(point, ""));
                (hung.expect("told") == 1.0, value(&out, "system.filesystem.limit", &at(point, "")))
            };
            (tells("/hangs"), tells("/"), source.mailbox.outstanding())
        };
        let until = |condition: &mut dyn FnMut() -> bool| {
            let deadline = Instant::now() + PATIENCE;
            while !condition() {
                assert!(Instant::now() < deadline, "did not come about");
                std::thread::yield_now();
            }
        };
        // At first it may just be slow; after the deadline it hangs. The other mount answers all along.
        until(&mut || sample(0).1 == (false, Some(1000.0)));
        assert_eq!(sample(1).0, (false, None));
        for after_s in [10, 20, 30, 40] {
            let (hangs, _, outstanding) = sample(after_s);
            assert_eq!(hangs, (true, None));
            assert!(outstanding <= 2, "{outstanding} threads wait for two mounts");
        }
        // It answers again: its value is back. A value that it told before is withheld when it hangs anew.
        release.send(()).expect("the question waits");
        until(&mut || sample(50).0 == (false, Some(1000.0)));
        until(&mut || sample(60).2 == 1);
        assert_eq!(sample(70).0, (true, None));
        drop(release);
    }
}
