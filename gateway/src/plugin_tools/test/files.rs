//! Files of fixtures: those that are named, and those in folders that are.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// The files, in the order of their names within a folder. A folder's own folders are not looked into, nor are files whose
/// names begin with a dot: editors keep such beside those that are open.
pub(super) fn find(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let shown = path.display();
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {shown}"))? {
            let file = entry.with_context(|| format!("cannot read {shown}"))?.path();
            let is_hidden = file
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_hidden && file.extension().is_some_and(|extension| extension == "kdl") {
                inside.push(file);
            }
            ensure!(
                inside.len() <= MOST_FILES,
                "{shown} has more than {MOST_FILES} files of fixtures"
            );
        }
        if inside.is_empty() {
            bail!("{shown} has no fixtures: their files are called NAME.kdl");
        }
        inside.sort();
        files.append(&mut inside);
    }
    ensure!(
        files.len() <= MOST_FILES,
        "more than {MOST_FILES} files of fixtures are named"
    );
    Ok(files)
}

/// Each is held whole, and asked after the other.
const MOST_FILES: usize = 1_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_files_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(
            find(&[folder.path().to_owned()])
                .unwrap_err()
                .to_string()
                .contains("has no fixtures")
        );
        for name in ["b.kdl", "a.kdl", "notes.txt", ".a.kdl", ".kdl"] {
            fs::write(path(name), "").unwrap();
        }
        let found = find(&[path("notes.txt"), folder.path().to_owned()]).unwrap();
        assert_eq!(found, [path("notes.txt"), path("a.kdl"), path("b.kdl")]);
    }
}
