//! A plugin without a frontend around it, as the tools have it: its block is read as one of a configuration.

use std::cell::Cell;
use std::sync::Arc;

use super::backend::Known;
use super::defaults::Defaults;
use super::names::Names;
use super::{Scope, plugin as lower, tenant};
use crate::config::model::{At, ComponentSource, Mode, OnFailure, Plugin, Process};
use crate::config::reader::{Context, Node, Value};

/// The plugin, and what it can refer to.
pub struct Alone {
    /// The plugin.
    pub plugin: Plugin,
    /// Names of backends, by position.
    pub backends: Vec<Arc<str>>,
}

/// Reads a plugin's block, where there is one. Its name and its component are known; `backends` are the names that it may grant.
pub fn plugin(
    ctx: &Context<'_>,
    name: &str,
    component: At<ComponentSource>,
    node: Option<Node<'_>>,
    backends: &[Value<'_>],
) -> Option<Alone> {
    let mut process = Process::default();
    // A test has nobody to share with: what a process allows is looked at where there is one, by `gateway check`.
    process.policy.memory = MOST_MEMORY;
    let mut scope = Scope {
        ctx,
        process,
        defaults: Defaults::read(ctx, Vec::new()),
        backends: Names::new("backend"),
        plugins: Names::new("plugin"),
        tenants: Names::new("tenant"),
        owned: tenant::Owned::default(),
        rate_limits: Names::new("rate limit"),
        acls: Names::new("acl").into(),
        frontends: Names::new("frontend"),
        binds: Default::default(),
    };
    let mut names = Vec::new();
    for value in backends {
        let Some(name) = value.name() else { continue };
        let known = Known {
            mode: Mode::Http,
            mode_span: None,
            request_id: Cell::new(None),
            server: None,
            keep_alive: None,
        };
        scope.backends.add(ctx, value.at(name), known);
        names.push(name.into());
    }
    let origin = ctx.origin(component.span);
    let mut plugin = lower::bare(name, component, origin, &scope, None);
    plugin.on_failure = Some(OnFailure::Deny(lower::DEFAULT_FAILURE_STATUS));
    let mut well = true;
    if let Some(mut node) = node {
        (well, _) = lower::block(&scope, &mut node, &mut plugin, None);
        node.finish();
    }
    scope
        .backends
        .report_unused(ctx, "neither `route-to` nor `call` of the plugin names it");
    well.then_some(Alone {
        plugin,
        backends: names,
    })
}

/// Bytes of memory that an instance may have: what a tool may take of a developer's machine.
pub const MOST_MEMORY: u64 = 1 << 30;
