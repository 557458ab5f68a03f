//! Settings of a backend and its servers that do nothing, or do not go together.

use miette::SourceSpan;

use crate::config::diagnostics::{Code, ConfigError};
use crate::config::lower::server::ReadServer;
use crate::config::lower::settings::Settings;
use crate::config::model::{Balance, Check, CheckOpening, ServerTls, Spread, Verify};
use crate::config::reader::{At, Context};

/// Reports that something is asked at the server's own address and another port, or the other way round, where a server is on a UNIX
/// socket and has neither.
pub(super) fn report_halved_addresses(ctx: &Context<'_>, servers: &[ReadServer], at: SourceSpan, what: &str) {
    if let Some(server) = servers.iter().find(|server| server.is_unix()) {
        let error = ConfigError::new(Code::Missing, format!("where {what} goes is said by half"));
        let error = error
            .label(at, "has an address or a port of its own, not both")
            .label(server.span, "on a UNIX socket there is neither");
        ctx.report(error.help("say both: address=\"127.0.0.1\" port=9000"));
    }
}

/// Reports checks of servers that verify the name each client asks for: a check has no client.
pub(super) fn report_nameless_checks(ctx: &Context<'_>, servers: &[ReadServer], check: &Check, at: SourceSpan) {
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

/// Reports what keeps servers from ever doing anything.
pub(super) fn report_idle_servers(ctx: &Context<'_>, servers: &[ReadServer], may_go: bool) {
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

/// Reports a backend whose servers all have weight 0.
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
pub(super) fn report_slow_start(
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
pub(super) fn report_on_marked_down(ctx: &Context<'_>, own: &Settings, servers: &[ReadServer], may_go: bool) {
    let said = servers.iter().find_map(|server| server.on_marked_down);
    if let Some(said) = own.on_marked_down.or(said).filter(|said| said.value && !may_go) {
        let error = ConfigError::new(Code::Inert, "`on-marked-down` does nothing without a `check`");
        let error = error.label(said.span, "happens when a server goes down, and none ever does");
        ctx.report(error.help("write how health is known: check \"tcp\" interval=\"2s\""));
    }
}

/// Reports `on-marked-up` where no server ever comes back, or there is no backup to be relieved.
pub(super) fn report_on_marked_up(ctx: &Context<'_>, own: &Settings, servers: &[ReadServer], may_go: bool) {
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
pub(super) fn report_all_backups(ctx: &Context<'_>, own: &Settings, servers: &[ReadServer]) {
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
pub(super) fn report_limits(
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
