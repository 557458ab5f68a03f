//! Acls, rules and conditions of edits in backends. A request meets them behind those of its frontend; they are asked together with
//! the frontend's acls, in one call, so each frontend knows those of the backends that it leads to.

use miette::SourceSpan;

use super::acl::{self, ReadAcl, Setting};
use super::acls::Acls;
use super::edits::{self, MAX_CONDITIONS};
use super::names::Names;
use super::settings::http_only;
use super::{MAX_ACLS, Scope};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    Acl, AclId, Backend, BackendId, Condition, Conditional, EditCondition, Frontend, Mode, OfBackend, Plugin, Tenant,
    most_written_in_a_call,
};
use crate::config::reader::{At, Block, Context};

/// The acls of a backend, as they were read.
pub(super) struct BackendAcls<'s, 'n> {
    read: Vec<ReadAcl<'n>>,
    pub(super) names: Acls<'s>,
}

impl<'s, 'n> BackendAcls<'s, 'n> {
    /// Reads the acls of a backend.
    pub(super) fn read(scope: &Scope<'s>, block: &mut Block<'n>, mode: Option<At<Mode>>) -> Self {
        // Which frontends lead here, and what their binds speak, is not known yet.
        let setting = Setting {
            section: "backend",
            mode: Mode::Http,
            mode_span: None,
            tls: true,
            client_ca: true,
        };
        let mut names = Names::new("acl");
        let mut read = Vec::new();
        for node in block.many("acl") {
            http_only(&node, mode);
            let acl = acl::acl(scope, setting, node, None);
            match acl.name {
                Some(name) => names.add(scope.ctx, name, ()),
                // Keeps the positions of the names those of the acls.
                None => names.skip(acl.span, ()),
            }
            read.push(acl);
        }
        let names = Acls::new(scope, names, setting);
        Self { read, names }
    }

    /// All of them, those without a name behind the others.
    pub(super) fn finish(self) -> Option<Vec<Acl>> {
        let implied = self.names.finish(MAX_ACLS);
        let read = self.read.into_iter().map(|read| read.acl);
        read.chain(implied.into_iter().map(Some)).collect()
    }
}

/// The backends that a frontend may lead to: by itself, and behind these by its plugins and tenants, each with where that is said.
///
/// To those that the files of its tenants may name it always leads, whatever these say: how many acls there are together is for the
/// operator to know, and no tenant's route is one too many for another's.
pub(super) fn reached(
    scope: &Scope<'_>,
    frontend: &Frontend,
    plugins: &[Plugin],
    tenants: &[Option<Tenant>],
) -> Vec<(BackendId, Option<SourceSpan>)> {
    let routes = frontend.routes.iter();
    let routes = routes.flat_map(|route| route.to.backends().iter().copied());
    let known = frontend.tenants.iter().filter_map(|id| scope.tenants.get(id.0));
    let with_files = known.filter(|(known, _)| known.has_files);
    // A tenant has backends of both modes, and its files lead to each where it can be led to.
    let fits = |id: &BackendId| {
        scope
            .backends
            .get(id.0)
            .is_some_and(|(known, _)| known.mode == frontend.mode)
    };
    let by_files = with_files
        .flat_map(|(known, _)| known.reached.iter().copied())
        .filter(fits);
    let own = routes.chain(frontend.default_backend).chain(by_files);
    let own = own.map(|id| (id, None));
    let used = frontend.plugins.iter();
    let used = used.filter_map(|used| plugins.get(used.plugin.value.0));
    let by_plugins = used.flat_map(|plugin| {
        let routes = plugin.route_to.value.iter();
        routes.map(|id| (*id, Some(plugin.origin.span)))
    });
    let named = frontend.tenants.iter().filter_map(|id| tenants.get(id.0)?.as_ref());
    let by_tenants = named.flat_map(|tenant| tenant.decides(frontend.mode).backends());
    let by_tenants = by_tenants.map(|(id, origin)| (id, Some(origin.span)));
    let mut all: Vec<_> = own.collect();
    all.sort_by_key(|(id, _)| id.0);
    all.dedup_by_key(|(id, _)| *id);
    for (id, by) in by_plugins.chain(by_tenants) {
        if !all.iter().any(|(known, _)| *known == id) {
            all.push((id, by));
        }
    }
    all
}

