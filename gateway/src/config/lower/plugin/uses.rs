//! What a plugin's block says for uses that it does not have.

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lower::Scope;
use crate::config::model::{Frontend, Mode, Plugin, PluginId};

/// Reports what the block of a plugin says that none of its uses asks for. Hooks are not known here: whether its component has those for it is
/// looked at where it is made ready.
pub(in crate::config::lower) fn report_inert(scope: &Scope<'_>, frontends: &[Frontend], plugins: &[Plugin]) {
    let is_unread = |node: &str, why: &str, label: &str, help: &str, span| {
        let error = ConfigError::new(Code::Inert, format!("`{node}` does nothing: {why}"));
        scope.ctx.report(error.label(span, label).help(help));
    };
    for (position, plugin) in plugins.iter().enumerate() {
        // What is used nowhere has been reported.
        if !scope.plugins.is_used(position) || may_be_used_otherwise(scope, frontends, plugin) {
            continue;
        }
        let uses: Vec<(Mode, bool)> = uses_of(PluginId(position), frontends).collect();
        if !plugin.route_to.value.is_empty() && uses.is_empty() {
            is_unread(
                "route-to",
                "only acls ask this plugin",
                "leads nothing anywhere",
                "have a frontend use the plugin, or leave it out",
                plugin.route_to.span,
            );
        }
        let is_obeyed = |(_, is_shadow): &&(Mode, bool)| !is_shadow;
        let why = match uses.iter().find(is_obeyed) {
            Some(_) if uses.contains(&(Mode::Http, false)) => continue,
            Some(_) => "this plugin sees connections, and no requests",
            None if uses.is_empty() => "only acls ask this plugin",
            None => "this plugin is a shadow wherever it is used",
        };
        if !plugin.identity_headers.value.is_empty() {
            is_unread(
                "identity-header",
                why,
                "it tells servers nothing",
                "have a frontend in HTTP mode use the plugin, or leave it out",
                plugin.identity_headers.span,
            );
        }
    }
}

/// How frontends use a plugin: in which mode, and whether as a shadow.
fn uses_of(id: PluginId, frontends: &[Frontend]) -> impl Iterator<Item = (Mode, bool)> {
    frontends.iter().flat_map(move |frontend| {
        let used = frontend.plugins.iter().filter(move |used| used.plugin.value == id);
        used.map(|used| (frontend.mode, used.is_shadow))
    })
}

/// Whether files of its tenant may use it, today or tomorrow, or no frontend names its tenant, which has been reported.
fn may_be_used_otherwise(scope: &Scope<'_>, frontends: &[Frontend], plugin: &Plugin) -> bool {
    let Some(tenant) = plugin.tenant else { return false };
    let has_files = scope.tenants.get(tenant.0).is_none_or(|(known, _)| known.has_files);
    let is_named = frontends.iter().any(|frontend| frontend.tenants.contains(&tenant));
    !is_named || (has_files && plugin.folder.is_none())
}
