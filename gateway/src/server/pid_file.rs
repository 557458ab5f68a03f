//! The file that tells other programs which process the gateway is: `process { pid-file "…" }`.

use std::fs;
use std::io;
use std::path::Path;

use crate::placed::Placed;

/// A file with the process's number in it. Dropping it removes the file, where that is still allowed and possible: not from outside
/// of a `chroot`, and not from a folder that `user` may not write to.
#[derive(Debug)]
pub(super) struct PidFile(Placed);

impl PidFile {
    /// Writes the file, over one that an earlier gateway left.
    pub(super) fn write(path: &Path) -> io::Result<Self> {
        fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(Self(Placed::at(path)))
    }

    /// This folder, named without links, is the root of the file system from now on.
    pub(super) fn enter(&mut self, root: &Path) {
        self.0.enter(root);
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.path() {
            let _ = fs::remove_file(path);
        }
    }
}
