//! `plugin "geo" "geo.wasm" { … }`: a component and what it may do.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use miette::SourceSpan;

use super::plugin_limits::{self, BODY, Limited};
use super::{Scope, elsewhere, heavy, plain_name};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::json;
use crate::config::model::{
    BackendId, BudgetLimits, BuiltIn, ComponentSource, ConfigFile, DEFAULT_MAX_BODY, Grant, Isolation, KeptQuota, Mode,
    OnFailure, Origin, Places, Plugin, PluginCall, PluginLimits, QuarantineSettings, SaidLimits, StateLimits, TenantId,
};
use crate::config::reader::{At, Node, Value, said_twice};
use crate::config::units;

/// Whose plugins are read.
pub(super) struct Owner<'a> {
    pub(super) name: &'a str,
    pub(super) id: TenantId,
    /// `limit cpu="5ms"` of the tenant's.
    pub(super) limits: SaidLimits,
    /// `quota kv="16MiB"` of the tenant's.
    pub(super) kept: KeptQuota,
    /// `quota host-memory="64MiB"` of the tenant's.
    pub(super) host_memory: Option<At<u64>>,
    /// `grant "log"` of the tenant's: what its plugins may be granted.
    pub(super) grants: Option<Vec<Grant>>,
    /// `backends "acme"` of the tenant's: where its plugins may lead, and what they may call.
    pub(super) backends: Option<Vec<BackendId>>,
}

/// What there is of something for the plugins of the tenant of this name.
pub(super) type Of<'a, T> = Option<(&'a str, &'a [T])>;

impl Owner<'_> {
    /// What a plugin may be granted; none for anything. The tenant's own files have what the operator gives, and nothing else.
    fn grants(&self, is_included: bool) -> Of<'_, Grant> {
        let grants = self.grants.as_deref().or(is_included.then_some::<&[Grant]>(&[]))?;
        Some((self.name, grants))
    }

    /// Where it may lead, likewise.
    pub(super) fn backends(&self, is_included: bool) -> Of<'_, BackendId> {
        let backends = self
            .backends
            .as_deref()
            .or(is_included.then_some::<&[BackendId]>(&[]))?;
        Some((self.name, backends))
    }

    /// What a plugin of a tenant's is called by everybody else.
    pub(super) fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

/// What others have to know of a plugin.
pub(super) struct Known {
    /// Whether it says what happens when it fails.
    on_failure: bool,
    /// What bounds every use of it.
    pub(super) limited: Limited,
    /// Whose it is, if somebody's.
    pub(super) tenant: Option<TenantId>,
}

/// Reads a plugin of the operator's, or of a tenant's, and makes it known.
pub(super) fn plugin(scope: &mut Scope<'_>, mut node: Node<'_>, owner: Option<&Owner<'_>>) -> Option<Plugin> {
    let origin = node.origin();
    let own = plain_name(&mut node, "the plugin's name");
    let full = own.map(|own| At {
        value: owner.map_or_else(|| own.value.to_owned(), |owner| owner.full(own.value)),
        span: own.span,
    });
    let name = full.as_ref().map(|full| At {
        value: full.value.as_str(),
        span: full.span,
    });
    let component = component(&mut node);
    let mut plugin = Plugin {
        tenant: owner.map(|owner| owner.id),
        ..bare(
            name.map_or("", |name| name.value),
            component.clone().unwrap_or(At {
                value: ComponentSource::File(PathBuf::new()),
                span: origin.span,
            }),
            origin,
            scope,
            owner,
        )
    };
    let (well, says_on_failure) = block(scope, &mut node, &mut plugin, owner);
    node.finish();
    if let Some(name) = name {
        let known = Known {
            on_failure: says_on_failure,
            limited: Limited::of(&plugin),
            tenant: plugin.tenant,
        };
        scope.plugins.add(scope.ctx, name, known);
    }
    (name.is_some() && component.is_some() && well).then_some(plugin)
}

