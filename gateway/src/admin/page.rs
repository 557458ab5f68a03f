//! The stats page: servers and frontends in a browser. Written out whole, so that it needs no script and nothing from
//! elsewhere.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::telemetry::metrics::{BackendStats, FrontendStats, ServerStats, Stats};

/// The page as HTML.
pub(super) fn html(stats: &Stats, refresh: Option<Duration>) -> String {
    let mut page = String::from(HEAD);
    if let Some(refresh) = refresh {
        let _ = write!(
            page,
            "<meta http-equiv=\"refresh\" content=\"{}\">",
            refresh.as_secs().max(1)
        );
    }
    page.push_str(STYLE);
    // Writing to a String cannot fail.
    let _ = write(&mut page, stats);
    page.push_str("</main></body></html>\n");
    page
}

fn write(page: &mut String, stats: &Stats) -> fmt::Result {
    write!(
        page,
        "<h1>gateway{}</h1><p>Process {}, up for {} s, {} client connections, {} reloads done, {} refused. \
         <a href=\"/stats.json\">JSON</a>, <a href=\"/stats.csv\">CSV</a>, <a href=\"/metrics\">metrics</a>.</p>",
        stats.version.map(|version| format!(" {version}")).unwrap_or_default(),
        stats.pid,
        stats.uptime,
        stats.connections,
        stats.reloads_done,
        stats.reloads_refused
    )?;
    table(page, "Frontends", &FRONTEND)?;
    for frontend in &stats.frontends {
        row(page, frontend)?;
    }
    page.push_str(END);
    for backend in &stats.backends {
        let BackendStats { name, servers, .. } = backend;
        write!(page, "<h2>Backend {}</h2>", Text(name))?;
        write!(
            page,
            "<p>{} of {} servers up, {} under way (at most {}), {} waiting (at most {}), {} a second (at most {}), {} retries, \
             {} redispatches, {} without a server.</p>",
            backend.servers_up,
            servers.len(),
            backend.in_flight,
            backend.most_in_flight,
            backend.queue,
            backend.most_queue,
            backend.rate,
            backend.most_rate,
            backend.retries,
            backend.redispatches,
            backend.no_server
        )?;
        table(page, &format!("Servers of {name}"), &SERVER)?;
        for server in servers {
            server_row(page, server)?;
        }
        page.push_str(END);
    }
    Ok(())
}

fn table(page: &mut String, caption: &str, columns: &[&str]) -> fmt::Result {
    write!(page, "<div><table><caption>{}</caption><thead><tr>", Text(caption))?;
    for column in columns {
        write!(page, "<th scope=\"col\">{column}</th>")?;
    }
    page.write_str("</tr></thead><tbody>")
}

fn row(page: &mut String, frontend: &FrontendStats) -> fmt::Result {
    write!(page, "<tr><th scope=\"row\">{}</th>", Text(&frontend.name))?;
    let errors = frontend.errors.iter().map(|(_, count)| count).sum();
    let [_, _, ok, redirected, client, server] = frontend.responses;
    let open = frontend.connections as u64;
    for number in [
        open,
        frontend.most_connections as u64,
        frontend.connections_total,
        frontend.connection_rate,
        frontend.request_rate,
        frontend.received_bytes,
        frontend.sent_bytes,
    ]
    .into_iter()
    .chain([
        ok,
        redirected,
        client,
        server,
        frontend.denied,
        frontend.rate_limited,
        errors,
    ]) {
        write!(page, "<td>{number}</td>")?;
    }
    page.write_str("</tr>")
}

fn server_row(page: &mut String, server: &ServerStats) -> fmt::Result {
    let check = match (server.check_passed, server.check_seconds) {
        (Some(passed), Some(took)) => {
            let result = server.check_result.unwrap_or(if passed { "passed" } else { "failed" });
            let status = server
                .check_status
                .map(|status| format!(" {status}"))
                .unwrap_or_default();
            format!("{result}{status}, {:.1} ms", took * 1e3)
        }
        _ => "none yet".to_owned(),
    };
    let max = server.max_connections.map_or("–".to_owned(), |max| max.to_string());
    let [_, _, ok, redirected, client, failed] = server.responses;
    write!(
        page,
        "<tr><th scope=\"row\">{}</th><td class=\"{health}\">{health}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td>\
         <td>{}</td><td>{}</td><td>{max}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{ok}</td><td>{redirected}</td>\
         <td>{client}</td><td>{failed}</td><td>{}</td><td>{}</td><td>{}</td><td title=\"{}\">{check}</td><td>{}</td><td>{}</td>\
         <td>{}</td></tr>",
        Text(&server.name),
        server.state,
        server.agent,
        server.weight,
        server.effective_weight,
        server.in_flight,
        server.most_in_flight,
        server.queue,
        server.sessions_total,
        server.rate,
        server.sent_bytes,
        server.received_bytes,
        server.connect_errors,
        server.response_errors,
        server.retries,
        Text(server.check_reason.as_deref().unwrap_or_default()),
        server.checks_failed,
        server.went_down,
        server.down_seconds,
        health = server.health,
    )
}

/// A text of the configuration, as it may stand in HTML.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => to.write_str("&amp;")?,
                '<' => to.write_str("&lt;")?,
                '>' => to.write_str("&gt;")?,
                '"' => to.write_str("&quot;")?,
                '\'' => to.write_str("&#39;")?,
                other => to.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Nothing but the style that the page brings along; nobody may frame it.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const FRONTEND: [&str; 15] = [
    "Frontend",
    "Open",
    "Most open",
    "Accepted",
    "Accepted/s",
    "Requests/s",
    "Bytes in",
    "Bytes out",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "Denied",
    "Limited",
    "Errors",
];
const SERVER: [&str; 25] = [
    "Server",
    "Health",
    "State",
    "Agent",
    "Weight",
    "Effective",
    "Under way",
    "Most",
    "Limit",
    "Waiting",
    "Total",
    "A second",
    "Bytes to",
    "Bytes from",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "Connect errors",
    "Answer errors",
    "Retries",
    "Last check",
    "Checks failed",
    "Went down",
    "Down s",
];
const END: &str = "</tbody></table></div>";
const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>gateway</title>\
<meta name=\"viewport\" content=\"width=device-width\">";
const STYLE: &str = "<style>\
:root{color-scheme:light dark;--line:light-dark(#ccc,#444);--bad:light-dark(#b00020,#ff8a80);--good:light-dark(#0a6b2d,#7bd88f)}\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem}\
div{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
caption{text-align:left;font-weight:600;padding:.4rem 0}\
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:right;white-space:nowrap}\
th:first-child{text-align:left}.up,.drained{color:var(--good)}.down,.ejected,.unresolved{color:var(--bad);font-weight:600}\
</style></head><body><main>";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Registry;

    #[test]
    fn names_cannot_be_markup() {
        let registry = Registry::new();
        let backend = registry.backend("<script>");
        let _server = registry.server(&backend, "a\"'&b");
        let page = html(&registry.stats(), None);
        assert!(
            page.contains("Backend &lt;script&gt;") && page.contains("a&quot;&#39;&amp;b"),
            "{page}"
        );
        assert!(!page.contains("<script"), "{page}");
    }
}
