//! UNIX sockets that are listened on: made with their permissions, and found in a file that goes with them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::unistd::{getegid, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::UnixAddress;

/// Whose a socket's file is, and who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its permissions, as of a file: who may write may connect.
    pub mode: u32,
    /// The user whom it belongs to, by number; none means whoever makes it.
    pub user: Option<u32>,
    /// The group, likewise.
    pub group: Option<u32>,
}

/// Why a UNIX socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum UnixSocketError {
    /// Another process serves there.
    #[error("another process answers there")]
    Taken,
    /// There is something that is no socket.
    #[error("there is a file that is no socket")]
    NoSocket,
    /// Where it is made before it takes its place, there is something that is no socket.
    #[error("it is made at {}, where there is another file", .0.display())]
    Beside(PathBuf),
    /// It cannot be given to whom it is to belong to.
    #[error("it cannot be given to its user and group: {0}")]
    Owner(io::Error),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UnixSocketError {
    /// What stands at its place in the configuration.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Taken => "in use",
            Self::NoSocket => "not a socket",
            Self::Beside(_) => "cannot be made",
            Self::Owner(_) => "cannot be given away",
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => "its folder does not exist",
            Self::Io(_) => "cannot be opened",
        }
    }

    /// What may be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Taken => "give each gateway a path of its own",
            Self::NoSocket | Self::Beside(_) => "name another path, or take the file away",
            Self::Owner(_) => "start as root, or leave out who does not belong to the gateway's own groups",
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "make the folder first; systemd does so with RuntimeDirectory="
            }
            Self::Io(_) => "the gateway's user has to be able to write to its folder",
        }
    }
}

/// A socket's file, which goes with this.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Which file it is, lest another's that has taken its place be removed.
    identity: (u64, u64),
    /// As it was said last.
    access: Mutex<Access>,
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on this is who may connect. What has not changed is left alone, as it may take rights that the process has given up,
    /// and in `chroot` the file is not to be found any more.
    pub fn set_access(&self, access: Access) -> io::Result<()> {
        let mut known = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, access);
        if before == access {
            return Ok(());
        }
        let there = fs::symlink_metadata(&self.path)?;
        if (there.dev(), there.ino()) != self.identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        // Who is not said any more gives it back.
        let changed = |now: Option<u32>, before: Option<u32>, own: u32| (now != before).then(|| now.unwrap_or(own));
        let user = changed(access.user, before.user, geteuid().as_raw());
        let group = changed(access.group, before.group, getegid().as_raw());
        if user.is_some() || group.is_some() {
            chown(&self.path, user, group)?;
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(access.mode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Best effort: a folder that was left behind by chroot, or taken away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The address as the system wants it.
pub fn sock_addr(address: &UnixAddress) -> io::Result<SockAddr> {
    match address {
        UnixAddress::Path(path) => SockAddr::unix(path),
        UnixAddress::Abstract(name) => SockAddr::unix(format!("\0{name}")),
    }
}

/// Listens, with a queue of this length. The socket does not block. In the abstract namespace there is no file, and `access` means
/// nothing.
pub fn listen(
    address: &UnixAddress,
    access: Access,
    backlog: i32,
) -> Result<(Socket, Option<SocketFile>), UnixSocketError> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let path = match address {
        UnixAddress::Path(path) => path,
        UnixAddress::Abstract(_) => {
            socket.bind(&sock_addr(address)?).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => UnixSocketError::Taken,
                _ => error.into(),
            })?;
            socket.listen(backlog)?;
            return Ok((socket, None));
        }
    };
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(UnixSocketError::NoSocket),
        Ok(_) if is_served(path) => return Err(UnixSocketError::Taken),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    clear(&beside)?;
    place(&socket, path, &beside, access, backlog).inspect_err(|_| {
        let _ = clear(&beside);
    })?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
        access: Mutex::new(access),
    };
    Ok((socket, Some(file)))
}

/// Whether somebody listens at a socket's file. One that is full does, too; and what may not be asked is not thought dead.
fn is_served(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full queue is not waited for.
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Ok(()) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

/// Takes a socket away that a process with our number, which is no more, may have left beside a place. Anything else is somebody's.
fn clear(beside: &Path) -> Result<(), UnixSocketError> {
    match fs::symlink_metadata(beside) {
        Ok(there) if there.file_type().is_socket() => Ok(fs::remove_file(beside)?),
        Ok(_) => Err(UnixSocketError::Beside(beside.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// With its permissions from the first moment: the socket is made under another name, gets them, begins to listen, and only then takes
/// its place. Nobody can connect before, and whoever is asked for it at any time finds the old one or the new one.
fn place(socket: &Socket, path: &Path, beside: &Path, access: Access, backlog: i32) -> Result<(), UnixSocketError> {
    socket.bind(&SockAddr::unix(beside)?)?;
    if access.user.is_some() || access.group.is_some() {
        chown(beside, access.user, access.group).map_err(UnixSocketError::Owner)?;
    }
    fs::set_permissions(beside, fs::Permissions::from_mode(access.mode))?;
    socket.listen(backlog)?;
    fs::rename(beside, path)?;
    Ok(())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_stands_where_a_socket_is_made_is_taken_away_only_when_it_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let beside = folder.path().join(format!("web.sock.{}", std::process::id()));
        let address = UnixAddress::Path(path.clone());
        let access = Access {
            mode: 0o600,
            user: None,
            group: None,
        };
        fs::write(&beside, "precious").unwrap();
        let refused = listen(&address, access, 1).unwrap_err();
        assert!(matches!(refused, UnixSocketError::Beside(_)), "{refused}");
        assert_eq!(fs::read(&beside).unwrap(), b"precious");
        assert!(!path.exists());

        fs::remove_file(&beside).unwrap();
        drop(UnixListener::bind(&beside).unwrap());
        let (_socket, file) = listen(&address, access, 1).unwrap();
        assert!(path.exists() && !beside.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_group_that_is_not_said_any_more_gives_a_socket_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let own = getegid().as_raw();
        let of = |group| Access {
            mode: 0o660,
            user: None,
            group,
        };
        // To give it to another group takes root.
        let other = if geteuid().is_root() { own + 1 } else { own };
        let (_socket, file) = listen(&UnixAddress::Path(path.clone()), of(Some(other)), 1).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().gid(), other);
        let file = file.unwrap();
        file.set_access(of(None)).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().gid(), own);
    }
}
