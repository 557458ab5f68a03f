//! The two addresses of a client's connection, in little room: whoever is connected has them for as long as the connection lasts.

use std::net::{SocketAddr, SocketAddrV4};

/// Where a connection comes from and where it came to. Both of IPv4 take 16 bytes; what has IPv6 in it takes another 64, in a box
/// of its own.
#[derive(Debug, Clone)]
pub struct Ends(Stored);

#[derive(Debug, Clone)]
enum Stored {
    V4(SocketAddrV4, SocketAddrV4),
    Boxed(Box<[SocketAddr; 2]>),
}

impl Ends {
    /// Of a connection from `client` to `local`.
    #[must_use]
    pub fn new(client: SocketAddr, local: SocketAddr) -> Self {
        Self(match (client, local) {
            (SocketAddr::V4(client), SocketAddr::V4(local)) => Stored::V4(client, local),
            _ => Stored::Boxed(Box::new([client, local])),
        })
    }

    /// The client: the original one when a PROXY header named it, else the peer.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        match &self.0 {
            Stored::V4(client, _) => SocketAddr::V4(*client),
            Stored::Boxed(ends) => ends[0],
        }
    }

    /// The address that the client connected to, likewise.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        match &self.0 {
            Stored::V4(_, local) => SocketAddr::V4(*local),
            Stored::Boxed(ends) => ends[1],
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
            assert_eq!((ends.client(), ends.local()), (client, local));
        }
    }
}
