//! Sets of networks: a look-up is a binary search, however long the list.
//!
//! A set is read straight from the configuration (it implements `Deserialize`): no text of a list is kept, so that a
//! hundred thousand networks need the memory of their numbers and little more.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Networks of both families. An IPv4-mapped network (`::ffff:10.0.0.0/104`) is the IPv4 network that it stands for, as the
/// gateway hands over IPv4-mapped addresses as IPv4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Disjoint inclusive ranges in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges<T>(Vec<(T, T)>);

impl Networks {
    /// Of these networks; at the first text that is none, its position.
    ///
    /// # Errors
    /// One of the texts is no network.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, usize> {
        let mut networks = Self::default();
        for (position, text) in texts.into_iter().enumerate() {
            networks.add(text).ok_or(position)?;
        }
        networks.finish();
        Ok(networks)
    }

    /// Whether one of them has the address: 4 or 16 bytes in network order.
    #[must_use]
    pub fn contain(&self, address: &[u8]) -> bool {
        if let Ok(v4) = address.try_into() {
            return self.v4.contain(u32::from_be_bytes(v4));
        }
        if let Ok(v6) = <[u8; 16]>::try_from(address) {
            return match Ipv6Addr::from(v6).to_ipv4_mapped() {
                Some(v4) => self.v4.contain(v4.to_bits()),
                None => self.v6.contain(u128::from_be_bytes(v6)),
            };
        }
        false
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    fn add(&mut self, text: &str) -> Option<()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
            None => (text, None),
        };
        match address.parse().ok()? {
            IpAddr::V4(address) => self
                .v4
                .add(address.to_bits(), 32_u32.checked_sub(prefix.unwrap_or(32))?),
            IpAddr::V6(address) => {
                let hosts = 128_u32.checked_sub(prefix.unwrap_or(128))?;
                match address.to_ipv4_mapped().filter(|_| hosts <= 32) {
                    Some(mapped) => self.v4.add(mapped.to_bits(), hosts),
                    None => self.v6.add(address.to_bits(), hosts),
                }
            }
        }
        Some(())
    }

    fn finish(&mut self) {
        self.v4.finish();
        self.v6.finish();
    }
}

impl Ranges<u32> {
    /// All addresses that differ from this one in nothing but so many last bits.
    fn add(&mut self, address: u32, hosts: u32) {
        let mask = u32::MAX.checked_shl(hosts).unwrap_or(0);
        self.0.push((address & mask, address | !mask));
    }
}

impl Ranges<u128> {
    fn add(&mut self, address: u128, hosts: u32) {
        let mask = u128::MAX.checked_shl(hosts).unwrap_or(0);
        self.0.push((address & mask, address | !mask));
    }
}

impl<T: Copy + Ord> Ranges<T> {
    /// Makes them ascending and disjoint, in place.
    fn finish(&mut self) {
        self.0.sort_unstable();
        self.0.dedup_by(|next, previous| {
            let overlap = next.0 <= previous.1;
            if overlap {
                previous.1 = previous.1.max(next.1);
            }
            overlap
        });
    }

    fn contain(&self, address: T) -> bool {
        let after = self.0.partition_point(|range| range.0 <= address);
        let before = after.checked_sub(1).and_then(|last| self.0.get(last));
        before.is_some_and(|range| address <= range.1)
    }
}

/// One text or a list of them. A text may have lines, as a file that the operator has put in its place: one network in each;
/// empty ones and what follows `#` or `;` is left out.
impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut networks = deserializer.deserialize_any(OneOrMany)?;
        networks.finish();
        Ok(networks)
    }
}

/// Reads texts without keeping them.
struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Networks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("networks such as 10.0.0.0/8 or 2001:db8::/32")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Networks, E> {
        let mut networks = Networks::default();
        add_lines(&mut networks, text)?;
        Ok(networks)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Networks, A::Error> {
        let mut networks = Networks::default();
        while list.next_element_seed(Into(&mut networks))?.is_some() {}
        Ok(networks)
    }
}

/// Reads a text into a set.
struct Into<'a>(&'a mut Networks);

impl<'de> serde::de::DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneOrMany.expecting(f)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        add_lines(self.0, text)
    }
}

fn add_lines<E: Error>(networks: &mut Networks, text: &str) -> Result<(), E> {
    for (index, line) in text.lines().enumerate() {
        let network = line.split(['#', ';']).next().unwrap_or_default().trim();
        if !network.is_empty() && networks.add(network).is_none() {
            // A list has a hundred thousand of them.
            let place = if text.contains('\n') {
                format!("line {}: ", index + 1)
            } else {
                String::new()
            };
            return Err(E::custom(format_args!(
                "{place}{network:?} is no network such as 10.0.0.0/8 or 2001:db8::/32"
            )));
        }
    }
    Ok(())
}
