//! Policy at layer 4: what a TCP frontend asks about its connections, and how fast a client may make them.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gateway_tests::tls::{Authority, TlsServer};
use gateway_tests::{Builder, Client, Gateway, HttpServer, Server, eventually, get, guest};

/// A frontend with these lines whose connections go to a server that says `yes` when the acl holds, and `no` otherwise.
async fn asking(lines: &str) -> (Gateway, [Server; 2]) {
    let servers = [Server::greeting("yes").await, Server::greeting("no ").await];
    let text = format!(
        "frontend \"raw\" {{\nmode \"tcp\"\n{lines}\nuse-backend \"yes\" if=\"it\"\ndefault-backend \"no\"\n}}\n\
         backend \"yes\" {{ mode \"tcp\"; server \"s\" \"@yes\" }}\n\
         backend \"no\" {{ mode \"tcp\"; server \"s\" \"@no\" }}\n"
    );
    let builder: Builder = Gateway::kdl(&text)
        .with("@yes", servers[0].address())
        .with("@no", servers[1].address());
    (builder.start().await, servers)
}

async fn answer(client: &mut Client) -> String {
    String::from_utf8(client.exactly(3).await).unwrap()
}

/// A free port, which somebody else could take before the gateway does, but nobody does.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn ports_and_destinations_decide_about_connections() {
    let (one, two) = (free_port(), free_port());
    let lines = format!(
        "bind \"127.0.0.1:{one}\"\nbind \"127.0.0.1:{two}\"\nbind \"127.0.0.2:{one}\"\n\
         acl \"it\" {{ port {one} \"1-2\"; destination \"127.0.0.1\" \"10.0.0.0/8\" }}"
    );
    let (gateway, _servers) = asking(&lines).await;
    let mut answers = Vec::new();
    for address in gateway.addresses("raw") {
        answers.push(answer(&mut Client::connect(*address).await).await);
    }
    assert_eq!(answers, ["yes", "no ", "no "]);
}

#[tokio::test]
async fn the_time_of_day_decides_about_connections() {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let minute = seconds / 60 % 1440;
    let clock = |minute: u64| format!("{:02}:{:02}", minute % 1440 / 60, minute % 60);
    // From an hour ago to in an hour, and all the rest of the day; one of them goes over midnight, at most hours.
    let now = format!("{}-{}", clock(minute + 1380), clock(minute + 60));
    let rest = format!("{}-{}", clock(minute + 60), clock(minute + 1380));
    // Katmandu is 5:45 before UTC all year.
    let there = format!("{}-{}", clock(minute + 1380 + 345), clock(minute + 60 + 345));
    for (time, expected) in [
        (format!("time \"{now}\""), "yes"),
        (format!("time \"{rest}\""), "no "),
        (format!("time \"{there}\" zone=\"Asia/Kathmandu\""), "yes"),
        (format!("time \"{there}\""), "no "),
        (format!("not {{ time \"{now}\" }}"), "no "),
    ] {
        let (gateway, _servers) = asking(&format!("bind \"127.0.0.1:0\"\nacl \"it\" {{ {time} }}")).await;
        assert_eq!(answer(&mut gateway.connect("raw").await).await, expected, "{time}");
    }
}

#[tokio::test]
async fn requests_can_be_asked_about_the_same() {
    let port = free_port();
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(&format!(
        r#"
        frontend "web" {{
            bind "127.0.0.1:{port}"
            bind "127.0.0.1:0"
            acl "admin" {{ port {port}; destination "127.0.0.0/8" }}
            acl "never" {{ time "00:00-24:00" days="mon-sat"; not {{ time "00:00-24:00" days="mon-sat" }} }}
            deny status=404 unless="admin"
            deny if="never"
            default-backend "app"
        }}
        backend "app" {{ server "s" "@app" }}
    "#
    ))
    .with("@app", app.address())
    .start()
    .await;
    let mut statuses = Vec::new();
    for address in gateway.addresses("web") {
        statuses.push(Client::connect(*address).await.ask(get("/")).await.status);
    }
    assert_eq!(statuses, [200, 404]);
}

