//! The real disk: modes, the lock, planted links, and the same log as on the simulated one.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::super::{DirDisk, OpenError, SpoolState};
use super::*;

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn open_at(path: &Path) -> Spool<DirDisk> {
    Spool::open(DirDisk::open(path).unwrap(), small(), at(0), FRESH).unwrap()
}

#[test]
fn a_spool_in_a_folder_survives_its_process_and_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let old = rustix::process::umask(rustix::fs::Mode::empty());
    let mut spool = open_at(&path);
    spool.append(Some(batch(1, b"kept")), vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    spool.append(Some(batch(1, b"refused")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    spool.ack(1, at(0)).unwrap();
    spool.lose(2, crate::record::LossReason::Refused, at(0)).unwrap();
    spool.append(Some(batch(1, b"last")), vec![]).unwrap();
    spool.close(at(0)).unwrap();
    rustix::process::umask(old);
    let mut files = 0;
    for directory in [path.clone(), path.join("quarantine")] {
        assert_eq!(mode(&directory), 0o700);
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_file() {
                files += 1;
                assert_eq!(mode(&entry), 0o600, "{}", entry.display());
            }
        }
    }
    assert!(files >= 3, "lock, segment and quarantine");
    let reader = DirDisk::open_read_only(&path).unwrap();
    assert!(segments(&reader).unwrap().iter().any(|view| view.sealed));
    assert_eq!(pending(&reader).len(), 1);
    let mut spool = open_at(&path);
    assert_eq!(spool.state()[b"k".as_slice()], b"v");
    assert_eq!(drain(&mut spool), [b"last"]);
    assert_eq!(spool.status().dropped_lines, 1);
    let on_disk = DirDisk::open_read_only(&path).unwrap().list().unwrap();
    let bytes: u64 = on_disk.iter().filter(|f| f.name != "lock").map(|f| f.allocated).sum();
    assert!(bytes <= spool.status().bytes, "{bytes} on disk, {} known", spool.status().bytes);
}

#[test]
fn a_second_process_is_refused_and_a_look_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let mut spool = open_at(&path);
    spool.append(Some(batch(1, b"seen")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    let error = DirDisk::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    let reader = DirDisk::open_read_only(&path).unwrap();
    assert_eq!(pending(&reader)[0].1, b"seen");
    drop(spool);
    open_at(&path);
}

#[test]
fn a_planted_link_is_refused_by_name() {
    for name in ["seg-0000000000000001.log", "lock", "quarantine", "anything"] {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, b"precious").unwrap();
        let path = folder.path().join("spool");
        std::fs::create_dir(&path).unwrap();
        symlink(&target, path.join(name)).unwrap();
        let error = DirDisk::open(&path).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("real")).unwrap();
    symlink(folder.path().join("real"), folder.path().join("spool")).unwrap();
    assert!(DirDisk::open(&folder.path().join("spool")).is_err());
}

/// A long outage leaves hundreds of segments; no more descriptors than a handful.
#[test]
fn old_segments_take_no_descriptors_and_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let options = Options { segment_bytes: 4096, ..small() };
    let mut spool = Spool::open(DirDisk::open(&path).unwrap(), options, at(0), FRESH).unwrap();
    let open_files = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        links.filter(|l| std::fs::read_link(l.path()).is_ok_and(|target| target.starts_with(&path))).count()
    };
    for number in 0..60u8 {
        spool.append(Some(batch(1, &[number; 3000])), vec![]).unwrap();
        spool.commit(at(0)).unwrap();
        if number % 4 == 0 {
            let seq = spool.oldest().unwrap().id.seq;
            spool.lose(seq, crate::record::LossReason::Refused, at(0)).unwrap();
        }
    }
    let segments = std::fs::read_dir(&path).unwrap().count();
    assert!(segments > 40 && open_files() <= 7, "{segments} segments, {} open", open_files());
    let bodies = drain(&mut spool);
    assert_eq!((bodies.len(), bodies[0].as_slice(), bodies[44][0]), (45, [15; 3000].as_slice(), 59));
    assert_balanced(&spool);
}

#[test]
fn a_file_that_was_removed_is_not_taken_for_durable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let mut spool = open_at(&path);
    let name = DirDisk::open_read_only(&path).unwrap().list().unwrap();
    let name = name.into_iter().map(|file| file.name).find(|name| name.starts_with("seg-")).unwrap();
    std::fs::remove_file(path.join(name)).unwrap();
    spool.append(Some(batch(1, b"kept")), vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    spool.commit(at(0)).unwrap();
    drop(spool);
    let mut spool = open_at(&path);
    assert_eq!(spool.state()[b"k".as_slice()], b"v");
    assert_eq!(drain(&mut spool), [b"kept"]);
    std::fs::remove_dir_all(&path).unwrap();
    spool.append(Some(batch(1, b"lost")), vec![]).unwrap();
    assert!(spool.commit(at(0)).is_err());
    assert_eq!(spool.oldest(), None, "nothing is offered that is not durable");
}

#[test]
fn a_batch_that_cannot_be_read_is_said_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let mut spool = open_at(&path);
    spool.append(Some(batch(1, b"one")), vec![]).unwrap();
    spool.commit(at(0)).unwrap();
    drop(spool);
    let mut spool = open_at(&path);
    let (name, aside) = (path.join("seg-0000000000000001.log"), path.join("aside"));
    // A folder in its place cannot be read: that is neither the end of a file nor damage.
    std::fs::rename(&name, &aside).unwrap();
    std::fs::create_dir(&name).unwrap();
    assert_eq!(spool.oldest(), None);
    assert!(
        matches!(spool.status().state, SpoolState::Degraded(reason) if reason.contains("cannot be read"))
    );
    std::fs::remove_dir(&name).unwrap();
    std::fs::rename(&aside, &name).unwrap();
    assert_eq!(spool.oldest().unwrap().body, b"one");
    assert_eq!(spool.status().state, SpoolState::Ok);
}
