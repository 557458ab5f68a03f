//! `plugin "geo" "geo.wasm" { … }`: a third-party component and what it may do.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use miette::SourceSpan;

use super::{Scope, elsewhere, section_name};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::json;
use crate::config::model::{Grant, OnFailure, Places, Plugin, PluginLimits};
use crate::config::reader::{At, Node, Value, said_twice};
use crate::config::units;

/// What others have to know of a plugin.
pub(super) struct Known {
    /// Whether it says what happens when it fails.
    on_failure: bool,
}

/// Reads a plugin and makes it known.
pub(super) fn plugin(scope: &mut Scope<'_>, mut node: Node<'_>) -> Option<Plugin> {
    let origin = node.origin();
    let name = section_name(&mut node, "the plugin's name");
    let path = node
        .argument("the component's file")
        .and_then(|value| Some(value.at(value.context().path(value.text()?))));
    let mut plugin = Plugin {
        name: name.map_or("", |name| name.value).into(),
        path: path.clone().unwrap_or(At {
            value: PathBuf::new(),
            span: origin.span,
        }),
        sha256: None,
        grants: Vec::new(),
        limits: PluginLimits {
            cpu: DEFAULT_PLUGIN_CPU,
            memory: DEFAULT_MEMORY.min(scope.process.policy.memory),
        },
        on_failure: None,
        config: "{}".to_owned(),
        config_places: Places::of_scalar(origin.span),
        origin,
    };
    let mut says_on_failure = false;
    let mut well = true;
    if let Some(mut block) = node.block() {
        if let Some(mut node) = block.one("sha256") {
            plugin.sha256 = node
                .argument("a digest")
                .and_then(|value| Some(value.at(digest(&value)?)));
            node.finish();
        }
        if let Some(node) = block.one("grant") {
            plugin.grants = grants(node);
        }
        if let Some(node) = block.one("limit") {
            limits(scope, node, &mut plugin.limits);
        }
        if let Some(node) = block.one("on-failure") {
            says_on_failure = true;
            plugin.on_failure = on_failure(node);
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
        block.finish(elsewhere);
    }
    node.finish();
    if let Some(name) = name {
        let known = Known {
            on_failure: says_on_failure,
        };
        scope.plugins.add(scope.ctx, name, known);
    }
    (name.is_some() && path.is_some() && well).then_some(plugin)
}

/// The plugin that a value refers to; its use decides access, so it has to say what happens when it fails.
pub(super) fn refer(scope: &Scope<'_>, value: &Value<'_>) -> Option<usize> {
    let position = scope.plugins.refer(value)?;
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

fn grants(mut node: Node<'_>) -> Vec<Grant> {
    let mut grants: Vec<At<Grant>> = Vec::new();
    for value in node.some_arguments("an import to grant") {
        let Some(grant) = value.choice(GRANTS) else { continue };
        match grants.iter().find(|first| first.value == grant) {
            Some(first) => node.fail(said_twice("this grant", first.span, value.span())),
            None => grants.push(value.at(grant)),
        }
    }
    node.finish();
    grants.into_iter().map(|grant| grant.value).collect()
}

fn limits(scope: &Scope<'_>, mut node: Node<'_>, limits: &mut PluginLimits) {
    node.require_entries();
    if let Some(cpu) = node.property("cpu").and_then(|value| value.duration(CPU)) {
        limits.cpu = cpu;
    }
    if let Some(value) = node.property("memory")
        && let Some(memory) = value.size(MEMORY)
    {
        let pool = scope.process.policy.memory;
        if memory > pool {
            let message = format!(
                "an instance has at most {} of memory in this process",
                units::show_size(pool)
            );
            let help = format!(
                "ask for less here, or for more with `policy memory=` in `process`: {}",
                units::show_size(memory)
            );
            value.fail::<()>(message, "more than that", help);
        }
        limits.memory = memory;
    }
    node.finish();
}

fn on_failure(mut node: Node<'_>) -> Option<OnFailure> {
    #[derive(Clone, Copy)]
    enum Kind {
        Deny,
        Skip,
    }
    let kind = node.argument("what to do");
    let kind = kind.and_then(|value| value.choice(&[("deny", Kind::Deny), ("skip", Kind::Skip)]));
    let status = node.property("status");
    let result = match (kind, status) {
        (Some(Kind::Deny), Some(status)) => {
            let status = status.integer(400..=599).and_then(|status| u16::try_from(status).ok());
            status.map(OnFailure::Deny)
        }
        (Some(Kind::Deny), None) => Some(OnFailure::Deny(DEFAULT_FAILURE_STATUS)),
        (Some(Kind::Skip), Some(status)) => {
            inert_status(&node, status.span());
            None
        }
        (Some(Kind::Skip), None) => Some(OnFailure::Skip),
        (None, _) => None,
    };
    node.finish();
    result
}

fn inert_status(node: &Node<'_>, span: SourceSpan) {
    let error = ConfigError::new(Code::Inert, "`status` does nothing with \"skip\"");
    node.fail(
        error
            .label(span, "never sent")
            .help("leave it out, or write on-failure \"deny\""),
    );
}

const GRANTS: &[(&str, Grant)] = &[
    ("buckets", Grant::Buckets),
    ("log", Grant::Log),
    ("clock", Grant::Clock),
];

/// A call takes microseconds; this is for the one that meets a page fault or a busy machine.
pub const DEFAULT_PLUGIN_CPU: Duration = Duration::from_millis(10);
/// What a plugin that parses and matches needs many times over; less when the process's pool has less.
const DEFAULT_MEMORY: u64 = 16 << 20;
/// The service is what is missing, not the client's right to it.
const DEFAULT_FAILURE_STATUS: u16 = 503;

/// The deadline is checked every millisecond; a worker that waits longer than ten seconds serves nobody.
const CPU: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
const MEMORY: RangeInclusive<u64> = 64 << 10..=4 << 30;
