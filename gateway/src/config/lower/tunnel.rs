//! `timeout tunnel=`: what it leaves nothing to do for, and how long clients and servers may be silent with it. It is looked at when all
//! sections are read, since a frontend and a backend may both say it, and the backend's own goes first.

use std::time::Duration;

use miette::SourceSpan;

use super::{Scope, keep_alive};
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{Backend, BackendId, Frontend, Mode, Plugin};
use crate::config::reader::Context;

/// Reports timeouts that never begin, and settles which backends have `tcp-keep-alive`. The names of the scope are in the order
/// of the sections.
pub(super) fn settle(scope: &Scope<'_>, frontends: &[Frontend], backends: &mut [Backend], plugins: &[Plugin]) {
    let ctx = scope.ctx;
    let leads: Vec<Vec<BackendId>> = frontends
        .iter()
        .map(|frontend| leads_to(scope, frontend, plugins))
        .collect();
    for (position, (frontend, leads)) in frontends.iter().zip(&leads).enumerate() {
        let Some((known, _)) = scope.frontends.get(position) else {
            continue;
        };
        let every = |has: fn(&Backend, &Frontend) -> bool| {
            let mut led = leads.iter().filter_map(|id| backends.get(id.0));
            !leads.is_empty() && led.all(|backend| has(backend, frontend))
        };
        if let Some(said) = known
            .tunnel
            .get()
            .filter(|_| every(|backend, _| backend.timeouts.tunnel.is_some()))
        {
            let error = ConfigError::new(Code::Inert, "`timeout tunnel=` does nothing here");
            let error = error.label(
                said,
                "every backend that this frontend leads to has one, which goes first",
            );
            ctx.report(error.help("leave it out, or leave it to the frontend in a backend and in its defaults"));
        }
        let is_tunnel = |backend: &Backend, frontend: &Frontend| tunnel(frontend, backend).is_some();
        if let Some(said) = known
            .client
            .get()
            .filter(|_| frontend.mode == Mode::Tcp && every(is_tunnel))
        {
            report_replaced(ctx, "client", said);
        }
        let led: Vec<&Backend> = leads.iter().filter_map(|id| backends.get(id.0)).collect();
        let silence = client_silence(frontend, &led);
        // What is asked of the listener costs its connections nothing: it stays.
        keep_alive::settle(ctx, &mut frontend.keep_alive.clone(), silence, known.keep_alive.get());
    }
    for (position, backend) in backends.iter_mut().enumerate() {
        let leading: Vec<&Frontend> = frontends
            .iter()
            .zip(&leads)
            .filter(|(_, leads)| leads.contains(&BackendId(position)))
            .map(|(frontend, _)| frontend)
            .collect();
        let Some((known, _)) = scope.backends.get(position) else {
            continue;
        };
        let is_replaced = !leading.is_empty() && leading.iter().all(|frontend| tunnel(frontend, backend).is_some());
        if let Some(said) = known.server.filter(|_| backend.mode == Mode::Tcp && is_replaced) {
            report_replaced(ctx, "server", said);
        }
        let silence = server_silence(backend, &leading);
        keep_alive::settle(ctx, &mut backend.keep_alive, silence, known.keep_alive);
    }
}

/// In TCP mode, what a connection is waited for before it is a session has timeouts of its own.
fn report_replaced(ctx: &Context<'_>, side: &str, said: SourceSpan) {
    let error = ConfigError::new(Code::Inert, format!("`timeout {side}=` does nothing beside `tunnel=`"));
    let error = error.label(said, "in TCP mode `tunnel=` holds in its place");
    ctx.report(error.help("leave it out, or write it as `tunnel=` to have it here"));
}

/// The longest time for which a client's connection may be silent, or longer than that.
fn client_silence(frontend: &Frontend, led: &[&Backend]) -> Duration {
    let own = &frontend.timeouts;
    let of = |backend: &&Backend| {
        let attempts = u32::try_from(backend.retries.count.saturating_add(1)).unwrap_or(u32::MAX);
        let before = backend
            .queue
            .timeout
            .max(backend.timeouts.connect)
            .saturating_mul(attempts);
        let session = tunnel(frontend, backend).unwrap_or_default();
        match frontend.mode {
            Mode::Tcp if session > Duration::ZERO => before.max(session),
            _ => before.max(session).max(own.client).max(backend.timeouts.server),
        }
    };
    let served = led.iter().map(of).max().unwrap_or(own.client);
    let greeted = served.max(own.handshake).max(own.client_hello);
    match frontend.mode {
        Mode::Tcp => greeted,
        Mode::Http => greeted.max(own.http_request).max(own.http_keep_alive),
    }
}

/// The longest time for which a connection to a server may be silent.
fn server_silence(backend: &Backend, leading: &[&Frontend]) -> Duration {
    let server = backend.timeouts.server;
    let of = |frontend: &&Frontend| match (tunnel(frontend, backend), backend.mode) {
        (Some(tunnel), Mode::Tcp) => tunnel,
        // Only what was upgraded is a tunnel.
        (Some(tunnel), Mode::Http) => tunnel.max(server),
        (None, _) => server,
    };
    let busy = leading.iter().map(of).max().unwrap_or(server);
    match backend.mode == Mode::Http && !backend.server_close {
        true => busy.max(backend.pool.idle_timeout),
        false => busy,
    }
}

/// `timeout tunnel=` of a session from this frontend to this backend.
fn tunnel(frontend: &Frontend, backend: &Backend) -> Option<Duration> {
    backend.timeouts.tunnel.or(frontend.timeouts.tunnel)
}

/// All backends that a frontend may lead to, by itself, by its plugins, or by what its tenants say and their files may say.
fn leads_to(scope: &Scope<'_>, frontend: &Frontend, plugins: &[Plugin]) -> Vec<BackendId> {
    let routes = frontend.routes.iter().flat_map(|route| route.to.backends());
    let used = frontend.plugins.iter();
    let granted = used.filter_map(|used| plugins.get(used.plugin.value.0));
    let granted = granted.flat_map(|plugin| &plugin.route_to.value);
    let tenants = frontend.tenants.iter().filter_map(|id| scope.tenants.get(id.0));
    let by_tenants = tenants.flat_map(|(known, _)| &known.reached);
    let fits = |id: &&BackendId| {
        let backend = scope.backends.get(id.0);
        backend.is_some_and(|(known, _)| known.mode == frontend.mode)
    };
    let all = routes.chain(granted).chain(by_tenants.filter(fits));
    all.copied().chain(frontend.default_backend).collect()
}
