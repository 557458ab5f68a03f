//! Where clients arrive: sockets, one per bind and worker, and what happens between accept and the first byte of the
//! protocol.

mod accept;
mod bind;
pub mod client_hello;
mod clients;
mod hello;
mod inherited;
mod introduction;
mod termination;
mod tls;

pub use accept::{Gate, Limits, Opening, Port, accept};
pub use bind::{BindError, Listening, Others, bind};
pub use inherited::Inherited;
pub use introduction::{Fault, Unintroduced};
pub use termination::Termination;
