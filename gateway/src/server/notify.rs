//! What the service manager hears: systemd's notification protocol (sd_notify(3), `Type=notify`).
//!
//! The socket is opened at the start: after a `chroot` its path leads nowhere.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, where there is one.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
}

/// The service manager wants to hear of the gateway every so often, and ends it otherwise.
#[derive(Debug)]
struct Watchdog {
    every: Duration,
    last: Instant,
}

impl Notifier {
    /// As the environment says. A service manager that cannot be reached is one that is not there.
    pub(super) fn from_env() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| connect(name.as_bytes()).ok());
        let mine = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let limit = env::var("WATCHDOG_USEC").ok().and_then(|limit| limit.parse().ok());
        let watchdog = limit.filter(|limit| mine && *limit > 0).map(|limit| Watchdog {
            // Half of it, as sd_watchdog_enabled(3) has it.
            every: Duration::from_micros(limit) / 2,
            last: Instant::now(),
        });
        Self { socket, watchdog }
    }

    /// It serves.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// It takes up a changed configuration; [`ready`](Self::ready) follows, however that went.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// It ends.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// Says that the gateway lives, when it is time to and `lives` says so.
    pub(super) fn watchdog(&mut self, lives: impl FnOnce() -> bool) {
        let Some(watchdog) = &mut self.watchdog else { return };
        if watchdog.last.elapsed() >= watchdog.every && lives() {
            watchdog.last = Instant::now();
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // One that does not read is not worth waiting for.
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// A path, or `@NAME` for an abstract name.
fn connect(name: &[u8]) -> std::io::Result<UnixDatagram> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
