//! `backend "app" { … }`: servers and how one is chosen.

use std::cell::Cell;
use std::time::Duration;

use miette::SourceSpan;

use super::backend_rules::BackendAcls;
use super::check::Openings;
use super::keep_alive;
use super::limits::PoolSettings;
use super::resilience;
use super::server::{ReadServer, servers};
use super::settings::{Place, Settings, http_only};
use super::timeouts::Timeouts;
use super::{
    DEFAULT_MODE, Scope, check, edits, elsewhere, error_page, or_none, persistence, response_limits, rules,
    section_name, template,
};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{
    AdminLevel, Backend, Backups, Balance, Check, CheckOpening, Mode, Origin, Pool, QueueLimits, Redispatch, Retries,
    Reuse, Server, ServerTimeouts, ServerTls, SessionEnd, Spread, Verify,
};
use crate::config::reader::{At, Block, Context, Node};

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
    let agent = agent.map(check::agent);
    let check_at = check.as_ref().map(|node| node.span());
    let check = check.map(|check| check::check(check, openings, observe.is_some()));
    let schedule = check.as_ref().and_then(|check| Some(check.as_ref()?.schedule));
    let observe = observe.map(|node| check::observe(node, mode_at, schedule));
    if let (Some(Some(check)), Some(span)) = (&check, check_at) {
        report_nameless_checks(ctx, &servers, check, span);
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
    // What could not be read may have been one.
    if block.finish(elsewhere) && !has_servers && !ctx.is_unread("server") {
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

/// Reports checks of servers that verify the name each client asks for: a check has no client.
fn report_nameless_checks(ctx: &Context<'_>, servers: &[ReadServer], check: &Check, at: SourceSpan) {
    let target = check.target;
    let is_elsewhere = target.address.is_some() || target.port.is_some();
    if check.tls.is_some() || is_elsewhere && target.opening == CheckOpening::Plain {
        return;
    }
    let tls = servers.iter().filter_map(|read| read.server.as_ref()?.tls.as_ref());
    let nameless = |tls: &&ServerTls| tls.sni_of_client && tls.sni.is_none() && tls.verify != Verify::None;
    if let Some(tls) = tls.into_iter().find(nameless) {
        let error = ConfigError::new(Code::Missing, "checks have no client whose name they could ask for");
        let error = error
            .label(tls.origin.span, "the name of the client's wish is verified")
            .label(at, "this asks for none, and would find every certificate wrong");
        ctx.report(error.help("write the name that they ask for beside it: check-sni=\"app.example.net\""));
    }
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

/// Reports what keeps servers from ever doing anything.
fn report_idle_servers(ctx: &Context<'_>, servers: &[ReadServer], may_go: bool) {
    let Some(first) = servers.first() else { return };
    let backup = servers.iter().find_map(|server| server.backup);
    if let Some(backup) = backup {
        let error = if servers.iter().all(|server| server.backup.is_some()) {
            let error = ConfigError::new(
                Code::Inert,
                "`backup` does nothing: every server of this backend is one",
            );
            error
                .label(backup, "of no other server")
                .help("leave it out of the servers that are to be used first")
        } else if !may_go {
            let error = ConfigError::new(
                Code::Inert,
                "this backup is never used: without a `check`, every server is taken as up",
            );
            error
                .label(backup, "used when no other server is up")
                .help("write how health is known: check \"tcp\" interval=\"2s\"")
        } else {
            return report_weights(ctx, servers, first);
        };
        ctx.report(error);
    }
    report_weights(ctx, servers, first);
}

fn report_weights(ctx: &Context<'_>, servers: &[ReadServer], first: &ReadServer) {
    if servers
        .iter()
        .all(|server| server.weight.is_some_and(|weight| weight.value == 0))
    {
        let error = ConfigError::new(Code::Conflict, "every server of this backend has weight 0");
        let span = first.weight.map_or(first.span, |weight| weight.span);
        ctx.report(
            error
                .label(span, "gets no work")
                .help("give one of them a weight of 1 or more"),
        );
    }
}

/// Reports a slow start that never happens.
fn report_slow_start(
    ctx: &Context<'_>,
    own: &Settings,
    servers: &[ReadServer],
    balance: Option<At<Balance>>,
    has_check: bool,
) {
    let said = servers.iter().find_map(|server| server.slow_start);
    let Some(span) = own.slow_start.map(|value| value.span).or(said) else {
        return;
    };
    let is_modulo = |balance: &At<Balance>| {
        matches!(
            balance.value,
            Balance::Source(Spread::Modulo) | Balance::Hash(Spread::Modulo)
        )
    };
    let fixed = balance.filter(is_modulo);
    let error = if let Some(balance) = fixed {
        let error = ConfigError::new(Code::Conflict, "a slow start would move every client at every step");
        error
            .label(span, "changes the shares for a while")
            .label(balance.span, "moves nearly everybody when a share changes")
            .help("leave it out, or add `consistent`: balance \"source\" consistent")
    } else if !has_check {
        let error = ConfigError::new(Code::Inert, "`slow-start` does nothing without a `check`");
        error
            .label(span, "begins when a server comes back, and none ever goes")
            .help("write how health is known: check \"tcp\" interval=\"2s\"")
    } else {
        return;
    };
    ctx.report(error);
}

/// Reports `on-marked-down` where nothing ever goes down.
fn report_on_marked_down(ctx: &Context<'_>, own: &Settings, servers: &[ReadServer], may_go: bool) {
    let said = servers.iter().find_map(|server| server.on_marked_down);
    if let Some(said) = own.on_marked_down.or(said).filter(|said| said.value && !may_go) {
        let error = ConfigError::new(Code::Inert, "`on-marked-down` does nothing without a `check`");
        let error = error.label(said.span, "happens when a server goes down, and none ever does");
        ctx.report(error.help("write how health is known: check \"tcp\" interval=\"2s\""));
    }
}

/// Reports `on-marked-up` where no server ever comes back, or there is no backup to be relieved.
fn report_on_marked_up(ctx: &Context<'_>, own: &Settings, servers: &[ReadServer], may_go: bool) {
    let error = |message: &str| ConfigError::new(Code::Inert, message.to_owned());
    let of_backup = servers.iter().filter(|server| server.backup.is_some());
    for said in of_backup
        .filter_map(|server| server.on_marked_up)
        .filter(|said| said.value)
    {
        let error = error("`on-marked-up=` does nothing at a backup");
        let error = error.label(said.span, "the sessions of backups end when another server comes back");
        ctx.report(error.help("say it at the servers that the backups step in for"));
    }
    let others = servers.iter().filter(|server| server.backup.is_none());
    let of_others = others.filter_map(|server| server.on_marked_up);
    let mut all = own.on_marked_up.into_iter().chain(of_others);
    let Some(said) = all.find(|said| said.value) else {
        return;
    };
    if !servers.iter().any(|server| server.backup.is_some()) {
        let error = error("`on-marked-up` does nothing: there is no backup");
        let error = error.label(said.span, "ends the sessions of backups");
        ctx.report(error.help("leave it out, or make a server a `backup`"));
    } else if !may_go {
        let error = error("`on-marked-up` does nothing without a `check`");
        let error = error.label(said.span, "happens when a server comes back, and none ever goes");
        ctx.report(error.help("write how health is known: check \"tcp\" interval=\"2s\""));
    }
}

/// Reports `all-backups` where there are no two.
fn report_all_backups(ctx: &Context<'_>, own: &Settings, servers: &[ReadServer]) {
    let backups = servers.iter().filter(|server| server.backup.is_some()).count();
    if let Some(all) = own.all_backups.filter(|all| all.value)
        && backups < 2
    {
        let error = ConfigError::new(Code::Inert, "`all-backups` does nothing: there are no two backups");
        let error = error.label(all.span, "says that all of them step in together");
        ctx.report(error.help("leave it out, or make more servers a `backup`"));
    }
}

/// Reports a queue in which nobody would ever wait, and `first` where nobody gets beyond the first.
fn report_limits(
    ctx: &Context<'_>,
    own: &Settings,
    servers: &[ReadServer],
    balance: Option<At<Balance>>,
    has_agent: bool,
) {
    let help = "write how much a server may have: server \"app-1\" \"10.0.0.1:80\" max-connections=100";
    // An agent may limit any of them at any time.
    let is_limited = |server: &ReadServer| has_agent || server.max_connections.is_some();
    let is_any_limited = servers.iter().any(is_limited);
    let queue = [
        ("max-queue", own.max_queue.map(|value| value.span)),
        ("timeout queue=", own.timeouts.queue.map(|value| value.span)),
    ];
    for (what, span) in queue.into_iter().filter_map(|(what, span)| Some((what, span?))) {
        if !is_any_limited {
            let error = ConfigError::new(
                Code::Inert,
                format!("`{what}` does nothing: no server has `max-connections=`"),
            );
            ctx.report(error.label(span, "nobody ever waits for a server").help(help));
        }
    }
    if let (Some(most), Some(timeout)) = (own.max_queue.filter(|most| most.value == 0), own.timeouts.queue) {
        let error = ConfigError::new(Code::Inert, "`timeout queue=` does nothing with `max-queue 0`");
        let error = error
            .label(timeout.span, "nobody waits")
            .label(most.span, "because of this");
        ctx.report(error.help("one of them has to go"));
    }
    let first = balance.filter(|balance| balance.value == Balance::First);
    let active = servers.iter().filter(|server| server.backup.is_none());
    if let Some(first) = first
        && let [before @ .., _] = &*active.collect::<Vec<_>>()
        && let Some(endless) = before.iter().find(|server| !is_limited(server))
    {
        let error = ConfigError::new(Code::Inert, "with `balance \"first\"`, nothing gets beyond this server");
        let error = error.label(endless.span, "is never full: it has no `max-connections=`");
        ctx.report(error.label(first.span, "fills one server after the other").help(help));
    }
}

fn queue(own: &Settings, inherited: &Settings) -> QueueLimits {
    let most = own.max_queue.or(inherited.max_queue);
    let timeout = own.timeouts.queue.or(inherited.timeouts.queue);
    // As in HAProxy: who would wait so long for a connection may as well wait so long for a place.
    let connect = || timeouts(&own.timeouts, &inherited.timeouts).connect;
    QueueLimits {
        most: most.map_or(DEFAULT_MAX_QUEUE, |value| value.value),
        timeout: timeout.map_or_else(connect, |value| value.value),
    }
}

fn retries(own: &Settings, inherited: &Settings) -> Retries {
    let count = own.retries.count.or(inherited.retries.count);
    let redispatch = own.retries.redispatch.or(inherited.retries.redispatch);
    let resend = own.resend.or(&inherited.resend);
    Retries {
        count: count.map_or(DEFAULT_RETRIES, |value| value.value),
        redispatch: redispatch.map_or(DEFAULT_REDISPATCH, |value| value.value),
        on: resend.on.map_or(resilience::DEFAULT_RETRY_ON, |on| on.value),
        buffer: resend.buffer.map_or(resilience::DEFAULT_BUFFER, |size| size.value),
        budget: resend.budget.map_or(resilience::DEFAULT_BUDGET, |budget| budget.value),
    }
}

fn timeouts(own: &Timeouts, inherited: &Timeouts) -> ServerTimeouts {
    let connect = own.connect.or(inherited.connect);
    let server = own.server.or(inherited.server);
    let tunnel = own.tunnel.or(inherited.tunnel);
    ServerTimeouts {
        connect: connect.map_or(DEFAULT_CONNECT_TIMEOUT, |timeout| timeout.value),
        server: server.map_or(DEFAULT_SERVER_TIMEOUT, |timeout| timeout.value),
        tunnel: tunnel.map(|timeout| timeout.value),
    }
}

fn pool(own: &PoolSettings, inherited: &PoolSettings) -> Pool {
    let max_idle = own.max_idle.or(inherited.max_idle);
    let idle_timeout = own.idle_timeout.or(inherited.idle_timeout);
    let reuse = own.reuse.or(inherited.reuse);
    Pool {
        max_idle: max_idle.map_or(DEFAULT_MAX_IDLE, |value| value.value),
        idle_timeout: idle_timeout.map_or(DEFAULT_IDLE_TIMEOUT, |value| value.value),
        reuse: reuse.map_or(DEFAULT_REUSE, |value| value.value),
    }
}

/// Fair without knowing anything of the servers.
const DEFAULT_BALANCE: Balance = Balance::RoundRobin;
/// Two lost SYNs (retried after 1 s and 3 s) and a little.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that says nothing for half a minute rarely says anything later.
const DEFAULT_SERVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Per server and worker: no fewer than a busy worker has under way to one server, for what is kept was needed a moment ago,
/// and opening it again costs as much as several requests. What is not needed again ends with `idle-timeout`.
const DEFAULT_MAX_IDLE: usize = 512;
/// What may be sent again is sent again when a kept connection turns out to be closed; `safe` costs a connection for each
/// client.
const DEFAULT_REUSE: Reuse = Reuse::Always;
/// Below the keep-alive time of common servers (nginx 75 s, Node 5 s apart), so that we close first.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// At some hundred requests a second, which a backend with limits commonly does, whoever joins a longer queue waits for
/// longer than the default of `timeout queue=`.
const DEFAULT_MAX_QUEUE: usize = 1_024;
/// As HAProxy's.
const DEFAULT_RETRIES: usize = 3;
/// Another server answers at once, where the same one would be asked again only after a pause.
const DEFAULT_REDISPATCH: Redispatch = Redispatch::Each;
