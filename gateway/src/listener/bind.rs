//! Opening the sockets of a bind.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::address::{Address, UnixAddress};
use crate::config::SocketOptions;
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
    /// As they were set last.
    options: Mutex<SocketOptions>,
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
            options: Mutex::default(),
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

    /// Tells a socket that somebody else has opened what it would have been told before it was bound.
    pub fn settle(&self, options: &SocketOptions) -> Result<(), BindFault> {
        match (&self.address, self.sockets.first()) {
            // They are duplicates of one.
            (Address::Ip(_), Some(socket)) => settle(&SockRef::from(socket), options),
            _ => Ok(()),
        }
    }

    /// From now on connections that it takes have these options; which interface it is bound to, and whether it is transparent,
    /// stays. What has not changed is left alone: whoever has handed a socket over may have set it.
    pub fn set_options(&self, options: &SocketOptions) {
        if let Address::Unix(_) = self.address {
            return;
        }
        let mut known = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, options.clone());
        for socket in &self.sockets {
            if let Err(error) = set_options(&SockRef::from(socket), options, &before) {
                tracing::warn!(address = %self.address, %error, "cannot set options of its sockets");
            }
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
    /// Of its interface.
    #[error("it cannot be bound to interface {0}: {1}")]
    Interface(Arc<str>, io::Error),
    /// Of being transparent.
    #[error("it cannot be transparent: {0}")]
    Transparent(io::Error),
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
pub fn bind(
    address: SocketAddr,
    options: &SocketOptions,
    workers: usize,
    others: Others,
) -> Result<Listening, BindError> {
    let failed = |source: BindFault| BindError {
        address: address.into(),
        source,
    };
    // With SO_REUSEPORT alone, a second gateway of the same user would quietly take half of the connections. One try
    // without it tells whether somebody is there.
    if others == Others::Nobody {
        drop(open(address, options, false).map_err(failed)?);
    }
    let first = open(address, options, true).map_err(failed)?;
    let address = first.local_addr().map_err(|error| failed(error.into()))?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(open(address, options, true).map_err(failed)?);
    }
    Ok(Listening {
        address: address.into(),
        sockets,
        file: None,
        options: Mutex::default(),
    })
}

/// Listens on a UNIX socket, for `workers` who accept in turn.
pub fn listen_unix(address: &UnixAddress, access: Access, workers: usize) -> Result<Listening, BindFault> {
    // Until the configuration says another.
    let backlog = crate::config::BACKLOG.cast_signed();
    let (socket, file) = unix_socket::listen(address, access, backlog)?;
    let address = Address::Unix(Arc::new(address.clone()));
    let listening = Listening::shared(address, socket.into(), workers).map_err(UnixSocketError::Io)?;
    Ok(Listening { file, ..listening })
}

