//! Regular expressions for the first-party components: the syntax of the `regex` crate, on bytes, without Unicode tables.
//!
//! A gateway compiles its components when it starts, and an engine for patterns is most of a component that has one: so
//! each of ours is built with and without (feature `engine`), and the `regex` crate, which picks among many engines, is
//! not used. Without, [`Pattern::new`] refuses every pattern; the gateway takes that component only where there are none.

#[cfg(feature = "engine")]
mod engine;
#[cfg(not(feature = "engine"))]
mod none;

#[cfg(feature = "engine")]
pub use engine::{Groups, Pattern};
#[cfg(not(feature = "engine"))]
pub use none::{Groups, Pattern};
