//! Tenants in TCP mode: whose host a TLS client asks for decides whose rules and plugins its connection meets, behind the operator's.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;

use gateway_tests::tls::{Authority, TlsServer};
use gateway_tests::{Gateway, Server, guest};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const NAMES: &[&str] = &["acme.example", "www.acme.example", "rival.example", "other.example"];

/// How a bind ends TLS; beside it, there is one that lets it pass.
const ENDS: &str = r#"{ tls cert="bundle.pem" }"#;

/// A gateway whose frontend `raw` has its TLS end there, or pass through to a server that ends it.
struct Both {
    authority: Authority,
    passed: TlsServer,
    ended: Server,
}

impl Both {
    async fn new() -> Self {
        let authority = Authority::new();
        Self {
            passed: TlsServer::start(authority.server(NAMES)).await,
            ended: Server::echo().await,
            authority,
        }
    }

    /// The configuration with TLS that passes through, and with TLS that ends at the gateway; and what is in the files.
    fn each(&self, text: &str, files: &[(&str, Vec<u8>)]) -> [gateway_tests::Builder; 2] {
        [("", self.passed.address()), (ENDS, self.ended.address())].map(|(bind, app)| {
            let builder = Gateway::kdl(text)
                .with("@tls", bind)
                .with("@app", app)
                .file("bundle.pem", self.authority.issue(NAMES).bundle());
            files
                .iter()
                .fold(builder, |builder, (name, content)| builder.file(name, content))
        })
    }

    /// Whether who asks for this name from this address gets back what he sends.
    async fn serves(&self, gateway: &Gateway, name: &str, from: [u8; 4]) -> bool {
        let Some(mut stream) = self.opens(gateway, name, from).await else {
            return false;
        };
        // Without TLS's goodbye, the line would say that.
        stream.shutdown().await.is_ok()
    }

    /// His connection, if he does.
    async fn opens(&self, gateway: &Gateway, name: &str, from: [u8; 4]) -> Option<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        // The end may be there before the client knows that it is connected.
        let stream = socket.connect(gateway.address("raw")).await.ok()?;
        let connector = TlsConnector::from(Arc::new(self.authority.client()));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = connector.connect(name, stream).await.ok()?;
        let mut answer = [0; 5];
        stream.write_all(b"hello").await.ok()?;
        stream.read_exact(&mut answer).await.ok()?;
        (answer == *b"hello").then_some(stream)
    }

    /// The line of who asks for this name from this address, behind so many that were written before. He gets back what he sends,
    /// or does not, as is said.
    async fn line_of(&self, gateway: &Gateway, before: usize, (name, from): (&str, [u8; 4]), is_served: bool) -> Value {
        assert_eq!(
            self.serves(gateway, name, from).await,
            is_served,
            "{name} from {from:?}"
        );
        gateway.access_log(before + 1).await.swap_remove(before)
    }
}

const HERE: [u8; 4] = [127, 0, 0, 1];
const GUEST: [u8; 4] = [127, 0, 0, 8];

/// The line of the configuration with this text.
fn line_with(text: &str, part: &str) -> Option<u64> {
    let mut lines = text.lines().zip(1..);
    lines.find(|(line, _)| line.contains(part)).map(|(_, number)| number)
}

/// What a client begins with that asks for this name.
fn client_hello(name: &'static str) -> Vec<u8> {
    let name = ServerName::try_from(name).unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(Authority::new().client()), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

fn said<'a>(line: &'a Value, key: &str) -> Option<&'a str> {
    line[key].as_str()
}

/// Acme's plugin never comes to an end, and is asked about one of its hosts.
const TWO_TENANTS: &str = r#"
    process { workers 1; log "stdout" format="json" }
    tenant "acme" {
        hosts "acme.example" "*.acme.example"
        backends "acme"
        plugin "own" "loops.wasm" { limit cpu="10ms"; on-failure "deny" status=503 }
        connection {
            acl "guest" { source "127.0.0.8" }
            acl "www" { sni "www.acme.example" }
            deny if="guest"
            use-plugin "own" if="www"
            use-backend "acme" unless="www"
        }
    }
    tenant "rival" {
        hosts "rival.example"
        plugin "own" "accepts.wasm" { on-failure "deny" status=503 }
        connection { use-plugin "own"; use-backend "rival" }
    }
    frontend "raw" {
        mode "tcp"
        bind "127.0.0.1:0" @tls
        tenants "acme" "rival"
        default-backend "app"
    }
    backend "app" { mode "tcp"; server "s" "@app" }
    backend "acme" { mode "tcp"; server "s" "@app" }
    backend "rival" { mode "tcp"; server "s" "@app" }
