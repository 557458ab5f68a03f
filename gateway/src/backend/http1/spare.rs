//! The buffer that heads of responses are read into: one for all connections of a worker, for as long as they let go of what they read.
//!
//! What is cut out of it is passed on and dropped before the next response comes, as a rule, and the same few cache lines are written again.
//! While somebody still holds some of it, as for a client that is slow to read, the next read gets a buffer of its own.

use std::cell::Cell;

use bytes::BytesMut;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// The buffer, which is empty. It may have less room than is wanted.
pub(super) fn take() -> BytesMut {
    SPARE.take()
}

/// Gives it back, when all that was read into it has been cut out.
pub(super) fn put_back(buffer: BytesMut) {
    SPARE.set(buffer);
}
