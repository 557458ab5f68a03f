//! What operators grant plugins beside imports, made ready: backends to route to and to call.

use std::sync::Arc;

use crate::config::{self, BackendId, Config, DEFAULT_MAX_BODY, Mode};
use crate::policy::{CallGrant, Granted, Hooks, InFlight, PolicyError};
use crate::snapshot::Snapshot;

/// By plugin. What is counted of calls is of all uses of a plugin together, and goes on over a reload.
pub(super) fn of(config: &Config, previous: Option<&Snapshot>) -> Vec<Arc<Granted>> {
    let named = |id: BackendId| config.backends[id.0].name.clone();
    let in_flight = |plugin: &config::Plugin, call: &config::PluginCall| {
        let name = &config.backends[call.backend.0].name;
        let attached = previous.into_iter().flat_map(|previous| &previous.attachments);
        // An acl may bear the same name; it calls nobody.
        let granted = attached
            .filter(|before| before.label() == &*plugin.name)
            .find_map(|before| before.granted().call(name));
        match granted {
            Some(before) => InFlight::after(&before.in_flight, call.in_flight),
            None => InFlight::new(call.in_flight),
        }
    };
    let granted = |plugin| to(plugin, named, |call| in_flight(plugin, call));
    config.plugins.iter().map(|plugin| Arc::new(granted(plugin))).collect()
}

/// What one plugin was granted, where backends have these names and so many calls are under way.
pub(super) fn to(
    plugin: &config::Plugin,
    named: impl Fn(BackendId) -> Arc<str>,
    in_flight: impl Fn(&config::PluginCall) -> InFlight,
) -> Granted {
    Granted {
        routes: plugin.route_to.value.iter().map(|id| (named(*id), *id)).collect(),
        calls: plugin
            .calls
            .iter()
            .map(|call| CallGrant {
                name: named(call.backend),
                backend: call.backend,
                timeout: call.timeout,
                in_flight: in_flight(call),
                max_body: call.max_body,
            })
            .collect(),
        max_body: plugin.max_body.map_or(DEFAULT_MAX_BODY, |body| body.value),
    }
}

/// What a plugin was granted, and where its frontend leads without it: it may route there, too. A tenant's may route where its tenant's
/// rules lead, and of where the frontend leads to what its operator has given the tenant.
pub(super) fn with_routes(
    granted: &Granted,
    plugin: &config::Plugin,
    frontend: &config::Frontend,
    config: &Config,
) -> Granted {
    let mut granted = granted.clone();
    let may = |id: &BackendId| match &plugin.backends {
        Some(given) => given.contains(id),
        None => plugin.tenant.is_none(),
    };
    let routes = frontend.routes.iter().flat_map(|route| route.to.backends());
    let of_frontend = routes.chain(&frontend.default_backend).copied().filter(may);
    let tenant = plugin.tenant.map(|id| config.tenants[id.0].decides(frontend.mode));
    let of_tenant = tenant.into_iter().flat_map(|rules| rules.backends().map(|(id, _)| id));
    for id in of_frontend.chain(of_tenant) {
        let name = &config.backends[id.0].name;
        if granted.route(name).is_none() {
            granted.routes.push((name.clone(), id));
        }
    }
    granted
}

/// Whether a plugin has a use for what its block grants, and what it needs, and can have it of these backends.
pub(super) fn check(config: &Config, plugin: &config::Plugin, hooks: Hooks) -> Result<(), PolicyError> {
    check_use(plugin, hooks)?;
    check_routes(config, plugin, hooks)?;
    let backends = plugin.calls.iter().map(|call| &config.backends[call.backend.0]);
    let over_http2 = |backend: &&config::Backend| backend.servers.iter().any(|server| server.http2);
    match backends.into_iter().find(over_http2) {
        Some(backend) => Err(PolicyError::CallOverHttp2 {
            label: plugin.name.to_string(),
            backend: backend.name.to_string(),
        }),
        None => Ok(()),
    }
}

/// Whether a plugin that may route is used where one of its hooks does.
fn check_routes(config: &Config, plugin: &config::Plugin, hooks: Hooks) -> Result<(), PolicyError> {
    let is_used = |frontend: &&config::Frontend| {
        let mut used = frontend.plugins.iter();
        used.any(|used| config.plugins[used.plugin.value.0].name == plugin.name)
    };
    let mut modes = config.frontends.iter().filter(is_used).map(|frontend| frontend.mode);
    let leads = |mode| match mode {
        Mode::Http => hooks.request_filter,
        Mode::Tcp => hooks.connection_filter,
    };
    let Some(first) = modes.next().filter(|_| !plugin.route_to.value.is_empty()) else {
        return Ok(());
    };
    if leads(first) || modes.any(leads) {
        return Ok(());
    }
    Err(PolicyError::Inert {
        label: plugin.name.to_string(),
        node: "route-to",
        missing: match first {
            Mode::Http => "`request-filter`",
            Mode::Tcp => "`connection-filter`",
        },
    })
}

/// Whether a plugin has a use for what its block grants, and what it needs.
pub(super) fn check_use(plugin: &config::Plugin, hooks: Hooks) -> Result<(), PolicyError> {
    let label = || plugin.name.to_string();
    let inert = |node, missing| PolicyError::Inert {
        label: label(),
        node,
        missing,
    };
    if hooks.call_answered && plugin.calls.is_empty() {
        return Err(PolicyError::NoCallGranted { label: label() });
    }
    if !hooks.call_answered && !plugin.calls.is_empty() {
        return Err(inert("call", "`call-answered`"));
    }
    if !plugin.route_to.value.is_empty() && !hooks.request_filter && !hooks.connection_filter {
        return Err(inert("route-to", "`request-filter` or `connection-filter`"));
    }
    if !plugin.identity_headers.value.is_empty() && !hooks.request_filter {
        return Err(inert("identity-header", "`request-filter`"));
    }
    if plugin.max_body.is_some() && !hooks.request_body_filter && !hooks.response_body_filter {
        return Err(inert("limit body=", "`request-body-filter` or `response-body-filter`"));
    }
    Ok(())
}
