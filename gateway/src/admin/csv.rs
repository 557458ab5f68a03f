//! The figures as HAProxy's statistics have them in CSV: the same columns in the same order, up to `conn_tot`. What there is not
//! here is empty, as it is there for what does not apply.

use std::fmt::Write;

use super::desk::Says;
use crate::backend::{Backend, Server};
use crate::config::{Balance, HashOf, Mode};
use crate::telemetry::metrics::{BackendStats, FrontendStats, ServerStats, Stats};

/// The figures, a line each for frontends, servers and backends.
pub(super) fn csv(stats: &Stats, said: &Says) -> String {
    let mut page = format!("# {},\n", COLUMNS.join(","));
    let mut proxies = 0..;
    for (frontend, id) in stats.frontends.iter().zip(&mut proxies) {
        front(frontend, id, said).write(&mut page);
    }
    for (backend, id) in stats.backends.iter().zip(&mut proxies) {
        for (server, position) in backend.servers.iter().zip(1..) {
            row_of_server(backend, server, (id, position), said).write(&mut page);
        }
        back(backend, id, said).write(&mut page);
    }
    page
}

fn front(frontend: &FrontendStats, id: u64, all: &Says) -> Row {
    let says = all.frontends.iter().find(|says| says.name == frontend.name);
    let mut row = Row::of(&frontend.name, "FRONTEND", id, 0, 0);
    row.number("scur", frontend.connections as u64);
    row.number("smax", frontend.most_connections as u64);
    // What the process may have bounds it, too.
    let own = says.and_then(|says| says.max_connections);
    row.number("slim", own.unwrap_or(all.max_connections) as u64);
    row.number("stot", frontend.connections_total);
    row.number("bin", frontend.received_bytes);
    row.number("bout", frontend.sent_bytes);
    row.number("dreq", frontend.denied + frontend.rate_limited);
    let of_requests = frontend.errors.iter().filter(|(reason, _)| is_of_a_request(reason));
    row.number("ereq", of_requests.map(|(_, count)| count).sum());
    row.text("status", "OPEN");
    row.number("rate", frontend.connection_rate);
    row.number("rate_max", frontend.most_connection_rate);
    row.number("conn_rate", frontend.connection_rate);
    row.number("conn_rate_max", frontend.most_connection_rate);
    row.number("conn_tot", frontend.connections_total);
    if let Some(says) = says {
        row.text("mode", mode(says.mode));
        let is_http = says.mode == Mode::Http;
        if is_http {
            row.responses(&frontend.responses);
        }
        let requests = [
            ("req_rate", frontend.request_rate),
            ("req_rate_max", frontend.most_request_rate),
            ("req_tot", frontend.responses.iter().sum()),
        ];
        for (column, count) in requests {
            row.number(column, if is_http { count } else { 0 });
        }
    }
    row
}

