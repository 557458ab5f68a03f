//! The address that connections to servers come from, where the configuration says one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::Socket;

/// Has a socket that is about to connect come from this address. Its port is chosen when it is known where to (ip(7),
/// `IP_BIND_ADDRESS_NO_PORT`), so that there may be as many connections to each server as there are ports, and not to all of them
/// together.
///
/// # Errors
/// When the machine has no such address, or the socket is of another family.
pub(super) fn bind(socket: &Socket, source: IpAddr) -> io::Result<()> {
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
    fn an_address_of_another_family_or_machine_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(bind(&socket, Ipv6Addr::LOCALHOST.into()).is_err());
        assert!(bind(&socket, Ipv4Addr::new(192, 0, 2, 1).into()).is_err());
    }
}
