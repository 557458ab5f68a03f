//! `gateway check --explain`: the limits of each use of a plugin, and who has set them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{AclTest, Config, EffectiveLimits, Loaded, PluginId, UsedPlugin};

/// One use of a plugin.
#[derive(Debug, Serialize)]
pub(super) struct Use {
    frontend: String,
    plugin: String,
    /// Null for the operator's own.
    tenant: Option<String>,
    /// `use-plugin` or `acl`.
    #[serde(rename = "as")]
    how: &'static str,
    /// Where that stands; nowhere for an acl, which may be one of several.
    #[serde(flatten)]
    at: Option<Place>,
    limits: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Place {
    file: String,
    line: usize,
}

#[derive(Debug, Serialize)]
struct Row {
    limit: &'static str,
    value: String,
    set_by: &'static str,
}

/// All uses of plugins, by frontend: those of acls, then those that see what passes, in their order.
pub(super) fn uses(loaded: &Loaded) -> Vec<Use> {
    let Loaded { config, source, .. } = loaded;
    let mut uses = Vec::new();
    for frontend in &config.frontends {
        let mut asked: Vec<PluginId> = Vec::new();
        let of_tenants = frontend.tenants.iter().flat_map(|id| &config.tenants[id.0].rules.acls);
        for acl in frontend.acls.iter().chain(of_tenants) {
            if let AclTest::Plugin { plugin, .. } = &acl.test
                && !asked.contains(plugin)
            {
                asked.push(*plugin);
                uses.push(of(config, &frontend.name, *plugin, None, None));
            }
        }
        for used in &frontend.plugins {
            let (file, line) = source.place(used.plugin.span);
            let at = Place {
                file: file.to_string(),
                line,
            };
            uses.push(of(config, &frontend.name, used.plugin.value, Some(used), Some(at)));
        }
    }
    uses
}

fn of(config: &Config, frontend: &str, id: PluginId, used: Option<&UsedPlugin>, at: Option<Place>) -> Use {
    let plugin = &config.plugins[id.0];
    let rows = EffectiveLimits::of(config, id, used).rows();
    Use {
        frontend: frontend.to_owned(),
        plugin: plugin.name.to_string(),
        tenant: plugin.tenant.map(|id| config.tenants[id.0].name.to_string()),
        how: if used.is_some() { "use-plugin" } else { "acl" },
        at,
        limits: rows
            .into_iter()
            .map(|(limit, value, by)| Row {
                limit,
                value,
                set_by: by.as_str(),
            })
            .collect(),
    }
}

/// For people: a paragraph for each use.
pub(super) fn text(uses: &[Use]) -> String {
    let mut text = String::new();
    for used in uses {
        // Writing to a string does not fail.
        let _ = write!(text, "\nfrontend {:?}, {} {:?}", used.frontend, used.how, used.plugin);
        if let Some(Place { file, line }) = &used.at {
            let _ = write!(text, " ({file}:{line})");
        }
        text.push('\n');
        for Row { limit, value, set_by } in &used.limits {
            let _ = writeln!(text, "  {limit:<13} {value:<12} {set_by}");
        }
    }
    text
}
