//! The file that tells other programs which process the gateway is: `process { pid-file "…" }`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file with the process's number in it. Dropping it removes the file, where that is still allowed and possible: not after
/// a `chroot`, and not from a folder that `user` may not write to.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file, over one that an earlier gateway left.
    pub(super) fn write(path: &Path) -> io::Result<Self> {
        fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