#[tokio::test]
async fn protocols_that_are_offered_route_tls_that_passes_through() {
    let authority = Authority::new();
    let server = async |alpn: &str| {
        let mut config = authority.server(&["a.example"]);
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        TlsServer::start(config).await
    };
    let (h2, other) = (server("h2").await, server("http/1.1").await);
    let gateway = Gateway::kdl(
        r#"
        frontend "pass" {
            mode "tcp"
            bind "127.0.0.1:0"
            acl "h2" { alpn "h2" "h2c" }
            use-backend "h2" if="h2"
            default-backend "other"
        }
        backend "h2"    { mode "tcp"; server "s" "@h2" }
        backend "other" { mode "tcp"; server "s" "@other" }
    "#,
    )
    .with("@h2", h2.address())
    .with("@other", other.address())
    .start()
    .await;
    for offered in [&[&b"http/1.1"[..]][..], &[b"http/1.1", b"h2"]] {
        let mut config = authority.client();
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let mut client = Client::connect_tls_with(gateway.address("pass"), "a.example", config).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
    }
    assert_eq!((h2.handshakes().len(), other.handshakes().len()), (1, 1));
}

/// A component that is handed the name and the protocols: refuses names that begin with an n, sends who offers two protocols
/// to `two`.
fn by_hello() -> Vec<u8> {
    guest::component_with_configure(
        "connection",
        r#"(i32.store (i32.const 628) (i32.const 640)) (i32.store (i32.const 632) (i32.const 2)) (i32.const 600)"#,
        r#"(data (i32.const 640) "\94\02\00\00\03\00\00\00\97\02\00\00\04\00\00\00")
        (data (i32.const 660) "snialpn")
        (data (i32.const 720) "two")
        (func (export "gateway:policy/connection-filter@0.1.0#on-connect")
            (param $facts i32) (param $count i32) (param $bytes i32) (param $length i32) (result i32)
            (if (i32.eqz (local.get $count)) (then (return (call $none))))
            (if (i32.eq (i32.load8_u (local.get $bytes)) (i32.const 110))
                (then (i32.store8 (i32.const 700) (i32.const 1)) (return (i32.const 700))))
            (if (i32.eq (local.get $count) (i32.const 9))
                (then
                    (i32.store8 (i32.const 700) (i32.const 2))
                    (i32.store (i32.const 704) (i32.const 720))
                    (i32.store (i32.const 708) (i32.const 3))
                    (return (i32.const 700))))
            (call $none))"#,
    )
}

#[tokio::test]
async fn a_component_decides_by_the_name_and_the_protocols() {
    let authority = Authority::new();
    let names = &["a.example", "never.example"];
    let (one, two) = (
        TlsServer::start(authority.server(names)).await,
        TlsServer::start(authority.server(names)).await,
    );
    let gateway = Gateway::kdl(
        r#"
        plugin "by-hello" "by-hello.wasm" { on-failure "deny" }
        frontend "pass" {
            mode "tcp"
            bind "127.0.0.1:0"
            acl "never" { source "192.0.2.1" }
            use-backend "two" if="never"
            use-plugin "by-hello"
            default-backend "one"
        }
        backend "one" { mode "tcp"; server "s" "@one" }
        backend "two" { mode "tcp"; server "s" "@two" }
    "#,
    )
    .with("@one", one.address())
    .with("@two", two.address())
    .file("by-hello.wasm", by_hello())
    .start()
    .await;
    for offered in [&[][..], &[&b"a"[..], b"b"]] {
        let mut config = authority.client();
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let mut client = Client::connect_tls_with(gateway.address("pass"), "a.example", config).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
    }
    assert_eq!((one.handshakes().len(), two.handshakes().len()), (1, 1));
    let stream = tokio::net::TcpStream::connect(gateway.address("pass")).await.unwrap();
    let name = "never.example".to_owned().try_into().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(authority.client()));
    assert!(connector.connect(name, stream).await.is_err());
    let labels = [("frontend", "pass")];
    gateway
        .metric_is("gateway_frontend_denied_requests_total", &labels, 1.0)
        .await;
}

#[tokio::test]
async fn a_client_makes_connections_no_faster_than_its_limit() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        rate-limit "per-ip" { key "client-ip"; allow "1/h" burst=3 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; limit "per-ip"; default-backend "app" }
        frontend "free" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let address = gateway.address("raw");
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(address).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        open.push(client);
    }
    for _ in 0..2 {
        assert!(Client::is_turned_away(address, [127, 0, 0, 1]).await);
    }
    // Who has connections keeps them, and others are others.
    open[0].send("again").await;
    assert_eq!(open[0].exactly(5).await, b"again");
    let mut other = Client::connect_from(address, [127, 0, 0, 9]).await;
    other.send("hello").await;
    assert_eq!(other.exactly(5).await, b"hello");
    let mut free = gateway.connect("free").await;
    free.send("hello").await;
    assert_eq!(free.exactly(5).await, b"hello");
    let labels = [("frontend", "raw")];
    let name = "gateway_frontend_rate_limited_requests_total";
    gateway.metric_is(name, &labels, 2.0).await;
    let lines = gateway.access_log(2).await;
    assert_eq!(
        (&lines[0]["termination"], &lines[0]["reason"]),
        (&"PR".into(), &"rate-limited".into())
    );
}