fn open(address: SocketAddr, options: &SocketOptions, shared: bool) -> Result<TcpListener, BindFault> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` means IPv6; IPv4 has its own bind, as everywhere else in the configuration.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    settle(&socket, options)?;
    socket.bind(&address.into())?;
    // Until the configuration says another.
    socket.listen(crate::config::BACKLOG.cast_signed())?;
    Ok(socket.into())
}

/// What a socket is told before it is bound.
fn settle(socket: &Socket, options: &SocketOptions) -> Result<(), BindFault> {
    if let Some(interface) = &options.interface {
        let bound = socket.bind_device(Some(interface.as_bytes()));
        bound.map_err(|error| BindFault::Interface(Arc::clone(interface), error))?;
    }
    if options.transparent {
        let is_set = match socket.domain()? {
            Domain::IPV6 => socket.set_ip_transparent_v6(true),
            _ => socket.set_ip_transparent_v4(true),
        };
        is_set.map_err(BindFault::Transparent)?;
    }
    Ok(())
}

/// What connections have that a socket takes (Linux hands it down to them), where it was something else before. What is not said any more
/// is the system's again: that is what 0 says.
fn set_options(socket: &Socket, options: &SocketOptions, before: &SocketOptions) -> io::Result<()> {
    if options.user_timeout != before.user_timeout {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    if options.mss != before.mss {
        socket.set_tcp_mss(options.mss.unwrap_or(0))?;
    }
    if options.defer_accept != before.defer_accept {
        defer_accept(socket, options.defer_accept)?;
    }
    Ok(())
}

/// Has connections wait in the kernel until their clients have sent something, or not. A client that sends nothing is waited for until
/// the kernel has sent it its answer twice, a second or so later.
fn defer_accept(socket: &Socket, defer: bool) -> io::Result<()> {
    let seconds = libc::c_int::from(defer);
    let size = libc::socklen_t::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    #[allow(unsafe_code, reason = "neither rustix nor nix nor socket2 has this option")]
    // SAFETY: setsockopt(2) reads `size` bytes of `seconds`, which are there until it returns, and writes none.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
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
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn local(options: &SocketOptions, workers: usize) -> Listening {
        bind("127.0.0.1:0".parse().unwrap(), options, workers, Others::Nobody).unwrap()
    }

    #[test]
    fn workers_share_a_port_and_strangers_do_not() {
        let options = SocketOptions::default();
        let listening = local(&options, 3);
        let address = listening.address.socket().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(listening.sockets.len(), 3);
        let error = bind(address, &options, 1, Others::Nobody).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
    }

    #[test]
    fn sockets_are_bound_to_the_interface_that_is_said() {
        let on = |interface: &str| SocketOptions {
            interface: Some(interface.into()),
            ..SocketOptions::default()
        };
        for socket in local(&on("lo"), 2).sockets {
            assert_eq!(SockRef::from(&socket).device().unwrap().as_deref(), Some(&b"lo"[..]));
        }
        let error = bind("127.0.0.1:0".parse().unwrap(), &on("not-there"), 1, Others::Nobody).unwrap_err();
        assert!(matches!(error.source, BindFault::Interface(..)), "{error}");
    }

    #[test]
    fn what_connections_are_to_have_is_set_and_taken_back_while_it_listens() {
        let listening = local(&SocketOptions::default(), 2);
        let usual = SockRef::from(&listening.sockets[0]).tcp_mss().unwrap();
        let options = SocketOptions {
            user_timeout: Some(Duration::from_secs(33)),
            mss: Some(777),
            ..SocketOptions::default()
        };
        for (options, timeout, mss) in [
            (options, Some(Duration::from_secs(33)), 777),
            (SocketOptions::default(), None, usual),
        ] {
            listening.set_options(&options);
            for socket in &listening.sockets {
                let socket = SockRef::from(socket);
                assert_eq!(socket.tcp_user_timeout().unwrap(), timeout);
                assert_eq!(socket.tcp_mss().unwrap(), mss);
            }
        }
    }

    #[test]
    fn a_connection_that_is_deferred_is_there_when_its_client_has_said_something() {
        let listening = local(&SocketOptions::default(), 1);
        let socket = &listening.sockets[0];
        listening.set_options(&SocketOptions {
            defer_accept: true,
            ..SocketOptions::default()
        });
        #[allow(clippy::disallowed_methods, reason = "no worker here to block")]
        let mut client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.accept().unwrap();
    }

    /// An address that no machine has.
    #[test]
    fn one_that_is_transparent_need_not_have_its_address() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let of = |transparent| SocketOptions {
                transparent,
                ..SocketOptions::default()
            };
            let address: SocketAddr = address.parse().unwrap();
            let refused = bind(address, &of(false), 1, Others::Nobody).unwrap_err();
            assert!(refused.to_string().contains("no such address"), "{refused}");
            let listening = bind(address, &of(true), 1, Others::Nobody).unwrap();
            assert_eq!(listening.address.ip(), Some(address.ip()));
        }
    }
}
