//! Which scripts may be run: those that root or the agent's own user alone can have written.
//!
//! Looked at before every run. Nobody else can change a directory, or a file in it, between the look and the run: that is
//! what is looked for.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::ScriptsTarget;
use crate::facts::ProbeState;
use crate::probes::ProbeError;

/// Write for the group and for others. An access list that lets anybody else write shows as the former.
const OTHERS_WRITE: u32 = 0o022;
/// In a directory: everybody may write, and remove what is his own alone.
const STICKY: u32 = 0o1000;
/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;
const EXECUTABLE: u32 = 0o111;

/// The directory without links in its path, where none but root and the agent's user can have put anything into it.
pub(super) fn directory(target: &ScriptsTarget) -> Result<PathBuf, ProbeError> {
    let shown = target.directory.display();
    let directory = target.directory.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if target.is_optional => {
            ProbeError::Absent(format!("there is no {shown}"))
        }
        std::io::ErrorKind::PermissionDenied => {
            denied(&target.directory, &error.to_string(), "let the agent's user in")
        }
        _ => ProbeError::Failed(format!("{shown}: {error}")),
    })?;
    for (depth, path) in directory.ancestors().enumerate() {
        let metadata =
            path.metadata().map_err(|error| ProbeError::Failed(format!("{}: {error}", path.display())))?;
        if depth == 0 && !metadata.is_dir() {
            return Err(ProbeError::Failed(format!("{shown} is no directory")));
        }
        // In a directory above, whoever may not remove the next one cannot put his own in its place.
        let is_kept = depth > 0 && metadata.permissions().mode() & STICKY != 0;
        if let Some((what, cure)) = danger(&metadata, is_kept) {
            return Err(denied(path, &what, &cure));
        }
    }
    if let Err(error) =
        rustix::fs::access(&directory, rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK)
    {
        return Err(denied(
            &directory,
            &std::io::Error::from(error).to_string(),
            "let the agent's user read it",
        ));
    }
    Ok(directory)
}

fn denied(path: &Path, what: &str, cure: &str) -> ProbeError {
    ProbeError::Denied { what: format!("{}: {what}", path.display()), cure: cure.to_owned() }
}

/// The file to run; how it stands to that, and why, where it is none.
pub(super) fn script(directory: &Path, name: &str) -> Result<PathBuf, (ProbeState, String)> {
    let path = directory.join(name);
    let failing = |error: std::io::Error| (ProbeState::Failing, error.to_string());
    let real = path.canonicalize().map_err(failing)?;
    if real.parent() != Some(directory) {
        let error = format!("is a link to {}, out of the directory; put a copy here", real.display());
        return Err((ProbeState::Denied, error));
    }
    let metadata = real.metadata().map_err(failing)?;
    let mode = metadata.permissions().mode();
    if mode & EXECUTABLE == 0 {
        return Err((
            ProbeState::Absent,
            "is not executable, so it is not run; chmod +x it if it should be".to_owned(),
        ));
    }
    if let Some((what, cure)) = danger(&metadata, false) {
        return Err((ProbeState::Denied, format!("{what}; {cure}")));
    }
    if mode & SET_ID != 0 {
        let error = format!("would run as somebody else (mode {:04o}); chmod ug-s it", mode & 0o7777);
        return Err((ProbeState::Denied, error));
    }
    Ok(real)
}

/// Who else could have written this, and what to do.
fn danger(metadata: &Metadata, is_kept: bool) -> Option<(String, String)> {
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        let what = format!("belongs to user {}, neither root nor the agent's", metadata.uid());
        return Some((what, "chown it to root".to_owned()));
    }
    let mode = metadata.permissions().mode();
    let is_open = mode & OTHERS_WRITE != 0 && !is_kept;
    is_open
        .then(|| (format!("others may write to it (mode {:04o})", mode & 0o7777), "chmod go-w it".to_owned()))
}
