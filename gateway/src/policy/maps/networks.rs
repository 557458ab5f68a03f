//! Networks, of which the longest one that an address lies in is found.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use ipnet::IpNet;

/// Networks by the length of their prefix, the longest first: at most 33 lengths of IPv4 and 129 of IPv6.
#[derive(Debug, Default)]
pub(super) struct Networks {
    v4: Vec<(u8, HashMap<u32, u32>)>,
    v6: Vec<(u8, HashMap<u128, u32>)>,
}

impl Networks {
    /// Adds a network, unless it is there already: then the answer is its position.
    pub(super) fn add(&mut self, network: IpNet, position: u32) -> Option<u32> {
        fn of<K>(lists: &mut Vec<(u8, HashMap<K, u32>)>, length: u8) -> &mut HashMap<K, u32> {
            let at = lists.iter().position(|(known, _)| *known == length).unwrap_or_else(|| {
                lists.push((length, HashMap::new()));
                lists.len() - 1
            });
            &mut lists[at].1
        }
        match network.trunc() {
            IpNet::V4(net) => put(of(&mut self.v4, net.prefix_len()), net.network().to_bits(), position),
            IpNet::V6(net) => put(of(&mut self.v6, net.prefix_len()), net.network().to_bits(), position),
        }
    }

    /// To be called when all are there, before any is looked for.
    pub(super) fn settle(&mut self) {
        self.v4.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        self.v6.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    }

    /// The position of the longest one that an address lies in.
    pub(super) fn find(&self, ip: IpAddr) -> Option<u32> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.iter().find_map(|(length, keys)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                keys.get(&(ip.to_bits() & mask)).copied()
            }),
            IpAddr::V6(ip) => self.v6.iter().find_map(|(length, keys)| {
                let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
                keys.get(&(ip.to_bits() & mask)).copied()
            }),
        }
    }
}

/// Where a key stands already, which it does after this.
fn put<K: Eq + std::hash::Hash>(known: &mut HashMap<K, u32>, key: K, position: u32) -> Option<u32> {
    match known.entry(key) {
        Entry::Occupied(first) => Some(*first.get()),
        Entry::Vacant(free) => {
            free.insert(position);
            None
        }
    }
}
