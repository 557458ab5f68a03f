//! What is decided of connections and requests before they are served: who comes in, and how often.

use std::sync::Arc;

use serde::Serialize;

use super::endings::needs_more;
use super::{Builder, Section};
use crate::config;
use crate::listener::Sources;
use crate::policy::{Attachment, CountedLimit, first_party};
use crate::snapshot::{Admission, Ending};

#[derive(Serialize)]
struct LimitConfig<'a> {
    limits: Vec<&'a config::RateLimit>,
}

impl Builder<'_> {
    /// What is decided when a connection has just come.
    pub(super) fn admission(&mut self, frontend: &config::Frontend, rejects: &[Ending]) -> Option<Option<Admission>> {
        // Of what the line of one that is turned away depends on, if that is known by then.
        let log_when = frontend
            .log_choice
            .as_ref()
            .and_then(|choice| choice.when.as_ref())
            .filter(|when| !needs_more(frontend, when))
            .cloned();
        let asks = |acl: usize| {
            let logs = log_when.as_ref().is_some_and(|when| when.names(acl));
            logs || rejects.iter().any(|rule| rule.names(acl))
        };
        let acls = self.acls(Section::of(frontend), asks);
        let limiter = self.limiter(frontend, &frontend.connection_limits);
        let sources = frontend.per_source.map(|limit| {
            let before = self.before.iter().find(|before| *before.name() == frontend.name);
            let before = before.and_then(|before| before.admission.as_ref()?.sources.as_ref());
            Sources::new(limit, before)
        });
        let (acls, limiter) = (acls?, limiter?);
        let decides = !rejects.is_empty() || limiter.is_some() || sources.is_some();
        Some(decides.then(|| Admission {
            acls,
            rejects: rejects.to_vec(),
            limiter,
            sources,
            log_when,
        }))
    }

    /// The frontend's limits, in one call.
    pub(super) fn limiter(
        &mut self,
        frontend: &config::Frontend,
        limits: &[config::RateLimitId],
    ) -> Option<Option<Arc<Attachment>>> {
        if limits.is_empty() {
            return Some(None);
        }
        let config = LimitConfig {
            limits: limits.iter().map(|id| &self.config.rate_limits[id.0]).collect(),
        };
        // Limits are counted by their name, wherever they are used: `limit "per-ip"` in two frontends is one limit.
        let counted = config.limits.iter().filter_map(|limit| {
            Some(CountedLimit {
                name: Arc::clone(&limit.name),
                statuses: limit.count_status?,
            })
        });
        let counted = counted.collect();
        self.attach_counting(&first_party::RATE_LIMIT, "", &config, Section::of(frontend), counted)
            .map(Some)
    }
}
