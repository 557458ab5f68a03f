//! Sets of networks.

use std::net::IpAddr;

use gateway_plugin_sdk::ConfigError;
use ipnet::IpNet;

/// Networks of both families. IPv4-mapped addresses arrive as IPv4.
#[derive(Debug)]
pub(crate) struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Disjoint inclusive ranges in ascending order: a look-up is a binary search, however long the list.
#[derive(Debug)]
struct Ranges<N>(Vec<(N, N)>);

impl Networks {
    pub(crate) fn compile(networks: &[String], at: &str) -> Result<Self, ConfigError> {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (index, text) in networks.iter().enumerate() {
            match network(text) {
                Some(IpNet::V4(net)) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                Some(IpNet::V6(net)) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
                None => {
                    let message = format!("`{text}` is not a network such as 10.0.0.0/8 or 2001:db8::/32");
                    return Err(ConfigError::new(message).at(format!("{at}/{index}")));
                }
            }
        }
        Ok(Self {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        })
    }

    /// Whether one of them has the address: 4 or 16 bytes in network order.
    pub(crate) fn contain(&self, address: &[u8]) -> bool {
        if let Ok(v4) = address.try_into() {
            return self.v4.contain(u32::from_be_bytes(v4));
        }
        if let Ok(v6) = address.try_into() {
            return self.v6.contain(u128::from_be_bytes(v6));
        }
        false
    }
}

impl<N: Ord + Copy> Ranges<N> {
    fn new(mut ranges: Vec<(N, N)>) -> Self {
        ranges.sort_unstable();
        let mut disjoint: Vec<(N, N)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match disjoint.last_mut() {
                // Networks nest or lie apart, so the last one holds this one or ends before it.
                Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
                _ => disjoint.push((first, last)),
            }
        }
        Self(disjoint)
    }

    fn contain(&self, address: N) -> bool {
        let after = self.0.partition_point(|range| range.0 <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

/// A network, or a single address.
fn network(text: &str) -> Option<IpNet> {
    let parsed = text.parse::<IpNet>().ok();
    parsed.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