/// Longer than any test waits: what is decided before this is over was not waited for.
const HANDSHAKE: &str = "timeout handshake=\"60s\"";

#[tokio::test]
async fn who_is_rejected_has_no_handshake_and_takes_no_place() {
    let authority = Authority::new();
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(&format!(
        r#"
        process {{ workers 1; log "stdout" format="json" }}
        frontend "web" {{
            max-connections 1
            bind "127.0.0.1:0" {{ tls cert="web.pem" }}
            {HANDSHAKE}
            acl "blocked" {{ source "127.0.0.9" "192.0.2.0/24" }}
            acl "never" {{ time "00:00-24:00" days="mon-sat"; not {{ time "00:00-24:00" days="mon-sat" }} }}
            reject if="never"
            reject if="blocked"
            default-backend "app"
        }}
        backend "app" {{ server "s" "@app" }}
    "#
    ))
    .with("@app", app.address())
    .file("web.pem", authority.issue(&["a.example"]).bundle())
    .start()
    .await;
    let address = gateway.address("web");
    // They say nothing: nobody waits for a word of theirs, and none holds the one place there is.
    for _ in 0..20 {
        assert!(Client::is_turned_away(address, [127, 0, 0, 9]).await);
    }
    let mut client = Client::connect_tls(address, "a.example", authority.certificate()).await;
    assert_eq!(client.ask(get("/")).await.status, 200);
    let labels = [("frontend", "web")];
    gateway
        .metric_is("gateway_frontend_denied_requests_total", &labels, 20.0)
        .await;
    let lines = gateway.access_log(21).await;
    let rule = usize::try_from(lines[0]["rule"].as_u64().unwrap()).unwrap();
    assert_eq!(
        gateway.config().lines().nth(rule - 1).unwrap().trim(),
        "reject if=\"blocked\""
    );
    assert_eq!(
        (&lines[0]["termination"], &lines[0]["reason"], &lines[0]["status"]),
        (&"PR".into(), &"denied".into(), &serde_json::Value::Null),
        "{lines:?}"
    );
    gateway
        .metric_is("gateway_frontend_current_connections", &labels, 1.0)
        .await;
}

#[tokio::test]
async fn tcp_mode_denies_by_address_before_a_client_has_said_who_it_asks_for() {
    let authority = Authority::new();
    let app = TlsServer::start(authority.server(&["a.example"])).await;
    let gateway = Gateway::kdl(&format!(
        r#"
        frontend "pass" {{
            mode "tcp"
            bind "127.0.0.1:0"
            {HANDSHAKE}
            acl "blocked" {{ source "127.0.0.9" }}
            acl "a" {{ sni "a.example" }}
            deny unless="a"
            deny if="blocked"
            default-backend "app"
        }}
        backend "app" {{ mode "tcp"; server "s" "@app" }}
    "#
    ))
    .with("@app", app.address())
    .start()
    .await;
    let address = gateway.address("pass");
    assert!(Client::is_turned_away(address, [127, 0, 0, 9]).await);
    let mut client = Client::connect_tls(address, "a.example", authority.certificate()).await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    let mut other = Client::connect(address).await;
    other.send("GET / HTTP/1.1\r\n\r\n").await;
    assert!(other.ends().await);
    // Workers write what they have in turns of their own.
    let mut lines = gateway.access_log(2).await;
    lines.sort_by_key(|line| line["time"].as_str().unwrap().to_owned());
    let rules: Vec<_> = lines.iter().map(|line| line["rule"].as_u64().unwrap()).collect();
    assert_eq!(rules[0], rules[1] + 1, "the second rule first: {lines:?}");
}