fn row_of_server(backend: &BackendStats, server: &ServerStats, (id, position): (u64, u64), all: &Says) -> Row {
    let known = all.backends.iter().find(|known| known.name == backend.name);
    let said = known.and_then(|known| {
        let mut servers = known.servers.iter().enumerate();
        servers.find(|(_, said)| said.name == server.name)
    });
    let is_backup = said.is_some_and(|(_, said)| said.is_backup());
    let mut row = Row::of(&backend.name, &server.name, id, position, 2);
    row.number("qcur", server.queue as u64);
    row.number("qmax", server.most_queue as u64);
    row.number("scur", server.in_flight as u64);
    row.number("smax", server.most_in_flight as u64);
    row.optional("slim", server.max_connections);
    row.number("stot", server.sessions_total);
    row.idle(server.idle_seconds);
    // In HAProxy these are of clients: in is what goes to the server.
    row.number("bin", server.sent_bytes);
    row.number("bout", server.received_bytes);
    // Not the attempts, but those that were given up.
    row.number("econ", server.unreached);
    // HAProxy counts those that broke off among them.
    row.number("eresp", server.response_errors + server.server_aborts);
    // HAProxy counts a further attempt as one of the two.
    row.number("wretr", server.retries.saturating_sub(server.redispatches));
    row.number("wredis", server.redispatches);
    row.number("cli_abrt", server.client_aborts);
    row.number("srv_abrt", server.server_aborts + server.server_timeouts);
    row.text("status", status(server));
    // Who takes work has one: 0 says that it does not.
    let weight = match server.effective_weight {
        weight if weight > 0.0 => (weight.round() as u64).max(1),
        _ => 0,
    };
    row.number("weight", weight);
    row.number("act", u64::from(!is_backup));
    row.number("bck", u64::from(is_backup));
    if server.check_passed.is_some() {
        row.number("chkfail", server.checks_failed);
        row.number("chkdown", server.went_down);
        row.number("downtime", server.down_seconds);
    }
    row.number("lastchg", server.health_seconds);
    row.number("lbtot", server.sessions_total);
    row.number("rate", server.rate);
    row.number("rate_max", server.most_rate);
    row.optional("throttle", server.slow_start_percent);
    row.times([
        server.average_queue_seconds,
        server.average_connect_seconds,
        server.average_response_seconds,
        server.average_total_seconds,
    ]);
    if let Some(known) = known {
        row.text("mode", mode(known.mode));
        if known.mode == Mode::Http {
            row.responses(&server.responses);
            row.number("req_tot", server.sessions_total);
        }
        if let Some((at, said)) = said {
            row.checks(server, known, said);
            let cookie = known.cookie.as_ref().and_then(|cookie| cookie.value_of(at));
            row.optional("cookie", cookie.map(<[u8]>::escape_ascii));
            row.optional("addr", said.address());
        }
    }
    row
}

fn back(backend: &BackendStats, id: u64, all: &Says) -> Row {
    let known = all.backends.iter().find(|known| known.name == backend.name);
    let servers = &backend.servers;
    let sum = |of: fn(&ServerStats) -> u64| servers.iter().map(of).sum::<u64>();
    let usable = |server: &&ServerStats| server.effective_weight > 0.0;
    let is_backup = |server: &ServerStats| {
        let said = known.and_then(|known| known.servers.iter().find(|said| said.name == server.name));
        said.is_some_and(|said| said.is_backup())
    };
    let (backups, active): (Vec<_>, Vec<_>) = servers.iter().filter(usable).partition(|server| is_backup(server));
    let mut row = Row::of(&backend.name, "BACKEND", id, 0, 1);
    row.number("qcur", backend.queue as u64);
    row.number("qmax", backend.most_queue as u64);
    row.number("scur", backend.in_flight as u64);
    row.number("smax", backend.most_in_flight as u64);
    row.number("stot", backend.sessions_total);
    row.idle(backend.idle_seconds);
    row.number("bin", backend.sent_bytes);
    row.number("bout", backend.received_bytes);
    // With those that came to no server.
    let unserved = backend.no_server + backend.queue_timeouts + backend.queue_full;
    row.number("econ", sum(|server| server.unreached) + unserved);
    row.number("eresp", sum(|server| server.response_errors + server.server_aborts));
    row.number("wretr", backend.retries.saturating_sub(backend.redispatches));
    row.number("wredis", backend.redispatches);
    row.number("cli_abrt", backend.client_aborts + sum(|server| server.client_aborts));
    row.number("srv_abrt", sum(|server| server.server_aborts + server.server_timeouts));
    row.text("status", if backups.len() + active.len() > 0 { "UP" } else { "DOWN" });
    let weight: f64 = active.iter().map(|server| server.effective_weight).sum();
    row.number("weight", weight.round() as u64);
    row.number("act", active.len() as u64);
    row.number("bck", backups.len() as u64);
    row.number("chkdown", backend.went_down);
    row.number("lastchg", backend.health_seconds);
    row.number("downtime", backend.down_seconds);
    row.number("lbtot", backend.attempts_total);
    row.number("rate", backend.rate);
    row.number("rate_max", backend.most_rate);
    row.times([
        backend.average_queue_seconds,
        backend.average_connect_seconds,
        backend.average_response_seconds,
        backend.average_total_seconds,
    ]);
    if let Some(known) = known {
        row.text("mode", mode(known.mode));
        row.text("algo", algorithm(known));
        row.optional(
            "cookie",
            known.cookie.as_ref().map(|cookie| cookie.name().escape_ascii()),
        );
        if known.mode == Mode::Http {
            row.number("req_tot", backend.sessions_total);
            row.responses(&backend.responses);
        }
    }
    row
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "http",
        Mode::Tcp => "tcp",
    }
}

