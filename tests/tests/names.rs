//! Servers that have names: found, followed, held, and what a name server can do to them.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use gateway_tests::{Answer, Dns, DnsServer, Gateway, HttpServer, Server, eventually, get};

/// A server that says its name at first and after each piece that it gets.
async fn saying(name: &'static str, ip: [u8; 4], port: u16) -> Server {
    Server::start_at(SocketAddr::from((ip, port)), move |mut wire, _| async move {
        loop {
            wire.send(name).await?;
            if wire.some().await?.is_empty() {
                return Ok(());
            }
        }
    })
    .await
}

async fn http_saying(name: &'static str, ip: [u8; 4], port: u16) -> HttpServer {
    HttpServer::start_at(SocketAddr::from((ip, port)), move |_| Answer::ok(name)).await
}

const RESOLVER: &str =
    r#"resolver timeout="100ms" retries=1 min-ttl="50ms" max-ttl="100ms" hold-nx="200ms" { nameserver "@dns" }"#;

fn tcp(servers: &str) -> String {
    format!(
        r#"
        process {{ workers 1 }}
        {RESOLVER}
        frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ mode "tcp"; {servers} }}
        "#
    )
}

async fn greeting(gateway: &Gateway) -> String {
    let bytes = gateway.connect("raw").await.exactly(1).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_server_that_moves_is_followed_and_sessions_stay() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let port = a.address().port();
    let _b = saying("b", [127, 0, 0, 2], port).await;
    dns.points("db.test", &["127.0.0.1"]);
    let gateway = Gateway::kdl(&tcp(r#"check "tcp" interval="100ms"; server "db" "DB.test:@port""#))
        .with("@dns", dns.address())
        .with("@port", port)
        .start()
        .await;

    let mut session = gateway.connect("raw").await;
    assert_eq!(session.exactly(1).await, b"a");
    dns.points("db.test", &["127.0.0.2"]);
    eventually("new connections go where the name leads", async || {
        greeting(&gateway).await == "b"
    })
    .await;
    gateway.says("server moved").await;
    session.send("x").await;
    assert_eq!(session.exactly(1).await, b"a", "the session stays where it was");

    // With both, it stays where it is.
    let before = dns.questions("db.test");
    dns.points("db.test", &["127.0.0.1", "127.0.0.2"]);
    eventually("it is asked again", async || dns.questions("db.test") > before + 4).await;
    assert_eq!(greeting(&gateway).await, "b");
    gateway
        .metric_is("gateway_server_address_changes_total", &[("server", "db")], 2.0)
        .await;
}

#[tokio::test]
async fn a_name_that_leads_nowhere_keeps_nothing_from_starting() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let gateway = Gateway::kdl(&tcp(r#"check "tcp" interval="100ms"; server "db" "db.test:@port""#))
        .with("@dns", dns.address())
        .with("@port", a.address().port())
        .start()
        .await;

    gateway.says("name not resolved").await;
    gateway.says("there is nothing of that name").await;
    gateway
        .metric_is("gateway_server_resolved", &[("server", "db")], 0.0)
        .await;
    gateway.metric_is("gateway_server_up", &[("server", "db")], 0.0).await;
    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 0.0)
        .await;
    assert_eq!(gateway.connect("raw").await.rest().await, b"");
    assert_eq!(
        gateway
            .metrics()
            .await
            .get("gateway_server_checks_total", &[("server", "db"), ("result", "failed")]),
        Some(0.0),
        "what is nowhere is not checked"
    );

    dns.points("db.test", &["127.0.0.1"]);
    gateway.metric_is("gateway_server_up", &[("server", "db")], 1.0).await;
    assert_eq!(greeting(&gateway).await, "a");
    gateway.says("server found").await;
}

#[tokio::test]
async fn the_last_answer_holds_while_nobody_answers_and_not_for_long_when_the_name_is_gone() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    dns.points("db.test", &["127.0.0.1"]);
    let gateway = Gateway::kdl(&tcp(r#"server "db" "db.test:@port""#))
        .with("@dns", dns.address())
        .with("@port", a.address().port())
        .start()
        .await;

    assert_eq!(greeting(&gateway).await, "a");
    dns.fall_silent();
    gateway.says("name not resolved").await;
    let asked = dns.questions("db.test");
    eventually("it goes on asking", async || dns.questions("db.test") > asked + 8).await;
    assert_eq!(greeting(&gateway).await, "a");
    dns.fail();
    let asked = dns.questions("db.test");
    eventually("it goes on asking", async || dns.questions("db.test") > asked + 8).await;
    assert_eq!(greeting(&gateway).await, "a");

    // A reload while nobody answers loses nothing either.
    assert!(gateway.reload(&Gateway::verbatim(&gateway.config())).await);
    assert_eq!(greeting(&gateway).await, "a");

    dns.recover();
    dns.forget("db.test");
    gateway
        .metric_is("gateway_server_resolved", &[("server", "db")], 0.0)
        .await;
    gateway.says("server has no address any more").await;
    assert_eq!(gateway.connect("raw").await.rest().await, b"");
    dns.points("db.test", &["127.0.0.1"]);
    gateway
        .metric_is("gateway_server_resolved", &[("server", "db")], 1.0)
        .await;
    assert_eq!(greeting(&gateway).await, "a");
}

#[tokio::test]
async fn a_template_has_a_server_for_each_address() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let port = a.address().port();
    let _b = saying("b", [127, 0, 0, 2], port).await;
    let _c = saying("c", [127, 0, 0, 3], port).await;
    dns.points("web.test", &["127.0.0.1", "127.0.0.2"]);
    let gateway = Gateway::kdl(&tcp(r#"server-template "web" "web.test:@port" count=3"#))
        .with("@dns", dns.address())
        .with("@port", port)
        .start()
        .await;
    let three = async || {
        let mut names = [
            greeting(&gateway).await,
            greeting(&gateway).await,
            greeting(&gateway).await,
        ];
        names.sort();
        names.concat()
    };

    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 2.0)
        .await;
    gateway
        .metric_is("gateway_server_resolved", &[("server", "web-3")], 0.0)
        .await;
    assert_ne!(three().await, "abc");
    dns.points("web.test", &["127.0.0.3", "127.0.0.2", "127.0.0.1"]);
    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 3.0)
        .await;
    assert_eq!(three().await, "abc");
    for server in ["web-1", "web-2", "web-3"] {
        // None of them has changed places with another.
        gateway
            .metric_is("gateway_server_address_changes_total", &[("server", server)], 1.0)
            .await;
    }
    dns.points("web.test", &["127.0.0.3"]);
    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 1.0)
        .await;
    assert_eq!(three().await, "ccc");
}

#[tokio::test]
async fn addresses_of_either_kind_are_used_and_the_preferred_ones_first() {
    let dns = DnsServer::start().await;
    let a = saying("4", [127, 0, 0, 1], 0).await;
    let port = a.address().port();
    let b = Server::start_at(
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        |mut wire, _| async move {
            wire.send("6").await?;
            wire.half_close().await
        },
    )
    .await;
    dns.points("both.test", &["127.0.0.1", "::1"]);
    dns.points("six.test", &["::1"]);
    dns.points("four.test", &["127.0.0.1"]);
    let greetings = async |prefer: &str| {
        let frontend = |name: &str| {
            format!(
                "frontend \"{name}\" {{ mode \"tcp\"; bind \"127.0.0.1:0\"; default-backend \"{name}\" }}\n\
                 backend \"{name}\" {{ mode \"tcp\"; server-template \"s\" \"{name}.test:{port}\" count=2 }}\n"
            )
        };
        let names = ["both", "six", "four"];
        let sections: String = names.map(frontend).concat();
        let gateway = Gateway::kdl(&format!(
            "resolver {prefer} {{ nameserver \"{}\" }}\n{sections}",
            dns.address()
        ))
        .start()
        .await;
        let mut all = String::new();
        for name in names {
            all.push_str(&String::from_utf8(gateway.connect(name).await.exactly(1).await).unwrap());
        }
        // Of a name that has both, those of one kind alone are servers.
        gateway
            .metric_is("gateway_backend_servers_up", &[("backend", "both")], 1.0)
            .await;
        all
    };
    assert_eq!(greetings("").await, "464");
    assert_eq!(greetings("prefer=\"ipv6\"").await, "664");
    drop(b);
}

#[tokio::test]
async fn a_name_that_is_another_ones_is_followed_too() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let port = a.address().port();
    let _b = saying("b", [127, 0, 0, 2], port).await;
    dns.set("db.test", &[Dns::Alias("node.test")]);
    dns.set(
        "whole.test",
        &[Dns::Alias("node.test"), Dns::Of("node.test", [127, 0, 0, 1].into())],
    );
    // Round and round.
    dns.set("loop.test", &[Dns::Alias("loop.test")]);
    dns.points("node.test", &["127.0.0.1"]);
    dns.points("other.test", &["127.0.0.2"]);
    let text = tcp(r#"server "db" "db.test:@port""#)
        + r#"
        frontend "whole" { mode "tcp"; bind "127.0.0.1:0"; default-backend "whole" }
        backend "whole" { mode "tcp"; server "whole" "whole.test:@port" }
        frontend "loop" { mode "tcp"; bind "127.0.0.1:0"; default-backend "loop" }
        backend "loop" { mode "tcp"; server "loop" "loop.test:@port" }
        "#;
    let gateway = Gateway::kdl(&text)
        .with("@dns", dns.address())
        .with("@port", port)
        .start()
        .await;

    assert_eq!(greeting(&gateway).await, "a");
    assert_eq!(gateway.connect("whole").await.exactly(1).await, b"a");
    assert_eq!(gateway.connect("loop").await.rest().await, b"");
    dns.set("db.test", &[Dns::Alias("other.test")]);
    eventually("new connections go where the alias leads", async || {
        greeting(&gateway).await == "b"
    })
    .await;
}

/// Within the bounds that hold where nothing is said: answers are good for their own time.
#[tokio::test]
async fn a_name_is_asked_for_again_when_its_time_is_over_and_not_before() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let port = a.address().port();
    let _b = saying("b", [127, 0, 0, 2], port).await;
    dns.points("short.test", &["127.0.0.1"]);
    dns.set("long.test", &[Dns::Ip([127, 0, 0, 1].into(), 3600)]);
    let gateway = Gateway::kdl(
        r#"
        resolver { nameserver "@dns" }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "short" }
        frontend "long" { mode "tcp"; bind "127.0.0.1:0"; default-backend "long" }
        backend "short" { mode "tcp"; server "s" "short.test:@port" }
        backend "long" { mode "tcp"; server "s" "long.test:@port" }
        "#,
    )
    .with("@dns", dns.address())
    .with("@port", port)
    .start()
    .await;
    assert_eq!(greeting(&gateway).await, "a");
    let asked = dns.questions("long.test");
    for ip in ["127.0.0.1", "127.0.0.2"] {
        dns.points("short.test", &[ip]);
        dns.set("long.test", &[Dns::Ip(ip.parse().unwrap(), 3600)]);
    }
    eventually("the short-lived name is followed", async || {
        greeting(&gateway).await == "b"
    })
    .await;
    assert_eq!(dns.questions("long.test"), asked, "its answer is good for an hour");
    assert_eq!(gateway.connect("long").await.exactly(1).await, b"a");
}