#[tokio::test]
async fn a_rejection_is_about_the_client_that_a_proxy_header_names() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" {
            mode "tcp"
            max-connections-per-source 1
            bind "127.0.0.1:0" { accept-proxy "127.0.0.2" timeout="60s" }
            acl "blocked" { source "192.0.2.66" "127.0.0.9" }
            reject if="blocked"
            default-backend "app"
        }
        backend "app" { mode "tcp"; server "s" "@app" }
    "#,
    )
    .with("@app", echo.address())
    .start()
    .await;
    let address = gateway.address("raw");
    let introduced = async |source: &str| {
        let mut client = Client::connect_from(address, [127, 0, 0, 2]).await;
        client
            .send(format!("PROXY TCP4 {source} 198.51.100.7 1 2\r\nhello"))
            .await;
        client
    };
    assert!(introduced("192.0.2.66").await.ends().await);
    assert!(Client::is_turned_away(address, [127, 0, 0, 9]).await);
    // The balancer has as many as it wants: sources are its clients.
    let mut one = introduced("192.0.2.1").await;
    assert_eq!(one.exactly(5).await, b"hello");
    let mut two = introduced("192.0.2.2").await;
    assert_eq!(two.exactly(5).await, b"hello");
    assert!(introduced("192.0.2.1").await.ends().await);
    drop(one);
    let labels = [("frontend", "raw")];
    gateway
        .metric_is("gateway_frontend_current_connections", &labels, 1.0)
        .await;
    let mut one = introduced("192.0.2.1").await;
    assert_eq!(one.exactly(5).await, b"hello");
    assert_eq!(echo.connections(), 3);
}

#[tokio::test]
async fn a_source_has_no_more_connections_at_once_than_it_may() {
    let echo = Server::echo().await;
    let kdl = |most: usize| {
        Gateway::kdl(&format!(
            r#"
            process {{ workers 2; log "stdout" format="json" }}
            frontend "raw" {{
                mode "tcp"
                bind "127.0.0.1:0"
                max-connections-per-source {most} ipv4-prefix=30
                default-backend "app"
            }}
            backend "app" {{ mode "tcp"; server "s" "@app" }}
        "#
        ))
        .with("@app", echo.address())
    };
    let gateway = kdl(3).start().await;
    let address = gateway.address("raw");
    let open = async |host: u8| {
        let mut client = Client::connect_from(address, [127, 0, 0, host]).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        client
    };
    // 4 to 7 are one network, whichever worker has them.
    let mut held = vec![open(4).await, open(5).await, open(7).await];
    for _ in 0..10 {
        assert!(Client::is_turned_away(address, [127, 0, 0, 6]).await);
    }
    let _other = open(8).await;
    // What there was before a reload counts after it.
    assert!(gateway.reload(&kdl(4)).await);
    held.push(open(6).await);
    assert!(Client::is_turned_away(address, [127, 0, 0, 4]).await);
    held.pop();
    let labels = [("frontend", "raw")];
    gateway
        .metric_is("gateway_frontend_current_connections", &labels, 4.0)
        .await;
    held.push(open(4).await);
    let labels = [("frontend", "raw"), ("reason", "too-many-connections")];
    gateway.metric_is("gateway_frontend_errors_total", &labels, 11.0).await;
    eventually("a line of each that was turned away", async || {
        let lines = gateway.access_lines();
        let turned_away = lines.iter().filter(|line| line["reason"] == "too-many-connections");
        turned_away.count() == 11
    })
    .await;
}