"#;

#[tokio::test]
async fn a_connection_is_its_tenants_whose_host_it_asks_for() {
    let both = Both::new().await;
    let files = [
        ("loops.wasm", guest::connection("(call $loop) (call $none)")),
        ("accepts.wasm", guest::connection("(call $none)")),
    ];
    for builder in both.each(TWO_TENANTS, &files) {
        let gateway = builder.start().await;
        let denies = line_with(&gateway.config(), "deny if=\"guest\"");
        for (n, (name, from, tenant, backend, reason)) in [
            ("acme.example", HERE, Some("acme"), Some("acme"), None),
            ("ACME.Example", HERE, Some("acme"), Some("acme"), None),
            ("acme.example", GUEST, Some("acme"), None, Some("denied")),
            ("www.acme.example", HERE, Some("acme"), None, Some("policy-failure")),
            ("rival.example", GUEST, Some("rival"), Some("rival"), None),
            ("other.example", GUEST, None, Some("app"), None),
        ]
        .into_iter()
        .enumerate()
        {
            let line = both.line_of(&gateway, n, (name, from), reason.is_none()).await;
            assert_eq!(said(&line, "tenant"), tenant, "{line}");
            assert_eq!(said(&line, "backend"), backend, "{line}");
            assert_eq!(said(&line, "reason"), reason, "{line}");
            let rule = denies.filter(|_| reason == Some("denied"));
            assert_eq!(line["rule"].as_u64(), rule, "{line}");
        }
        let metrics = gateway.metrics().await;
        let calls =
            |policy, tenant| metrics.get("gateway_policy_calls_total", &[("policy", policy), ("tenant", tenant)]);
        assert_eq!(calls("acme/own", "acme"), Some(1.0));
        assert_eq!(calls("rival/own", "rival"), Some(1.0));
        assert_eq!(calls("acl raw of acme", "acme"), Some(4.0));
        for (tenant, ended) in [("acme", 4.0), ("rival", 1.0)] {
            let labels = [("tenant", tenant), ("frontend", "raw"), ("code", "none")];
            assert_eq!(
                metrics.get("gateway_tenant_responses_total", &labels),
                Some(ended),
                "{tenant}"
            );
            let labels = [("tenant", tenant), ("frontend", "raw")];
            assert!(
                metrics.get("gateway_tenant_received_bytes_total", &labels) >= Some(5.0),
                "{tenant}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_without_a_name_is_no_tenants() {
    // Who asks for an address says no name.
    let nameless = client_hello("127.0.0.1");
    let app = Server::echo().await;
    let gateway = Gateway::kdl(TWO_TENANTS)
        .with("@tls", "")
        .with("@app", app.address())
        .file("loops.wasm", guest::connection("(call $loop) (call $none)"))
        .file("accepts.wasm", guest::connection("(call $none)"))
        .start()
        .await;
    for (n, first) in [nameless, b"no TLS".to_vec()].into_iter().enumerate() {
        let mut client = gateway.connect("raw").await;
        client.send(&first).await;
        assert_eq!(client.exactly(first.len()).await, first);
        drop(client);
        let line = &gateway.access_log(n + 1).await[n];
        assert_eq!(said(line, "tenant"), None, "{line}");
        assert_eq!(said(line, "backend"), Some("app"), "{line}");
    }
}

#[tokio::test]
async fn while_one_tenants_plugin_loops_and_traps_the_others_connections_go_on() {
    let both = Both::new().await;
    for hostile in ["(call $loop) (call $none)", "(unreachable)"] {
        let files = [
            ("loops.wasm", guest::connection(hostile)),
            ("accepts.wasm", guest::connection("(call $none)")),
        ];
        for builder in both.each(TWO_TENANTS, &files) {
            let gateway = builder.start().await;
            for _ in 0..10 {
                let (www, rival, acme) = tokio::join!(
                    both.serves(&gateway, "www.acme.example", HERE),
                    both.serves(&gateway, "rival.example", HERE),
                    both.serves(&gateway, "acme.example", HERE),
                );
                assert_eq!((www, rival, acme), (false, true, true), "{hostile}");
            }
        }
    }
}

/// The tenant's acl has the name of the operator's, and holds for nobody.
const BEHIND: &str = r#"
    process { workers 1; log "stdout" format="json" }
    tenant "acme" {
        hosts "acme.example" "*.acme.example"
        connection {
            acl "blocked" { source "192.0.2.1" }
            deny if="blocked"
            use-backend "acme"
        }
    }
    frontend "raw" {
        mode "tcp"
        bind "127.0.0.1:0" @tls
        tenants "acme"
        acl "blocked" { source "127.0.0.9" }
        acl "guest" { source "127.0.0.8"; sni "acme.example" }
        acl "www" { sni "www.acme.example" }
        reject if="blocked"
        deny if="guest"
        use-backend "operators" if="www"
        default-backend "app"
    }
    backend "app" { mode "tcp"; server "s" "@app" }
    backend "acme" { mode "tcp"; server "s" "@app" }
    backend "operators" { mode "tcp"; server "s" "@app" }
"#;

#[tokio::test]
async fn what_the_operator_has_decided_of_a_connection_no_tenant_undoes() {
    let both = Both::new().await;
    for builder in both.each(BEHIND, &[]) {
        let gateway = builder.start().await;
        let config = gateway.config();
        let (rejects, denies) = (
            line_with(&config, "reject if=\"blocked\""),
            line_with(&config, "deny if=\"guest\""),
        );
        for (n, (name, from, tenant, backend, rule)) in [
            // Before anybody knows whom it asks for.
            ("acme.example", [127, 0, 0, 9], None, None, rejects),
            ("acme.example", GUEST, Some("acme"), None, denies),
            ("www.acme.example", GUEST, Some("acme"), Some("operators"), None),
            ("acme.example", HERE, Some("acme"), Some("acme"), None),
        ]
        .into_iter()
        .enumerate()
        {
            let line = both.line_of(&gateway, n, (name, from), rule.is_none()).await;
            assert_eq!(said(&line, "tenant"), tenant, "{line}");
            assert_eq!(said(&line, "backend"), backend, "{line}");
            assert_eq!(line["rule"].as_u64(), rule, "{line}");
        }
    }
}

/// The tenant's plugin sends every connection to `other`, where the frontend leads as well, but for others.
const ROUTES: &str = r#"
    process { workers 1; log "stdout" format="json" }
    tenant "acme" {
        hosts "acme.example"
        @own
        plugin "own" "routes.wasm" { on-failure "deny" status=503; @granted }
        connection { use-plugin "own" @leads }
    }
    frontend "raw" {
        mode "tcp"
        bind "127.0.0.1:0" @tls
        tenants "acme"
        acl "guest" { source "127.0.0.8" }
        acl "here" { source "127.0.0.1" }
        use-backend "other" if="guest"
        use-backend "app" if="here"
        default-backend "app"
    }
    backend "app" { mode "tcp"; server "s" "@app" }
    backend "other" { mode "tcp"; server "s" "@app" }
"#;

#[tokio::test]
async fn a_tenants_plugin_routes_before_use_backend_and_to_the_tenants_backends_alone() {
    let both = Both::new().await;
    let to_other = r"(i32.store8 (i32.const 3000) (i32.const 2))
        (i32.store (i32.const 3004) (i32.const 3100)) (i32.store (i32.const 3008) (i32.const 5))
        (i64.store (i32.const 3100) (i64.const 0x726568746f)) (i32.const 3000)";
    let files = [("routes.wasm", guest::connection(to_other))];
    let never = r#"; use-backend "other" { source "192.0.2.1" }"#;
    for (own, granted, leads, is_led) in [
        (r#"backends "other""#, "", "", true),
        (r#"backends "app""#, "", "", false),
        // Where its frontend leads is not the tenant's for that.
        ("", "", "", false),
        ("", r#"route-to "other""#, "", true),
        ("", "", never, true),
    ] {
        let (backend, reason) = match is_led {
            true => (Some("other"), None),
            false => (None, Some("policy-failure")),
        };
        let text = ROUTES.replace("@own", own).replace("@granted", granted);
        for builder in both.each(&text.replace("@leads", leads), &files) {
            let gateway = builder.start().await;
            let line = both
                .line_of(&gateway, 0, ("acme.example", HERE), reason.is_none())
                .await;
            assert_eq!(said(&line, "backend"), backend, "{own}: {line}");
            assert_eq!(said(&line, "reason"), reason, "{own}: {line}");
            // Nobody else's connection is asked about.
            let line = both.line_of(&gateway, 1, ("other.example", HERE), true).await;
            assert_eq!(said(&line, "backend"), Some("app"), "{own}: {line}");
        }
    }
}

const WITH_FILES: &str = r#"
    process { workers 1; log "stdout" format="json" }
    tenant "acme" { hosts "acme.example"; backends "acme"; include "tenants/acme/*.kdl" }
    frontend "raw" {
        mode "tcp"
        bind "127.0.0.1:0" @tls
        tenants "acme"
        default-backend "app"
    }
    backend "app" { mode "tcp"; server "s" "@app" }
    backend "acme" { mode "tcp"; server "s" "@app" }
"#;

#[tokio::test]
async fn a_tenants_file_decides_of_its_connections_and_a_fault_in_it_closes_them_alone() {
    let both = Both::new().await;
    let said_well = "connection {\n    deny { source \"127.0.0.8\" }\n    use-backend \"acme\"\n}\n";
    // It may not lead to where the operator has not let it.
    let said_wrong = "connection { use-backend \"app\" }\n";
    let file = |text: &str| [("tenants/acme/a.kdl", text.as_bytes().to_vec())];
    for builder in both.each(WITH_FILES, &file(said_well)) {
        let gateway = builder.start().await;
        assert!(both.serves(&gateway, "acme.example", HERE).await);
        // A line is written when the server's end has closed, too.
        gateway.access_log(1).await;
        assert!(!both.serves(&gateway, "acme.example", GUEST).await);
        let lines = gateway.access_log(2).await;
        assert_eq!(said(&lines[0], "backend"), Some("acme"), "{lines:?}");
        assert_eq!(lines[1]["rule"], 2, "{lines:?}");
        let rule_file = said(&lines[1], "rule_file").unwrap();
        assert!(rule_file.ends_with("tenants/acme/a.kdl"), "{rule_file}");
    }
    for builder in both.each(WITH_FILES, &file(said_wrong)) {
        let gateway = builder.start().await;
        assert!(!both.serves(&gateway, "acme.example", HERE).await);
        gateway.access_log(1).await;
        assert!(both.serves(&gateway, "other.example", HERE).await);
        let lines = gateway.access_log(2).await;
        assert_eq!(said(&lines[0], "reason"), Some("tenant-closed"), "{lines:?}");
        assert_eq!(said(&lines[0], "tenant"), Some("acme"), "{lines:?}");
    }
}

#[tokio::test]
async fn what_a_tenant_decides_of_connections_is_explained() {
    let both = Both::new().await;
    let files = [
        ("loops.wasm", guest::connection("(call $loop) (call $none)")),
        ("accepts.wasm", guest::connection("(call $none)")),
    ];
    let [passes, _] = both.each(TWO_TENANTS, &files);
    let said = passes.check(&["--explain"]).stdout;
    for line in [
        "tenant \"acme\", acme.example *.acme.example, in frontend \"raw\"",
        "  connection acl \"guest\" (",
        "  connection deny if=\"guest\" (",
        "  connection use-plugin \"acme/own\" if=\"www\" (",
        "  connection use-backend \"rival\" (",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[tokio::test]
async fn no_more_connections_of_a_tenant_are_under_way_than_its_quota_says() {
    let text = r#"
        process { workers 1; log "stdout" format="json" }
        tenant "acme" { hosts "acme.example" "*.acme.example"; quota connections=1 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0" @tls; tenants "acme"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "@app" }
    "#;
    let both = Both::new().await;
    for builder in both.each(text, &[]) {
        let gateway = builder.start().await;
        let first = both.opens(&gateway, "acme.example", HERE).await.unwrap();
        assert!(!both.serves(&gateway, "www.acme.example", HERE).await);
        let line = &gateway.access_log(1).await[0];
        assert_eq!(
            (said(line, "reason"), said(line, "tenant")),
            (Some("tenant-full"), Some("acme"))
        );
        assert!(both.serves(&gateway, "other.example", HERE).await);
        gateway.access_log(2).await;
        drop(first);
        gateway.access_log(3).await;
        assert!(both.serves(&gateway, "www.acme.example", HERE).await);
    }
}

#[tokio::test]
async fn a_quota_for_a_mode_in_which_nobody_names_the_tenant_is_refused() {
    let text = r#"
        tenant "acme" { hosts "acme.example"; quota connections=1 requests=1 }
        frontend "web" { bind "127.0.0.1:0"; tenants "acme"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#;
    let checked = Gateway::kdl(text).check(&["--format", "json"]);
    let report: Value = serde_json::from_str(&checked.stdout).unwrap();
    let errors = report["errors"].as_array().unwrap();
    let message = "`quota connections=` does nothing: no frontend in TCP mode names this tenant";
    assert_eq!(errors.len(), 1, "{report}");
    assert_eq!(said(&errors[0], "message"), Some(message));
}

#[tokio::test]
async fn what_a_tenant_decides_of_connections_follows_how_many_of_its_servers_are_up() {
    let text = r#"
        process { workers 1; log "stdout" format="json" }
        tenant "acme" {
            hosts "acme.example"
            backends "acme" "spare"
            connection {
                acl "down" { servers-up "acme" max=0 }
                acl "spared" { servers-up "spare" min=1 }
                use-backend "spare" if="down and spared"
                use-backend "acme"
            }
        }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0" @tls; tenants "acme"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "@app" }
        backend "acme" { mode "tcp"; server "s" "@app" @state }
        backend "spare" { mode "tcp"; server "s" "@app" }
    "#;
    let both = Both::new().await;
    for (state, backend) in [("", "acme"), ("disabled", "spare")] {
        for builder in both.each(&text.replace("@state", state), &[]) {
            let gateway = builder.start().await;
            assert!(both.serves(&gateway, "acme.example", HERE).await, "{state}");
            let line = &gateway.access_log(1).await[0];
            assert_eq!(said(line, "backend"), Some(backend), "{line}");
        }
    }
}

/// A component that is told of what is over.
fn told() -> Vec<u8> {
    let on_log = format!(
        r#"(func (export "gateway:policy/access-log@0.1.0#on-log") {})"#,
        guest::FACTS
    );
    guest::component("logger", &on_log)
}

#[tokio::test]
async fn a_tenants_plugin_is_told_of_its_connections_alone_and_lines_say_whose_they_were() {
    let text = r#"
        process { workers 1; log "stdout" format="text" }
        tenant "acme" {
            hosts "acme.example"
            plugin "told" "told.wasm" { on-failure "skip" }
            connection { acl "guest" { source "127.0.0.8" }; use-plugin "told" unless="guest" }
        }
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0" @tls
            tenants "acme"
            log-format "whose=%{tenant} from=%{client-ip}"
            default-backend "app"
        }
        backend "app" { mode "tcp"; server "s" "@app" }
    "#;
    let both = Both::new().await;
    for builder in both.each(text, &[("told.wasm", told())]) {
        let gateway = builder.start().await;
        for (name, from, line) in [
            ("other.example", HERE, "whose=- from=127.0.0.1"),
            ("acme.example", GUEST, "whose=acme from=127.0.0.8"),
            ("acme.example", HERE, "whose=acme from=127.0.0.1"),
        ] {
            assert!(both.serves(&gateway, name, from).await, "{name} {from:?}");
            gateway.says(line).await;
        }
        let labels = [("policy", "acme/told"), ("tenant", "acme")];
        gateway.metric_is("gateway_policy_calls_total", &labels, 1.0).await;
        gateway.metric_is("gateway_policy_untold_total", &labels, 0.0).await;
    }
}

#[tokio::test]
async fn a_tenants_plugin_is_told_of_who_left_while_a_heavy_one_was_awaited() {
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        tenant "acme" {
            hosts "acme.example"
            plugin "slow" "loops.wasm" { heavy; limit cpu="10s"; on-failure "deny" status=503 }
            plugin "told" "told.wasm" { on-failure "skip" }
            connection { use-plugin "slow"; use-plugin "told" }
        }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; tenants "acme"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "echo" }
    "#,
    )
    .file("loops.wasm", guest::connection("(call $loop) (call $none)"))
    .file("told.wasm", told())
    .start()
    .await;
    let mut client = gateway.connect("raw").await;
    client.send(client_hello("acme.example")).await;
    let calls = "gateway_policy_calls_total";
    gateway.metric_is(calls, &[("policy", "acme/slow")], 1.0).await;
    client.reset();
    let line = &gateway.access_log(1).await[0];
    assert_eq!(
        (said(line, "reason"), said(line, "tenant")),
        (Some("client-left"), Some("acme"))
    );
    gateway.metric_is(calls, &[("policy", "acme/told")], 1.0).await;
}
