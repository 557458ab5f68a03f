//! Random numbers, good enough for keys. Need `grant "random"`.

use crate::sys::random as host;

/// Any number.
#[inline]
pub fn number() -> u64 {
    host::get_u64()
}

/// So many random bytes, at most 1,024; more trap.
pub fn bytes(count: u32) -> Vec<u8> {
    host::get_bytes(count)
}
