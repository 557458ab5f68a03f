//! `frontend "web" { … }`: where clients arrive and what is decided about them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use miette::SourceSpan;

use super::acl::{ReadAcl, Setting};
use super::acls::Acls;
use super::admission::Early;
use super::condition::{self, When};
use super::hsts;
use super::keep_alive;
use super::limits::RequestLimitSettings;
use super::names::Names;
use super::settings::{Place, Settings, http_only};
use super::timeouts::Timeouts;
use super::used_plugins::used_plugins;
use super::{
    DEFAULT_MODE, Scope, access_log, acl, admission, bind, edits, elsewhere, error_page, log_format, logs, monitor,
    routes, rules, section_name, template, tenant, upgrades,
};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    AccessLog, AclTest, ClientTimeouts, Frontend, Mode, RateLimitId, RequestLimits, Route, RouteTo, TenantId, UsedLimit,
};
use crate::config::reader::{At, Node, said_twice};
use crate::config::units;

/// What is looked at of a frontend when all are read.
#[derive(Default)]
pub(super) struct Known {
    /// Where it says `timeout tunnel=` itself.
    pub(super) tunnel: Cell<Option<SourceSpan>>,
    /// Where it says `timeout client=` itself.
    pub(super) client: Cell<Option<SourceSpan>>,
    /// Where it says `tcp-keep-alive` itself.
    pub(super) keep_alive: Cell<Option<SourceSpan>>,
}

