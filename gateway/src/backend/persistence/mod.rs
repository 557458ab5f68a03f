//! Persistence: which server a client is kept at, ahead of balancing. What a client says is only ever compared with what the
//! servers are known by.

mod cookie;
mod date;
mod table;

pub(crate) use cookie::prefix_length;
pub use cookie::{CookieRule, Presented, Verdict};
pub use table::StickTable;