/// Without a `resolver`, the machine's own files say where names lead.
#[tokio::test]
async fn the_hosts_file_is_looked_into_where_no_name_server_is_said() {
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; server "s" "localhost:@port" }
        "#,
    )
    .with("@port", a.address().port())
    .start()
    .await;
    assert_eq!(greeting(&gateway).await, "a");
}

#[tokio::test]
async fn services_say_port_and_weight() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let b = saying("b", [127, 0, 0, 1], 0).await;
    let spare = saying("spare", [127, 0, 0, 1], 0).await;
    dns.points("node.test", &["127.0.0.1"]);
    dns.set(
        "_db._tcp.app.test",
        &[
            Dns::Srv(20, 0, spare.address().port(), "node.test", 1),
            Dns::Srv(10, 0, a.address().port(), "node.test", 1),
            Dns::Srv(10, 600, b.address().port(), "node.test", 1),
        ],
    );
    let gateway = Gateway::kdl(&tcp(r#"server-template "db" "_db._tcp.app.test" count=4"#))
        .with("@dns", dns.address())
        .start()
        .await;

    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 3.0)
        .await;
    let mut all = String::new();
    for _ in 0..8 {
        all.push_str(&greeting(&gateway).await);
    }
    assert_eq!((all.matches('a').count(), all.matches('b').count()), (2, 6), "{all}");

    dns.set(
        "_db._tcp.app.test",
        &[
            Dns::Srv(20, 0, spare.address().port(), "node.test", 1),
            Dns::Srv(10, 600, a.address().port(), "node.test", 1),
            Dns::Srv(10, 0, b.address().port(), "node.test", 1),
        ],
    );
    eventually("weights that change count", async || {
        let mut all = String::new();
        for _ in 0..8 {
            all.push_str(&greeting(&gateway).await);
        }
        all.matches('a').count() == 6
    })
    .await;
}

