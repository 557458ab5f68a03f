//! `use-plugin "jwt-auth" canary="5%" instead-of="old-auth"`: plugins that see what passes, in order.

use std::cell::RefCell;

use super::acls::Acls;
use super::condition::{self, When};
use super::frontend::report_too_many;
use super::plugin::{self, Owner};
use super::{Scope, elsewhere, plugin_limits};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{BudgetLimits, Condition, PluginId, SaidLimits, Share, UsedPlugin};
use crate::config::reader::{At, Node, Value, said_twice};

/// Whose uses are read, where they are a tenant's.
pub(super) struct OfTenant<'a> {
    owner: &'a Owner<'a>,
    acls: &'a Acls<'a>,
    /// What they depend on.
    conditions: RefCell<Vec<Condition>>,
}

impl<'a> OfTenant<'a> {
    /// Of a tenant with these acls.
    pub(super) fn new(owner: &'a Owner<'a>, acls: &'a Acls<'a>) -> Self {
        let conditions = RefCell::default();
        Self {
            owner,
            acls,
            conditions,
        }
    }

    /// What its uses depend on, by the numbers that they have.
    pub(super) fn into_conditions(self) -> Vec<Condition> {
        self.conditions.into_inner()
    }

    /// The number of a condition.
    fn number(&self, condition: Condition) -> Option<u8> {
        let mut known = self.conditions.borrow_mut();
        let position = known.iter().position(|known| *known == condition);
        let position = position.unwrap_or_else(|| {
            known.push(condition);
            known.len() - 1
        });
        u8::try_from(position).ok()
    }
}

/// Reads the uses of plugins in one place: a frontend, or a tenant.
pub(super) fn used_plugins(
    scope: &Scope<'_>,
    nodes: Vec<Node<'_>>,
    tenant: Option<&OfTenant<'_>>,
) -> Vec<Option<UsedPlugin>> {
    let mut used: Vec<Option<UsedPlugin>> = Vec::with_capacity(nodes.len());
    report_too_many(scope, &nodes, "use-plugin", MAX_PLUGINS);
    for node in nodes.into_iter().take(MAX_PLUGINS) {
        let plugin = used_plugin(scope, node, &mut used, tenant);
        used.push(plugin);
    }
    used
}

fn used_plugin(
    scope: &Scope<'_>,
    mut node: Node<'_>,
    before: &mut [Option<UsedPlugin>],
    tenant: Option<&OfTenant<'_>>,
) -> Option<UsedPlugin> {
    let owner = tenant.map(|tenant| tenant.owner);
    node.hints(|word| match word {
        "if" | "unless" => {
            Some("a frontend's plugin sees all that comes there; a `tenant` has its own used under conditions")
        }
        _ => None,
    });
    let value = node.argument("the plugin's name");
    let plugin = value.and_then(|value| Some(value.at(PluginId(plugin::refer(scope, &value, owner)?))));
    let canary = node.property("canary");
    let part = canary.map(|canary| canary.percentage());
    let instead_of = node.property("instead-of");
    let is_shadow = node.flag("shadow");
    let always = node.flag("always");
    if let (Some(span), Some(instead_of)) = (is_shadow, &instead_of) {
        let error = ConfigError::new(Code::Conflict, "a shadow stands in nobody's place");
        let error = error
            .label(instead_of.span(), "nothing is decided in this one's place")
            .label(span, "a shadow");
        node.fail(error.help("leave one of them out: what a shadow would change is logged beside what the others do"));
    } else if let (None, Some(instead_of)) = (canary, &instead_of) {
        let error = ConfigError::new(Code::Missing, "`instead-of=` needs `canary=`");
        let error = error.label(instead_of.span(), "for which part of the requests?");
        node.fail(error.help("write canary=\"5%\" beside it, or replace the plugin"));
    }
    let (limits, budget) = limits(scope, &mut node, plugin, Place::Frontend);
    let conditional = tenant.and_then(|_| node.hidden_property("if").or_else(|| node.hidden_property("unless")));
    let when = tenant.map_or(When::Always, |tenant| condition::when(&mut node, tenant.acls));
    if let (Some(when), Some(instead_of)) = (conditional, &instead_of) {
        let error = ConfigError::new(
            Code::Conflict,
            "a canary stands in for another plugin wherever that takes part",
        );
        let error = error
            .label(when.span(), "does not depend on this")
            .label(instead_of.span(), "in the place of this one");
        node.fail(error.help("leave the condition to the plugin that it stands in for"));
    }
    node.finish();
    let plugin = plugin?;
    let first = before.iter().flatten().find(|first| first.plugin.value == plugin.value);
    if let Some(first) = first {
        scope
            .ctx
            .report(said_twice("this plugin", first.plugin.span, plugin.span));
    }
    let share = match part {
        Some(part) => Share { from: 0, to: part? },
        None => Share::default(),
    };
    let mut when = match (when, tenant) {
        (When::If(Some(condition)), Some(tenant)) => tenant.number(condition),
        (When::If(None), _) => return None,
        _ => None,
    };
    if let (Some(instead_of), false) = (instead_of, share.is_whole()) {
        when = give_way(scope, &instead_of, before, (plugin, share), owner)?;
    }
    let is_shadow = is_shadow.is_some();
    Some(UsedPlugin {
        plugin,
        share,
        is_shadow,
        always,
        limits,
        budget,
        when,
    })
}

