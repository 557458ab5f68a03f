//! `gateway plugin …`: what authors and operators of plugins are helped with. Components are compiled and run by the
//! host that serves requests, so that a tool never says yes to what the gateway then refuses.

pub mod bench;
pub mod build;
pub mod inspect;
pub mod lock;
pub mod new;
pub mod sign;
pub mod test;

mod anatomy;
mod replace;
mod signed;
mod toolchain;
mod world;

pub use world::World;
