//! First: servers are filled up to their `max-connections` in their order, so that the last ones can be switched off while
//! there is little to do.

/// The first that has room.
pub(super) fn pick(servers: usize, share: impl Fn(usize) -> u32) -> Option<usize> {
    (0..servers).find(|&i| share(i) > 0)
}
