//! `backend "app" { … }`: servers and how one is chosen.

mod defaulted;
mod faults;

use std::cell::Cell;

use miette::SourceSpan;

use super::backend_rules::BackendAcls;
use super::check::Openings;
use super::keep_alive;
use super::resilience;
use super::server::{ReadServer, servers};
use super::settings::{Place, Settings, http_only};
use super::{
    DEFAULT_MODE, Scope, check, edits, elsewhere, error_page, or_none, persistence, response_limits, rules,
    section_name, source, template,
};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{AdminLevel, Backend, Backups, Balance, Check, Mode, Origin, Server, SessionEnd, Spread};
use crate::config::reader::{At, Block, Node};
use defaulted::{pool, queue, retries, timeouts};
use faults::{
    report_all_backups, report_halved_addresses, report_idle_servers, report_limits, report_nameless_checks,
    report_on_marked_down, report_on_marked_up, report_slow_start,
};

/// What others have to know of a backend.
pub(super) struct Known {
    /// Its mode.
    pub(super) mode: Mode,
    /// Where that is said, when it is.
    pub(super) mode_span: Option<SourceSpan>,
    /// Where one of its texts asks for the number of a request.
    pub(super) request_id: Cell<Option<SourceSpan>>,
    /// Where it says `timeout server=` itself.
    pub(super) server: Option<SourceSpan>,
    /// Where it says `tcp-keep-alive` itself.
    pub(super) keep_alive: Option<SourceSpan>,
}

/// A backend that is known, and of whose block the settings have been read.
pub(super) struct Begun<'a> {
    origin: Origin,
    span: SourceSpan,
    name: Option<At<&'a str>>,
    inherited: Settings,
    own: Settings,
    block: Option<Block<'a>>,
    /// Its position among the known.
    known: Option<usize>,
    /// Where one of its settings asks for the number of a request.
    request_id: Option<SourceSpan>,
}

/// Makes a backend known.
pub(super) fn begin<'a>(scope: &mut Scope<'a>, mut node: Node<'a>) -> Begun<'a> {
    let ctx = scope.ctx;
    let origin = node.origin();
    let span = node.span();
    let name = section_name(&mut node, "the backend's name");
    let inherited = scope.defaults.of(&mut node);
    let mut block = node.required_block();
    node.finish();

    let own = block
        .as_mut()
        .map(|block| Settings::read(block, Place::Backend, inherited.mode));
    let own = own.unwrap_or_default();
    let mode_at = own.mode.or(inherited.mode);
    let mode = mode_at.map_or(DEFAULT_MODE, |mode| mode.value);
    let known = scope.backends.len();
    if let Some(name) = name {
        let mode_span = mode_at.map(|mode| mode.span);
        let known = Known {
            mode,
            mode_span,
            request_id: Cell::new(None),
            server: own.timeouts.server.map(|said| said.span),
            keep_alive: own.keep_alive.map(|said| said.span),
        };
        scope.backends.add(ctx, name, known);
    }
    Begun {
        origin,
        span,
        name,
        inherited,
        own,
        block,
        known: name.map(|_| known),
        request_id: template::take_request_id(ctx),
    }
}