#[tokio::test]
async fn http_mode_limits_connections_apart_from_requests() {
    let app = HttpServer::answering("hello").await;
    let gateway = Gateway::kdl(
        r#"
        rate-limit "connections" { key "client-ip"; allow "1/h" burst=2 }
        rate-limit "requests" { key "client-ip"; allow "1/h" burst=5 }
        frontend "web" {
            bind "127.0.0.1:0"
            limit "connections" connections
            limit "requests"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let (mut one, mut two) = (gateway.connect("web").await, gateway.connect("web").await);
    // Each is accepted when it has its answer, whichever worker does it.
    let mut statuses = vec![one.ask(get("/")).await.status, two.ask(get("/")).await.status];
    assert!(Client::is_turned_away(gateway.address("web"), [127, 0, 0, 1]).await);
    for _ in 0..2 {
        for client in [&mut one, &mut two] {
            statuses.push(client.ask(get("/")).await.status);
        }
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
}

#[tokio::test]
async fn connections_beyond_a_rate_wait_and_are_not_refused() {
    let server = Server::greeting("yes").await;
    let text = r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; max-connection-rate "3/1s"; default-backend "app" }
        backend "app" { mode "tcp"; server "app-1" "@app" }
    "#;
    let gateway = Gateway::kdl(text).with("@app", server.address()).start().await;
    let begun = std::time::Instant::now();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(gateway.connect("raw").await);
    }
    for client in &mut clients {
        assert_eq!(answer(client).await, "yes");
    }
    // Three at once, and each further one a third of a second after the one before it.
    assert!(begun.elapsed().as_millis() >= 600, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn binds_may_be_of_an_interface_and_of_addresses_that_the_machine_does_not_have() {
    let server = Server::greeting("yes").await;
    let with = |bind: &str| {
        let text = r#"
            frontend "raw" { mode "tcp"; @bind; default-backend "app" }
            backend "app" { mode "tcp"; server "app-1" "@app" }
        "#;
        Gateway::kdl(text).with("@bind", bind).with("@app", server.address())
    };
    let answers = async |gateway: &Gateway| {
        let mut client = gateway.connect("raw").await;
        // Where it is deferred, it is there when something has been sent.
        client.send("x").await;
        assert_eq!(answer(&mut client).await, "yes");
    };
    let address = format!("127.0.0.1:{}", free_port());
    let of_interface = format!("bind \"{address}\" interface=\"lo\" tcp-user-timeout=\"30s\" mss=1400 defer-accept");
    let gateway = with(&of_interface).start().await;
    answers(&gateway).await;
    // What cannot be changed of a socket takes another one, in the same place.
    assert!(gateway.reload(&with(&format!("bind \"{address}\""))).await);
    answers(&gateway).await;
    assert!(gateway.reload(&with(&of_interface)).await);
    answers(&gateway).await;

    for (bind, said) in [
        (
            r#"bind "127.0.0.1:0" interface="not-there""#,
            ["cannot be bound to interface not-there", "ip link"],
        ),
        (
            r#"bind "192.0.2.1:0""#,
            ["this machine has no such address", "ip address"],
        ),
    ] {
        let refused = with(bind).refused().await;
        for said in said {
            assert!(refused.output.contains(said), "{}", refused.output);
        }
    }
    if rustix::process::geteuid().is_root() {
        let gateway = with(r#"bind "192.0.2.1:0" transparent"#).start().await;
        assert_eq!(gateway.address("raw").ip(), std::net::Ipv4Addr::new(192, 0, 2, 1));
    }
}

/// Connections that wait in the kernel for somebody to accept them at a port of 127.0.0.1.
fn not_accepted(port: u16) -> usize {
    let place = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = listening.filter(|fields| fields[1] == place && fields[3] == "0A");
    let queued = listening.map(|fields| usize::from_str_radix(fields[4].split(':').next_back().unwrap(), 16).unwrap());
    queued.sum()
}

#[tokio::test]
async fn who_waits_for_a_rate_goes_on_when_a_reload_lifts_it() {
    let server = Server::greeting("yes").await;
    let with = |rate: &str| {
        let text = r#"
            process { workers 1; log "stdout" format="json" }
            frontend "raw" {
                mode "tcp"
                bind "127.0.0.1:0"
                @rate
                default-backend "app"
            }
            backend "app" { mode "tcp"; server "app-1" "@app" }
        "#;
        Gateway::kdl(text).with("@app", server.address()).with("@rate", rate)
    };
    let gateway = with(r#"max-connection-rate "1/1m""#).start().await;
    assert_eq!(answer(&mut gateway.connect("raw").await).await, "yes");
    let mut waits = gateway.connect("raw").await;
    let port = gateway.address("raw").port();
    eventually("the worker holds it", async || not_accepted(port) == 0).await;

    assert!(gateway.reload(&with("")).await);
    assert_eq!(answer(&mut waits).await, "yes");
}

#[tokio::test]
async fn limits_of_connections_leave_out_whom_their_condition_does_not_hold_of() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; log "stdout" format="json" }
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0"
            acl "office" { source "127.0.0.9" }
            max-connections-per-source 2 unless="office"
            limit "slow" unless="office"
            default-backend "app"
        }
        rate-limit "slow" { key "client-ip"; allow "1/d" burst=3 }
        backend "app" { mode "tcp"; server "s" "@app" }
    "#,
    )
    .with("@app", echo.address())
    .start()
    .await;
    let address = gateway.address("raw");
    let open = async |host: u8| {
        let mut client = Client::connect_from(address, [127, 0, 0, host]).await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        client
    };
    let mut office = Vec::new();
    for _ in 0..6 {
        office.push(open(9).await);
    }
    let one = open(4).await;
    let _two = open(4).await;
    assert!(Client::is_turned_away(address, [127, 0, 0, 4]).await);
    drop(one);
    gateway
        .metric_is("gateway_frontend_current_connections", &[("frontend", "raw")], 7.0)
        .await;
    // There is a place again, and the last token.
    let three = open(4).await;
    drop(three);
    gateway
        .metric_is("gateway_frontend_current_connections", &[("frontend", "raw")], 7.0)
        .await;
    assert!(Client::is_turned_away(address, [127, 0, 0, 4]).await);
}