/// What a plugin is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It sees what passes.
    Frontend,
    /// It answers an acl.
    Acl,
}

/// `{ limit cpu="2ms" }` of one use of a plugin.
pub(super) fn limits(
    scope: &Scope<'_>,
    node: &mut Node<'_>,
    plugin: Option<At<PluginId>>,
    place: Place,
) -> (SaidLimits, BudgetLimits) {
    let limited = plugin.and_then(|plugin| scope.plugins.get(plugin.value.0));
    let limited = limited.map(|(known, _)| &known.limited);
    let limit = node.block().map(|mut block| {
        let limit = block
            .one("limit")
            .map(|node| plugin_limits::of_use(scope, node, limited, place));
        block.finish(elsewhere);
        limit.unwrap_or_default()
    });
    limit.unwrap_or_default()
}

/// Reports a canary that is not asked about what the other one is: what it leaves out nobody would decide.
pub(super) fn see_the_same(scope: &Scope<'_>, one: At<PluginId>, canary: At<PluginId>) -> Option<()> {
    let tenant = |id: PluginId| scope.plugins.get(id.0).and_then(|(known, _)| known.tenant);
    if tenant(one.value) == tenant(canary.value) {
        return Some(());
    }
    let error = ConfigError::new(Code::Conflict, "these two are not asked about the same requests");
    let error = error
        .label(canary.span, "would be asked in its place")
        .label(one.span, "decides for other hosts");
    scope.ctx.report(
        error.help("a tenant's plugin is asked about its hosts alone: take one of the same tenant's, or `shadow`"),
    );
    None
}

/// Leaves to a canary its share of what another plugin sees. Answers on which condition that is.
#[allow(clippy::option_option)]
fn give_way(
    scope: &Scope<'_>,
    instead_of: &Value<'_>,
    before: &mut [Option<UsedPlugin>],
    (canary, share): (At<PluginId>, Share),
    owner: Option<&Owner<'_>>,
) -> Option<Option<u8>> {
    let other = plugin::refer(scope, instead_of, owner)?;
    let Some(other) = before.iter_mut().flatten().find(|used| used.plugin.value.0 == other) else {
        return instead_of.fail(
            "a canary stands in the place of a plugin that is used before it",
            "not used before",
            "write `use-plugin` with this one first",
        );
    };
    let At { span, .. } = other.plugin;
    if scope.ctx.folder(instead_of.span()).is_some() && scope.ctx.folder(span).is_none() {
        let error = ConfigError::new(
            Code::Reference,
            "a tenant's file takes no requests from its operator's plugins",
        );
        let error = error
            .label(instead_of.span(), "in the place of this one")
            .label(span, "which the operator has it meet");
        scope
            .ctx
            .report(error.help("leave `canary=` and `instead-of=` out, or ask the operator to write them"));
        return None;
    }
    if !other.share.is_whole() || other.is_shadow {
        let error = ConfigError::new(Code::Conflict, "this plugin does not see all requests itself");
        let error = error
            .label(instead_of.span(), "has nothing to leave")
            .label(span, "used here");
        scope
            .ctx
            .report(error.help("a plugin has one canary, which has none itself"));
        return None;
    }
    see_the_same(scope, other.plugin, canary)?;
    other.share = Share {
        from: share.to,
        to: Share::WHOLE,
    };
    Some(other.when)
}

/// Each is a call, or several, in every request; and the conditions of a tenant's are the bits of a number.
pub(super) const MAX_PLUGINS: usize = 64;