/// Reads the rest of a backend.
pub(super) fn backend(scope: &Scope<'_>, begun: Begun<'_>) -> Option<Backend> {
    let ctx = scope.ctx;
    let Begun {
        origin,
        span,
        name,
        inherited,
        own,
        block,
        known,
        request_id,
    } = begun;
    let mode_at = own.mode.or(inherited.mode);
    let mode = mode_at.map_or(DEFAULT_MODE, |mode| mode.value);
    let mut block = block?;

    let nodes = block.any(&["server", "server-template"]);
    let has_servers = !nodes.is_empty();
    let mut servers = servers(nodes, mode);
    let openings = openings(mode, servers.iter().filter_map(|server| server.server.as_ref()));
    let check = block.one("check");
    let agent = block.one("agent-check");
    let steered = scope
        .process
        .admin
        .as_ref()
        .is_some_and(|socket| socket.level >= AdminLevel::Operator);
    // Whether servers may go and come back, by what is found, by their answers, by a name that leads nowhere, or by an operator.
    let has_name = servers.iter().any(ReadServer::has_name);
    let outlier = block.one("outlier-ejection");
    let outlier = outlier.inspect(|node| http_only(node, mode_at));
    let may_go = check.is_some() || agent.is_some() || outlier.is_some() || steered || has_name;
    report_idle_servers(ctx, &servers, may_go);
    let user = scope.process.user.as_ref().map(|user| user.span);
    source::settle(ctx, &own, &inherited, user, &mut servers);
    // What defaults say for HTTP mode is passed over in TCP mode.
    let is_hash = |balance: &At<Balance>| matches!(balance.value, Balance::Hash(_));
    let inherited_balance = inherited.balance.filter(|at| mode == Mode::Http || !is_hash(at));
    let balance_at = own.balance.or(inherited_balance);
    let hash_of = match own.balance {
        Some(_) => own.hash_of.clone(),
        None => inherited_balance.and(inherited.hash_of.clone()),
    };
    let balance = balance_at.map_or(DEFAULT_BALANCE, |balance| balance.value);
    report_slow_start(ctx, &own, &servers, balance_at, may_go);
    // What defaults say of it does not go with every way to choose.
    let is_modulo = matches!(balance, Balance::Source(Spread::Modulo) | Balance::Hash(Spread::Modulo));
    let inherited_slow_start = inherited.slow_start.filter(|_| !is_modulo);
    let slow_start = own.slow_start.or(inherited_slow_start);
    for server in servers.iter_mut().filter_map(|server| server.server.as_mut()) {
        server.slow_start = server.slow_start.or(slow_start.map(|at| at.value));
    }
    report_all_backups(ctx, &own, &servers);
    report_on_marked_down(ctx, &own, &servers, may_go);
    let all_end = own
        .on_marked_down
        .or(inherited.on_marked_down)
        .is_some_and(|at| at.value);
    report_on_marked_up(ctx, &own, &servers, may_go);
    let all_relieve = own.on_marked_up.or(inherited.on_marked_up).is_some_and(|at| at.value);
    let relieves = |read: &ReadServer| read.backup.is_none() && read.on_marked_up.map_or(all_relieve, |at| at.value);
    let are_relieved = servers.iter().any(relieves);
    for read in &mut servers {
        let ends = read.on_marked_down.map_or(all_end, |at| at.value);
        let relieves_backups = relieves(read);
        if let Some(server) = &mut read.server {
            server.relieves_backups = relieves_backups;
            server.session_end = match (ends, &scope.process.admin) {
                (true, _) => SessionEnd::WhenDown,
                (false, Some(socket)) if socket.level == AdminLevel::Admin => SessionEnd::OnOrder,
                (false, _) if server.backup && are_relieved => SessionEnd::OnOrder,
                (false, _) => SessionEnd::Natural,
            };
        }
    }
    report_limits(ctx, &own, &servers, balance_at, agent.is_some());
    let all_backups = own.all_backups.or(inherited.all_backups);
    let backups = match all_backups.is_some_and(|all| all.value) {
        true => Backups::All,
        false => Backups::First,
    };
    let outlier = outlier.map(|node| resilience::outlier_ejection(node, servers.len()));
    let max_requests = block.one("max-requests").inspect(|node| http_only(node, mode_at));
    let max_requests = max_requests.map(resilience::max_requests);
    let retries = retries(&own, &inherited);
    let retries_at = own.retries.count.or(inherited.retries.count).map(|at| at.span);
    let resend = own.resend.or(&inherited.resend);
    let closes = own.server_close.or(inherited.server_close).filter(|close| close.value);
    let has_http2 = servers
        .iter()
        .any(|read| read.server.as_ref().is_some_and(|server| server.http2));
    own.resend
        .report(ctx, &resend, &retries, retries_at, closes.is_none(), has_http2);
    let cookie = block.one("cookie");
    persistence::report_cookies(ctx, cookie.as_ref().map(Node::span), &servers);
    let cookie = cookie.map(|node| persistence::cookie(node, mode_at));
    let stick = block.one("stick");
    let stick = stick.map(|node| persistence::stick(node, mode_at, servers.len()));
    let observe = block.one("observe");
    if let (Some(observe), None) = (&observe, &check) {
        let error = ConfigError::new(Code::Inert, "`observe` does nothing without a `check`");
        let error = error.label(observe.span(), "nothing would take the server up again");
        ctx.report(error.help("write how health is known: check \"tcp\" interval=\"2s\""));
    }
    let agent_at = agent.as_ref().map(|node| node.span());
    let agent = agent.map(check::agent);
    let check_at = check.as_ref().map(|node| node.span());
    let check = check.map(|check| check::check(check, openings, observe.is_some()));
    let schedule = check.as_ref().and_then(|check| Some(check.as_ref()?.schedule));
    let observe = observe.map(|node| check::observe(node, mode_at, schedule));
    if let (Some(Some(check)), Some(span)) = (&check, check_at) {
        report_nameless_checks(ctx, &servers, check, span);
        if check.target.address.is_some() != check.target.port.is_some() {
            report_halved_addresses(ctx, &servers, span, "this check");
        }
    }
    if let (Some(Some(agent)), Some(span)) = (&agent, agent_at)
        && agent.address.is_none()
    {
        report_halved_addresses(ctx, &servers, span, "this agent");
    }
    let acls = BackendAcls::read(scope, &mut block, mode_at);
    let rules = block.any(&["deny", "redirect", "return"]);
    rules.iter().for_each(|node| http_only(node, mode_at));
    let rules = rules::rules(scope, &acls.names, rules);
    let request = block.one("request").inspect(|node| http_only(node, mode_at));
    let request_edits = edits::request(request, &acls.names);
    let response = block.one("response").inspect(|node| http_only(node, mode_at));
    let response_edits = edits::response(response, &acls.names);
    edits::report_too_many_conditions(ctx, ("backend", span), &request_edits, &response_edits);
    let acls = acls.finish();
    // What could not be read may have been one, and where a rule answers everything, nobody asks for one.
    if block.finish(elsewhere) && !has_servers && rules.last.is_none() && !ctx.is_unread("server") {
        let error = ConfigError::new(Code::Missing, "this backend has no server");
        ctx.report(
            error
                .label(span, "serves nothing")
                .help("write one: server \"app-1\" \"10.0.0.1:8080\""),
        );
    }
    if let Some(asked) = request_id.or(template::take_request_id(ctx))
        && let Some((known, _)) = known.and_then(|position| scope.backends.get(position))
    {
        known.request_id.set(Some(asked));
    }

    if let (Some(close), Some(pool)) = (closes, own.pool.span()) {
        let error = ConfigError::new(Code::Inert, "`pool` does nothing with `server-close`");
        let error = error
            .label(pool, "no connection is kept")
            .label(close.span, "because of this");
        ctx.report(error.help("one of them has to go; `server-close \"off\"` undoes what defaults say"));
    }
    own.http2
        .report_unspoken(ctx, servers.iter().map(|read| read.server.as_ref()));
    let timeouts = timeouts(&own.timeouts, &inherited.timeouts);
    let pool = pool(&own.pool, &inherited.pool);
    Some(Backend {
        name: name?.value.into(),
        mode,
        balance,
        hash_of,
        cookie: or_none(cookie)?,
        stick: or_none(stick)?,
        backups,
        servers: servers.into_iter().map(|server| server.server).collect::<Option<_>>()?,
        timeouts,
        keep_alive: keep_alive::of(&own, &inherited),
        queue: queue(&own, &inherited),
        retries,
        max_requests: or_none(max_requests)?,
        outlier: or_none(outlier)?,
        check: match (or_none(check)?, or_none(observe)?) {
            (Some(check), observe) => Some(Check { observe, ..check }),
            (None, _) => None,
        },
        agent: or_none(agent)?,
        server_close: closes.is_some(),
        early_hints: own
            .early_hints
            .or(inherited.early_hints)
            .is_some_and(|hints| hints.value),
        pool,
        response_limits: response_limits::of(&own, &inherited),
        http2: own.http2.of_backend(&inherited.http2),
        error_pages: error_page::of(&own, &inherited),
        acls: acls?,
        rules: rules.rules?,
        request_edits,
        response_edits,
        origin,
    })
}

/// How connections of traffic to these servers begin.
fn openings<'a>(mode: Mode, servers: impl Iterator<Item = &'a Server>) -> Openings {
    let mut openings = Openings::default();
    for server in servers {
        let has_tls = server.tls.is_some();
        openings.any |= has_tls || server.send_proxy.is_some();
        openings.tls_http2 |= has_tls && mode == Mode::Http && server.http2;
        openings.tls_http1 |= has_tls && mode == Mode::Http && !server.http2;
    }
    openings
}

/// Fair without knowing anything of the servers.
const DEFAULT_BALANCE: Balance = Balance::RoundRobin;
