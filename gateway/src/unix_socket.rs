//! UNIX sockets that are listened on: made with their permissions, and found in a file that goes with them.

use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{getegid, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::address::{MOST_UNIX_PATH, UnixAddress};
use crate::placed::Placed;

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
            Self::Owner(_) => "cannot be given away",
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => "its folder does not exist",
            Self::Io(_) => "cannot be opened",
        }
    }

    /// What may be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Taken => "give each gateway a path of its own",
            Self::NoSocket => "name another path, or take the file away",
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
    /// Which file it is, lest another's that has taken its place be removed.
    identity: (u64, u64),
    known: Mutex<Known>,
}

/// What may change of a socket's file.
#[derive(Debug)]
struct Known {
    place: Placed,
    /// As it was said last.
    access: Access,
}

impl SocketFile {
    /// This folder, named without links, is the root of the file system from now on (chroot(2)). A file outside of it is out of reach
    /// and stays.
    pub fn enter(&self, root: &Path) {
        self.known().place.enter(root);
    }

    /// From now on this is who may connect. What has not changed is left alone, as it may take rights that the process has given up,
    /// and after a `chroot` the file may be out of reach.
    pub fn set_access(&self, access: Access) -> io::Result<()> {
        let mut known = self.known();
        let before = std::mem::replace(&mut known.access, access);
        if before == access {
            return Ok(());
        }
        let path = known.place.path().ok_or(io::ErrorKind::NotFound)?;
        if identity(path)? != self.identity {
            return Err(io::Error::other("another file has taken its place"));
        }
        // Who is not said any more gives it back.
        let changed = |now: Option<u32>, before: Option<u32>, own: u32| (now != before).then(|| now.unwrap_or(own));
        let user = changed(access.user, before.user, geteuid().as_raw());
        let group = changed(access.group, before.group, getegid().as_raw());
        if user.is_some() || group.is_some() {
            chown(path, user, group)?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(access.mode))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics between two changes.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let known = self.known();
        let Some(path) = known.place.path() else { return };
        if identity(path).is_ok_and(|identity| identity == self.identity) {
            // Best effort: its folder may not be the gateway's to write to any more.
            let _ = fs::remove_file(path);
        }
    }
}

/// The address as the system wants it.
pub fn sock_addr(address: &UnixAddress) -> io::Result<SockAddr> {
    match address {
        UnixAddress::Path(path) => SockAddr::unix(path),
        UnixAddress::Abstract(name) => SockAddr::unix(format!("\0{name}")),
        UnixAddress::Padded(name) => {
            let mut full = vec![0];
            full.extend_from_slice(name.as_bytes());
            full.resize(1 + MOST_UNIX_PATH, 0);
            SockAddr::unix(OsStr::from_bytes(&full))
        }
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
        UnixAddress::Abstract(_) | UnixAddress::Padded(_) => {
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
    let beside = bind_beside(&socket, path, || RandomState::new().build_hasher().finish())?;
    place(&socket, path, &beside, access, backlog).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    let file = SocketFile {
        identity: identity(path)?,
        known: Mutex::new(Known {
            place: Placed::at(path),
            access,
        }),
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

/// Binds the socket in the folder of a path, under a name at random that nothing has yet. The number of the process would not do: in two
/// namespaces of processes two gateways may have the same, and be at work in one folder.
fn bind_beside(socket: &Socket, path: &Path, mut random: impl FnMut() -> u64) -> io::Result<PathBuf> {
    let mut left = TRIES;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{:010x}", random() >> 24));
        let beside = PathBuf::from(name);
        left -= 1;
        match socket.bind(&SockAddr::unix(&beside)?) {
            Ok(()) => return Ok(beside),
            // It takes no place that is taken, whoever has it.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// With its permissions from the first moment: the socket is made under another name, gets them, begins to listen, and only then takes
/// its place. Nobody can connect before, and whoever is asked for it at any time finds the old one or the new one.
fn place(socket: &Socket, path: &Path, beside: &Path, access: Access, backlog: i32) -> Result<(), UnixSocketError> {
    if access.user.is_some() || access.group.is_some() {
        chown(beside, access.user, access.group).map_err(UnixSocketError::Owner)?;
    }
    fs::set_permissions(beside, fs::Permissions::from_mode(access.mode))?;
    socket.listen(backlog)?;
    fs::rename(beside, path)?;
    Ok(())
}

/// Names that are tried: two of 2⁴⁰ that are the same say that something else is wrong.
const TRIES: u32 = 4;

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
    fn what_stands_beside_a_sockets_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let others = ["web.sock.0000000001", "web.sock.0000000002"].map(|name| folder.path().join(name));
        fs::write(&others[0], "precious").unwrap();
        // Somebody else's, who is about to put it in its place.
        let theirs = UnixListener::bind(&others[1]).unwrap();

        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let mut numbers = 1..;
        let beside = bind_beside(&socket, &path, || numbers.next().unwrap() << 24).unwrap();
        assert_eq!(beside, folder.path().join("web.sock.0000000003"));
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        assert!(bind_beside(&socket, &path, || 1 << 24).is_err());
        assert_eq!(fs::read(&others[0]).unwrap(), b"precious");
        fs::remove_file(beside).unwrap();

        let access = Access {
            mode: 0o600,
            user: None,
            group: None,
        };
        let (_socket, file) = listen(&UnixAddress::Path(path.clone()), access, 1).unwrap();
        assert!(path.exists() && others.iter().all(|other| other.exists()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        drop(theirs);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_padded_name_fills_the_address_and_is_another_one() {
        let name: Box<str> = format!("gateway-test-padded-{}", std::process::id()).into();
        let access = Access {
            mode: 0o600,
            user: None,
            group: None,
        };
        let (padded, _) = listen(&UnixAddress::Padded(name.clone()), access, 1).unwrap();
        let (_bare, _) = listen(&UnixAddress::Abstract(name.clone()), access, 1).unwrap();
        let bound = padded.local_addr().unwrap();
        let mut expected = name.as_bytes().to_vec();
        // The address has 108 bytes, of which the first, a zero, says that this is no path.
        expected.resize(107, 0);
        assert_eq!(bound.as_abstract_namespace(), Some(&*expected));
        let again = listen(&UnixAddress::Padded(name), access, 1).unwrap_err();
        assert!(matches!(again, UnixSocketError::Taken), "{again}");
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
