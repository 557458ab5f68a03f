//! `plugin "geo" "geo.wasm" { … }`: a component and what it may do.

mod failure;
mod granted;
mod isolation;
mod owner;
mod uses;

use std::path::PathBuf;

use miette::SourceSpan;

use super::plugin_limits::{self, Limited};
use super::{Scope, elsewhere, heavy, plain_name};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::json;
use crate::config::model::{
    BudgetLimits, BuiltIn, ComponentSource, ConfigFile, Origin, Places, Plugin, PluginLimits, QuarantineSettings,
    SaidLimits, StateLimits, TenantId,
};
use crate::config::reader::{At, Node, Value, said_twice};
pub(super) use failure::DEFAULT_FAILURE_STATUS;
use failure::{identity_headers, on_failure, quarantine};
use granted::call;
pub(super) use granted::{backends, grants, report_strange};
use isolation::{isolation, isolation_of};
pub(super) use owner::{Of, Owner};
pub(super) use uses::report_inert;

/// What others have to know of a plugin.
pub(super) struct Known {
    /// Whether it says what happens when it fails.
    on_failure: bool,
    /// What bounds every use of it.
    pub(super) limited: Limited,
    /// Whose it is, if somebody's.
    pub(super) tenant: Option<TenantId>,
}

/// Reads a plugin of the operator's, or of a tenant's, and makes it known.
pub(super) fn plugin(scope: &mut Scope<'_>, mut node: Node<'_>, owner: Option<&Owner<'_>>) -> Option<Plugin> {
    let origin = node.origin();
    let own = plain_name(&mut node, "the plugin's name");
    let full = own.map(|own| At {
        value: owner.map_or_else(|| own.value.to_owned(), |owner| owner.full(own.value)),
        span: own.span,
    });
    let name = full.as_ref().map(|full| At {
        value: full.value.as_str(),
        span: full.span,
    });
    let component = component(&mut node);
    let mut plugin = Plugin {
        tenant: owner.map(|owner| owner.id),
        ..bare(
            name.map_or("", |name| name.value),
            component.clone().unwrap_or(At {
                value: ComponentSource::File(PathBuf::new()),
                span: origin.span,
            }),
            origin,
            scope,
            owner,
        )
    };
    let (well, says_on_failure) = block(scope, &mut node, &mut plugin, owner);
    node.finish();
    if let Some(name) = name {
        let known = Known {
            on_failure: says_on_failure,
            limited: Limited::of(&plugin),
            tenant: plugin.tenant,
        };
        scope.plugins.add(scope.ctx, name, known);
    }
    (name.is_some() && component.is_some() && well).then_some(plugin)
}

/// A plugin of whose block nothing has been read.
pub(super) fn bare(
    name: &str,
    component: At<ComponentSource>,
    origin: Origin,
    scope: &Scope<'_>,
    owner: Option<&Owner<'_>>,
) -> Plugin {
    let built_in = built_in(&component.value);
    let folder = scope.ctx.folder(origin.span).cloned();
    let may_reach = owner.and_then(|owner| owner.backends(folder.is_some()));
    Plugin {
        name: name.into(),
        tenant: None,
        backends: may_reach.map(|(_, backends)| backends.to_vec()),
        folder,
        component,
        sha256: None,
        grants: built_in.map_or_else(Vec::new, |built_in| built_in.grants().to_vec()),
        limits: PluginLimits {
            cpu: plugin_limits::default_cpu(scope, owner, built_in),
            memory: plugin_limits::default_memory(scope, owner),
        },
        budget: BudgetLimits::default(),
        isolation: isolation_of(built_in),
        quarantine: QuarantineSettings::DEFAULT,
        heavy: None,
        max_body: None,
        said: SaidLimits::default(),
        route_to: unsaid(origin.span),
        calls: Vec::new(),
        state: StateLimits::DEFAULT,
        on_failure: None,
        identity_headers: unsaid(origin.span),
        config: "{}".to_owned(),
        config_files: Vec::new(),
        config_places: Places::of_scalar(origin.span),
        origin,
    }
}

/// A list of which nothing has been said.
const fn unsaid<T>(span: SourceSpan) -> At<Vec<T>> {
    At {
        value: Vec::new(),
        span,
    }
}

