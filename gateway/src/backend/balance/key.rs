//! What a choice may depend on beside the servers.

use std::net::IpAddr;

use twox_hash::XxHash3_64;

/// What is known of a request or connection when its server is chosen.
#[derive(Debug, Clone, Copy)]
pub struct PickKey {
    /// The client, as the gateway knows it; none of a UNIX socket.
    pub client: Option<IpAddr>,
    /// Of what the backend hashes of requests, [hashed](Self::hash_of); none when it is not there.
    pub hash: Option<u64>,
    /// The server that it belongs to, ahead of balancing.
    pub wanted: Option<usize>,
    /// Under what the stick table knows it, where there is one.
    pub stick: Option<u64>,
}

impl PickKey {
    /// Of somebody of whom nothing but the address matters.
    pub fn of(client: impl Into<Option<IpAddr>>) -> Self {
        Self {
            client: client.into(),
            hash: None,
            wanted: None,
            stick: None,
        }
    }

    /// XXH3 of a part of a request: the same on every gateway and in every version.
    pub fn hash_of(part: &[u8]) -> u64 {
        XxHash3_64::oneshot(part)
    }

    /// XXH3 of the client's address, 4 or 16 bytes, without its port: the same on every gateway and in every version. An
    /// IPv4 address that came by way of an IPv6 socket is that IPv4 address.
    pub(super) fn hash_of_client(&self) -> Option<u64> {
        Some(match self.client?.to_canonical() {
            IpAddr::V4(address) => XxHash3_64::oneshot(&address.octets()),
            IpAddr::V6(address) => XxHash3_64::oneshot(&address.octets()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_hash_is_of_the_address_and_never_changes() {
        let of = |client: IpAddr| PickKey::of(client).hash_of_client().unwrap_or_default();
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(of(IpAddr::V4(v4)), of(IpAddr::V6(v4.to_ipv6_mapped())));
        // These are a contract: another value here sends every client of every user to another server.
        assert_eq!(of(IpAddr::V4(v4)), 3_178_573_899_526_495_306);
        assert_eq!(of(IpAddr::V6(Ipv6Addr::LOCALHOST)), 4_706_896_644_969_173_947);
        assert_eq!(PickKey::hash_of(&v4.octets()), of(IpAddr::V4(v4)));
    }
}
