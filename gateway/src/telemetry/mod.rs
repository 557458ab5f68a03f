//! What the gateway says about itself: access lines, events, metrics. Knows nothing of requests' lives; it is told.

pub mod access;
pub mod choice;
pub mod events;
pub mod grpc;
pub mod line;
pub mod log;
pub mod metrics;
pub mod pace;
pub mod trace;

mod clock;
mod escape;
mod random;
