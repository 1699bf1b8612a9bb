//! Which mounts are filesystems whose fullness matters: each device once, none that the kernel makes up.
//!
//! The format of a line is in proc_pid_mountinfo(5); procfs reads it. Pure: text in, mounts out.

use std::collections::{HashMap, HashSet};

use procfs::process::MountInfo;

/// Mounts beyond this are left out, those with the longest paths first: each costs a thread for a
/// moment at every sample, and all may be asked at once.
const MOUNTS_MAX: usize = super::mailbox::THREADS_MAX;

/// Types that hold no files of their own on a device: the kernel's interfaces; memory (tmpfs, which
/// counts as memory already); images that are full by nature; triggers that a look would mount.
const PSEUDO_TYPES: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// What is mounted within these belongs to the kernel or to a container, on a device told elsewhere.
const PSEUDO_PLACES: &[&str] = &[
    "/dev",
    "/proc",
    "/run/credentials",
    "/sys",
    "/var/lib/containers/storage",
    "/var/lib/docker",
    "/var/lib/kubelet/pods",
];

/// A filesystem that is to be asked how full it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device, or what stands for it: `/dev/vda1`, `server:/export`.
    pub(super) device: String,
    /// Where it is mounted.
    pub(super) point: String,
    /// The type, as the kernel calls it.
    pub(super) kind: String,
    /// Whether the mount or the whole filesystem is read-only.
    pub(super) is_read_only: bool,
}

/// The mounts in the text of `mountinfo`, the shortest path first, and how many were left out for
/// their number. A line that cannot be read is left out.
///
/// A device that is mounted several times (bind mounts, containers' volumes) is told by its shortest
/// path. Where one mount hides another, the later one is seen.
pub(super) fn parse(text: &str) -> (Vec<Mount>, usize) {
    let lines = text.lines().filter_map(|line| MountInfo::from_line(line).ok());
    let mut by_point: HashMap<String, usize> = HashMap::new();
    let mut seen: Vec<(MountInfo, String)> = Vec::new();
    for info in lines {
        let point = unescaped(&info.mount_point.to_string_lossy());
        // The later hides the earlier, whatever the earlier was.
        match by_point.get(&point) {
            Some(at) => seen[*at] = (info, point),
            None => {
                by_point.insert(point.clone(), seen.len());
                seen.push((info, point));
            }
        }
    }
    seen.retain(|(info, point)| is_told(&info.fs_type, point));
    seen.sort_by_key(|(_, point)| point.len()); // stable: of equal lengths the first stays first
    let mut devices = HashSet::new();
    seen.retain(|(info, _)| devices.insert(info.majmin.clone()));
    let left_out = seen.len().saturating_sub(MOUNTS_MAX);
    seen.truncate(MOUNTS_MAX);
    (seen.into_iter().map(|(info, point)| mount(info, point)).collect(), left_out)
}

fn mount(info: MountInfo, point: String) -> Mount {
    let is_read_only = [&info.mount_options, &info.super_options].iter().any(|set| set.contains_key("ro"));
    let device = unescaped(info.mount_source.as_deref().unwrap_or("none"));
    Mount { device, point, kind: info.fs_type, is_read_only }
}

fn is_told(kind: &str, point: &str) -> bool {
    // A container's root is an overlay and the only sight of its disk; any other overlay is a
    // container of this host, on a filesystem that is told.
    if kind == "overlay" {
        return point == "/";
    }
    let is_within = |place: &&str| {
        point.strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !PSEUDO_TYPES.contains(&kind) && !PSEUDO_PLACES.iter().any(is_within)
}

/// The kernel writes a space, tab, newline or backslash as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\043", "#"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, &str, bool)]) {
        let (got, _) = parse(text);
        let got: Vec<_> = got
            .iter()
            .map(|m| (m.device.as_str(), m.point.as_str(), m.kind.as_str(), m.is_read_only))
            .collect();
        assert_eq!(got, expected, "of\n{text}");
    }

    #[test]
    fn devices_are_told_once_and_pseudo_filesystems_never() {
        let text = r"22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334524k
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
28 27 254:0 /srv/data /data/bind rw,relatime shared:3 master:1 - ext4 /dev/vda rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 254:16 / /srv rw - xfs /dev/vdb ro,errors=remount-ro
41 27 0:50 / /mnt/my\040share ro - nfs4 server:/export rw
42 27 0:51 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
43 27 0:52 / /srv/box rw - overlay overlay rw
44 27 254:32 / /var/lib/docker-data rw - ext4 /dev/vdc rw
45 27 0:53 / /home rw - autofs systemd-1 rw
this is no line of a mountinfo
46 27 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
";
        check(
            text,
            &[
                ("/dev/vda", "/", "ext4", false),
                ("/dev/vdb", "/srv", "xfs", true),
                ("server:/export", "/mnt/my share", "nfs4", true),
                ("/dev/vdc", "/var/lib/docker-data", "ext4", false),
            ],
        );
    }

    #[test]
    fn a_mount_over_another_hides_it() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /srv rw - ext4 /dev/sda2 rw\n\
            3 2 8:3 / /srv rw - ext4 /dev/sda3 rw\n4 1 0:9 / /srv/x rw - tmpfs tmpfs rw\n";
        check(text, &[("/dev/sda1", "/", "ext4", false), ("/dev/sda3", "/srv", "ext4", false)]);
    }

    #[test]
    fn the_root_of_a_container_is_told() {
        check("1 0 0:40 / / rw - overlay overlay rw\n", &[("overlay", "/", "overlay", false)]);
    }

    #[test]
    fn a_host_with_very_many_mounts_is_bounded() {
        let lines = (0..500).map(|n| format!("{n} 0 8:{n} / /m{n} rw - ext4 /dev/x{n} rw\n"));
        let (mounts, left_out) = parse(&lines.collect::<String>());
        assert_eq!((mounts.len(), left_out), (MOUNTS_MAX, 500 - MOUNTS_MAX));
    }
}
