//! What is edited of responses that the gateway makes by itself.

use super::Rewrites;
use crate::config::BackendId;

/// The edits with `always` of a frontend and of the backends that it leads to.
pub struct OwnAnswers {
    /// Before a backend is chosen, and behind that where it changes nothing; none where the frontend has none.
    of_frontend: Option<Rewrites>,
    /// Behind that.
    of_backends: Vec<(BackendId, Rewrites)>,
    /// Whether they ask for anything of requests, whose heads are kept for them.
    pub read_request: bool,
}

impl OwnAnswers {
    /// None when there are none.
    pub(super) fn new(of_frontend: Option<Rewrites>, of_backends: Vec<(BackendId, Rewrites)>) -> Option<Self> {
        let mut all = of_frontend
            .iter()
            .chain(of_backends.iter().map(|(_, of)| of))
            .peekable();
        all.peek()?;
        Some(Self {
            read_request: all.any(|of| of.attachment.response_filter_reads_request()),
            of_frontend,
            of_backends,
        })
    }

    /// What is edited of an answer to a request that has come to this backend, or to none.
    pub fn of(&self, backend: Option<BackendId>) -> Option<&Rewrites> {
        let known = backend.and_then(|id| self.of_backends.iter().find(|(of, _)| *of == id));
        known.map(|(_, rewrites)| rewrites).or(self.of_frontend.as_ref())
    }
}
