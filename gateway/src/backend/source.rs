//! Where connections to servers come from, and what else their sockets are told before they connect, where the configuration says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;

use crate::config::SourceAddress;

/// What a socket is told that is about to connect to a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Outgoing {
    /// The address that it comes from; none leaves that to the system.
    pub(super) source: Option<SourceAddress>,
    /// The interface that it leaves by; none leaves that to the system.
    pub(super) interface: Option<Arc<str>>,
    /// How long what has been sent may go unacknowledged; none leaves that to the system.
    pub(super) user_timeout: Option<Duration>,
}

impl Outgoing {
    /// Whether a connection comes from the address of the client who it is for, and so is for nobody else.
    pub(super) fn is_clients(&self) -> bool {
        self.source == Some(SourceAddress::ClientIp)
    }

    /// Tells a socket that is about to connect there for this client; none where it is for none, or for one without an address.
    /// A client's address of the other family cannot be had: then the system chooses one, as it does where there is none.
    ///
    /// # Errors
    /// When the machine has no such address or interface, the address is of another family, or the process may not do it.
    pub(super) fn prepare(&self, socket: &Socket, to: SocketAddr, client: Option<IpAddr>) -> io::Result<()> {
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        match self.source {
            Some(SourceAddress::Address(address)) => bind(socket, address),
            Some(SourceAddress::ClientIp) => match client.map(|client| client.to_canonical()) {
                Some(client) if client.is_ipv4() == to.is_ipv4() => {
                    // It is not the machine's.
                    match client {
                        IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                        IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
                    }
                    bind(socket, client)
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// Has a socket that is about to connect come from this address. Its port is chosen when it is known where to (ip(7),
/// `IP_BIND_ADDRESS_NO_PORT`), so that there may be as many connections to each server as there are ports, and not to all of them
/// together.
///
/// # Errors
/// When the machine has no such address, or the socket is of another family.
fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    #[allow(
        unsafe_code,
        reason = "rustix has no such option, and nix only with a dependency more"
    )]
    // SAFETY: setsockopt(2) reads `size` bytes of `on`, which are there until it returns, and writes none.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::new(source, 0).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use socket2::{Domain, Type};

    use super::*;

    #[test]
    fn a_port_is_taken_only_when_it_is_known_where_to() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let source = Ipv4Addr::new(127, 0, 0, 2);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bind(&socket, source.into()).unwrap();
        let bound = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(bound, (source, 0).into());
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
        assert_ne!(peer.port(), 0);
    }

    #[test]
    fn a_connection_comes_from_the_address_of_its_client() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let outgoing = Outgoing {
            source: Some(SourceAddress::ClientIp),
            interface: Some("lo".into()),
            user_timeout: Some(Duration::from_secs(33)),
        };
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let prepared = |client: Option<IpAddr>| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            outgoing.prepare(&socket, server, client).unwrap();
            assert_eq!(socket.device().unwrap().as_deref(), Some(&b"lo"[..]));
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(33)));
            socket.local_addr().unwrap().as_socket().unwrap().ip()
        };
        // No machine has it.
        let client = IpAddr::from(Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(prepared(Some(client)), client);
        let mapped = Ipv4Addr::new(192, 0, 2, 8).to_ipv6_mapped();
        assert_eq!(prepared(Some(mapped.into())), Ipv4Addr::new(192, 0, 2, 8));
        let systems = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        assert_eq!(prepared(Some(Ipv6Addr::LOCALHOST.into())), systems);
        assert_eq!(prepared(None), systems);
    }

    #[test]
    fn an_address_of_another_family_or_machine_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(bind(&socket, Ipv6Addr::LOCALHOST.into()).is_err());
        assert!(bind(&socket, Ipv4Addr::new(192, 0, 2, 1).into()).is_err());
    }
}