/// A plugin of whose block nothing has been read.
pub(super) fn bare(
    name: &str,
    component: At<ComponentSource>,
    origin: Origin,
    scope: &Scope<'_>,
    owner: Option<&Owner<'_>>,
) -> Plugin {
    let built_in = built_in(&component.value);
    let folder = scope.ctx.folder(origin.span).cloned();
    let may_reach = owner.and_then(|owner| owner.backends(folder.is_some()));
    Plugin {
        name: name.into(),
        tenant: None,
        backends: may_reach.map(|(_, backends)| backends.to_vec()),
        folder,
        component,
        sha256: None,
        grants: built_in.map_or_else(Vec::new, |built_in| built_in.grants().to_vec()),
        limits: PluginLimits {
            cpu: plugin_limits::default_cpu(scope, owner, built_in),
            memory: plugin_limits::default_memory(scope, owner),
        },
        budget: BudgetLimits::default(),
        isolation: isolation_of(built_in),
        quarantine: QuarantineSettings::DEFAULT,
        heavy: None,
        max_body: None,
        said: SaidLimits::default(),
        route_to: Vec::new(),
        calls: Vec::new(),
        state: StateLimits::DEFAULT,
        on_failure: None,
        config: "{}".to_owned(),
        config_files: Vec::new(),
        config_places: Places::of_scalar(origin.span),
        origin,
    }
}