/// Reads a frontend.
pub(super) fn frontend(scope: &mut Scope<'_>, mut node: Node<'_>) -> Option<Frontend> {
    let ctx = scope.ctx;
    let origin = node.origin();
    let span = node.span();
    let name = section_name(&mut node, "the frontend's name");
    if let Some(name) = name {
        scope.frontends.add(ctx, name, Known::default());
    }
    let inherited = scope.defaults.of(&mut node);
    let block = node.required_block();
    node.finish();
    let mut block = block?;

    let own = Settings::read(&mut block, Place::Frontend, inherited.mode);
    let mode_at = own.mode.or(inherited.mode);
    let mode = mode_at.map_or(DEFAULT_MODE, |mode| mode.value);
    let binds = block.many("bind");
    let has_binds = !binds.is_empty();
    let says_tls = binds.iter().any(|bind| bind.block_says("tls"));
    let binds: Vec<_> = binds
        .into_iter()
        .map(|node| bind::bind(&mut scope.binds, mode, node))
        .collect();
    let setting = Setting {
        section: "frontend",
        mode,
        mode_span: mode_at.map(|mode| mode.span),
        tls: says_tls,
        // One that could not be read may ask for them.
        client_ca: binds.iter().any(|bind| match bind {
            Some(bind) => bind.tls.as_ref().is_some_and(|tls| tls.clients.is_some()),
            None => true,
        }),
    };

    let mut names = Names::new("acl");
    let mut acls = Vec::new();
    for node in block.many("acl") {
        let read = acl::acl(scope, setting, node, None);
        match read.name {
            Some(name) => names.add(ctx, name, ()),
            // Keeps the positions of the names those of the acls.
            None => names.skip(read.span, ()),
        }
        acls.push(read);
    }
    report_too_many_acls(scope, &acls);
    let said_limits = block.many("limit");
    let rate_limit_headers = block.one("rate-limit-headers").map(|node| {
        http_only(&node, mode_at);
        let span = node.span();
        node.finish();
        span
    });
    let acls_of = Acls::new(scope, names, setting);
    let limits = limits(scope, setting, &acls_of, said_limits);
    let per_source = block.one("max-connections-per-source");
    let per_source = per_source.and_then(|node| admission::per_source(node, Some(&acls_of)));
    let rejects = admission::rejects(&acls_of, block.many("reject"));
    let rules = rules::rules(scope, &acls_of, block.any(&["deny", "redirect", "return"]));
    let routes = routes::routes(scope, setting, &acls_of, block.many("use-backend"));
    let default_backend = block.one("default-backend");
    let default_at = default_backend.as_ref().map(Node::span);
    let default_backend = default_backend.map(|node| routes::default_backend(scope, setting, node));
    let access_log = block.one("access-log");
    let access_log = access_log.and_then(|node| access_log::access_log(node, Some(&acls_of)));
    let captures = block.many("capture");
    captures.iter().for_each(|node| http_only(node, mode_at));
    let captured_at = captures.first().map(Node::span);
    let captures = log_format::captures(ctx, captures);
    let mut plugins = used_plugins(scope, block.many("use-plugin"), None);
    let mut tenants: Vec<TenantId> = Vec::new();
    if let Some(node) = block.one("tenants") {
        let (named, used) = tenant::named(scope, mode, node);
        tenants = named;
        plugins.extend(used);
    }
    let request = block.one("request").inspect(|node| http_only(node, mode_at));
    let request_edits = edits::request(request, &acls_of);
    let response = block.one("response").inspect(|node| http_only(node, mode_at));
    let response_edits = edits::response(response, &acls_of);
    edits::report_too_many_conditions(ctx, ("frontend", span), &request_edits, &response_edits);
    let hsts = block.one("hsts").map(|node| {
        http_only(&node, mode_at);
        hsts::hsts(node, says_tls)
    });
    let monitor = block.one("monitor").map(|node| {
        http_only(&node, mode_at);
        monitor::monitor(scope, node, &[])
    });
    let is_whole = block.finish(elsewhere);
    if !has_binds && is_whole && !ctx.is_unread("bind") {
        bind::report_none(ctx, "this frontend", span);
    }

    upgrades::report_tunnel(ctx, mode, &own, &inherited);
    if let Some((known, _)) = scope.frontends.last() {
        known.tunnel.set(own.timeouts.tunnel.map(|said| said.span));
        known.client.set(own.timeouts.client.map(|said| said.span));
        known.keep_alive.set(own.keep_alive.map(|said| said.span));
    }
    report_max_connections(scope, own.max_connections);
    let is_named = |route: &Route| matches!(route.to, RouteTo::Named { .. });
    // Whose connection it is says the name in a ClientHello.
    let asks_elsewhere = !plugins.is_empty() || !tenants.is_empty() || routes.iter().flatten().any(is_named);
    report_handshake(scope, setting, &own.timeouts, &acls, asks_elsewhere);
    let implied = acls_of.finish(MAX_ACLS);
    let of_connections = limits.as_ref().map_or(&[][..], |(_, of_connections)| of_connections);
    let early = Early::all(&rejects, per_source.as_ref(), of_connections);
    admission::report_late(ctx, &early, &acls, &implied);
    if let Some(last) = rules.last {
        routes::report_unreached(ctx, &routes, default_at, last);
    }
    // What could not be read may have led somewhere.
    let is_read = is_whole && !ctx.is_unread("default-backend");
    if routes.is_empty() && default_backend.is_none() && rules.last.is_none() && is_read {
        let error = ConfigError::new(Code::Missing, "this frontend leads nowhere");
        let error = error.label(span, "serves nothing");
        ctx.report(error.help("write where requests go: default-backend \"app\""));
    }
    let process = &scope.process;
    let of_process = process.max_connections_at.map(|span| At {
        value: process.max_connections,
        span,
    });
    let most = [own.max_connections.or(inherited.max_connections), of_process];
    let lowest = most.into_iter().flatten().min_by_key(|limit| limit.value);
    admission::report_unreachable(ctx, per_source.as_ref().map(|said| said.limit), lowest);
    let format = own.log_format.as_ref().map(|format| (format, true));
    let format = format.or(inherited.log_format.as_ref().map(|format| (format, false)));
    let access_log = access_log.as_ref().or(inherited.access_log.as_ref());
    if let (Some(said), Some(off)) = (&own.logs, access_log.and_then(access_log::off)) {
        let error = ConfigError::new(Code::Inert, "`log` does nothing when the access log is off");
        let error = error.label(said.span, "does nothing").label(off, "because of this");
        ctx.report(error.help("one of them has to go"));
    }
    let mut logging = access_log::settle(ctx, mode, access_log, format, captures, captured_at);
    if logging.log.enabled {
        let to = logs::targets(scope, own.logs.as_ref().or(inherited.logs.as_ref()));
        logging.go_to(to);
    }
    let http2 = own.http2.of_frontend(&inherited.http2);
    let http2_off = own.http2.off.or(inherited.http2.off).filter(|off| off.value);
    let mut binds: Vec<_> = binds.into_iter().collect();
    if mode == Mode::Http {
        binds
            .iter_mut()
            .flatten()
            .for_each(|bind| bind::agree(ctx, bind, http2_off));
    }
    let request_id = own.forwarding.request_id(&inherited.forwarding, ctx);
    let asked = template::take_request_id(ctx);
    if request_id.is_none() {
        let leads_to = routes
            .iter()
            .flatten()
            .flat_map(|route| route.to.backends().iter().copied());
        // Of connections nobody asks for the number of a request.
        let tenants = tenants.iter().filter(|_| mode == Mode::Http);
        let named = tenants.clone().filter_map(|id| scope.tenants.get(id.0));
        let by_tenants = named.flat_map(|(known, _)| known.reached.iter().copied());
        let backends = leads_to.chain(default_backend.flatten()).chain(by_tenants);
        let theirs = backends.filter_map(|id| scope.backends.get(id.0)?.0.request_id.get());
        let of_tenants = tenants.filter_map(|id| scope.tenants.get(id.0)?.0.request_id);
        let mut asked: Vec<_> = asked.into_iter().chain(theirs).chain(of_tenants).collect();
        asked.sort_by_key(SourceSpan::offset);
        asked.dedup();
        asked
            .into_iter()
            .for_each(|asked| template::report_numberless(ctx, asked, span));
    }
    let (limits, connection_limits) = limits?;
    let of_each_source = per_source.as_ref().map(|said| said.limit).or(inherited.per_source);
    let has_files = |id: &TenantId| scope.tenants.get(id.0).is_some_and(|(known, _)| known.has_files);
    let may_limit = !plugins.is_empty() || tenants.iter().any(has_files);
    if let Some(span) = rate_limit_headers.filter(|_| limits.is_empty() && !may_limit) {
        let error = ConfigError::new(
            Code::Inert,
            "`rate-limit-headers` does nothing: no request is limited here",
        );
        ctx.report(
            error
                .label(span, "nothing to tell of")
                .help("write limit \"name\", or leave it out"),
        );
    }
    Some(Frontend {
        tenants,
        name: name?.value.into(),
        mode,
        binds: binds.into_iter().collect::<Option<_>>()?,
        max_connections: own
            .max_connections
            .or(inherited.max_connections)
            .map(|value| value.value),
        timeouts: Arc::new(timeouts(&own.timeouts, &inherited.timeouts)),
        keep_alive: keep_alive::of(&own, &inherited),
        access_log: logging.log,
        log_choice: logging.choice.map(Arc::from),
        captures: logging.captures.map(Arc::from),
        forwarding: own.forwarding.forwarding(&inherited.forwarding),
        compress: own.compress(&inherited),
        decompress: own.decompress(&inherited),
        request_id,
        http2,
        hsts: super::or_none(hsts)?,
        monitor: super::or_none(monitor)?,
        request_limits: request_limits(scope, &own.request_limits, &inherited.request_limits),
        http_keep_alive: own.http_keep_alive.of(&inherited.http_keep_alive),
        upgrades: upgrades::of(&own, &inherited),
        normalize_path: match own.normalize_path.or(inherited.normalize_path) {
            Some(said) => said.value,
            None => Some(error_page::DEFAULT_NORMALIZE_PATH),
        },
        error_pages: error_page::of(&own, &inherited),
        acls: acls
            .into_iter()
            .map(|read| read.acl)
            .chain(implied.into_iter().map(Some))
            .collect::<Option<_>>()?,
        connection_rate: own.connection_rate.or(inherited.connection_rate).map(|rate| rate.value),
        per_source: of_each_source.map(|limit| limit.value),
        per_source_when: per_source.and_then(|said| said.when),
        rejects: rejects.into_iter().collect::<Option<_>>()?,
        connection_limits,
        limits,
        rate_limit_headers: rate_limit_headers.is_some(),
        rules: rules.rules?,
        of_backends: Vec::new(),
        routes: routes.into_iter().collect::<Option<_>>()?,
        default_backend: super::or_none(default_backend)?,
        request_edits,
        response_edits,
        plugins: plugins.into_iter().collect::<Option<_>>()?,
        origin,
    })
}

