//! Files that a configuration names: read whole, up to a length, and never waited for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Reads a file of at most so many bytes. A longer one is an error of the kind [`FileTooLarge`](io::ErrorKind::FileTooLarge).
/// Pipes, sockets and devices are refused: opening or reading them might never end.
pub fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    // Looked at before it is opened, as opening a pipe waits for who writes into it, and again afterwards, as another one may
    // have taken its place.
    refuse_other(&path.metadata()?)?;
    let file = rustix::fs::open(path, READ, Mode::empty())?;
    read_open(File::from(file), most)
}

/// As [`read`], of a file in a folder, by its path from there. A path that leads out of the folder, by `..` or by a link, is
/// refused, whoever changes links meanwhile: the system follows it step by step.
pub fn read_beneath(folder: &Path, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(folder, path, READ, Mode::empty(), beneath).map_err(|errno| match errno {
        Errno::XDEV => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it leads out of the folder of its tenant",
        ),
        errno => errno.into(),
    })?;
    read_open(File::from(file), most)
}

fn read_open(file: File, most: usize) -> io::Result<Vec<u8>> {
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

/// A pipe is opened without waiting, and refused then.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

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
        for (name, content) in [("in/a", "12345"), ("out", "secret")] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let inside = folder.path().join("in");
        for (link, to) in [("near", "a"), ("far", "../out"), ("up", ".."), ("root", "/")] {
            std::os::unix::fs::symlink(to, inside.join(link)).unwrap();
        }
        for name in ["a", "near", "./a"] {
            assert_eq!(read_beneath(&inside, Path::new(name), 5).unwrap(), b"12345", "{name}");
        }
        for name in ["far", "up/out", "../out", "root/etc/passwd", "/etc/passwd"] {
            let error = read_beneath(&inside, Path::new(name), 1000).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
        }
        assert!(read_beneath(&inside, Path::new("nothing"), 5).is_err());
        assert_eq!(
            read_beneath(folder.path(), Path::new("pipe"), 5).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 5).unwrap(), b"12345");
    }
}