/// Reads what stands in its block. Answers whether that went well, and whether it says what happens when the plugin fails.
pub(super) fn block(
    scope: &Scope<'_>,
    node: &mut Node<'_>,
    plugin: &mut Plugin,
    owner: Option<&Owner<'_>>,
) -> (bool, bool) {
    let built_in = built_in(&plugin.component.value);
    let may_grant = owner.and_then(|owner| owner.grants(plugin.folder.is_some()));
    let may_reach = owner.and_then(|owner| owner.backends(plugin.folder.is_some()));
    let mut says_on_failure = false;
    let mut well = true;
    if let Some(mut block) = node.block() {
        if let Some(built_in) = built_in {
            for node in block.any(&["sha256", "grant"]) {
                inert_with_built_in(built_in, node);
            }
        }
        if let Some(mut node) = block.one("sha256") {
            plugin.sha256 = node
                .argument("a digest")
                .and_then(|value| Some(value.at(digest(&value)?)));
            node.finish();
        }
        if let Some(node) = block.one("grant") {
            plugin.grants = grants(node, may_grant);
        }
        if let Some(node) = block.one("limit") {
            plugin_limits::of_plugin(scope, node, owner, plugin);
        }
        if let Some(node) = block.one("route-to") {
            plugin.route_to = backends(scope, node, may_reach);
        }
        for node in block.many("call") {
            call(scope, node, may_reach, &mut plugin.calls);
        }
        if let Some(node) = block.one("isolation") {
            plugin.isolation = isolation(node, plugin.budget.instances).unwrap_or(plugin.isolation);
        }
        if let Some(node) = block.one("quarantine") {
            let is_strangers = scope.ctx.folder(node.span()).is_some();
            quarantine(node, &mut plugin.quarantine, is_strangers);
        }
        if let Some(node) = block.one("heavy") {
            let is_strangers = scope.ctx.folder(node.span()).is_some();
            plugin.heavy = Some(heavy::heavy(node, is_strangers));
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
        for node in block.many("config-file") {
            well &= config_file(node, plugin).is_some();
        }
        block.finish(elsewhere);
    }
    (well, says_on_failure)
}

fn built_in(component: &ComponentSource) -> Option<BuiltIn> {
    match component {
        ComponentSource::BuiltIn(built_in) => Some(*built_in),
        ComponentSource::File(_) => None,
    }
}

/// The file that is named, or `builtin="cors"` in its place.
fn component(node: &mut Node<'_>) -> Option<At<ComponentSource>> {
    if let Some(value) = node.property("builtin") {
        let built_in = value.choice(BuiltIn::ALL)?;
        return Some(value.at(ComponentSource::BuiltIn(built_in)));
    }
    let value = node.argument("the component's file")?;
    Some(value.at(ComponentSource::File(value.file()?)))
}

/// What is part of the gateway remembers no more of a request than the gateway does: its instances serve as long as they work.
fn isolation_of(built_in: Option<BuiltIn>) -> Isolation {
    match built_in {
        Some(_) => Isolation::FOREVER,
        None => DEFAULT_ISOLATION,
    }
}

/// There is no other file, and nothing to be granted.
fn inert_with_built_in(built_in: BuiltIn, mut node: Node<'_>) {
    let _ = node.raw();
    let message = format!(
        "`{}` does nothing for a component that is part of the gateway",
        node.name()
    );
    let label = format!("builtin={:?} is trusted as the gateway is", built_in.name());
    node.fail(
        ConfigError::new(Code::Inert, message)
            .label(node.span(), label)
            .help("leave it out"),
    );
}

/// `config-file "network" "blocked.txt"`; read when the component is made ready, as the component itself is.
fn config_file(mut node: Node<'_>, plugin: &mut Plugin) -> Option<()> {
    let key = node.argument("what it is called in `config`");
    let path = node.argument("a file");
    let (key, path) = match (key, path) {
        (Some(key), Some(path)) => (key.at(key.text()?.to_owned()), path.at(path.file()?)),
        _ => {
            node.finish();
            return None;
        }
    };
    let (place, is_said) = plugin
        .config_places
        .find(&format!("/{}", key.value.replace('~', "~0").replace('/', "~1")));
    let before = plugin.config_files.iter().find(|before| before.key.value == key.value);
    let first = before.map(|before| before.key.span).or(is_said.then_some(place));
    if let Some(first) = first {
        node.fail(said_twice(&format!("`{}`", key.value), first, key.span));
    }
    node.finish();
    let places = Places::of_file(key.span, path.span);
    plugin.config_places.insert(&key.value, places);
    plugin.config_files.push(ConfigFile { key, path });
    Some(())
}

/// The plugin that a value refers to, one of the owner's where there is one; its use decides access, so it has to say what happens
/// when it fails.
pub(super) fn refer(scope: &Scope<'_>, value: &Value<'_>, owner: Option<&Owner<'_>>) -> Option<usize> {
    let position = match owner {
        Some(owner) => scope
            .plugins
            .find(value.context(), &owner.full(value.text()?), value.span())?,
        None => scope.plugins.refer(value)?,
    };
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

/// `grant "log" "kv"`, of a plugin or of a tenant for all of its own.
pub(super) fn grants(mut node: Node<'_>, may: Of<'_, Grant>) -> Vec<Grant> {
    let mut grants: Vec<At<Grant>> = Vec::new();
    for value in node.some_arguments("an import to grant") {
        let Some(grant) = value.choice(GRANTS) else { continue };
        if let Some((tenant, _)) = may.filter(|(_, may)| !may.contains(&grant)) {
            let word = value.text().unwrap_or_default();
            value.fail::<()>(
                format!("tenant {tenant:?} may not grant `{word}`"),
                "not for its plugins",
                format!("leave it out, or let the operator write grant {word:?} in the `tenant` block"),
            );
        }
        match grants.iter().find(|first| first.value == grant) {
            Some(first) => node.fail(said_twice("this grant", first.span, value.span())),
            None => grants.push(value.at(grant)),
        }
    }
    node.finish();
    grants.into_iter().map(|grant| grant.value).collect()
}

/// `route-to "api" "static"`, and `backends` of a tenant. Whether a frontend of the right mode uses the plugin is looked at where it does.
pub(super) fn backends(scope: &Scope<'_>, mut node: Node<'_>, may: Of<'_, BackendId>) -> Vec<BackendId> {
    let mut backends: Vec<At<BackendId>> = Vec::new();
    for value in node.some_arguments("a backend's name") {
        let Some(backend) = scope.backends.refer(&value).map(BackendId) else {
            continue;
        };
        report_strange(&value, backend, may);
        match backends.iter().find(|first| first.value == backend) {
            Some(first) => node.fail(said_twice("this backend", first.span, value.span())),
            None => backends.push(value.at(backend)),
        }
    }
    node.finish();
    backends.into_iter().map(|backend| backend.value).collect()
}

/// Reports a backend that is not one of a tenant's.
pub(super) fn report_strange(value: &Value<'_>, backend: BackendId, may: Of<'_, BackendId>) {
    if let Some((tenant, _)) = may.filter(|(_, may)| !may.contains(&backend)) {
        let name = value.text().unwrap_or_default();
        value.fail::<()>(
            format!("tenant {tenant:?} has no backend {name:?}"),
            "not one of its own",
            format!("name one of its own, or let the operator write backends {name:?} in the `tenant` block"),
        );
    }
}

/// `call "auth" timeout="1s" in-flight=64 max-body="64KiB"`.
fn call(scope: &Scope<'_>, mut node: Node<'_>, may: Of<'_, BackendId>, calls: &mut Vec<PluginCall>) {
    let value = node.argument("a backend's name");
    let backend = value.and_then(|value| {
        let position = scope.backends.refer(&value)?;
        let (known, declared) = scope.backends.get(position)?;
        if known.mode != Mode::Http {
            let error = ConfigError::new(Code::Mode, "a plugin calls backends in HTTP mode");
            let error = error.label(value.span(), "called here").label(declared, "in TCP mode");
            node.fail(error.help("name another backend, or give this one mode \"http\""));
        }
        let backend = BackendId(position);
        report_strange(&value, backend, may);
        if calls.iter().any(|call| call.backend == backend) {
            let error = ConfigError::new(Code::Duplicate, "this backend is granted twice");
            node.fail(error.label(value.span(), "again").help("leave one out"));
        }
        Some(backend)
    });
    // A tenant's file asks for no more than what holds where nothing is said.
    let is_strangers = scope.ctx.folder(node.span()).is_some();
    let (most_time, most_calls, most_bytes) = match is_strangers {
        true => (DEFAULT_CALL_TIMEOUT, DEFAULT_CALLS_IN_FLIGHT, DEFAULT_MAX_BODY),
        false => (*CALL_TIMEOUT.end(), *CALLS_IN_FLIGHT.end(), *BODY.end()),
    };
    let timeout = node.property("timeout");
    let timeout = timeout.map(|value| value.duration(*CALL_TIMEOUT.start()..=most_time));
    let in_flight = node.property("in-flight");
    let in_flight = in_flight.map(|value| value.integer(*CALLS_IN_FLIGHT.start()..=most_calls));
    let max_body = node.property("max-body");
    let max_body = max_body.map(|value| value.size(*BODY.start()..=most_bytes));
    node.finish();
    if let Some(backend) = backend {
        let in_flight = in_flight.unwrap_or(Some(DEFAULT_CALLS_IN_FLIGHT));
        calls.push(PluginCall {
            backend,
            timeout: timeout.flatten().unwrap_or(DEFAULT_CALL_TIMEOUT),
            in_flight: in_flight
                .and_then(|calls| u32::try_from(calls).ok())
                .unwrap_or(u32::MAX),
            max_body: max_body.flatten().unwrap_or(DEFAULT_MAX_BODY),
        });
    }
}

/// `isolation "per-request" ready=8` or `isolation "reuse" max-requests=1000 max-age="10m"`, of a plugin that has so many
/// instances at most.
fn isolation(mut node: Node<'_>, instances: Option<u32>) -> Option<Isolation> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Request,
        Connection,
        Reuse,
    }
    let kinds = [
        ("per-request", Kind::Request),
        ("per-connection", Kind::Connection),
        ("reuse", Kind::Reuse),
    ];
    let kind = node
        .argument("who shares an instance")
        .and_then(|value| value.choice(&kinds));
    let ready = node.property("ready");
    let max_requests = node.property("max-requests");
    let max_age = node.property("max-age");
    let inert = |value: &Option<Value<'_>>, help: &str| {
        if let Some(value) = value {
            let error = ConfigError::new(Code::Inert, format!("{} does nothing here", value.title()));
            node.fail(error.label(value.span(), "not with this isolation").help(help));
        }
    };
    let isolation = match kind {
        Some(Kind::Reuse) => {
            inert(&ready, "leave it out: an instance in use has one successor ready");
            let max_requests = max_requests
                .map(|value| value.integer(MAX_REQUESTS))
                .unwrap_or(Some(DEFAULT_MAX_REQUESTS));
            Some(Isolation::Reuse {
                max_requests: max_requests.and_then(NonZeroU64::new),
                max_age: max_age.map_or(Some(DEFAULT_MAX_AGE), |value| value.duration(MAX_AGE)),
            })
        }
        Some(kind) => {
            let help = "leave it out, or write isolation \"reuse\"";
            inert(&max_requests, help);
            inert(&max_age, help);
            let most = instances.map_or(u64::MAX, |instances| u64::from(instances / 2));
            let said = ready.and_then(|value| Some((value, value.integer(READY)?)));
            if let Some((value, _)) = said.filter(|(_, ready)| *ready > most) {
                let message = format!("at most {most} instances lie ready: half of `instances=`");
                let error = ConfigError::new(Code::Inert, message).label(value.span(), "more than there are");
                node.fail(error.help("make `ready=` smaller, or `limit instances=` larger"));
            }
            let ready = match ready {
                Some(_) => said.map(|(_, ready)| ready),
                None => Some(DEFAULT_READY),
            };
            let ready = usize::try_from(ready?).ok()?;
            Some(match kind {
                Kind::Connection => Isolation::PerConnection { ready },
                Kind::Request | Kind::Reuse => Isolation::PerRequest { ready },
            })
        }
        None => None,
    };
    node.finish();
    isolation
}

