//! From KDL nodes to the model: one file per node of the language.
//!
//! A lowering function reads a node to its end, reports every fault it finds, and answers `None` only when it has reported
//! one. So a configuration without faults is complete.

mod accept_proxy;
mod access_log;
mod acl;
mod acls;
mod admission;
pub mod alone;
mod asked_plugin;
mod backend;
mod backend_rules;
mod balance;
mod bind;
mod check;
mod check_http;
mod check_steps;
mod compress;
mod condition;
mod content;
mod decompress;
mod defaults;
mod edits;
mod error_page;
mod foreign;
mod forwarding;
mod frontend;
mod header;
mod heavy;
mod hsts;
mod http2;
mod keep_alive;
mod limits;
mod log_format;
mod logs;
mod map;
mod measure;
mod monitor;
mod names;
mod parameter;
mod persistence;
mod plugin;
mod plugin_limits;
mod process;
mod rate_limit;
mod redirect;
mod regexes;
mod reserved;
mod resilience;
mod resolver;
mod response_limits;
mod resumption;
mod routes;
mod rules;
mod send_proxy;
mod server;
mod settings;
mod shared_acls;
mod socket_options;
mod source;
mod stats;
mod target;
mod template;
mod tenant;
mod tenant_rules;
mod time;
mod timeouts;
mod tls;
mod tls_facts;
mod tls_parameters;
mod tracing;
mod trust;
mod tunnel;
mod unix_socket;
mod upgrades;
mod used_plugins;
mod variables;

use std::path::Path;

use kdl::KdlDocument;

use super::diagnostics::{Code, ConfigError, Source};
use super::include::Inclusion;
use super::lists::Lists;
use super::model::{Backend, Config, Frontend, Mode, Plugin, Process, RateLimit, ServerAddress, Tenant, TenantId};
use super::reader::{Block, Context, Node};
pub use backend_rules::shifted;
use bind::Binds;
use defaults::Defaults;
pub use frontend::MAX_ACLS;
use names::Names;
pub use plugin_limits::{DEFAULT_PLUGIN_CPU, DEFAULT_PLUGIN_MEMORY};
pub use process::{DEFAULT_INSTANCE_MEMORY, DEFAULT_MAX_CONNECTIONS};
pub use settings::MAX_CONNECTIONS;
use shared_acls::SharedAcls;
#[cfg(test)]
pub use variables::attributes as template_attributes;

/// The configuration that the nodes of a text mean. The lists come back with those that it has named.
pub(super) fn config(
    source: &Source,
    base_dir: &Path,
    document: &KdlDocument,
    included: &[Inclusion],
    lists: Lists,
) -> (Result<Config, Vec<ConfigError>>, Lists) {
    let ctx = Context::new(source, base_dir, included).with_lists(lists);
    let config = lower(&ctx, document);
    let (errors, lists) = ctx.into_parts();
    let config = match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(errors),
    };
    (config, lists)
}

/// What sections may refer to, and the addresses they have taken.
struct Scope<'a> {
    ctx: &'a Context<'a>,
    process: Process,
    defaults: Defaults,
    backends: Names<backend::Known>,
    plugins: Names<plugin::Known>,
    tenants: Names<tenant::Known>,
    owned: tenant::Owned,
    rate_limits: Names<rate_limit::Known>,
    acls: SharedAcls,
    frontends: Names<frontend::Known>,
    binds: Binds,
}