#[tokio::test]
async fn a_service_whose_target_cannot_be_asked_for_keeps_nobody_from_the_others() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let b = saying("b", [127, 0, 0, 1], 0).await;
    let (at_a, at_b) = (a.address().port(), b.address().port());
    let both = [Dns::Srv(0, 0, at_b, "b.test", 1), Dns::Srv(0, 0, at_a, "a.test", 1)];
    dns.points("a.test", &["127.0.0.1"]);
    dns.set("b.test", &[Dns::Fails]);
    dns.set("_db._tcp.app.test", &both);
    let gateway = Gateway::kdl(&tcp(r#"server-template "db" "_db._tcp.app.test" count=2"#))
        .with("@dns", dns.address())
        .start()
        .await;
    let found = async |servers: f64| {
        gateway
            .metric_is("gateway_backend_servers_up", &[("backend", "app")], servers)
            .await;
    };
    found(1.0).await;
    assert_eq!(greeting(&gateway).await, "a");

    // It is found, and stays when it cannot be asked for again, whoever goes.
    dns.points("b.test", &["127.0.0.1"]);
    found(2.0).await;
    dns.set("b.test", &[Dns::Fails]);
    let asked = dns.questions("b.test");
    eventually("it is asked for again", async || dns.questions("b.test") > asked + 8).await;
    found(2.0).await;

    // Nobody is kept for the sake of one whose name is known to have gone.
    dns.forget("b.test");
    found(1.0).await;
}

#[tokio::test]
async fn services_of_a_higher_priority_step_in_and_sessions_stay() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let b = saying("b", [127, 0, 0, 1], 0).await;
    let c = saying("c", [127, 0, 0, 1], 0).await;
    dns.points("node.test", &["127.0.0.1"]);
    let of = |priority, server: &Server| Dns::Srv(priority, 0, server.address().port(), "node.test", 1);
    let name = "_db._tcp.app.test";
    dns.set(name, &[of(20, &b), of(20, &c), of(10, &a)]);
    let gateway = Gateway::kdl(&tcp(&format!(r#"server-template "db" "{name}" count=3"#)))
        .with("@dns", dns.address())
        .start()
        .await;
    let four = async || {
        let mut all = String::new();
        for _ in 0..4 {
            all.push_str(&greeting(&gateway).await);
        }
        all
    };

    gateway
        .metric_is("gateway_backend_servers_up", &[("backend", "app")], 3.0)
        .await;
    assert_eq!(four().await, "aaaa");
    let mut session = gateway.connect("raw").await;
    assert_eq!(session.exactly(1).await, b"a");

    dns.set(name, &[of(20, &b), of(20, &c)]);
    eventually("the next priority shares the work", async || {
        let all = four().await;
        all.matches('b').count() == 2 && all.matches('c').count() == 2
    })
    .await;
    session.send("x").await;
    assert_eq!(session.exactly(1).await, b"a", "the session stays where it was");

    dns.set(name, &[of(20, &b), of(10, &c)]);
    eventually("a priority that changes counts", async || four().await == "cccc").await;
}

#[tokio::test]
async fn kept_connections_to_where_a_server_was_are_not_used_again() {
    let dns = DnsServer::start().await;
    let a = http_saying("a", [127, 0, 0, 1], 0).await;
    let port = a.address().port();
    let b = http_saying("b", [127, 0, 0, 2], port).await;
    dns.points("web.test", &["127.0.0.1"]);
    let text = format!(
        r#"
        process {{ workers 1 }}
        {RESOLVER}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ server "web" "web.test:@port" }}
        "#
    );
    let gateway = Gateway::kdl(&text)
        .with("@dns", dns.address())
        .with("@port", port)
        .start()
        .await;

    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/")).await.text(), "a");
    assert_eq!(client.ask(get("/")).await.text(), "a");
    assert_eq!(a.connections(), 1);
    dns.points("web.test", &["127.0.0.2"]);
    gateway.says("server moved").await;
    assert_eq!(client.ask(get("/")).await.text(), "b");
    assert_eq!(client.ask(get("/")).await.text(), "b");
    assert_eq!(b.connections(), 1);
}

#[tokio::test]
async fn a_name_server_that_lies_harms_nobody() {
    let dns = DnsServer::start().await;
    let a = saying("a", [127, 0, 0, 1], 0).await;
    let flood: Vec<Dns> = (0..3000_u32)
        .map(|n| Dns::Ip(Ipv4Addr::from(0x7f01_0000 + n).into(), 0))
        .collect();
    dns.points("db.test", &["127.0.0.1"]);
    dns.set(
        "zero.test",
        &[Dns::Ip([0, 0, 0, 0].into(), 0), Dns::Ip([224, 0, 0, 1].into(), 0)],
    );
    dns.set("chaos.test", &[Dns::Chaos([127, 0, 0, 9].into())]);
    dns.set("other.test", &[Dns::Of("evil.test", [127, 0, 0, 9].into())]);
    dns.set("flood.test", &flood);
    dns.set("loop.test", &[Dns::Alias("pool.test")]);
    dns.set("pool.test", &[Dns::Alias("loop.test")]);
    let text = tcp(r#"server "db" "db.test:@port""#)
        + r#"
        frontend "liars" { mode "tcp"; bind "127.0.0.1:0"; default-backend "liars" }
        backend "liars" {
            mode "tcp"
            server "zero" "zero.test:1"
            server "chaos" "chaos.test:1"
            server "other" "other.test:1"
            server "loop" "loop.test:1"
            server-template "flood" "flood.test:1" count=2
        }
        "#;
    let gateway = Gateway::kdl(&text)
        .with("@dns", dns.address())
        .with("@port", a.address().port())
        .start()
        .await;

    for server in ["flood-1", "flood-2"] {
        gateway
            .metric_is("gateway_server_resolved", &[("server", server)], 1.0)
            .await;
    }
    let before = gateway.resident();
    let asked = dns.questions("flood.test");
    eventually("many floods", async || dns.questions("flood.test") > asked + 60).await;
    assert!(
        gateway.resident() < before + (16 << 20),
        "{} after {before}",
        gateway.resident()
    );
    for server in ["zero", "chaos", "other", "loop"] {
        gateway
            .metric_is("gateway_server_resolved", &[("server", server)], 0.0)
            .await;
    }
    // A TTL of 0 is asked for again, but not without end: twice (A, AAAA) every 50 ms at most.
    let asked = dns.questions("zero.test");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(dns.questions("zero.test") - asked <= 24);
    assert_eq!(greeting(&gateway).await, "a");
    // Nobody keeps changing places, however long the list and whatever its order.
    gateway
        .metric_is("gateway_server_address_changes_total", &[("server", "flood-1")], 1.0)
        .await;
}
