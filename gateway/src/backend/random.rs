//! Random numbers for spreading: no secrets hang on them.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A sequence of numbers (SplitMix64).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Begins anywhere, so that several gateways and workers that started together do not go the same way.
    pub(super) fn new() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, or 0. Multiplies instead of dividing; for bounds as small as ours, no number is noticeably
    /// likelier than another.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        // The upper half of a product of two 64-bit numbers.
        (wide >> 64) as u64
    }
}

/// Spreads what is in a few bits over all of them, one to one.
pub(super) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
