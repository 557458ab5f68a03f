//! Opening the sockets of a bind.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::address::{Address, UnixAddress};
use crate::unix_socket::{self, Access, SocketFile, UnixSocketError};

/// A bind with its sockets, one for each worker: the kernel spreads connections over them (`SO_REUSEPORT`), so that
/// workers need not. Those of a UNIX socket are duplicates of one, and workers accept in turn.
#[derive(Debug)]
pub struct Listening {
    /// The address, with the port that the system chose where 0 was asked for.
    pub address: Address,
    /// One per worker.
    pub sockets: Vec<TcpListener>,
    /// Where a UNIX socket is found that is the gateway's own.
    file: Option<SocketFile>,
}

impl Listening {
    /// Of one socket, in which all workers accept.
    pub(super) fn shared(address: Address, socket: TcpListener, workers: usize) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(workers);
        while sockets.len() + 1 < workers {
            sockets.push(socket.try_clone()?);
        }
        sockets.push(socket);
        Ok(Self {
            address,
            sockets,
            file: None,
        })
    }

    /// From now on this is who may connect to it, where it is a UNIX socket of the gateway's own.
    pub fn set_access(&self, access: Access) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.set_access(access) {
            tracing::warn!(address = %self.address, %error, "cannot say who may connect");
        }
    }

    /// This folder, named without links, is the root of the file system from now on: where a UNIX socket's file is then.
    pub fn enter(&self, root: &Path) {
        if let Some(file) = &self.file {
            file.enter(root);
        }
    }

    /// From now on so many connections may wait in each of its sockets until they are accepted. What waits already stays.
    pub fn set_backlog(&self, backlog: u32) {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        for socket in &self.sockets {
            // It listens already: this only changes the number (listen(2)).
            if let Err(error) = SockRef::from(socket).listen(backlog) {
                tracing::warn!(address = %self.address, %error, "cannot set the backlog");
            }
        }
    }
}

/// Why a bind cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: Address,
    /// Why.
    pub source: BindFault,
}

/// What is in the way.
#[derive(Debug, thiserror::Error)]
pub enum BindFault {
    /// Of an IP address.
    #[error("{}", explain(.0))]
    Ip(#[from] io::Error),
    /// Of a UNIX socket.
    #[error(transparent)]
    Unix(#[from] UnixSocketError),
}

/// Who may be listening already where a bind is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nobody.
    Nobody,
    /// This gateway, on another address of the same port.
    Ourselves,
}

/// Opens `workers` sockets on an address.
pub fn bind(address: SocketAddr, workers: usize, others: Others) -> Result<Listening, BindError> {
    let failed = |source: io::Error| BindError {
        address: address.into(),
        source: source.into(),
    };
    // With SO_REUSEPORT alone, a second gateway of the same user would quietly take half of the connections. One try
    // without it tells whether somebody is there.
    if others == Others::Nobody {
        drop(open(address, false).map_err(failed)?);
    }
    let first = open(address, true).map_err(failed)?;
    let address = first.local_addr().map_err(failed)?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(open(address, true).map_err(failed)?);
    }
    Ok(Listening {
        address: address.into(),
        sockets,
        file: None,
    })
}

/// Listens on a UNIX socket, for `workers` who accept in turn.
pub fn listen_unix(address: &UnixAddress, access: Access, workers: usize) -> Result<Listening, BindFault> {
    // Until the configuration says another.
    let backlog = crate::config::BACKLOG.cast_signed();
    let (socket, file) = unix_socket::listen(address, access, backlog)?;
    let address = Address::Unix(std::sync::Arc::new(address.clone()));
    let listening = Listening::shared(address, socket.into(), workers).map_err(UnixSocketError::Io)?;
    Ok(Listening { file, ..listening })
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6; IPv4 has its own bind, as everywhere else in the configuration.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Until the configuration says another.
    socket.listen(crate::config::BACKLOG.cast_signed())?;
    Ok(socket.into())
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there already".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_and_strangers_do_not() {
        let listening = bind("127.0.0.1:0".parse().unwrap(), 3, Others::Nobody).unwrap();
        let address = listening.address.socket().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(listening.sockets.len(), 3);
        let error = bind(address, 1, Others::Nobody).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
    }
}