/// HAProxy's words for how servers are chosen.
fn algorithm(backend: &Backend) -> &'static str {
    match backend.balance {
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConn => "leastconn",
        Balance::Random => "random",
        Balance::First => "first",
        Balance::Source(_) => "source",
        Balance::Hash(_) => match backend.hash_of {
            Some(HashOf::Header(_)) => "hdr",
            Some(HashOf::Query(_)) => "url_param",
            Some(HashOf::Uri(_)) => "uri",
            Some(HashOf::Cookie(_)) => "hash",
            None => "",
        },
    }
}

/// Whether exchanges that end for this reason do so for what the client sent, or did not: HAProxy's errors of requests. What servers and the
/// gateway fail in is none of them.
fn is_of_a_request(reason: &str) -> bool {
    const OTHERS: [&str; 13] = [
        "no-request",
        "request-aborted",
        "request-timeout",
        "body-aborted",
        "client-timeout",
        "slow-body",
        "uri-too-long",
        "head-too-large",
        "body-too-large",
        "decoded-too-large",
        "no-proxy-header",
        "proxy-header-timeout",
        "client-left",
    ];
    let is_bad = reason.starts_with("bad-") && !reason.starts_with("bad-response") && reason != "bad-upgrade";
    let is_refused = matches!(
        reason,
        "no-host"
            | "several-hosts"
            | "host-mismatch"
            | "dot-segment"
            | "escaped-slash"
            | "connect-method"
            | "connect-protocol"
    );
    is_bad || is_refused || reason.starts_with("http2-") || OTHERS.contains(&reason)
}

/// HAProxy's sentence for what a check found.
fn described(word: &str) -> &'static str {
    match word {
        "L4OK" => "Layer4 check passed",
        "L4TOUT" => "Layer4 timeout",
        "L4CON" => "Layer4 connection problem",
        "L6OK" => "Layer6 check passed",
        "L6RSP" => "Layer6 invalid response",
        "L6TOUT" => "Layer6 timeout",
        "L7OK" => "Layer7 check passed",
        "L7OKC" => "Layer7 check conditionally passed",
        "L7TOUT" => "Layer7 timeout",
        "L7RSP" => "Layer7 invalid response",
        "L7STS" => "Layer7 wrong status",
        _ => "",
    }
}

/// HAProxy's words for a server's state.
fn status(server: &ServerStats) -> &'static str {
    match (server.state, server.agent, server.health) {
        ("maint", ..) | (_, "maint", _) => "MAINT",
        (.., "unresolved") => "MAINT (resolution)",
        (_, "down", _) => "DOWN (agent)",
        (.., "down" | "ejected") => "DOWN",
        ("drain", ..) | (_, "drain", _) => "DRAIN",
        (.., "drained") => "NOLB",
        _ if server.check_passed.is_none() => "no check",
        _ => "UP",
    }
}

/// A line in the making.
struct Row(Vec<String>);

impl Row {
    fn of(proxy: &str, name: &str, id: u64, position: u64, kind: u64) -> Self {
        let mut row = Self(vec![String::new(); COLUMNS.len()]);
        row.text("pxname", proxy);
        row.text("svname", name);
        row.number("pid", 1);
        row.number("iid", id + 1);
        row.number("sid", position);
        row.number("type", kind);
        row
    }

    fn text(&mut self, column: &str, text: &str) {
        let Some(at) = COLUMNS.iter().position(|known| *known == column) else {
            return;
        };
        let is_plain = !text.contains([',', '"', '\n', '\r']);
        self.0[at] = match is_plain {
            true => text.to_owned(),
            false => format!("\"{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " ")),
        };
    }

    fn number(&mut self, column: &str, number: u64) {
        self.text(column, &number.to_string());
    }

    fn optional(&mut self, column: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.text(column, &value.to_string());
        }
    }

