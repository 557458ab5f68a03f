//! Limits that responses take from: a request is let in while there is a token, and takes it only when its response has a status that
//! counts. The component that checks limits knows nothing of that: for these, it is told what taking a token would come to.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use super::buckets::{Buckets, Place, Rate};
use crate::config::StatusSet;

/// A limit that counts responses.
#[derive(Debug, Clone)]
pub struct CountedLimit {
    /// The name of its buckets.
    pub name: Arc<str>,
    /// What counts.
    pub statuses: StatusSet,
}

/// The tokens that an exchange is going to take if its response counts: at most one of each limit.
#[derive(Default)]
pub struct Counted(Vec<Token>);

struct Token {
    buckets: Arc<Buckets>,
    place: Place,
    rate: Rate,
    statuses: StatusSet,
}

impl Counted {
    /// There was a token in this bucket.
    pub(super) fn push(&mut self, buckets: &Arc<Buckets>, place: Place, rate: Rate, statuses: StatusSet) {
        self.0.push(Token {
            buckets: Arc::clone(buckets),
            place,
            rate,
            statuses,
        });
    }

    /// The client is sent a response of this status. Where others have taken the last token meanwhile, nothing more is taken.
    pub fn settle(self, status: StatusCode) {
        let counts = |token: &Token| token.statuses.contains(status.as_u16());
        for token in self.0.into_iter().filter(counts) {
            token.buckets.take(token.place, token.rate, 1);
        }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counted").field(&self.0.len()).finish()
    }
}
