//! `use-backend` and `default-backend`: where requests and connections go.

use miette::SourceSpan;

use super::Scope;
use super::acl::Setting;
use super::acls::Acls;
use super::condition::{self, Unconditional, When};
use super::template;
use super::variables::{InLine, Part, When as Phase, parts};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{BackendId, Mode, Route, RouteTo};
use crate::config::reader::{Context, Node, Value};

/// `use-backend "api" if="…"` and `use-backend "%{host|map:hosts}"`, in order.
pub(super) fn routes(scope: &Scope<'_>, setting: Setting, acls: &Acls<'_>, nodes: Vec<Node<'_>>) -> Vec<Option<Route>> {
    let mut routes = Vec::with_capacity(nodes.len());
    for mut node in nodes {
        let value = node.argument("the backend's name");
        let is_said = |value: &Value<'_>| value.raw().as_string().is_some_and(|text| !text.contains("%{"));
        let to = value.and_then(|value| match is_said(&value) {
            true => backend(scope, setting, &value).map(RouteTo::Backend),
            false => named(scope, setting, &value),
        });
        let when = match condition::when_with_block(&mut node, acls) {
            When::If(when) => when.map(Some),
            // Where the name leads nowhere, the next one is asked.
            When::Always if value.is_some_and(|value| !is_said(&value)) => Some(None),
            When::Always => {
                let error = ConfigError::new(Code::Missing, "`use-backend` needs `if=` or `unless=`");
                let error = error.label(node.span(), "without a condition");
                node.fail(
                    error.help("write when it applies: if=\"is-api\"; what goes on otherwise is `default-backend`"),
                );
                None
            }
        };
        let origin = node.origin();
        node.finish();
        let route = || {
            Some(Route {
                to: to?,
                when: when?,
                origin,
            })
        };
        routes.push(route());
    }
    routes
}

/// `default-backend "app"`
pub(super) fn default_backend(scope: &Scope<'_>, setting: Setting, mut node: Node<'_>) -> Option<BackendId> {
    let backend = node
        .argument("the backend's name")
        .and_then(|value| backend(scope, setting, &value));
    for key in ["if", "unless"] {
        if let Some(value) = node.hidden_property(key) {
            let error = ConfigError::new(Code::Unknown, "`default-backend` has no condition");
            let error = error.label(value.span(), "it is for what no `use-backend` took");
            node.fail(error.help("write `use-backend` for what has a condition"));
        }
    }
    node.finish();
    backend
}

/// Reports what is never asked where to go, as the `last` rule, which comes first wherever it stands, is a `deny` without a condition.
/// Beside one that answers everybody, routes are let be: a page that is put up for a while stands above them and harms nothing.
pub(super) fn report_unreached(
    ctx: &Context<'_>,
    routes: &[Option<Route>],
    default_backend: Option<SourceSpan>,
    (last, rule): (SourceSpan, &str),
) {
    if rule != "deny" {
        return;
    }
    let routes = routes.iter().flatten().map(|route| ("use-backend", route.origin.span));
    let default_backend = default_backend.map(|span| ("default-backend", span));
    for (name, span) in routes.chain(default_backend) {
        let never = (name, span, "is asked when no rule has held");
        let last = Unconditional {
            span: last,
            does: "it always holds",
        };
        let help = "rules go first, wherever they stand: give this one a condition, as unless=\"known\", or leave the other out";
        condition::report_never_reached(ctx, never, last, help);
    }
}

/// A name with variables: all backends of the frontend's mode that it could come out as are used by it.
fn named(scope: &Scope<'_>, setting: Setting, value: &Value<'_>) -> Option<RouteTo> {
    let parts = parts(value, value.text()?, Phase::Rule)?;
    let mut well = true;
    for part in &parts {
        let Part::Variable(variable) = part else { continue };
        let is_of_request = match variable.known.line {
            InLine::Field(field) => field.is_of_request(),
            InLine::Kept(_) => true,
        };
        if setting.mode == Mode::Tcp && is_of_request {
            let error = ConfigError::new(Code::Mode, "this variable needs HTTP mode");
            let mut error = error.label(variable.span, "only a request has this");
            if let Some(mode) = setting.mode_span {
                error = error.label(mode, "the mode is TCP because of this");
            }
            scope
                .ctx
                .report(error.help("a connection is known by its addresses and by what TLS says: %{sni|map:hosts}"));
            well = false;
        }
    }
    let name = template::of(value, &parts)?;
    let start = name
        .texts()
        .next()
        .filter(|_| name.start().is_some())
        .unwrap_or_default();
    let backends = scope
        .backends
        .all_used(|known, name| known.mode == setting.mode && name.starts_with(start));
    if backends.is_empty() && well {
        return value.fail(
            "no backend could have this name",
            "leads nowhere",
            "declare the backends whose names it comes out as",
        );
    }
    well.then(|| RouteTo::Named {
        name,
        backends: backends.into_iter().map(BackendId).collect(),
    })
}

/// The backend that a value names, which has to be of the frontend's mode.
pub(super) fn backend(scope: &Scope<'_>, setting: Setting, value: &Value<'_>) -> Option<BackendId> {
    let position = scope.backends.refer(value)?;
    let (known, declared) = scope.backends.get(position)?;
    if known.mode != setting.mode {
        let words = |mode| match mode {
            Mode::Tcp => "TCP",
            Mode::Http => "HTTP",
        };
        let message = format!(
            "a frontend in {} mode cannot use a backend in {} mode",
            words(setting.mode),
            words(known.mode)
        );
        let mut error = ConfigError::new(Code::Mode, message).label(value.span(), "used here");
        let by_default = "in HTTP mode, as nothing else is said";
        error = match setting.mode_span {
            Some(span) => error.label(span, format!("the frontend is in {} mode", words(setting.mode))),
            None => error,
        };
        error = match known.mode_span {
            Some(span) => error.label(span, format!("the backend is in {} mode", words(known.mode))),
            None => error.label(declared, by_default),
        };
        scope.ctx.report(error.help("give both the same `mode`"));
        return None;
    }
    Some(BackendId(position))
}