/// `limit "per-ip" unless="office"` and `limit "per-ip" connections`, in order: those of requests, and those of connections.
fn limits(
    scope: &Scope<'_>,
    setting: Setting,
    acls: &Acls<'_>,
    nodes: Vec<Node<'_>>,
) -> Option<(Vec<UsedLimit>, Vec<UsedLimit>)> {
    // In TCP mode there is nothing else to count.
    let is_tcp = setting.mode == Mode::Tcp;
    let mut limits: Vec<At<RateLimitId>> = Vec::new();
    let (mut of_requests, mut of_connections) = (Vec::new(), Vec::new());
    let mut well = true;
    report_too_many(scope, &nodes, "limit", MAX_LIMITS);
    for mut node in nodes.into_iter().take(MAX_LIMITS) {
        let value = node.argument("the rate limit's name");
        let limit = value.and_then(|value| Some(value.at(RateLimitId(scope.rate_limits.refer(&value)?))));
        let flag = node.flag("connections");
        if let (true, Some(flag)) = (is_tcp, flag) {
            let error = ConfigError::new(Code::Inert, "`connections` does nothing in TCP mode");
            let error = error.label(flag, "a limit counts nothing else there");
            node.fail(error.help("leave it out"));
        }
        let counts_connections = is_tcp || flag.is_some();
        if let (true, Some(limit)) = (counts_connections, &limit) {
            refuse_limit_of_requests(scope, setting, limit);
        }
        let when = match condition::when(&mut node, acls) {
            When::Always => None,
            When::If(when) => {
                well &= when.is_some();
                when
            }
        };
        let origin = node.origin();
        node.finish();
        let Some(limit) = limit else {
            well = false;
            continue;
        };
        // The same for requests and for connections would have each take tokens of the other.
        match limits.iter().find(|first| first.value == limit.value) {
            Some(first) => scope.ctx.report(said_twice("this limit", first.span, limit.span)),
            None => {
                let used = UsedLimit {
                    limit: limit.value,
                    when,
                    origin,
                };
                limits.push(limit);
                match counts_connections {
                    true => of_connections.push(used),
                    false => of_requests.push(used),
                }
            }
        }
    }
    well.then_some((of_requests, of_connections))
}

