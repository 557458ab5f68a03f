//! `gateway check --explain`: the limits of each use of a plugin, and who has set them.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{Config, EffectiveLimits, Level, Loaded, UsedPlugin};

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
        let mut known: Vec<&UsedPlugin> = Vec::new();
        let of_tenants = frontend.tenants.iter().flat_map(|id| &config.tenants[id.0].rules.acls);
        for asked in frontend
            .acls
            .iter()
            .chain(of_tenants)
            .flat_map(|acl| acl.test.plugins())
        {
            if !known.iter().any(|known| known.is_as(&asked.used)) {
                known.push(&asked.used);
                uses.push(of(config, &frontend.name, &asked.used, None));
            }
        }
        for used in &frontend.plugins {
            let (file, line) = source.place(used.plugin.span);
            let at = Place {
                file: file.to_string(),
                line,
            };
            uses.push(of(config, &frontend.name, used, Some(at)));
        }
    }
    uses
}

fn of(config: &Config, frontend: &str, used: &UsedPlugin, at: Option<Place>) -> Use {
    let id = used.plugin.value;
    let plugin = &config.plugins[id.0];
    let rows = EffectiveLimits::of(config, id, Some(used)).rows();
    let how = if at.is_some() { "use-plugin" } else { "acl" };
    Use {
        frontend: frontend.to_owned(),
        plugin: plugin.name.to_string(),
        tenant: plugin.tenant.map(|id| config.tenants[id.0].name.to_string()),
        how,
        at,
        limits: rows
            .into_iter()
            .map(|(limit, value, by)| Row {
                limit,
                value,
                set_by: if by == Level::Use { how } else { by.as_str() },
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
