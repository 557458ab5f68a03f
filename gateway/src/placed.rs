//! Where a file is that the gateway takes away when it ends, also when `chroot` has changed meanwhile what paths mean.

use std::fs;
use std::path::{Path, PathBuf};

/// The place of a file; none when it is out of reach.
#[derive(Debug)]
pub struct Placed(Option<PathBuf>);

impl Placed {
    /// At this path, whose folder is there, and is meant even if a link in the path leads elsewhere some day.
    pub fn at(path: &Path) -> Self {
        let folder = path.parent().map(fs::canonicalize);
        Self(Some(match (folder, path.file_name()) {
            (Some(Ok(folder)), Some(name)) => folder.join(name),
            _ => path.to_owned(),
        }))
    }

    /// Where it is now.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// This folder, named without links, is the root of the file system from now on (chroot(2)). A file in it is found under a shorter
    /// path. One outside is out of reach, and stays: a handle by which it could be taken away would lead whoever has taken the process
    /// over out of the new root, too.
    pub fn enter(&mut self, root: &Path) {
        let inside = self
            .0
            .take()
            .and_then(|path| Some(path.strip_prefix(root).ok()?.to_owned()));
        self.0 = inside.map(|path| Path::new("/").join(path));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_new_root_has_another_path_and_one_outside_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        fs::create_dir_all(root.join("run")).unwrap();
        std::os::unix::fs::symlink(root.join("run"), folder.path().join("link")).unwrap();
        for (path, before, after) in [
            ("root/run/a.sock", root.join("run/a.sock"), Some("/run/a.sock")),
            ("link/b.sock", root.join("run/b.sock"), Some("/run/b.sock")),
            ("c.sock", root.with_file_name("c.sock"), None),
        ] {
            let mut placed = Placed::at(&folder.path().join(path));
            assert_eq!(placed.path(), Some(&*before));
            placed.enter(&root);
            assert_eq!(placed.path(), after.map(Path::new), "{path}");
        }
    }
}
