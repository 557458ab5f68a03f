//! The admin socket: a UNIX socket on which one line, or in `prompt` mode several, is read and answered, as on HAProxy's.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::commands::{Outcome, Steering};
use crate::backend::Backend;
use crate::config::AdminSocket;
use crate::telemetry::metrics::Registry;

/// The admin socket, until this is dropped: then nothing is left of it.
#[derive(Debug)]
#[must_use = "the socket closes when this is dropped"]
pub struct AdminServer {
    backends: watch::Sender<Vec<Arc<Backend>>>,
    file: SocketFile,
    _tasks: JoinSet<()>,
}

/// Why the admin socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Another process serves there.
    #[error("another process answers there")]
    Taken,
    /// There is something that is no socket.
    #[error("there is a file that is no socket")]
    NoSocket,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl AdminServer {
    /// Opens the socket. A file that a gateway left behind that is no more is replaced. Has to be called inside the control
    /// runtime.
    pub fn open(
        socket: &AdminSocket,
        backends: &[Arc<Backend>],
        registry: &Arc<Registry>,
    ) -> Result<Self, AdminSocketError> {
        let (listener, file) = listen(&socket.path, socket.mode)?;
        let (sender, receiver) = watch::channel(backends.to_vec());
        let steering = Steering::new(socket.level, receiver, Arc::clone(registry));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(steering)));
        Ok(Self {
            backends: sender,
            file,
            _tasks: tasks,
        })
    }

    /// A configuration has been taken up: from now on these are meant.
    pub fn take_up(&self, backends: &[Arc<Backend>]) {
        self.backends.send_replace(backends.to_vec());
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl AdminSocketError {
    /// What stands at its place in the configuration.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Taken => "in use",
            Self::NoSocket => "not a socket",
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => "its folder does not exist",
            Self::Io(_) => "cannot be opened",
        }
    }

    /// What may be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Taken => "give each gateway a path of its own",
            Self::NoSocket => "name another path, or take the file away",
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "make the folder first; systemd does so with RuntimeDirectory="
            }
            Self::Io(_) => "the gateway's user has to be able to write to its folder",
        }
    }
}

/// The socket's file, which goes with this.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Which file it is, lest another's that has taken its place be removed.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Best effort: a folder that was left behind by chroot, or taken away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, with this mode from the first moment: the socket is made under another name, gets its mode, begins to
/// listen, and only then takes its place. Nobody can connect before, and whoever is asked for it at any time finds the old
/// one or the new one.
fn listen(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), AdminSocketError> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(AdminSocketError::NoSocket),
        Ok(_) if StdStream::connect(path).is_ok() => return Err(AdminSocketError::Taken),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let listener = place(path, &beside, mode).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    Ok((listener, file))
}

fn place(path: &Path, beside: &Path, mode: u32) -> io::Result<UnixListener> {
    // A process with our number that is no more may have left one.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(beside)?)?;
    fs::set_permissions(beside, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    fs::rename(beside, path)?;
    UnixListener::from_std(socket.into())
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

async fn accept(listener: UnixListener, steering: Arc<Steering>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: some may be free again in a while.
                tracing::warn!(%error, "cannot accept a connection on the admin socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let steering = Arc::clone(&steering);
        connections.spawn(async move {
            // How it ends is between the operator and the socket.
            let _ = serve(stream, &steering).await;
            drop(permit);
        });
    }
}

/// Reads and answers one line; after `prompt`, until `quit`, the end, or a long silence.
async fn serve(stream: UnixStream, steering: &Steering) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let mut prompts = false;
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut from).take(MOST_LINE);
        let Ok(read) = timeout(SILENCE, limited.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        read?;
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 >= MOST_LINE {
            return send(&mut to, "The line is too long.\n\n").await;
        }
        let text = String::from_utf8_lossy(&line);
        for command in text.trim().split(';') {
            match steering.command(command) {
                Outcome::Answer(answer) => send(&mut to, &format!("{answer}\n")).await?,
                Outcome::Prompt => prompts = !prompts,
                Outcome::Quit => return Ok(()),
            }
        }
        if !prompts {
            return to.shutdown().await;
        }
        send(&mut to, "> ").await?;
    }
}

/// Whoever does not read the answer does not hold a place for ever.
async fn send(to: &mut (impl AsyncWriteExt + Unpin), text: &str) -> io::Result<()> {
    match timeout(SILENCE, to.write_all(text.as_bytes())).await {
        Ok(sent) => sent,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Connections served at once, as HAProxy's default: operators are few. Others wait to be accepted.
const MOST_CONNECTIONS: usize = 10;

/// And so many of them; further ones are refused by the system.
const BACKLOG: i32 = 16;

/// Bytes of a line: the longest command with two names of 128 bytes is far shorter, even several of them.
const MOST_LINE: u64 = 4096;

/// How long an operator may be silent, or not read. HAProxy's default is 10 s, which is short for `prompt`.
const SILENCE: Duration = Duration::from_secs(60);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
