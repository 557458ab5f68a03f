//! Files that nobody but this user, and root, could have written.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use rustix::process::geteuid;

use super::CacheError;

/// What a file of ours says, if it has no more than `most` bytes. A link is not followed.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, CacheError> {
    let failed = |source| CacheError::Io {
        path: path.to_owned(),
        source,
    };
    let refused = |why: String| CacheError::Unsafe {
        path: path.to_owned(),
        why,
    };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(refused("this is no file".to_owned()));
    }
    is_ours(&found).map_err(refused)?;
    if found.len() > most {
        return Err(refused(format!(
            "it has {} bytes; at most {most} are read",
            found.len()
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Whether nobody but this user, and root, could have written it.
pub(super) fn is_ours(found: &fs::Metadata) -> Result<(), String> {
    let user = geteuid().as_raw();
    if found.uid() != user && found.uid() != 0 {
        return Err(format!(
            "it belongs to user {}, and the gateway runs as user {user}",
            found.uid()
        ));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others than its owner may use it (mode {mode:03o})"));
    }
    Ok(())
}

/// Writes a file that is not there yet, for its owner alone.
pub(super) fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_data()
}