    /// Seconds since the last session; -1 before the first.
    fn idle(&mut self, seconds: Option<u64>) {
        match seconds {
            Some(seconds) => self.number("lastsess", seconds),
            None => self.text("lastsess", "-1"),
        }
    }

    /// Averages in seconds, of which HAProxy has milliseconds.
    fn times(&mut self, seconds: [f64; 4]) {
        for (column, seconds) in ["qtime", "ctime", "rtime", "ttime"].into_iter().zip(seconds) {
            self.number(column, (seconds * 1e3).round() as u64);
        }
    }

    /// What checks and agent of a server found last, and how far it is from going up or down.
    fn checks(&mut self, server: &ServerStats, backend: &Backend, said: &Server) {
        let milliseconds = |seconds: Option<f64>| seconds.map(|seconds| (seconds * 1e3).round());
        if let Some(check) = &backend.check {
            let word = server.check_result.unwrap_or("INI");
            self.text("check_status", word);
            self.text("check_desc", described(word));
            self.optional("check_code", server.check_status);
            self.optional("check_duration", milliseconds(server.check_seconds));
            self.text("last_chk", server.check_reason.as_deref().unwrap_or_default());
            let (rise, fall) = (check.schedule.rise, check.schedule.fall);
            let against = said.metrics.checks.get().against;
            let health = match said.metrics.passes() {
                true => rise.saturating_add(fall).saturating_sub(1).saturating_sub(against),
                false => against,
            };
            self.number("check_rise", rise.into());
            self.number("check_fall", fall.into());
            self.number("check_health", health.into());
        }
        if backend.agent.is_some() {
            let word = server.agent_result.unwrap_or("INI");
            self.text("agent_status", word);
            self.text("agent_desc", described(word));
            // As HAProxy, which knows no other.
            self.number("agent_code", 0);
            self.optional("agent_duration", milliseconds(server.agent_seconds));
            self.text("last_agt", server.agent_reason.as_deref().unwrap_or_default());
            // One answer settles it.
            self.number("agent_rise", 1);
            self.number("agent_fall", 1);
            self.number("agent_health", u64::from(said.metrics.agent().up));
        }
    }

    /// By class: none, 1xx to 5xx.
    fn responses(&mut self, classes: &[u64; 6]) {
        let names = ["hrsp_other", "hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx"];
        for (name, count) in names.into_iter().zip(classes) {
            self.number(name, *count);
        }
    }

    fn write(&self, page: &mut String) {
        for value in &self.0 {
            // Writing to a String cannot fail.
            let _ = write!(page, "{value},");
        }
        page.push('\n');
    }
}

/// Those of HAProxy 2.6.
const COLUMNS: [&str; 80] = [
    "pxname",
    "svname",
    "qcur",
    "qmax",
    "scur",
    "smax",
    "slim",
    "stot",
    "bin",
    "bout",
    "dreq",
    "dresp",
    "ereq",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "status",
    "weight",
    "act",
    "bck",
    "chkfail",
    "chkdown",
    "lastchg",
    "downtime",
    "qlimit",
    "pid",
    "iid",
    "sid",
    "throttle",
    "lbtot",
    "tracked",
    "type",
    "rate",
    "rate_lim",
    "rate_max",
    "check_status",
    "check_code",
    "check_duration",
    "hrsp_1xx",
    "hrsp_2xx",
    "hrsp_3xx",
    "hrsp_4xx",
    "hrsp_5xx",
    "hrsp_other",
    "hanafail",
    "req_rate",
    "req_rate_max",
    "req_tot",
    "cli_abrt",
    "srv_abrt",
    "comp_in",
    "comp_out",
    "comp_byp",
    "comp_rsp",
    "lastsess",
    "last_chk",
    "last_agt",
    "qtime",
    "ctime",
    "rtime",
    "ttime",
    "agent_status",
    "agent_code",
    "agent_duration",
    "check_desc",
    "agent_desc",
    "check_rise",
    "check_fall",
    "check_health",
    "agent_rise",
    "agent_fall",
    "agent_health",
    "addr",
    "cookie",
    "mode",
    "algo",
    "conn_rate",
    "conn_rate_max",
    "conn_tot",
];