/// `quarantine failures=20 from="1s" to="1m"`.
fn quarantine(mut node: Node<'_>, settings: &mut QuarantineSettings, is_strangers: bool) {
    node.require_entries();
    // Who could put it off would have switched it off.
    let failures = match is_strangers {
        true => 1..=u64::from(QuarantineSettings::DEFAULT.failures),
        false => FAILURES,
    };
    if let Some(failures) = node.property("failures").and_then(|value| value.integer(failures)) {
        settings.failures = u32::try_from(failures).unwrap_or(settings.failures);
    }
    if let Some(from) = node.property("from").and_then(|value| value.duration(QUARANTINE)) {
        settings.from = from;
        settings.to = settings.to.max(from);
    }
    if let Some(value) = node.property("to")
        && let Some(to) = value.duration(QUARANTINE)
    {
        if to < settings.from {
            value.fail::<()>(
                format!("a quarantine begins with {}", units::show_duration(settings.from)),
                "shorter than that",
                "`to=` is how long it gets at most: write a longer one, or a shorter `from=`",
            );
        }
        settings.to = to;
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
    ("counters", Grant::Counters),
    ("kv", Grant::Kv),
    ("metrics", Grant::Metrics),
    ("random", Grant::Random),
];

/// A client waits meanwhile: what takes longer is no decision.
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// A millisecond is little even for a neighbour; a client does not wait for longer than a minute.
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// Enough for some ten thousand a second at five milliseconds each, and not enough to be a flood.
const DEFAULT_CALLS_IN_FLIGHT: u64 = 64;
const CALLS_IN_FLIGHT: RangeInclusive<u64> = 1..=1_000_000;
/// The service is what is missing, not the client's right to it.
pub(super) const DEFAULT_FAILURE_STATUS: u16 = 503;

/// What a stranger's component has seen of one exchange is nobody else's business.
const DEFAULT_ISOLATION: Isolation = Isolation::PerRequest {
    ready: DEFAULT_READY as usize,
};
/// As many as come at once in a busy worker's turn; there are so many only when they are asked for.
const DEFAULT_READY: u64 = 8;
const READY: RangeInclusive<u64> = 0..=1_000;
/// What piles up in an instance's memory over so many requests is still little, and making another one costs none of them
/// anything.
const DEFAULT_MAX_REQUESTS: u64 = 10_000;
const MAX_REQUESTS: RangeInclusive<u64> = 1..=1_000_000_000;
/// Likewise by time, where there are few requests.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(600);
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

const FAILURES: RangeInclusive<u64> = 1..=1_000_000_000;
const QUARANTINE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);
