//! Sets of networks.

use std::net::IpAddr;

use gateway_plugin_sdk::ConfigError;

/// Networks of both families. IPv4-mapped addresses arrive as IPv4.
#[derive(Debug)]
pub(crate) struct Networks {
    v4: Ranges,
    v6: Ranges,
}

/// Disjoint inclusive ranges in ascending order: a look-up is a binary search, however long the list. Numbers of 128 bits
/// for both families: the code that sorts is larger than the addresses it spares.
#[derive(Debug)]
struct Ranges(Vec<(u128, u128)>);

impl Networks {
    pub(crate) fn compile(networks: &[String], at: &str) -> Result<Self, ConfigError> {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (index, text) in networks.iter().enumerate() {
            let Some((address, hosts)) = network(text) else {
                let message = format!("`{text}` is not a network such as 10.0.0.0/8 or 2001:db8::/32");
                return Err(ConfigError::new(message).at(format!("{at}/{index}")));
            };
            match address {
                IpAddr::V4(address) => v4.push(range(u128::from(address.to_bits()), hosts)),
                IpAddr::V6(address) => v6.push(range(address.to_bits(), hosts)),
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
            return self.v4.contain(u128::from(u32::from_be_bytes(v4)));
        }
        if let Ok(v6) = address.try_into() {
            return self.v6.contain(u128::from_be_bytes(v6));
        }
        false
    }
}

impl Ranges {
    fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        let mut disjoint: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match disjoint.last_mut() {
                Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
                _ => disjoint.push((first, last)),
            }
        }
        Self(disjoint)
    }

    fn contain(&self, address: u128) -> bool {
        let after = self.0.partition_point(|range| range.0 <= address);
        after > 0 && address <= self.0[after - 1].1
    }
}

/// A network's address and how many of its bits tell hosts apart; none for a single address.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits.checked_sub(prefix.unwrap_or(bits))?))
}

/// All addresses that differ from this one in nothing but the host bits.
fn range(address: u128, hosts: u32) -> (u128, u128) {
    let mask = u128::MAX.checked_shl(hosts).unwrap_or(0);
    (address & mask, address | !mask)
}
