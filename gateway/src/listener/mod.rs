//! Where clients arrive: sockets, one per bind and worker, and what happens between accept and the first byte of the
//! protocol.

mod accept;
mod acceptor;
mod beginning;
mod bind;
pub mod client_hello;
mod client_verifier;
mod clients;
mod hello;
mod inherited;
mod introduction;
mod rate;
mod sources;
mod termination;
mod tickets;
mod tls;

pub use accept::{Admit, Gate, Limits, Opening, Port, Refused, Service, accept};
pub use acceptor::Acceptor;
pub use bind::{BindError, BindFault, Listening, Others, bind, listen_unix};
pub use inherited::Inherited;
pub use introduction::{Fault, Unintroduced};
pub use rate::Rate;
pub use sources::{SourceSeat, Sources};
pub use termination::Termination;
