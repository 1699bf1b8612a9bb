//! The certificate in a file, held to the one that is served.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::handshake;
use crate::facts::FileVerdict;
use crate::record::EpochMs;

/// A file with more is no chain of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The first certificate of a file: the server's own. A key that stands beside it is passed over.
pub(super) fn first(path: &Path) -> io::Result<(CertificateDer<'static>, Option<EpochMs>)> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    let written = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written_at = written.and_then(|at| EpochMs::try_from(at.as_millis()).ok());
    let certificate = CertificateDer::from_pem_slice(&text)
        .map_err(|_| io::Error::other("it holds no certificate in PEM"))?;
    Ok((certificate, written_at))
}

/// What the files say of the certificate that is served. A server has several where it has keys of several kinds.
pub(super) fn compare(served: &CertificateDer<'_>, files: &[PathBuf]) -> FileVerdict {
    let mut verdict = FileVerdict::Unnamed;
    for path in files {
        match first(path) {
            Ok((certificate, _)) if certificate == *served => return FileVerdict::Same,
            Ok((certificate, written_at)) => {
                if !matches!(verdict, FileVerdict::Unreadable { .. }) {
                    let (path, holds) = (path.display().to_string(), handshake::read(&certificate));
                    verdict = FileVerdict::Differs { path, holds, written_at };
                }
            }
            // Any of them may be the one that is served.
            Err(error) => verdict = unreadable(path, &error),
        }
    }
    verdict
}

fn unreadable(path: &Path, error: &io::Error) -> FileVerdict {
    let shown = path.display();
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            // Of folders behind a closed one nothing is known: the outermost comes first.
            let is_closed = |folder: &&Path| {
                let inside = folder.join("watchpost-looks-here").symlink_metadata();
                inside.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            };
            let closed = path.ancestors().skip(1).filter(is_closed).last();
            let enter = closed
                .map(|folder| format!("setfacl -m u:watchpost:x {} && ", folder.display()))
                .unwrap_or_default();
            format!(
                "let the agent read the certificate, not the key: {enter}setfacl -m u:watchpost:r {shown}; where the key is in \
                 the same file, move it into one of its own first"
            )
        }
        io::ErrorKind::NotFound => {
            "put the file back, or mend the path: a reload of the server would fail as it is".to_owned()
        }
        _ => "write the chain there in PEM, the server's own certificate first".to_owned(),
    };
    FileVerdict::Unreadable { why: format!("{shown}: {error}"), cure }
}
