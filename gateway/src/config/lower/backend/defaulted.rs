//! What a backend's settings come to: its own, else those of its `defaults`, else the gateway's.

use std::time::Duration;

use crate::config::lower::limits::PoolSettings;
use crate::config::lower::resilience;
use crate::config::lower::settings::Settings;
use crate::config::lower::timeouts::Timeouts;
use crate::config::model::{Pool, QueueLimits, Redispatch, Retries, Reuse, ServerTimeouts};

pub(super) fn queue(own: &Settings, inherited: &Settings) -> QueueLimits {
    let most = own.max_queue.or(inherited.max_queue);
    let timeout = own.timeouts.queue.or(inherited.timeouts.queue);
    // As in HAProxy: who would wait so long for a connection may as well wait so long for a place.
    let connect = || timeouts(&own.timeouts, &inherited.timeouts).connect;
    QueueLimits {
        most: most.map_or(DEFAULT_MAX_QUEUE, |value| value.value),
        timeout: timeout.map_or_else(connect, |value| value.value),
    }
}

pub(super) fn retries(own: &Settings, inherited: &Settings) -> Retries {
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

pub(super) fn timeouts(own: &Timeouts, inherited: &Timeouts) -> ServerTimeouts {
    let connect = own.connect.or(inherited.connect);
    let server = own.server.or(inherited.server);
    let tunnel = own.tunnel.or(inherited.tunnel);
    ServerTimeouts {
        connect: connect.map_or(DEFAULT_CONNECT_TIMEOUT, |timeout| timeout.value),
        server: server.map_or(DEFAULT_SERVER_TIMEOUT, |timeout| timeout.value),
        tunnel: tunnel.map(|timeout| timeout.value),
    }
}

pub(super) fn pool(own: &PoolSettings, inherited: &PoolSettings) -> Pool {
    let max_idle = own.max_idle.or(inherited.max_idle);
    let idle_timeout = own.idle_timeout.or(inherited.idle_timeout);
    let reuse = own.reuse.or(inherited.reuse);
    Pool {
        max_idle: max_idle.map_or(DEFAULT_MAX_IDLE, |value| value.value),
        idle_timeout: idle_timeout.map_or(DEFAULT_IDLE_TIMEOUT, |value| value.value),
        reuse: reuse.map_or(DEFAULT_REUSE, |value| value.value),
    }
}

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
