//! File systems of the tests' own: images on loop devices and tmpfs, which may be filled, cut off and made read-only.
//!
//! Needs root. Everything is unmounted when its handle is dropped, also when a test fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::wait_for;

/// Without root a rig cannot run, and that is said; it may be left out only by order.
#[track_caller]
pub(super) fn has_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let is_known = std::env::var("WATCHPOST_TEST_WITHOUT_ROOT").is_ok_and(|value| value == "1");
    assert!(
        is_known,
        "this test mounts file systems and needs root; WATCHPOST_TEST_WITHOUT_ROOT=1 leaves such tests out"
    );
    println!("left out by order: this test needs root");
    false
}

/// Runs a command that must succeed.
#[track_caller]
pub(super) fn run(command: &str, arguments: &[&str]) {
    let output = Command::new(command).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{command}: {error}; `tests/run` installs what is needed"));
    assert!(
        output.status.success(),
        "{command} {arguments:?}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A mounted file system.
pub(super) struct Volume {
    /// Where it is mounted.
    pub(super) path: PathBuf,
    /// What `mount` is told.
    arguments: Vec<String>,
    is_mounted: bool,
}

impl Volume {
    /// An ext4 on an image of so many MiB. Only what is synced becomes durable: its journal is not written by time.
    pub(super) fn ext4(directory: &Path, mebibytes: u64, mkfs: &[&str]) -> Volume {
        let image = directory.join("image");
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
        let image = image.display().to_string();
        run("mkfs.ext4", &[&["-q", "-F", "-m", "0"], mkfs, &[&image]].concat());
        Volume::mount_new(directory, &["-t", "ext4", "-o", "loop,commit=300", &image])
    }

    /// A tmpfs with these options.
    pub(super) fn tmpfs(directory: &Path, options: &str) -> Volume {
        Volume::mount_new(directory, &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    fn mount_new(directory: &Path, arguments: &[&str]) -> Volume {
        // A file system is unmounted when it is in every namespace: those of other tests copy what is mounted as they
        // begin, and let go with us only what lies in a shared mount.
        let place = directory.display().to_string();
        run("mount", &["--bind", &place, &place]);
        run("mount", &["--make-shared", &place]);
        let path = directory.join("volume");
        std::fs::create_dir(&path).expect("a mount point");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut volume = Volume { path, arguments, is_mounted: false };
        volume.mount();
        volume
    }

    pub(super) fn mount(&mut self) {
        let path = self.path.display().to_string();
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.push(&path);
        run("mount", &arguments);
        self.is_mounted = true;
    }

    pub(super) fn unmount(&mut self) {
        wait_for("the volume to be unmounted", || {
            Command::new("umount")
                .arg(&self.path)
                .output()
                .is_ok_and(|done| done.status.success())
                .then_some(())
        });
        self.is_mounted = false;
    }

    /// Changes options of the mounted file system.
    pub(super) fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), &self.path.display().to_string()]);
    }

    /// What a power cut leaves: nothing reaches the disk any more, the journal's end neither.
    pub(super) fn cut_power(&self) {
        // EXT4_IOC_SHUTDOWN is _IOR('X', 125, __u32), and 2 is EXT4_GOING_FLAGS_NOLOGFLUSH (linux/ext4.h).
        let program = "use Fcntl; sysopen(my $d, $ARGV[0], O_RDONLY) or die $!; \
                       my $f = pack('L', 2); ioctl($d, 0x8004587d, $f) or die $!";
        run("perl", &["-e", program, &self.path.display().to_string()]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let volume = self.is_mounted.then_some(self.path.as_path());
        for path in volume.into_iter().chain(self.path.parent()) {
            let _ = Command::new("umount").arg("--lazy").arg(path).output();
        }
    }
}
