//! Sockets that a service manager has opened (systemd's socket activation): a bind of the same address takes one.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use listenfd::ListenFd;

use super::bind::Listening;

/// Inherited sockets that no bind has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<(SocketAddr, TcpListener)>>);

impl Inherited {
    /// Those that `LISTEN_FDS` tells of. What is no TCP socket is passed over.
    pub fn from_env() -> Self {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|position| {
            let socket = passed.take_tcp_listener(position).ok().flatten()?;
            Some((socket.local_addr().ok()?, socket))
        });
        Self(Mutex::new(sockets.collect()))
    }

    /// The socket of this address. One queue is shared by all workers: each gets a duplicate, and they accept in turn.
    pub fn take(&self, address: SocketAddr, workers: usize) -> Option<std::io::Result<Listening>> {
        let mut sockets = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let position = sockets.iter().position(|(known, _)| *known == address)?;
        let (address, socket) = sockets.swap_remove(position);
        let shared = || -> std::io::Result<Listening> {
            socket.set_nonblocking(true)?;
            let mut sockets = Vec::with_capacity(workers);
            while sockets.len() + 1 < workers {
                sockets.push(socket.try_clone()?);
            }
            sockets.push(socket);
            Ok(Listening { address, sockets })
        };
        Some(shared())
    }

    /// Addresses of sockets that no bind has taken.
    pub fn left(&self) -> Vec<SocketAddr> {
        let sockets = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sockets.iter().map(|(address, _)| *address).collect()
    }
}
