//! Files as they are now: read within a limit, and known again by a stamp.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls_pki_types::pem;

use super::TlsError;
use crate::regular_file;

/// What tells one content of a path from another: which file is there, its size and when it was last touched. Links are
/// followed, so that one that points elsewhere is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of what is there now; none when nothing is.
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The stamps of several files.
pub fn stamps<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<Option<Stamp>> {
    paths.into_iter().map(Stamp::of).collect()
}

/// Reads a file whole. `what` is what is expected in it. Devices and pipes are refused: they may never end. A mark of UTF-8 before
/// all else, which some editors write, is left out: with it, the first section of PEM would not be seen.
pub fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    let failed = |error| TlsError::Pem {
        path: path.to_owned(),
        what,
        source: pem::Error::Io(error),
    };
    let mut bytes = regular_file::read(path, MAX_BYTES).map_err(failed)?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Bytes of a file. Chains and keys take some KiB; the largest revocation lists of public authorities some MiB.
const MAX_BYTES: usize = 16 << 20;
