//! Boxes whose content is made where it stands.
//!
//! `Box::new` makes a value on the stack and moves all of it, with the room for what it may become: of a future, that is most of it, and
//! thirty cache lines that nobody would have touched. Where the room is there first, only what is known is written.

/// A box of what `make` makes.
#[inline(always)]
pub fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    let room = Box::new_uninit();
    Box::write(room, make())
}
