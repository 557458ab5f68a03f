//! What tenants are given, and what they decide of requests for their hosts.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Place, Row};
use crate::config::{
    self, AclTest, Action, AskedPlugin, Condition, Conditional, Config, Loaded, Mode, RouteTo, Tenant, TenantId,
};

/// A tenant.
#[derive(Debug, Serialize)]
pub(super) struct OfTenant {
    tenant: String,
    hosts: Vec<String>,
    /// Those that serve its hosts.
    frontends: Vec<String>,
    quotas: Vec<Row>,
    acls: Vec<Line>,
    /// What it decides, in the order in which that comes.
    rules: Vec<Line>,
}

/// A node of a tenant's.
#[derive(Debug, Serialize)]
struct Line {
    /// What it says, shortened.
    says: String,
    /// Under which condition; null for always.
    #[serde(rename = "if")]
    when: Option<String>,
    /// Where it stands, as far as that is known.
    #[serde(flatten)]
    at: Option<Place>,
}

/// All of them.
pub(super) fn all(loaded: &Loaded) -> Vec<OfTenant> {
    let of = |(position, tenant)| OfTenant::of(loaded, TenantId(position), tenant);
    loaded.config.tenants.iter().enumerate().map(of).collect()
}

impl OfTenant {
    fn of(loaded: &Loaded, id: TenantId, tenant: &Tenant) -> Self {
        let config = &loaded.config;
        let serving = || {
            config
                .frontends
                .iter()
                .filter(|frontend| frontend.tenants.contains(&id))
        };
        let acls = |mode| {
            tenant.decides(mode).acls.iter().map(move |acl| Line {
                says: format!("{}acl {:?}{}", inside(mode), acl.name, asked(config, &acl.test)),
                when: None,
                at: Some(Place::of(&acl.origin)),
            })
        };
        Self {
            tenant: tenant.name.to_string(),
            hosts: tenant.hosts.clone(),
            frontends: serving().map(|frontend| frontend.name.to_string()).collect(),
            quotas: Row::all(config::quotas(config, tenant), "tenant"),
            acls: acls(Mode::Http).chain(acls(Mode::Tcp)).collect(),
            rules: [Mode::Http, Mode::Tcp]
                .into_iter()
                .flat_map(|mode| rules(loaded, id, tenant, mode))
                .collect(),
        }
    }

    pub(super) fn write(&self, text: &mut String) {
        let frontends: Vec<_> = self.frontends.iter().map(|name| format!("{name:?}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "\ntenant {:?}, {}, in frontend {}",
            self.tenant,
            self.hosts.join(" "),
            frontends.join(" ")
        );
        for Row { limit, value, set_by } in &self.quotas {
            let _ = writeln!(text, "  {limit:<16} {value:<9} {set_by}");
        }
        for Line { says, when, at } in self.acls.iter().chain(&self.rules) {
            let _ = write!(text, "  {says}");
            if let Some(when) = when {
                let _ = write!(text, " if={when:?}");
            }
            if let Some(at) = at {
                let _ = write!(text, " ({at})");
            }
            text.push('\n');
        }
    }
}

/// The block in which that stands which a tenant says for frontends of a mode.
const fn inside(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "",
        Mode::Tcp => "connection ",
    }
}

/// What a tenant decides in frontends of a mode: rules, where requests and connections go, its plugins, and its edits.
fn rules(loaded: &Loaded, id: TenantId, tenant: &Tenant, mode: Mode) -> Vec<Line> {
    let Loaded { config, source, .. } = loaded;
    let of = tenant.decides(mode);
    let inside = inside(mode);
    let written = |when: &Condition| when.written(&of.acls);
    let ending = of.rules.iter().map(|rule| Line {
        says: match &rule.action {
            Action::Deny(_) if mode == Mode::Tcp => format!("{inside}deny"),
            Action::Deny(status) => format!("deny status={status}"),
            Action::Redirect(redirect) => format!("redirect code={}", redirect.code),
            Action::Return(answer) => format!("return status={}", answer.status),
        },
        when: rule.when.as_ref().map(written),
        at: Some(Place::of(&rule.origin)),
    });
    let routes = of.routes.iter().map(|route| Line {
        says: match &route.to {
            RouteTo::Backend(backend) => format!("{inside}use-backend {:?}", config.backends[backend.0].name),
            RouteTo::Named { .. } => format!("{inside}use-backend by a name with variables"),
        },
        when: route.when.as_ref().map(written),
        at: Some(Place::of(&route.origin)),
    });
    // They are the same in each frontend of the mode that serves its hosts.
    let mut of_mode = config.frontends.iter().filter(|frontend| frontend.mode == mode);
    let serving = of_mode.find(|frontend| frontend.tenants.contains(&id));
    let used = serving.into_iter().flat_map(|frontend| &frontend.plugins);
    let used = used.filter(|used| config.plugins[used.plugin.value.0].tenant == Some(id));
    let plugins = used.map(|used| {
        let (file, line) = source.place(used.plugin.span);
        let when = used.when.and_then(|position| of.uses.get(usize::from(position)));
        Line {
            says: format!("{inside}use-plugin {:?}", config.plugins[used.plugin.value.0].name),
            when: when.map(written),
            at: Some(Place {
                file: file.to_string(),
                line,
            }),
        }
    });
    let requests = of
        .request_edits
        .iter()
        .map(|edit| self::edit("request", edit, &written));
    let responses = of
        .response_edits
        .iter()
        .map(|edit| self::edit("response", edit, &written));
    ending
        .chain(routes)
        .chain(plugins)
        .chain(requests)
        .chain(responses)
        .collect()
}

/// An edit by its word and its header's name.
fn edit<E: Serialize>(of: &str, edit: &Conditional<E>, written: &impl Fn(&Condition) -> String) -> Line {
    // It is written to the component that makes it in the same way: its word is the key.
    let value = serde_json::to_value(&edit.edit).unwrap_or_default();
    let object = value.as_object().and_then(|object| object.iter().next());
    let (word, name) = match object {
        Some((word, says)) => (word.as_str(), says.get("name").and_then(serde_json::Value::as_str)),
        None => ("", None),
    };
    let mut text = format!("{of} {word}");
    if let Some(name) = name {
        let _ = write!(text, " {name:?}");
    }
    if let Some(statuses) = &edit.statuses {
        let _ = write!(text, " if-status={:?}", statuses.to_string());
    }
    text.push_str(if edit.is_always { " always" } else { "" });
    Line {
        says: text,
        when: edit.when.as_ref().map(written),
        at: None,
    }
}

/// The plugins that an acl asks, or the backend.
fn asked(config: &Config, test: &AclTest) -> String {
    let mut text = String::new();
    if let AclTest::Servers(up) = test {
        let _ = write!(text, " servers-up {:?}", config.backends[up.backend.value.0].name);
        if up.min > 0 {
            let _ = write!(text, " min={}", up.min);
        }
        if up.max < u32::MAX {
            let _ = write!(text, " max={}", up.max);
        }
    }
    for AskedPlugin { used, predicate } in test.plugins() {
        let _ = write!(text, " plugin {:?}", config.plugins[used.plugin.value.0].name);
        if let Some(predicate) = predicate {
            let _ = write!(text, " predicate={:?}", predicate.value);
        }
        if !used.share.is_whole() {
            let _ = write!(text, " {}", used.share);
        }
        text.push_str(if used.is_shadow { " shadow" } else { "" });
    }
    text
}
