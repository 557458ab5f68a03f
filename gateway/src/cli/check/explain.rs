//! `gateway check --explain`: the limits of each use of a plugin, and who has set them; and what tenants are given and decide.

mod tenants;

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{self, AclTest, Config, EffectiveLimits, Level, Loaded, Origin, Tenant, UsedPlugin};
use tenants::OfTenant;

/// What is shown.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    plugins: Vec<Use>,
    tenants: Vec<OfTenant>,
}

/// One use of a plugin, or of what the gateway itself brings for a tenant.
#[derive(Debug, Serialize)]
struct Use {
    frontend: String,
    plugin: String,
    /// Null for the operator's own.
    tenant: Option<String>,
    /// `use-plugin`, `acl` or `edits`.
    #[serde(rename = "as")]
    how: &'static str,
    /// As `canary="5%"`, or of what a canary leaves, `95%`; null for all.
    share: Option<String>,
    shadow: bool,
    /// Where that stands; of an acl the first that asks it in this way. Nowhere for what the gateway brings.
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

impl Explained {
    /// Of a configuration.
    pub(super) fn of(loaded: &Loaded) -> Self {
        Self {
            plugins: uses(loaded),
            tenants: tenants::all(loaded),
        }
    }

    /// For people: a paragraph for each use, and one for each tenant.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.plugins.iter().for_each(|used| used.write(&mut text));
        self.tenants.iter().for_each(|tenant| tenant.write(&mut text));
        text
    }
}

/// All uses of plugins, by frontend: those of acls, then those that see what passes, in their order, then what answers acls of tenants
/// and makes their edits.
fn uses(loaded: &Loaded) -> Vec<Use> {
    let Loaded { config, source, .. } = loaded;
    let mut uses = Vec::new();
    for frontend in &config.frontends {
        let mut known: Vec<&UsedPlugin> = Vec::new();
        let tenants = || frontend.tenants.iter().map(|id| &config.tenants[id.0]);
        let of_tenants = tenants().flat_map(|tenant| &tenant.decides(frontend.mode).acls);
        let asked = frontend.acls.iter().chain(of_tenants);
        let asked = asked
            .flat_map(|acl| acl.test.plugins())
            .map(|asked| (&asked.used, "acl"));
        let seeing = frontend.plugins.iter().map(|used| (used, "use-plugin"));
        for (used, how) in asked.chain(seeing) {
            if how == "acl" && known.iter().any(|known| known.is_as(used)) {
                continue;
            }
            known.push(used);
            let (file, line) = source.place(used.plugin.span);
            let at = Place {
                file: file.to_string(),
                line,
            };
            uses.push(Use::of(config, &frontend.name, used, how, at));
        }
        for tenant in tenants() {
            let is_match = |acl: &config::Acl| matches!(acl.test, AclTest::Match(_));
            let decided = tenant.decides(frontend.mode);
            let mut acls = decided.acls.iter().enumerate();
            if acls.any(|(i, acl)| decided.asks(i) && is_match(acl)) {
                uses.push(Use::of_own(config, &frontend.name, ("acl", "acl"), tenant));
            }
            if decided.edits_any() {
                uses.push(Use::of_own(config, &frontend.name, ("header-rewrite", "edits"), tenant));
            }
        }
    }
    uses
}

impl Use {
    fn of(config: &Config, frontend: &str, used: &UsedPlugin, how: &'static str, at: Place) -> Self {
        let id = used.plugin.value;
        let plugin = &config.plugins[id.0];
        let rows = EffectiveLimits::of(config, id, Some(used)).rows();
        Self {
            frontend: frontend.to_owned(),
            plugin: plugin.name.to_string(),
            tenant: plugin.tenant.map(|id| config.tenants[id.0].name.to_string()),
            how,
            share: (!used.share.is_whole()).then(|| used.share.to_string()),
            shadow: used.is_shadow,
            at: Some(at),
            limits: Row::all(rows, how),
        }
    }

    /// Of a component of the gateway's own that works for a tenant.
    fn of_own(config: &Config, frontend: &str, (name, how): (&str, &'static str), tenant: &Tenant) -> Self {
        Self {
            frontend: frontend.to_owned(),
            plugin: format!("{name} {frontend} of {}", tenant.name),
            tenant: Some(tenant.name.to_string()),
            how,
            share: None,
            shadow: false,
            at: None,
            limits: Row::all(config::of_own_components(config, tenant), how),
        }
    }

    fn write(&self, text: &mut String) {
        // Writing to a string does not fail.
        let _ = write!(text, "\nfrontend {:?}, {} {:?}", self.frontend, self.how, self.plugin);
        if let Some(share) = &self.share {
            let _ = write!(text, ", {share}");
        }
        if self.shadow {
            text.push_str(", shadow");
        }
        if let Some(at) = &self.at {
            let _ = write!(text, " ({at})");
        }
        text.push('\n');
        for Row { limit, value, set_by } in &self.limits {
            let _ = writeln!(text, "  {limit:<13} {value:<12} {set_by}");
        }
    }
}

impl Row {
    /// Limits as they are shown. What a use says itself is said where it stands.
    fn all(rows: Vec<(&'static str, String, Level)>, how: &'static str) -> Vec<Self> {
        let row = |(limit, value, by): (&'static str, String, Level)| Self {
            limit,
            value,
            set_by: if by == Level::Use { how } else { by.as_str() },
        };
        rows.into_iter().map(row).collect()
    }
}

impl Place {
    fn of(origin: &Origin) -> Self {
        Self {
            file: origin.file.to_string(),
            line: origin.line,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
