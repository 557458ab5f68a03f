//! The two addresses of a client's connection, in little room: whoever is connected has them for as long as the connection lasts.

use std::net::{SocketAddr, SocketAddrV4};

/// Where a connection comes from and where it came to; none of that is known of one that came over a UNIX socket, but for what a
/// proxy in front has said. Both of IPv4 take 16 bytes; what has IPv6 in it takes another 64, in a box of its own.
#[derive(Debug, Clone)]
pub struct Ends(Stored);

#[derive(Debug, Clone)]
enum Stored {
    V4(SocketAddrV4, SocketAddrV4),
    Boxed(Box<[Option<SocketAddr>; 2]>),
    Unix,
}

impl Ends {
    /// Of a connection from `client` to `local`.
    #[must_use]
    pub fn new(client: SocketAddr, local: SocketAddr) -> Self {
        Self::of(Some(client), Some(local))
    }

    /// Of a connection whose ends may be a UNIX socket's, which have no address: none stands for those.
    #[must_use]
    pub fn of(client: Option<SocketAddr>, local: Option<SocketAddr>) -> Self {
        Self(match (client, local) {
            (Some(SocketAddr::V4(client)), Some(SocketAddr::V4(local))) => Stored::V4(client, local),
            (None, None) => Stored::Unix,
            ends => Stored::Boxed(Box::new(ends.into())),
        })
    }

    /// The client: the original one when a PROXY header named it, else the peer. None of a UNIX socket.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        match &self.0 {
            Stored::V4(client, _) => Some(SocketAddr::V4(*client)),
            Stored::Boxed(ends) => ends[0],
            Stored::Unix => None,
        }
    }

    /// The address that the client connected to, likewise.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        match &self.0 {
            Stored::V4(_, local) => Some(SocketAddr::V4(*local)),
            Stored::Boxed(ends) => ends[1],
            Stored::Unix => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went_in() {
        for (client, local) in [
            ("192.0.2.7:4711", "198.51.100.1:443"),
            ("[2001:db8::7]:4711", "[2001:db8::1]:443"),
            ("[::ffff:192.0.2.7]:1", "[::ffff:198.51.100.1]:2"),
            ("[fe80::1%3]:65535", "[fe80::2%4]:1"),
            // A PROXY header of IPv6 may say one that is mapped and one that is not.
            ("192.0.2.7:4711", "[2001:db8::1]:443"),
            ("[2001:db8::7]:4711", "192.0.2.7:80"),
        ] {
            let (client, local) = (client.parse().unwrap(), local.parse().unwrap());
            let ends = Ends::new(client, local);
            assert_eq!((ends.client(), ends.local()), (Some(client), Some(local)));
            for (client, local) in [(Some(client), None), (None, Some(local)), (None, None)] {
                let ends = Ends::of(client, local);
                assert_eq!((ends.client(), ends.local()), (client, local));
            }
        }
    }
}
