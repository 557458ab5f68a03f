//! `acl "bad" { plugin "geo"; plugin "new-geo" canary="5%" }`: the plugin that an acl asks, and the one that is on trial beside it.

use miette::SourceSpan;

use super::acl::{self, Setting};
use super::plugin::{self, Owner};
use super::{Scope, used_plugins};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{AclTest, AskedPlugin, PluginId, Share, UsedPlugin};
use crate::config::reader::{Node, said_twice};

/// Reads the plugins of an acl: one or more.
pub(super) fn test(
    scope: &Scope<'_>,
    setting: Setting,
    nodes: Vec<Node<'_>>,
    owner: Option<&Owner<'_>>,
) -> Option<AclTest> {
    let mut deciding: Option<(SourceSpan, Option<AskedPlugin>)> = None;
    let mut on_trial: Option<(SourceSpan, Option<AskedPlugin>)> = None;
    let mut well = true;
    for node in nodes {
        let span = node.span();
        let (asked, is_on_trial) = asked(scope, setting, node, owner);
        let (place, message, help) = match is_on_trial {
            false => (
                &mut deciding,
                "an acl asks one plugin",
                "make it an acl of its own, and join the two in the condition: if=\"a and b\". One that is to be tried in the other's place has \
                 `canary=\"5%\"` or `shadow`",
            ),
            true => (
                &mut on_trial,
                "an acl tries one plugin at a time",
                "leave one of them out until the other has been tried",
            ),
        };
        match place {
            Some((first, _)) => {
                let error = ConfigError::new(Code::Conflict, message);
                let error = error.label(span, "one too many").label(*first, "the first");
                scope.ctx.report(error.help(help));
                well = false;
            }
            None => *place = Some((span, asked)),
        }
    }
    let Some((_, deciding)) = deciding else {
        let (span, _) = on_trial?;
        let error = ConfigError::new(Code::Missing, "there is no plugin that this one is tried beside");
        let error = error.label(span, "who decides otherwise?");
        scope.ctx.report(
            error.help("write the plugin that decides until then in the same acl, or leave `canary=` and `shadow` out"),
        );
        return None;
    };
    let mut deciding = deciding?;
    let on_trial = match on_trial {
        Some((_, on_trial)) => {
            let on_trial = on_trial?;
            try_beside(scope, &mut deciding, &on_trial)?;
            Some(Box::new(on_trial))
        }
        None => None,
    };
    well.then_some(AclTest::Plugin {
        asked: Box::new(deciding),
        on_trial,
    })
}

/// `plugin "geo" predicate="blocked" canary="5%" { limit cpu="2ms" }`, and whether it is on trial.
fn asked(
    scope: &Scope<'_>,
    setting: Setting,
    mut node: Node<'_>,
    owner: Option<&Owner<'_>>,
) -> (Option<AskedPlugin>, bool) {
    acl::http_only(&node, setting);
    node.hints(|word| match word {
        "instead-of" => Some("in an acl a canary stands in for the plugin that is written beside it"),
        _ => None,
    });
    let value = node.argument("the plugin's name");
    let plugin = value.and_then(|value| Some(value.at(PluginId(plugin::refer(scope, &value, owner)?))));
    let predicate = node
        .property("predicate")
        .map(|value| Some(value.at(value.text()?.to_owned())));
    let part = node.property("canary").map(|canary| canary.percentage());
    let is_shadow = node.flag("shadow").is_some();
    let (limits, budget) = used_plugins::limits(scope, &mut node, plugin, used_plugins::Place::Acl);
    node.finish();
    let is_on_trial = part.is_some() || is_shadow;
    let asked = || {
        let share = match part {
            Some(part) => Share { from: 0, to: part? },
            None => Share::default(),
        };
        Some(AskedPlugin {
            used: UsedPlugin {
                plugin: plugin?,
                share,
                is_shadow,
                always: None,
                limits,
                budget,
                when: None,
            },
            predicate: super::or_none(predicate)?,
        })
    };
    (asked(), is_on_trial)
}

/// Leaves to a canary its share of what the other one decides. Exactly one of the two has to decide about each request.
fn try_beside(scope: &Scope<'_>, deciding: &mut AskedPlugin, on_trial: &AskedPlugin) -> Option<()> {
    let (one, other) = (deciding.used.plugin, on_trial.used.plugin);
    let name = |asked: &AskedPlugin| asked.predicate.as_ref().map(|name| name.value.clone());
    if one.value == other.value && name(deciding) == name(on_trial) {
        scope.ctx.report(said_twice("this plugin", one.span, other.span));
        return None;
    }
    if on_trial.used.is_shadow {
        return Some(());
    }
    used_plugins::see_the_same(scope, one, other)?;
    deciding.used.share = Share {
        from: on_trial.used.share.to,
        to: Share::WHOLE,
    };
    Some(())
}
