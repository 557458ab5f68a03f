//! Reading the facts that came with a call. Allocates nothing and calls nobody.

use std::net::IpAddr;

use crate::needs::Need;
use crate::sys;

/// The facts of one call, in the order of the needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// Three numbers a fact: its need, and where its value begins and ends.
    index: &'a [u32],
    bytes: &'a [u8],
}

impl<'a> Facts<'a> {
    /// None.
    pub(crate) const NONE: Facts<'static> = Facts { index: &[], bytes: &[] };

    #[inline]
    pub(crate) fn new(facts: &'a sys::Facts) -> Self {
        Self {
            index: &facts.index,
            bytes: &facts.bytes,
        }
    }

    /// The first value.
    #[inline]
    pub(crate) fn get<Phase>(self, need: Need<Phase>) -> Option<&'a [u8]> {
        self.all(need).next()
    }

    /// Every value, in order.
    #[inline]
    pub(crate) fn all<Phase>(self, need: Need<Phase>) -> impl Iterator<Item = &'a [u8]> + use<'a, Phase> {
        let index = need.index();
        let (facts, bytes) = (self.index.chunks_exact(3), self.bytes);
        facts.filter_map(move |fact| match *fact {
            // The host promises that they are within; should it ever break that, the fact is absent.
            [need, start, end] if need == index => bytes.get(start as usize..end as usize),
            _ => None,
        })
    }

    /// The first value as an address.
    #[inline]
    pub(crate) fn ip<Phase>(self, need: Need<Phase>) -> Option<IpAddr> {
        ip(self.get(need)?)
    }
}

/// An address as the contract writes it: 4 or 16 bytes.
#[inline]
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The methods by which a view reads its facts.
macro_rules! fact_getters {
    ($phase:ty) => {
        /// The first value of a declared fact; none when the attribute is absent. No host call.
        #[inline]
        pub fn get(&self, need: $crate::needs::Need<$phase>) -> Option<&'a [u8]> {
            self.facts.get(need)
        }

        /// Every value of a declared fact, in order. No host call.
        #[inline]
        pub fn all(&self, need: $crate::needs::Need<$phase>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
            self.facts.all(need)
        }

        /// The first value of a declared fact as text; none when it is absent or not UTF-8. No host call.
        #[inline]
        pub fn text(&self, need: $crate::needs::Need<$phase>) -> Option<&'a str> {
            std::str::from_utf8(self.facts.get(need)?).ok()
        }

        /// A declared `client-ip` or `local-ip`. No host call.
        #[inline]
        pub fn ip(&self, need: $crate::needs::Need<$phase>) -> Option<std::net::IpAddr> {
            self.facts.ip(need)
        }
    };
}
pub(crate) use fact_getters;
