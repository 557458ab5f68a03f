//! How each node is written, for the help lines of faults about what is missing in it.

/// An example of the node.
pub(super) fn of(node: &str) -> Option<&'static str> {
    EXAMPLES
        .iter()
        .find(|(name, _)| *name == node)
        .map(|(_, example)| *example)
}

/// Nodes and an example each; a test asks the reference to show every one of them in use.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    ("process", r#"process { workers 4 }"#),
    ("workers", r#"workers 4"#),
    ("max-connections", r#"max-connections 10000"#),
    ("log", r#"log "stdout" format="json""#),
    ("policy", r#"policy instances=2000 memory="32MiB""#),
    ("rate-limit-table", r#"rate-limit-table entries=1000000"#),
    ("drain-timeout", r#"drain-timeout "30s""#),
    ("stats", r#"stats { bind "127.0.0.1:8404" }"#),
    (
        "defaults",
        r#"defaults { timeout connect="5s" client="30s" server="30s" }"#,
    ),
    ("mode", r#"mode "tcp""#),
    (
        "timeout",
        r#"timeout connect="5s" client="30s" server="30s", those of them that belong here"#,
    ),
    ("access-log", r#"access-log skip-null"#),
    (
        "request-limits",
        r#"request-limits head="16KiB" headers=100 uri="8KiB" body="1GiB""#,
    ),
    ("upgrades", r#"upgrades "websocket""#),
    ("balance", r#"balance "leastconn""#),
    ("pool", r#"pool max-idle=64 idle-timeout="30s""#),
    (
        "frontend",
        r#"frontend "web" { bind "127.0.0.1:8080"; default-backend "app" }"#,
    ),
    ("bind", r#"bind "127.0.0.1:8080""#),
    ("accept-proxy", r#"accept-proxy "10.0.0.0/8" timeout="5s""#),
    ("tls", r#"tls cert="bundle.pem" key="key.pem""#),
    ("alpn", r#"alpn "h2" "http/1.1""#),
    ("acl", r#"acl "is-api" { path-prefix "/api/" }"#),
    (
        "limit",
        r#"limit "per-ip" in a frontend, or limit cpu="10ms" memory="16MiB" in a plugin"#,
    ),
    ("deny", r#"deny status=403 if="is-internal""#),
    ("use-backend", r#"use-backend "api" if="is-api""#),
    ("default-backend", r#"default-backend "app""#),
    ("use-plugin", r#"use-plugin "jwt-auth""#),
    ("request", r#"request { set-header "X-Pool" "api" }"#),
    ("response", r#"response { delete-header "Server" }"#),
    ("set-header", r#"set-header "X-Pool" "api""#),
    ("add-header", r#"add-header "Via" "1.1 edge""#),
    ("delete-header", r#"delete-header "X-Debug""#),
    ("replace-header", r#"replace-header "X-Id" regex="^a" to="b""#),
    ("rewrite-path", r#"rewrite-path prefix="/old/" to="/new/""#),
    ("rewrite-location", r#"rewrite-location prefix="http://" to="https://""#),
    ("backend", r#"backend "app" { server "app-1" "10.0.0.1:8080" }"#),
    (
        "server-template",
        r#"server-template "app" "app.internal:8080" count=5"#,
    ),
    ("resolver", r#"resolver { nameserver "10.0.0.2" }"#),
    ("nameserver", r#"nameserver "10.0.0.2:53""#),
    ("server", r#"server "app-1" "10.0.0.1:8080""#),
    ("check", r#"check "tcp" interval="2s""#),
    ("send", r#"send "GET" "/health""#),
    ("agent-check", r#"agent-check port=9777 interval="2s""#),
    ("observe", r#"observe "connect" error-limit=10 on-error="mark-down""#),
    ("expect", r#"expect status=200, or expect body-contains="ready""#),
    (
        "rate-limit",
        r#"rate-limit "per-ip" { key "client-ip"; allow "100/s" }"#,
    ),
    ("key", r#"key "client-ip""#),
    ("allow", r#"allow "100/s" burst=200"#),
    ("plugin", r#"plugin "geo" "geo.wasm" { on-failure "deny" status=503 }"#),
    ("sha256", r#"sha256 with the 64 digits that `sha256sum FILE` prints"#),
    ("grant", r#"grant "log" "buckets""#),
    ("on-failure", r#"on-failure "deny" status=503, or on-failure "skip""#),
    ("config", r#"config { deny-country "KP" }"#),
    ("path", r#"path "/status""#),
    ("path-prefix", r#"path-prefix "/api/""#),
    ("path-suffix", r#"path-suffix ".php""#),
    ("path-regex", r##"path-regex #"^/v[0-9]+/"#"##),
    ("host", r#"host "www.example.net" "*.example.net""#),
    ("method", r#"method "POST" "PUT""#),
    ("header", r#"header "x-client" prefix="legacy/""#),
    ("cookie", r#"cookie "beta" "1""#),
    ("query", r#"query "v" "1""#),
    ("source", r#"source "10.0.0.0/8""#),
    ("destination", r#"destination "10.0.0.1""#),
    ("port", r#"port 443 "8000-8100""#),
    ("time", r#"time "08:00-18:00" days="mon-fri" zone="Europe/Berlin""#),
    ("sni", r#"sni "www.example.net""#),
    ("not", r#"not { source "10.0.0.0/8" }"#),
    ("any", r#"any { path "/a"; method "POST" }"#),
    ("all", r#"all { path "/a"; method "POST" }"#),
];
