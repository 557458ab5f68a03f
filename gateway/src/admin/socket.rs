//! The admin socket: a UNIX socket on which one line, or in `prompt` mode several, is read and answered, as on HAProxy's.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::commands::{Outcome, Steering};
use super::desk::Says;
use crate::address::UnixAddress;
use crate::backend::Backend;
use crate::config::{AdminSocket, Config};
use crate::telemetry::metrics::Registry;
use crate::unix_socket::{Access, SocketFile, UnixSocketError, listen};

/// The admin socket, until this is dropped: then nothing is left of it.
#[derive(Debug)]
#[must_use = "the socket closes when this is dropped"]
pub struct AdminServer {
    says: watch::Sender<Arc<Says>>,
    path: Arc<Path>,
    /// Goes with this.
    file: Option<SocketFile>,
    _tasks: JoinSet<()>,
}

impl AdminServer {
    /// Opens the socket. A file that a gateway left behind that is no more is replaced. Has to be called inside the control
    /// runtime.
    pub fn open(
        socket: &AdminSocket,
        config: &Config,
        backends: &[Arc<Backend>],
        registry: &Arc<Registry>,
    ) -> Result<Self, UnixSocketError> {
        let access = Access {
            mode: socket.mode,
            user: None,
            group: None,
        };
        let (listener, file) = listen(&UnixAddress::Path(socket.path.clone()), access, BACKLOG)?;
        let listener = UnixListener::from_std(listener.into())?;
        let (sender, receiver) = watch::channel(Arc::new(Says::of(config, backends)));
        let steering = Steering::new(socket.level, receiver, Arc::clone(registry));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(steering)));
        Ok(Self {
            says: sender,
            path: socket.path.as_path().into(),
            file,
            _tasks: tasks,
        })
    }

    /// This folder, named without links, is the root of the file system from now on: where the socket's file is then.
    pub fn enter(&self, root: &Path) {
        if let Some(file) = &self.file {
            file.enter(root);
        }
    }

    /// A configuration has been taken up: from now on it is meant, with these backends.
    pub fn take_up(&self, config: &Config, backends: &[Arc<Backend>]) {
        self.says.send_replace(Arc::new(Says::of(config, backends)));
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
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
