//! The figures as HAProxy's statistics have them in CSV: the same columns in the same order, up to `conn_tot`. What is not known
//! here is empty, as it is there for what does not apply.

use std::fmt::Write;

use super::desk::Current;
use crate::config::Mode;
use crate::telemetry::metrics::{BackendStats, FrontendStats, ServerStats, Stats};

/// The figures, a line each for frontends, servers and backends.
pub(super) fn csv(stats: &Stats, current: &Current) -> String {
    let mut page = format!("# {},\n", COLUMNS.join(","));
    let mut proxies = 0..;
    for (frontend, id) in stats.frontends.iter().zip(&mut proxies) {
        front(frontend, id, current).write(&mut page);
    }
    for (backend, id) in stats.backends.iter().zip(&mut proxies) {
        for (server, position) in backend.servers.iter().zip(1..) {
            row_of_server(backend, server, (id, position), current).write(&mut page);
        }
        back(backend, id, current).write(&mut page);
    }
    page
}

fn front(frontend: &FrontendStats, id: u64, current: &Current) -> Row {
    let says = current.frontends.iter().find(|says| says.name == frontend.name);
    let mut row = Row::of(&frontend.name, "FRONTEND", id, 0, 0);
    row.number("scur", frontend.connections as u64);
    row.number("smax", frontend.most_connections as u64);
    row.optional("slim", says.and_then(|says| says.max_connections));
    row.number("stot", frontend.connections_total);
    row.number("bin", frontend.received_bytes);
    row.number("bout", frontend.sent_bytes);
    row.number("dreq", frontend.denied + frontend.rate_limited);
    row.number("ereq", frontend.errors.iter().map(|(_, count)| count).sum());
    row.text("status", "OPEN");
    row.number("rate", frontend.connection_rate);
    row.number("rate_max", frontend.most_connection_rate);
    row.number("conn_rate", frontend.connection_rate);
    row.number("conn_rate_max", frontend.most_connection_rate);
    row.number("conn_tot", frontend.connections_total);
    if let Some(says) = says {
        row.text("mode", mode(says.mode));
        if says.mode == Mode::Http {
            row.responses(&frontend.responses);
            row.number("req_rate", frontend.request_rate);
            row.number("req_rate_max", frontend.most_request_rate);
            row.number("req_tot", frontend.responses.iter().sum());
        }
    }
    row
}

fn row_of_server(backend: &BackendStats, server: &ServerStats, (id, position): (u64, u64), current: &Current) -> Row {
    let known = current.backends.iter().find(|known| known.name == backend.name);
    let said = known.and_then(|known| known.servers.iter().find(|said| said.name == server.name));
    let is_backup = said.is_some_and(|said| said.is_backup());
    let mut row = Row::of(&backend.name, &server.name, id, position, 2);
    row.number("qcur", server.queue as u64);
    row.number("qmax", server.most_queue as u64);
    row.number("scur", server.in_flight as u64);
    row.number("smax", server.most_in_flight as u64);
    row.optional("slim", server.max_connections);
    row.number("stot", server.sessions_total);
    // In HAProxy these are of clients: in is what goes to the server.
    row.number("bin", server.sent_bytes);
    row.number("bout", server.received_bytes);
    row.number("econ", server.connect_errors);
    row.number("eresp", server.response_errors);
    row.number("wretr", server.retries);
    row.text("status", status(server));
    row.number("weight", server.effective_weight.round() as u64);
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
    row.text("check_status", server.check_result.unwrap_or_default());
    row.optional("check_code", server.check_status);
    row.optional("check_duration", server.check_seconds.map(|took| (took * 1e3).round()));
    row.text("last_chk", server.check_reason.as_deref().unwrap_or_default());
    if let Some(known) = known {
        row.text("mode", mode(known.mode));
        if known.mode == Mode::Http {
            row.responses(&server.responses);
        }
    }
    if let Some(address) = said.and_then(|said| said.address()) {
        row.text("addr", &address.to_string());
    }
    row
}

fn back(backend: &BackendStats, id: u64, current: &Current) -> Row {
    let known = current.backends.iter().find(|known| known.name == backend.name);
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
    row.number("bin", backend.sent_bytes);
    row.number("bout", backend.received_bytes);
    row.number("econ", sum(|server| server.connect_errors));
    row.number("eresp", sum(|server| server.response_errors));
    row.number("wretr", backend.retries);
    row.number("wredis", backend.redispatches);
    row.text("status", if backups.len() + active.len() > 0 { "UP" } else { "DOWN" });
    let weight: f64 = active.iter().map(|server| server.effective_weight).sum();
    row.number("weight", weight.round() as u64);
    row.number("act", active.len() as u64);
    row.number("bck", backups.len() as u64);
    row.number("chkdown", sum(|server| server.went_down));
    row.number("lbtot", backend.sessions_total);
    row.number("rate", backend.rate);
    row.number("rate_max", backend.most_rate);
    if let Some(known) = known {
        row.text("mode", mode(known.mode));
        if known.mode == Mode::Http {
            let class = |i: usize| servers.iter().map(|server| server.responses[i]).sum();
            row.responses(&std::array::from_fn(class));
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

/// HAProxy's words for a server's state.
fn status(server: &ServerStats) -> &'static str {
    match (server.state, server.agent, server.health) {
        ("maint", ..) | (_, "maint", _) => "MAINT",
        (.., "unresolved") => "MAINT (resolution)",
        (_, "down", _) => "DOWN (agent)",
        (.., "down" | "ejected") => "DOWN",
        ("drain", ..) | (_, "drain", _) => "DRAIN",
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