/// Connections cannot be counted by anything but the client.
fn refuse_limit_of_requests(scope: &Scope<'_>, setting: Setting, limit: &At<RateLimitId>) {
    let known = scope.rate_limits.get(limit.value.0);
    let Some(part) = known.and_then(|(known, _)| known.of_request) else {
        return;
    };
    let (message, label) = match setting.mode {
        Mode::Tcp => (
            "this limit counts requests, and the frontend has none",
            "used in TCP mode",
        ),
        Mode::Http => ("this limit counts requests", "used for connections"),
    };
    let mut error = ConfigError::new(Code::Mode, message)
        .label(limit.span, label)
        .label(part, "only a request has this");
    if let (Mode::Tcp, Some(mode)) = (setting.mode, setting.mode_span) {
        error = error.label(mode, "the mode is TCP because of this");
    }
    let help = match setting.mode {
        Mode::Tcp => "in TCP mode a limit counts by `key \"client-ip\"`, or everything together",
        Mode::Http => "connections are counted by `key \"client-ip\"`, or all together",
    };
    scope.ctx.report(error.help(help));
}

/// Reports a handshake's timeout where nobody waits for one.
fn report_handshake(
    scope: &Scope<'_>,
    setting: Setting,
    timeouts: &Timeouts,
    acls: &[ReadAcl<'_>],
    asks_elsewhere: bool,
) {
    let Some(handshake) = timeouts.handshake else { return };
    let asks = |read: &ReadAcl<'_>| match read.acl.as_ref().map(|acl| &acl.test) {
        Some(AclTest::Match(test)) => test.reads_client_hello(),
        // What it asks for is its own business; and one that could not be read has been reported.
        Some(AclTest::Plugin { .. }) | None => true,
        Some(AclTest::Servers(_)) => false,
    };
    let passes = setting.mode == Mode::Tcp && (asks_elsewhere || acls.iter().any(asks));
    if !setting.tls && !passes {
        let error = ConfigError::new(Code::Inert, "`handshake=` does nothing here");
        let error = error.label(
            handshake.span,
            "no `bind` speaks TLS, and no acl asks about one that passes through",
        );
        scope.ctx.report(error.help("leave it out"));
    }
}

/// The answers to a frontend's acls are kept in a fixed number of bits.
fn report_too_many_acls(scope: &Scope<'_>, acls: &[ReadAcl<'_>]) {
    if let Some(acl) = acls.get(MAX_ACLS) {
        let error = ConfigError::new(Code::Value, format!("a frontend has at most {MAX_ACLS} acls"));
        scope.ctx.report(
            error
                .label(acl.span, "one too many")
                .help("join some of them with `any { … }`"),
        );
    }
}

/// Reports the first node that is more than there may be.
pub(super) fn report_too_many(scope: &Scope<'_>, nodes: &[Node<'_>], what: &str, most: usize) {
    if let Some(node) = nodes.get(most) {
        let error = ConfigError::new(Code::Value, format!("a frontend has at most {most} `{what}`"));
        scope.ctx.report(
            error
                .label(node.span(), "one too many")
                .help("every request meets them all: have fewer"),
        );
    }
}

/// Reports a limit that the process's own, where it is said, comes before.
fn report_max_connections(scope: &Scope<'_>, own: Option<At<usize>>) {
    let process = &scope.process;
    let (Some(own), Some(limit)) = (own, process.max_connections_at) else {
        return;
    };
    // As many is a habit, and says what is meant should the process's grow.
    if own.value > process.max_connections {
        let error = ConfigError::new(Code::Inert, "`max-connections` does nothing here");
        let error = error.label(
            own.span,
            format!("the process takes {} connections at most", process.max_connections),
        );
        let error = error.label(limit, "because of this");
        scope.ctx.report(error.help("make it smaller, or leave it out"));
    }
}

