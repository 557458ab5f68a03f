//! Files that a configuration names: read whole, up to a length, and never waited for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a file of at most so many bytes. A longer one is an error of the kind [`FileTooLarge`](io::ErrorKind::FileTooLarge).
/// Pipes, sockets and devices are refused: opening or reading them might never end.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    // Looked at before it is opened, as opening a pipe waits for who writes into it, and again afterwards, as another one may
    // have taken its place.
    refuse_other(&path.metadata()?)?;
    let file = File::open(path)?;
    refuse_other(&file.metadata()?)?;
    let mut bytes = Vec::new();
    // One byte more than may be, to know that there is more.
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > most {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {most} bytes"),
        )),
        false => Ok(bytes),
    }
}

fn refuse_other(found: &std::fs::Metadata) -> io::Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_length_and_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let pipe = folder.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        for other in [folder.path(), &pipe, Path::new("/dev/zero")] {
            assert_eq!(
                read(other, 5).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{other:?}"
            );
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 5).unwrap(), b"12345");
    }
}