/// Reads what stands in its block. Answers whether that went well, and whether it says what happens when the plugin fails.
pub(super) fn block(
    scope: &Scope<'_>,
    node: &mut Node<'_>,
    plugin: &mut Plugin,
    owner: Option<&Owner<'_>>,
) -> (bool, bool) {
    let built_in = built_in(&plugin.component.value);
    let may_grant = owner.and_then(|owner| owner.grants(plugin.folder.is_some()));
    let may_reach = owner.and_then(|owner| owner.backends(plugin.folder.is_some()));
    let mut says_on_failure = false;
    let mut well = true;
    if let Some(mut block) = node.block() {
        if let Some(built_in) = built_in {
            for node in block.any(&["sha256", "grant"]) {
                inert_with_built_in(built_in, node);
            }
        }
        if let Some(mut node) = block.one("sha256") {
            plugin.sha256 = node
                .argument("a digest")
                .and_then(|value| Some(value.at(digest(&value)?)));
            node.finish();
        }
        if let Some(node) = block.one("grant") {
            plugin.grants = grants(node, may_grant);
        }
        if let Some(node) = block.one("limit") {
            plugin_limits::of_plugin(scope, node, owner, plugin);
        }
        if let Some(node) = block.one("route-to") {
            plugin.route_to = At {
                span: node.span(),
                value: backends(scope, node, may_reach),
            };
        }
        for node in block.many("call") {
            call(scope, node, may_reach, &mut plugin.calls);
        }
        if let Some(node) = block.one("isolation") {
            plugin.isolation = isolation(node, plugin.budget.instances).unwrap_or(plugin.isolation);
        }
        if let Some(node) = block.one("quarantine") {
            let is_strangers = scope.ctx.folder(node.span()).is_some();
            quarantine(node, &mut plugin.quarantine, is_strangers);
        }
        if let Some(node) = block.one("heavy") {
            let is_strangers = scope.ctx.folder(node.span()).is_some();
            plugin.heavy = Some(heavy::heavy(node, is_strangers));
        }
        if let Some(node) = block.one("on-failure") {
            says_on_failure = true;
            plugin.on_failure = on_failure(node);
        }
        if let Some(node) = block.one("identity-header") {
            plugin.identity_headers = At {
                span: node.span(),
                value: identity_headers(node),
            };
        }
        if let Some(mut node) = block.one("config") {
            let config = node.required_block();
            let has_block = config.is_some();
            node.finish_entries();
            let document = node.raw().children().filter(|_| has_block);
            match document.and_then(|document| json::object(scope.ctx, document, node.span())) {
                Some((json, places)) => {
                    plugin.config = json.to_string();
                    plugin.config_places = places;
                }
                None => well = false,
            }
        }
        for node in block.many("config-file") {
            well &= config_file(node, plugin).is_some();
        }
        block.finish(elsewhere);
    }
    (well, says_on_failure)
}

fn built_in(component: &ComponentSource) -> Option<BuiltIn> {
    match component {
        ComponentSource::BuiltIn(built_in) => Some(*built_in),
        ComponentSource::File(_) => None,
    }
}

/// The file that is named, or `builtin="cors"` in its place.
fn component(node: &mut Node<'_>) -> Option<At<ComponentSource>> {
    if let Some(value) = node.property("builtin") {
        let built_in = value.choice(BuiltIn::ALL)?;
        return Some(value.at(ComponentSource::BuiltIn(built_in)));
    }
    let value = node.argument("the component's file")?;
    Some(value.at(ComponentSource::File(value.file()?)))
}

/// There is no other file, and nothing to be granted.
fn inert_with_built_in(built_in: BuiltIn, mut node: Node<'_>) {
    let _ = node.raw();
    let message = format!(
        "`{}` does nothing for a component that is part of the gateway",
        node.name()
    );
    let label = format!("builtin={:?} is trusted as the gateway is", built_in.name());
    node.fail(
        ConfigError::new(Code::Inert, message)
            .label(node.span(), label)
            .help("leave it out"),
    );
}

/// `config-file "network" "blocked.txt"`; read when the component is made ready, as the component itself is.
fn config_file(mut node: Node<'_>, plugin: &mut Plugin) -> Option<()> {
    let key = node.argument("what it is called in `config`");
    let path = node.argument("a file");
    let (key, path) = match (key, path) {
        (Some(key), Some(path)) => (key.at(key.text()?.to_owned()), path.at(path.file()?)),
        _ => {
            node.finish();
            return None;
        }
    };
    let (place, is_said) = plugin
        .config_places
        .find(&format!("/{}", key.value.replace('~', "~0").replace('/', "~1")));
    let before = plugin.config_files.iter().find(|before| before.key.value == key.value);
    let first = before.map(|before| before.key.span).or(is_said.then_some(place));
    if let Some(first) = first {
        node.fail(said_twice(&format!("`{}`", key.value), first, key.span));
    }
    node.finish();
    let places = Places::of_file(key.span, path.span);
    plugin.config_places.insert(&key.value, places);
    plugin.config_files.push(ConfigFile { key, path });
    Some(())
}

/// The plugin that a value refers to, one of the owner's where there is one; its use decides access, so it has to say what happens
/// when it fails.
pub(super) fn refer(scope: &Scope<'_>, value: &Value<'_>, owner: Option<&Owner<'_>>) -> Option<usize> {
    let position = match owner {
        Some(owner) => scope
            .plugins
            .find(value.context(), &owner.full(value.text()?), value.span())?,
        None => scope.plugins.refer(value)?,
    };
    let (known, declared) = scope.plugins.get(position)?;
    if !known.on_failure {
        let error = ConfigError::new(Code::Missing, "this plugin does not say what happens when it fails");
        let error = error
            .label(declared, "`on-failure` is missing in its block")
            .label(value.span(), "it decides here");
        scope
            .ctx
            .report(error.help("write on-failure \"deny\" status=503, or on-failure \"skip\" to go on without it"));
        return None;
    }
    Some(position)
}

/// 64 hexadecimal digits.
fn digest(value: &Value<'_>) -> Option<[u8; 32]> {
    let text = value.text()?;
    let bytes = text.as_bytes();
    let help = "write the 64 digits that `sha256sum FILE` prints";
    if bytes.len() != 64 {
        let message = "a SHA-256 digest has 64 hexadecimal digits";
        return value.fail(message, format!("these are {} characters", text.chars().count()), help);
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return value.fail(
                "a SHA-256 digest has 64 hexadecimal digits",
                "not all of these are",
                help,
            );
        };
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(digest)
}
