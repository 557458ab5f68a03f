//! `monitor "/healthz" { require "app" servers=1 }`, in frontends and in `stats`.

use super::{Scope, elsewhere};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Backend, BackendId, Monitor, Need};
use crate::config::reader::{Context, Node, Value, said_twice};

/// Reads the node. `taken` are paths at which something else is.
pub(super) fn monitor(scope: &Scope<'_>, mut node: Node<'_>, taken: &[&str]) -> Option<Monitor> {
    let path = node.argument("a path").and_then(|value| path(&value, taken));
    let mut needs: Vec<Need> = Vec::new();
    let mut well = true;
    if let Some(mut block) = node.block() {
        for mut node in block.many("require") {
            let backend = node.argument("the backend's name");
            let backend = backend.and_then(|value| Some(value.at(BackendId(scope.backends.mention(&value)?))));
            let servers = match node.property("servers") {
                Some(value) => value
                    .integer(1..=MOST_SERVERS)
                    .and_then(|number| usize::try_from(number).ok()),
                None => Some(1),
            };
            node.finish();
            let (Some(backend), Some(servers)) = (backend, servers) else {
                well = false;
                continue;
            };
            match needs.iter().find(|first| first.backend.value == backend.value) {
                Some(first) => {
                    scope
                        .ctx
                        .report(said_twice("this backend", first.backend.span, backend.span));
                    well = false;
                }
                None => needs.push(Need { backend, servers }),
            }
        }
        block.finish(elsewhere);
    }
    node.finish();
    let path = path?;
    well.then_some(Monitor { path, needs })
}

/// Reports backends of which more is required than they ever have.
pub(super) fn report_impossible(ctx: &Context<'_>, monitor: &Monitor, backends: &[Backend]) {
    for need in &monitor.needs {
        let has = backends[need.backend.value.0].servers.len();
        if need.servers > has {
            let error = ConfigError::new(Code::Conflict, format!("`monitor` requires {} servers", need.servers));
            let error = error.label(need.backend.span, format!("has {has} in all"));
            ctx.report(error.help("require fewer: it would always say that the gateway is not well"));
        }
    }
}

fn path(value: &Value<'_>, taken: &[&str]) -> Option<String> {
    let text = value.text()?;
    if taken.contains(&text) {
        return value.fail(
            format!("something else is served at {text}"),
            "taken",
            "write another path, as \"/healthz\"",
        );
    }
    let is_path = text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte));
    if !is_path {
        return value.fail(
            "a monitor has a path as it is written in a request, without a query",
            "no such path",
            "write it as \"/healthz\"",
        );
    }
    Some(text.to_owned())
}

/// More than any backend has.
const MOST_SERVERS: u64 = 100_000;
