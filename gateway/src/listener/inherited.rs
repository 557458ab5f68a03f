//! Sockets that a service manager has opened (systemd's socket activation): a bind of the same address takes one.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::sync::{Arc, Mutex};

use listenfd::ListenFd;

use super::bind::Listening;
use crate::address::{Address, MOST_UNIX_PATH, UnixAddress};

/// Inherited sockets that no bind has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<(Address, TcpListener)>>);

impl Inherited {
    /// Those that `LISTEN_FDS` tells of. What is no stream socket, of TCP or UNIX, is passed over.
    pub fn from_env() -> Self {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|position| {
            if let Ok(Some(socket)) = passed.take_tcp_listener(position) {
                return Some((socket.local_addr().ok()?.into(), socket));
            }
            let socket = passed.take_unix_listener(position).ok().flatten()?;
            Some((of_unix(&socket)?, OwnedFd::from(socket).into()))
        });
        Self(Mutex::new(sockets.collect()))
    }

    /// The socket of this address. One queue is shared by all workers: each gets a duplicate, and they accept in turn. The file
    /// of a UNIX socket is left to whoever made it.
    pub fn take(&self, address: &Address, workers: usize) -> Option<std::io::Result<Listening>> {
        let mut sockets = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let position = sockets.iter().position(|(known, _)| known == address)?;
        let (address, socket) = sockets.swap_remove(position);
        let shared = socket.set_nonblocking(true);
        Some(shared.and_then(|()| Listening::shared(address, socket, workers)))
    }

    /// Addresses of sockets that no bind has taken.
    pub fn left(&self) -> Vec<Address> {
        let sockets = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sockets.iter().map(|(address, _)| address.clone()).collect()
    }
}

fn of_unix(socket: &UnixListener) -> Option<Address> {
    let address: UnixSocketAddr = socket.local_addr().ok()?;
    let address = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => UnixAddress::Path(path.to_owned()),
        (None, Some(name)) => match std::str::from_utf8(name).ok()? {
            full if full.len() == MOST_UNIX_PATH && full.ends_with('\0') => {
                UnixAddress::Padded(full.trim_end_matches('\0').into())
            }
            name => UnixAddress::Abstract(name.into()),
        },
        (None, None) => return None,
    };
    Some(Address::Unix(Arc::new(address)))
}
