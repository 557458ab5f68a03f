//! Settings of the process that are for what the rest of the configuration need not have.

use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Backend, Frontend, Grant, Mode, Plugin, RateLimit, Tenant, TenantRules};
use crate::config::reader::Context;

/// Where settings stand that are for something which need not be there.
#[derive(Default)]
pub(in crate::config::lower) struct Said {
    pub(super) policy: Option<SourceSpan>,
    /// `heavy-threads=`, `slow-call=`, `total-memory=` and `host-memory=`.
    pub(super) beside: [Option<SourceSpan>; 4],
    pub(super) compile_cache: Option<SourceSpan>,
    pub(super) rate_limit_table: Option<SourceSpan>,
    pub(super) tracing: Option<SourceSpan>,
}

/// What the rest of the configuration has.
#[derive(Clone, Copy)]
pub(in crate::config::lower) struct Uses {
    /// Anything that is answered in a component, be it a plugin's or the gateway's own.
    pub(in crate::config::lower) components: bool,
    /// A plugin.
    pub(in crate::config::lower) plugins: bool,
    /// One that may come to run beside the workers.
    pub(in crate::config::lower) plugins_beside: bool,
    /// Anything that has token buckets: rate limits, or a plugin that is granted them.
    pub(in crate::config::lower) buckets: bool,
    /// A frontend in HTTP mode.
    pub(in crate::config::lower) requests: bool,
}

impl Uses {
    /// What a configuration has; files of tenants may have anything that plugins have, and what a tenant decides is asked as plugins are.
    pub(in crate::config::lower) fn of(
        frontends: &[Frontend],
        backends: &[Backend],
        plugins: &[Plugin],
        limits: &[RateLimit],
        tenants: &[Option<Tenant>],
    ) -> Self {
        let has_files = tenants.iter().flatten().any(|tenant| tenant.has_files);
        let mut decided = tenants.iter().flatten().flat_map(Tenant::all_rules);
        let asks_for_tenants = has_files || decided.any(TenantRules::is_any);
        let decides = |frontend: &Frontend| {
            !frontend.acls.is_empty() || !frontend.request_edits.is_empty() || !frontend.response_edits.is_empty()
        };
        let edits = |backend: &Backend| !backend.request_edits.is_empty() || !backend.response_edits.is_empty();
        Self {
            components: asks_for_tenants
                || !plugins.is_empty()
                || !limits.is_empty()
                || frontends.iter().any(decides)
                || backends.iter().any(edits),
            plugins: asks_for_tenants || !plugins.is_empty(),
            plugins_beside: asks_for_tenants || plugins.iter().any(|plugin| !plugin.stays_with_workers()),
            buckets: has_files
                || !limits.is_empty()
                || plugins.iter().any(|plugin| plugin.grants.contains(&Grant::Buckets)),
            requests: frontends.iter().any(|frontend| frontend.mode == Mode::Http),
        }
    }
}

impl Said {
    /// Reports settings for what the configuration does not have.
    pub(in crate::config::lower) fn report_unused(&self, ctx: &Context<'_>, uses: Uses) {
        let nothing_runs = "there is no plugin, acl, rate limit or edit, and so no component";
        let no_plugin = "there is no plugin";
        let none_beside = "there is no plugin but of the gateway's own components, which the workers call";
        let [heavy_threads, slow_call, total_memory, host_memory] =
            self.beside.map(|said| said.filter(|_| uses.components));
        for (said, name, is_used, why) in [
            (self.policy, "policy", uses.components, nothing_runs),
            (self.compile_cache, "compile-cache", uses.components, nothing_runs),
            (heavy_threads, "heavy-threads", uses.plugins_beside, none_beside),
            (slow_call, "slow-call", uses.plugins_beside, none_beside),
            (total_memory, "total-memory", uses.plugins, no_plugin),
            (host_memory, "host-memory", uses.plugins, no_plugin),
            (
                self.rate_limit_table,
                "rate-limit-table",
                uses.buckets,
                "there is no rate limit",
            ),
            (
                self.tracing,
                "tracing",
                uses.requests,
                "there is no frontend in HTTP mode",
            ),
        ] {
            let Some(span) = said.filter(|_| !is_used) else {
                continue;
            };
            let error = ConfigError::new(Code::Inert, format!("`{name}` does nothing: {why}"));
            ctx.report(error.label(span, "for nothing").help("leave it out"));
        }
    }
}
