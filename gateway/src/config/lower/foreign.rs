//! Words of HAProxy's and nginx's configurations that are not known here, and what is written in their place.

/// What a node of another program's is called here.
pub(super) fn instead(name: &str) -> Option<&'static str> {
    Some(match name {
        "global" => "write `process`",
        "listen" => "write a `frontend` and a `backend`; where a frontend listens is its `bind`",
        "option" => "options have nodes of their own, as `forwarded-for` and `server-close`",
        "maxconn" => "write `max-connections`",
        "nbthread" | "nbproc" | "worker_processes" => "write `workers` in `process`",
        "daemon" | "master-worker" => "leave it out: whoever starts the gateway keeps it, as systemd does",
        "http-request" | "http-response" | "http-after-response" => {
            "write `deny`, `redirect` or `return`; edits stand in `request { … }` and `response { … }`"
        }
        "tcp-request" => "write `reject`, `deny`, `limit` or `max-connections-per-source`",
        "errorfile" | "errorfiles" | "errorloc" | "error_page" => "write error-page 503 \"503.http\"",
        "httpchk" | "http-check" | "tcp-check" | "health-check" | "healthcheck" => {
            "write check \"http\" interval=\"2s\" { send \"GET\" \"/health\"; expect status=200 } in the `backend`"
        }
        "stick-table" => "write `stick` to keep clients at their servers, and `rate-limit` to count what they do",
        "default-server" => "say it at each `server`; `check` and `slow-start` of a backend are for all of its servers",
        "http-reuse" => "write pool reuse=\"safe\"",
        "compression" | "gzip" => "write compress \"gzip\" in the `frontend`",
        "ssl" => "TLS stands in the block of a `bind` or a `server`: bind \"0.0.0.0:443\" { tls cert=\"bundle.pem\" }",
        "http" | "stream" | "events" => {
            "write a `frontend` for where clients arrive, and a `backend` for where their requests go"
        }
        "upstream" => "write a `backend`",
        "location" => {
            "write an acl, and where it leads: acl \"api\" { path-prefix \"/api/\" }; use-backend \"api\" if=\"api\""
        }
        "proxy_pass" => "write default-backend \"app\", and a `backend` with the server",
        "server_name" => {
            "write an acl, and where it leads: acl \"shop\" { host \"shop.example\" }; use-backend \"shop\" if=\"shop\""
        }
        _ => return None,
    })
}