fn timeouts(own: &Timeouts, inherited: &Timeouts) -> ClientTimeouts {
    let client = own.client.or(inherited.client);
    let http_request = own.http_request.or(inherited.http_request);
    let request_body = own.request_body.or(inherited.request_body);
    let http_keep_alive = own.http_keep_alive.or(inherited.http_keep_alive);
    let tunnel = own.tunnel.or(inherited.tunnel);
    let handshake = own.handshake.or(inherited.handshake);
    ClientTimeouts {
        client: client.map_or(DEFAULT_CLIENT_TIMEOUT, |timeout| timeout.value),
        http_request: http_request.map_or(DEFAULT_HTTP_REQUEST_TIMEOUT, |timeout| timeout.value),
        http_keep_alive: http_keep_alive.map_or(DEFAULT_HTTP_KEEP_ALIVE_TIMEOUT, |timeout| timeout.value),
        // An upload may take hours, and who knows better says so.
        request_body: request_body.map(|timeout| timeout.value),
        tunnel: tunnel.map(|timeout| timeout.value),
        unread: own
            .unread
            .or(inherited.unread)
            .map_or(DEFAULT_UNREAD_TIMEOUT, |timeout| timeout.value),
        handshake: handshake.map_or(DEFAULT_HANDSHAKE_TIMEOUT, |timeout| timeout.value),
        client_hello: handshake.map_or(DEFAULT_CLIENT_HELLO_TIMEOUT, |timeout| timeout.value),
    }
}

fn request_limits(scope: &Scope<'_>, own: &RequestLimitSettings, inherited: &RequestLimitSettings) -> RequestLimits {
    let head = own.head.or(inherited.head);
    let uri = own.uri.or(inherited.uri);
    let effective_head = head.map_or(DEFAULT_HEAD, |value| value.value);
    if let Some(uri) = uri.filter(|uri| uri.value > effective_head) {
        let error = ConfigError::new(Code::Inert, "`uri=` does nothing: the whole head has to be shorter");
        let bytes = units::show_size(u64::try_from(effective_head).unwrap_or(u64::MAX));
        let mut error = error.label(uri.span, format!("more than a head's {bytes}"));
        if let Some(head) = head {
            error = error.label(head.span, "because of this");
        }
        scope.ctx.report(error.help("make `head=` larger or `uri=` smaller"));
    }
    RequestLimits {
        head: effective_head,
        headers: own
            .headers
            .or(inherited.headers)
            .map_or(DEFAULT_HEADERS, |value| value.value),
        uri: uri.map_or(DEFAULT_URI.min(effective_head), |value| value.value),
        body: own.body.or(inherited.body).map(|value| value.value),
        unread: own
            .unread
            .or(inherited.unread)
            .map_or(DEFAULT_UNREAD, |value| value.value),
    }
}

/// Acls of a frontend: four calls' worth of the `acl` component, which answers in the bits of a 64-bit number.
pub const MAX_ACLS: usize = 256;
/// Every request meets them all.
const MAX_LIMITS: usize = 64;
/// A frontend that says nothing is one whose traffic can be looked at.
pub(super) const DEFAULT_ACCESS_LOG: AccessLog = AccessLog {
    enabled: true,
    skip_null: false,
};
/// As long as the server's: who waits for whom is not known in advance.
const DEFAULT_CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// A head is a packet or two; who takes longer holds connections open on purpose (slowloris).
const DEFAULT_HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Long enough for the next click on a page that has just loaded.
const DEFAULT_HTTP_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is worth some seconds of what nobody reads: then another one comes cheaper.
const DEFAULT_UNREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Likewise: what a client sends in a few seconds.
const DEFAULT_UNREAD: u64 = 16 << 20;
/// A handshake takes two round trips and some signing; a client that needs longer than this holds a slot for nothing.
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client of TLS says hello at once: time for two lost packets. A client that waits for its server to speak first waits as
/// long, so not longer than that.
const DEFAULT_CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// What HAProxy and nginx take, with room for large cookies.
const DEFAULT_HEAD: usize = 16 << 10;
/// As HAProxy (101 with the request line).
const DEFAULT_HEADERS: usize = 100;
/// RFC 9110, section 4.1, asks for 8,000 at least.
const DEFAULT_URI: usize = 8 << 10;