fn lower<'a>(ctx: &'a Context<'a>, document: &'a KdlDocument) -> Option<Config> {
    let mut top = Block::new(ctx, "the configuration".to_owned(), document);
    let process = top.one("process");
    let stats = top.one("stats");
    let resolver = top.one("resolver");
    let defaults = top.many("defaults");
    let rate_limits = top.many("rate-limit");
    let plugins = top.many("plugin");
    let maps = top.many("map");
    let acls = top.many("acl");
    let tenants = top.many("tenant");
    let trust = top.many("trust");
    let backends = top.many("backend");
    let frontends = top.many("frontend");
    let is_whole = top.finish(elsewhere);
    // What could not be read may have been one.
    if frontends.is_empty() && is_whole {
        let error = ConfigError::new(Code::Missing, "there is no frontend");
        ctx.report(
            error.help(
                "write where clients arrive: frontend \"web\" { bind \"127.0.0.1:8080\"; default-backend \"app\" }",
            ),
        );
    }

    let (process, process_says) = process::process(process);
    let resolver_span = resolver.as_ref().map(Node::span);
    let resolver = resolver::resolver(resolver);
    let mut scope = Scope {
        ctx,
        process: process.clone().unwrap_or_default(),
        defaults: Defaults::read(ctx, defaults),
        backends: Names::new("backend"),
        plugins: Names::new("plugin"),
        tenants: Names::new("tenant"),
        owned: tenant::Owned::default(),
        rate_limits: Names::new("rate limit"),
        acls: Names::new("acl").into(),
        frontends: Names::new("frontend"),
        binds: Binds::default(),
    };
    let (map_names, maps) = map::maps(ctx, maps);
    let trust = trust::trust(trust);
    // What is referred to comes before what refers to it. Plugins name backends, whose acls and conditions ask plugins: backends
    // are known before they are read whole.
    let rate_limits: Vec<_> = rate_limits
        .into_iter()
        .map(|node| rate_limit::rate_limit(&mut scope, node))
        .collect();
    let backends: Vec<_> = backends
        .into_iter()
        .map(|node| backend::begin(&mut scope, node))
        .collect();
    let mut plugins: Vec<_> = plugins
        .into_iter()
        .map(|node| plugin::plugin(&mut scope, node, None))
        .collect();
    let tenants: Vec<_> = tenants
        .into_iter()
        .enumerate()
        .map(|(position, node)| tenant::tenant(&mut scope, node, TenantId(position), &mut plugins))
        .collect();
    scope.acls = shared_acls::read(&scope, acls);
    let backends: Vec<_> = backends
        .into_iter()
        .map(|begun| backend::backend(&scope, begun))
        .collect();
    let frontends: Vec<_> = frontends
        .into_iter()
        .map(|node| frontend::frontend(&mut scope, node))
        .collect();
    let stats = stats.map(|node| stats::stats(&mut scope, node));

    map::settle(ctx, &map_names, &ctx.take_asked());
    if scope.process.tracing.is_none() {
        // What a tenant's file asks for is there where the operator has it so, and empty elsewhere.
        ctx.take_traced()
            .into_iter()
            .filter(|span| ctx.folder(*span).is_none())
            .for_each(|span| tracing::report_untraced(ctx, span));
    } else {
        let written = ctx.take_trace_fields();
        written.iter().for_each(|field| reserved::of_trace(ctx, field));
    }
    let named = frontends.iter().flatten().filter_map(Frontend::log_targets);
    logs::report_unused(ctx, &scope.process.named_logs, named);
    if is_whole {
        scope.defaults.report_unused(ctx);
    }
    scope.acls.report_unused(ctx, "no condition names it");
    scope.tenants.report_unused(ctx, "no frontend has `tenants` with it");
    scope.rate_limits.report_unused(ctx, "no frontend has `limit` with it");
    scope
        .plugins
        .report_unused(ctx, "no frontend has an acl or `use-plugin` with it");
    scope
        .backends
        .report_unused(ctx, "no `use-backend` or `default-backend` leads to it");
    let mut backends: Vec<Backend> = backends.into_iter().collect::<Option<_>>()?;
    let of_frontends = frontends
        .iter()
        .flatten()
        .filter_map(|frontend| frontend.monitor.as_ref());
    let of_stats = stats.iter().flatten().filter_map(|stats| stats.monitor.as_ref());
    of_frontends
        .chain(of_stats)
        .for_each(|monitor| monitor::report_impossible(ctx, monitor, &backends));
    let mut frontends: Vec<Frontend> = frontends.into_iter().collect::<Option<_>>()?;
    let plugins: Vec<Plugin> = plugins.into_iter().collect::<Option<_>>()?;
    for frontend in &mut frontends {
        let reached = backend_rules::reached(&scope, frontend, &plugins, &tenants);
        backend_rules::join(ctx, frontend, &backends, &reached);
        backend_rules::report_too_many_bytes(ctx, frontend, &backends, &reached);
        backend_rules::report_too_many_bytes_of_tenants(ctx, frontend, &tenants);
    }
    let with_rules: Vec<_> = tenants.iter().flatten().flat_map(Tenant::all_rules).collect();
    tenant::report_inert(&scope, &frontends);
    plugin::report_inert(&scope, &frontends, &plugins);
    measure::report_impossible(ctx, &frontends, &with_rules, &backends);
    tunnel::settle(&scope, &frontends, &mut backends, &plugins);
    let rate_limits: Vec<RateLimit> = rate_limits.into_iter().collect::<Option<_>>()?;
    if is_whole {
        process_says.report_unused(
            ctx,
            process::Uses::of(&frontends, &backends, &plugins, &rate_limits, &tenants),
        );
    }
    let mut servers = backends.iter().flat_map(|backend| &backend.servers);
    let has_names = servers.any(|server| matches!(server.address, ServerAddress::Name(_)));
    if let Some(span) = resolver_span.filter(|_| !has_names && is_whole) {
        let error = ConfigError::new(Code::Inert, "`resolver` does nothing: no server has a name");
        ctx.report(error.label(span, "nothing to resolve").help("leave it out"));
    }
    let config = Config {
        process: process?,
        resolver,
        frontends,
        backends,
        plugins,
        maps: maps.into_iter().collect::<Option<_>>()?,
        tenants: tenants.into_iter().collect::<Option<_>>()?,
        trust: trust?,
        rate_limits,
        stats: or_none(stats)?,
    };
    trust::report_inert(&scope, &config);
    Some(config)
}