/// Makes known to a frontend what the backends that it leads to ask and decide.
pub(super) fn join(
    ctx: &Context<'_>,
    frontend: &mut Frontend,
    backends: &[Backend],
    reached: &[(BackendId, Option<SourceSpan>)],
) {
    // Whoever has it lead to one too many is to blame.
    let blame = |error: ConfigError, by: Option<SourceSpan>| match by {
        Some(by) => error.label(by, "because of this"),
        None => error,
    };
    for (id, by) in reached.iter().copied() {
        let Some(backend) = backends.get(id.0) else { continue };
        if backend.acls.is_empty() && backend.rules.is_empty() {
            continue;
        }
        let first = frontend.acls.len();
        // The names of a component's predicates differ.
        let named = |acl: &Acl| Acl {
            name: format!("{} of backend {}", acl.name, backend.name).into(),
            ..acl.clone()
        };
        frontend.acls.extend(backend.acls.iter().map(named));
        let mut rules = backend.rules.clone();
        for rule in &mut rules {
            rule.when = rule.when.as_ref().map(|when| shifted(when, first));
        }
        if let Some(error) = too_many_conditions(frontend, backend, first) {
            ctx.report(blame(error, by));
        }
        frontend.of_backends.push(OfBackend {
            backend: id,
            first_acl: first,
            rules,
        });
        if frontend.acls.len() > MAX_ACLS {
            let message = format!("a frontend and the backends that it leads to have at most {MAX_ACLS} acls together");
            let error = ConfigError::new(Code::Value, message);
            let label = format!("has {} with those of its backends", frontend.acls.len());
            let error = error.label(frontend.origin.span, label);
            let help = "join some of them with `any { … }`, or ask in the frontend what several backends ask";
            ctx.report(blame(error, by).help(help));
            return;
        }
    }
}

/// Reports what a frontend and a backend that it leads to write into each message together, where that is too much for one call; and what
/// the frontend writes into its own answers without one. Of several such backends the first.
pub(super) fn report_too_many_bytes(
    ctx: &Context<'_>,
    frontend: &Frontend,
    backends: &[Backend],
    reached: &[(BackendId, Option<SourceSpan>)],
) {
    let at = frontend.origin.span;
    let own = frontend.response_edits.iter().filter(|edit| edit.is_always);
    let own = most_written_in_a_call(own, (&*frontend.name, ""));
    if edits::report_too_much(ctx, at, "response", own, None) {
        return;
    }
    for backend in reached.iter().filter_map(|(id, _)| backends.get(id.0)) {
        let names = (&*frontend.name, &*backend.name);
        let requests = frontend.request_edits.iter().chain(&backend.request_edits);
        let requests = most_written_in_a_call(requests, names);
        let responses = backend.response_edits.iter().chain(&frontend.response_edits);
        let responses = most_written_in_a_call(responses, names);
        for (message, written) in [("request", requests), ("response", responses)] {
            if edits::report_too_much(ctx, backend.origin.span, message, written, Some(at)) {
                return;
            }
        }
    }
}

/// The same of the tenants that it serves, whose edits may write its name.
pub(super) fn report_too_many_bytes_of_tenants(ctx: &Context<'_>, frontend: &Frontend, tenants: &[Option<Tenant>]) {
    let served = frontend.tenants.iter();
    for tenant in served.filter_map(|id| tenants.get(id.0)?.as_ref()) {
        let rules = &tenant.rules;
        let Some(last) = &rules.last else { continue };
        let requests = |names| most_written_in_a_call(rules.request_edits.iter(), names);
        let responses = |names| most_written_in_a_call(rules.response_edits.iter(), names);
        // What is too much without the name has been reported.
        let known = requests(("", "")).fits() && responses(("", "")).fits();
        let named = (&*frontend.name, "");
        for (message, written) in [("request", requests(named)), ("response", responses(named))] {
            if known && edits::report_too_much(ctx, last.span, message, written, None) {
                break;
            }
        }
    }
}

/// The same condition where the acls begin at another position.
pub fn shifted(condition: &Condition, by: usize) -> Condition {
    let all = |parts: &[Condition]| parts.iter().map(|part| shifted(part, by)).collect();
    match condition {
        Condition::Acl(AclId(id)) => Condition::Acl(AclId(id + by)),
        Condition::Not(inner) => Condition::Not(Box::new(shifted(inner, by))),
        Condition::And(parts) => Condition::And(all(parts)),
        Condition::Or(parts) => Condition::Or(all(parts)),
    }
}

impl EditCondition {
    /// The same where the acls begin at another position.
    #[must_use]
    pub fn shifted(&self, by: usize) -> Self {
        Self {
            when: self.when.as_ref().map(|when| shifted(when, by)),
            statuses: self.statuses,
        }
    }
}

/// Which conditions of edits hold is told in the bits of one number, for frontend and backend together.
fn too_many_conditions(frontend: &Frontend, backend: &Backend, first: usize) -> Option<ConfigError> {
    let own = frontend.request_edits.iter().filter_map(Conditional::condition);
    let own = own.chain(frontend.response_edits.iter().filter_map(Conditional::condition));
    let theirs = backend.request_edits.iter().filter_map(Conditional::condition);
    let theirs = theirs.chain(backend.response_edits.iter().filter_map(Conditional::condition));
    let theirs = theirs.map(|condition| condition.shifted(first));
    let mut different: Vec<EditCondition> = Vec::new();
    for condition in own.chain(theirs) {
        if !different.contains(&condition) {
            different.push(condition);
        }
    }
    if different.len() <= MAX_CONDITIONS {
        return None;
    }
    let message =
        format!("the edits of a frontend and a backend have at most {MAX_CONDITIONS} different conditions together");
    let error = ConfigError::new(Code::Value, message);
    let error = error
        .label(
            backend.origin.span,
            format!("{} with those of the frontend", different.len()),
        )
        .label(frontend.origin.span, "which leads here");
    Some(error.help("let an acl ask for what several of them ask, or let a plugin make the edits"))
}
