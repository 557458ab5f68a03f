//! What is decided of connections and requests before they are served: who comes in, and how often.

use std::sync::Arc;

use serde::Serialize;

use super::endings::needs_more;
use super::{Builder, Section};
use crate::config;
use crate::listener::Sources;
use crate::policy::{CountedLimit, first_party};
use crate::snapshot::{Admission, Ending, Limiter};

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
            let limited = frontend.connection_limits.iter().map(|limit| &limit.when);
            let mut limited = limited.chain([&frontend.per_source_when]).flatten();
            logs || rejects.iter().any(|rule| rule.names(acl)) || limited.any(|when| when.names(acl))
        };
        let acls = self.acls(Section::of(frontend), asks);
        let limiters = self.limiters(frontend, &frontend.connection_limits);
        let sources = frontend.per_source.map(|limit| {
            let before = self.before.iter().find(|before| *before.name() == frontend.name);
            let before = before.and_then(|before| before.admission.as_ref()?.sources.as_ref());
            Sources::new(limit, before)
        });
        let (acls, limiters) = (acls?, limiters?);
        let decides = !rejects.is_empty() || !limiters.is_empty() || sources.is_some();
        Some(decides.then(|| Admission {
            acls,
            rejects: rejects.to_vec(),
            limiters,
            sources,
            sources_when: frontend.per_source_when.clone(),
            log_when,
        }))
    }

    /// The frontend's limits, in one call as far as they stand behind one another and have one condition.
    pub(super) fn limiters(
        &mut self,
        frontend: &config::Frontend,
        limits: &[config::UsedLimit],
    ) -> Option<Vec<Limiter>> {
        let rows = limits.chunk_by(|one, next| one.when == next.when);
        let limiters: Vec<_> = rows.map(|row| self.limiter(frontend, row)).collect();
        limiters.into_iter().collect()
    }

    /// Limits of one condition.
    fn limiter(&mut self, frontend: &config::Frontend, limits: &[config::UsedLimit]) -> Option<Limiter> {
        let config = LimitConfig {
            limits: limits
                .iter()
                .map(|used| &self.config.rate_limits[used.limit.0])
                .collect(),
        };
        // Limits are counted by their name, wherever they are used: `limit "per-ip"` in two frontends is one limit.
        let counted = config.limits.iter().filter_map(|limit| {
            Some(CountedLimit {
                name: Arc::clone(&limit.name),
                statuses: limit.count_status?,
            })
        });
        let counted = counted.collect();
        let attachment = self.attach_counting(&first_party::RATE_LIMIT, "", &config, Section::of(frontend), counted);
        Some(Limiter {
            when: limits.first().and_then(|used| used.when.clone()),
            attachment: attachment?,
        })
    }
}