/// The name that a section's first argument gives it.
fn section_name<'a>(node: &mut Node<'a>, what: &'static str) -> Option<super::reader::At<&'a str>> {
    let value = node.argument(what)?;
    let name = value.name()?;
    Some(value.at(name))
}

/// The same of a tenant or a plugin, whose names are joined by a slash in logs and wherever they are kept apart.
fn plain_name<'a>(node: &mut Node<'a>, what: &'static str) -> Option<super::reader::At<&'a str>> {
    let value = node.argument(what)?;
    let name = value.name()?;
    if name.contains('/') {
        return value.fail(
            format!("{} has a slash in it", value.title()),
            "this would be somebody else's",
            "a plugin of a tenant's is called \"tenant/plugin\" everywhere else: choose a name without one",
        );
    }
    Some(value.at(name))
}

/// What is not there is none; what is there has to have been read.
#[allow(clippy::option_option)]
fn or_none<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(read) => read.map(Some),
        None => Some(None),
    }
}

/// Where a node belongs that stands in the wrong place.
fn elsewhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "process" | "stats" | "resolver" => "`process`, `stats` and `resolver` stand at the top of the file, once",
        "frontend" | "backend" | "plugin" | "tenant" | "rate-limit" | "defaults" | "map" => {
            "this stands at the top of the file, not in another block"
        }
        "bind" => "`bind` stands in a `frontend`, or in `stats`",
        "trust" => "`trust` stands at the top of the file, or in a `tenant`",
        "monitor" => "`monitor` stands in a `frontend` of HTTP mode, or in `stats`",
        "require" => "`require` stands in the block of `monitor`",
        "auth" | "refresh" | "hide-version" => "this stands in `stats`",
        "count-status" => "this stands in a `rate-limit`",
        "allow" => "`allow` stands in `rate-limit` (how much) or in `stats` (whom)",
        "acl" => "`acl` stands at the top of the file, for all to use, or in a `frontend`, a `backend` or a `tenant`",
        "deny" | "redirect" | "return" => "this stands in a `frontend`, a `backend` or a `tenant`",
        "use-backend" => "this stands in a `frontend` or a `tenant`",
        "default-backend"
        | "max-connection-rate"
        | "use-plugin"
        | "tenants"
        | "access-log"
        | "forwarded-for"
        | "request-limits"
        | "http-keep-alive"
        | "normalize-path"
        | "upgrades"
        | "trusted-proxies"
        | "forwarded"
        | "forwarded-headers"
        | "rate-limit-headers"
        | "request-id"
        | "compress"
        | "decompress"
        | "hsts"
        | "capture"
        | "log-format" => "this stands in a `frontend`",
        "hosts" | "quota" | "backends" => "this stands in a `tenant`",
        "include" => "this stands in a `tenant`: what the operator writes is one file",
        "nameserver" => "`nameserver` stands in `resolver`",
        "server" | "server-template" | "balance" | "check" | "observe" | "agent-check" | "server-close" | "pool"
        | "response-limits" | "source" | "stick" | "all-backups" | "slow-start" | "max-queue" | "on-marked-down"
        | "retries" | "retry-on" | "retry-buffer" | "retry-budget" | "outlier-ejection" | "max-requests" => {
            "this stands in a `backend`"
        }
        "cookie" => "`cookie` stands in a `backend` (persistence) or in an `acl`",
        "timeout" | "mode" | "tcp-keep-alive" | "error-page" => "this stands in a `frontend` or a `backend`",
        "request" | "response" => "this stands in a `frontend`, a `backend` or a `tenant`",
        "sha256" | "grant" | "on-failure" | "isolation" | "quarantine" | "route-to" | "call" => {
            "this stands in a `plugin`"
        }
        "limit" => "`limit` stands in a `frontend` (rate limits) or in a `plugin` (cpu and memory)",
        "log" => "`log` stands in `process`, which says where lines go, or in a `frontend`, which names one of those",
        "workers" | "tracing" | "user" | "chroot" | "pid-file" | "policy" | "compile-cache" | "admin"
        | "drain-timeout" | "rate-limit-table" => "this stands in `process`",
        "max-connections" => {
            "`max-connections` stands in `process` or in a `frontend`; a server has it as a property: server \"a\" \"10.0.0.1:80\" max-connections=100"
        }
        "send" | "expect" => "this stands in the block of a `check`",
        "drain" => "this stands in the block of a `check \"http\"`",
        "tls" => "`tls` stands in the block of a `bind` or a `server`, or in an `acl`",
        "cert" | "cert-dir" | "client-ca" | "crl" | "ciphers" | "curves" | "session-cache" | "tickets" => {
            "this stands in the block of `tls`: tls cert=\"a.pem\" { … }"
        }
        "alpn" => "`alpn` stands beside `tls` in the block of a `bind` or a `server`, or in an `acl`",
        "accept-proxy" => "`accept-proxy` stands behind the address of a `bind`, or in its block",
        "send-proxy" => "`send-proxy` is a property of a `server`: server \"app-1\" \"10.0.0.1:80\" send-proxy=\"v2\"",
        "set-header" | "add-header" | "delete-header" | "replace-header" => {
            "this stands in `request { … }` or `response { … }`"
        }
        "types" | "min-size" | "level" => "this stands in the block of `compress`",
        "max-size" | "max-ratio" => "this stands in the block of `decompress`",
        "max-streams" => "this stands in the block of `compress` or `decompress`",
        "set-path" | "rewrite-path" | "add-prefix" | "strip-prefix" | "set-query" | "rewrite-query"
        | "set-query-param" | "delete-query-param" => "this stands in `request { … }`",
        "rewrite-location" | "set-status" => "this stands in `response { … }`",
        name => return foreign::instead(name),
    })
}

/// Whoever balances bytes knows to say so.
const DEFAULT_MODE: Mode = Mode::Http;
