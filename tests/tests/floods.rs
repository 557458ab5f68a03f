//! More than there should be: connections beyond every limit, clients that never come to the point, servers that stall, and
//! resets at every moment. Others are served meanwhile, memory stays where it is, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway_tests::process::descriptors;
use gateway_tests::tls::Authority;
use gateway_tests::{Client, DnsServer, Gateway, Server, blackhole, eventually};
use tokio::net::TcpStream;

const MIB: u64 = 1 << 20;

/// Another frontend, with a server that is well.
const CALM: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "calm" { mode "tcp"; bind "127.0.0.1:0"; default-backend "well" }
    backend "well" { mode "tcp"; server "s" "@echo" }
"#;

async fn is_calm(gateway: &Gateway) {
    let begun = Instant::now();
    for _ in 0..20 {
        let mut client = gateway.connect("calm").await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// So many connections, each of which has said this much.
async fn flood(address: SocketAddr, count: usize, say: &[u8]) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await.unwrap();
        if !say.is_empty() {
            stream.writable().await.unwrap();
            stream.try_write(say).unwrap();
        }
        open.push(stream);
    }
    open
}

/// Nothing is open at a frontend any more.
async fn is_empty(gateway: &Gateway, frontend: &str) {
    let labels = [("frontend", frontend)];
    gateway
        .metric_is("gateway_frontend_current_connections", &labels, 0.0)
        .await;
}

#[tokio::test]
async fn connections_beyond_a_frontends_limit_wait_in_the_kernel() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        frontend "flooded" {{ mode "tcp"; max-connections 50; bind "127.0.0.1:0"; default-backend "well" }}
    "#
    ))
    .with("@echo", echo.address())
    .start()
    .await;
    let address = gateway.address("flooded");
    let mut first = flood(address, 50, b"x").await;
    let labels = [("frontend", "flooded")];
    gateway
        .metric_is("gateway_frontend_current_connections", &labels, 50.0)
        .await;
    is_calm(&gateway).await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));
    let more = flood(address, 1000, b"y").await;
    is_calm(&gateway).await;
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 2 * MIB, "{grown} bytes for connections that nobody accepts");
    // One is accepted and waits for a place.
    assert!(descriptors(gateway.pid()) <= files + 8);
    let at_server = echo.connections();
    // A place that becomes free is for the one that has waited longest.
    first.truncate(40);
    eventually("the next ten", async || echo.connections() >= at_server + 10).await;
    drop((first, more));
    is_empty(&gateway, "flooded").await;
    let mut client = gateway.connect("flooded").await;
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    is_calm(&gateway).await;
}

#[tokio::test]
async fn a_flood_that_is_turned_away_costs_no_memory() {
    let echo = Server::echo().await;
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        frontend "flooded" {{
            mode "tcp"
            bind "127.0.0.1:0"
            access-log "off"
            max-connections-per-source 10
            acl "blocked" {{ source "127.0.0.9" }}
            reject if="blocked"
            default-backend "well"
        }}
    "#
    ))
    .with("@echo", echo.address())
    .start()
    .await;
    let address = gateway.address("flooded");
    let held = flood(address, 10, b"x").await;
    let turned_away = async |host: u8| {
        for _ in 0..500 {
            assert!(Client::is_turned_away(address, [127, 0, 0, host]).await);
        }
    };
    turned_away(9).await;
    turned_away(1).await;
    is_calm(&gateway).await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));
    for _ in 0..3 {
        turned_away(9).await;
        turned_away(1).await;
    }
    is_calm(&gateway).await;
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < MIB, "{grown} bytes");
    assert!(descriptors(gateway.pid()) <= files + 2);
    drop(held);
    is_empty(&gateway, "flooded").await;
}

/// Beginnings that do not go on, and what each holds of the gateway's memory at most until its time is over: what
/// docs/decisions/0003-relay.md says.
#[tokio::test]
async fn beginnings_that_do_not_go_on_hold_little_and_not_for_long() {
    const COUNT: usize = 400;
    let echo = Server::echo().await;
    let authority = Authority::new();
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        defaults {{ mode "tcp"; timeout handshake="4s" }}
        frontend "proxy" {{ bind "127.0.0.1:0" {{ accept-proxy timeout="4s" }}; default-backend "well" }}
        frontend "tls" {{ bind "127.0.0.1:0" {{ tls cert="a.pem" }}; default-backend "well" }}
        frontend "hello" {{
            bind "127.0.0.1:0"
            acl "a" {{ sni "a.example" }}
            deny unless="a"
            default-backend "well"
        }}
    "#
    ))
    .with("@echo", echo.address())
    .file("a.pem", authority.issue(&["a.example"]).bundle())
    .start()
    .await;
    is_calm(&gateway).await;
    // A record of TLS of 500 bytes, and a hello that is as long as that and does not come to its end.
    let hello = [&b"\x16\x03\x01\x01\xf4\x01\x00\x01\xf0\x03\x03"[..], &[7; 300]].concat();
    for (frontend, say, each) in [
        ("proxy", &b""[..], 4096),
        ("proxy", b"PROXY TCP4 192.0.2.1 198.51.", 4096),
        ("tls", b"", 12_288),
        ("tls", &hello[..], 32_768),
        ("hello", b"", 4096),
        ("hello", &hello[..], 8192),
    ] {
        // What is touched for the first time, program text above all, is not what a connection holds.
        drop(flood(gateway.address(frontend), 8, say).await);
        is_empty(&gateway, frontend).await;
        let memory = gateway.resident();
        let open = flood(gateway.address(frontend), COUNT, say).await;
        let labels = [("frontend", frontend)];
        let all = COUNT as f64;
        gateway
            .metric_is("gateway_frontend_current_connections", &labels, all)
            .await;
        is_calm(&gateway).await;
        let grown = gateway.resident().saturating_sub(memory);
        assert!(
            grown < each * COUNT as u64 + MIB,
            "{frontend} {}: {grown} bytes",
            say.len()
        );
        is_empty(&gateway, frontend).await;
        drop(open);
    }
    assert_eq!(echo.connections(), 7 * 20, "none of them reached a server");
}

#[tokio::test]
async fn servers_that_accept_and_stall_hold_up_nobody_else() {
    let echo = Server::echo().await;
    let stalled = Server::start(|mut wire, _| async move {
        // It reads, and answers nothing.
        while wire.some().await.is_ok_and(|bytes| !bytes.is_empty()) {}
        std::future::pending::<()>().await;
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        frontend "flooded" {{ mode "tcp"; bind "127.0.0.1:0"; default-backend "stalled" }}
        backend "stalled" {{ mode "tcp"; timeout server="3s"; server "s" "@stalled" }}
    "#
    ))
    .with("@echo", echo.address())
    .with("@stalled", stalled.address())
    .start()
    .await;
    is_calm(&gateway).await;
    let memory = gateway.resident();
    let open = flood(gateway.address("flooded"), 500, b"hello").await;
    eventually("all at the server", async || stalled.connections() == 500).await;
    is_calm(&gateway).await;
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 500 * 4096 + MIB, "{grown} bytes");
    is_empty(&gateway, "flooded").await;
    let of_flooded = async || {
        let lines = gateway.access_lines().into_iter();
        lines.filter(|line| line["frontend"] == "flooded").collect::<Vec<_>>()
    };
    eventually("all their lines", async || of_flooded().await.len() == 500).await;
    let of_flooded = of_flooded().await;
    assert!(
        of_flooded.iter().all(|line| line["termination"] == "sD"),
        "{:?}",
        of_flooded[0]
    );
    drop(open);
}

#[tokio::test]
async fn resets_in_every_phase_leave_nothing_behind() {
    const COUNT: usize = 60;
    let echo = Server::echo().await;
    let one = Server::echo().await;
    let resetting = Server::start(|mut wire, _| async move {
        wire.some().await?;
        wire.reset();
        Ok(())
    })
    .await;
    let (hole, _guard) = blackhole().await;
    let authority = Authority::new();
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        defaults {{ mode "tcp"; timeout handshake="60s" connect="60s" queue="60s" }}
        frontend "proxy" {{ bind "127.0.0.1:0" {{ accept-proxy timeout="60s" }}; default-backend "well" }}
        frontend "tls" {{ bind "127.0.0.1:0" {{ tls cert="a.pem" }}; default-backend "well" }}
        frontend "hello" {{
            bind "127.0.0.1:0"
            acl "a" {{ sni "a.example" }}
            deny unless="a"
            default-backend "well"
        }}
        frontend "queue" {{ bind "127.0.0.1:0"; default-backend "narrow" }}
        frontend "connect" {{ bind "127.0.0.1:0"; default-backend "hole" }}
        frontend "data" {{ bind "127.0.0.1:0"; default-backend "well" }}
        frontend "server" {{ bind "127.0.0.1:0"; default-backend "resetting" }}
        backend "narrow" {{ server "s" "@one" max-connections=1 }}
        backend "hole" {{ server "s" "@hole" }}
        backend "resetting" {{ server "s" "@resetting" }}
    "#
    ))
    .with("@echo", echo.address())
    .with("@one", one.address())
    .with("@hole", hole)
    .with("@resetting", resetting.address())
    .file("a.pem", authority.issue(&["a.example"]).bundle())
    .start()
    .await;
    is_calm(&gateway).await;
    let mut keeps_the_place = gateway.connect("queue").await;
    keeps_the_place.send("hello").await;
    assert_eq!(keeps_the_place.exactly(5).await, b"hello");
    let files = descriptors(gateway.pid());
    let memory = gateway.resident();
    for (frontend, say) in [
        ("proxy", &b"PROXY TCP4 192."[..]),
        ("tls", b"\x16\x03\x01\x01\xf4\x01"),
        ("hello", b"\x16\x03\x01\x01\xf4\x01"),
        ("queue", b"hello"),
        ("connect", b"hello"),
        ("data", b"hello"),
        ("server", b"hello"),
    ] {
        let held = f64::from(u8::from(frontend == "queue"));
        let labels = [("frontend", frontend)];
        let open = flood(gateway.address(frontend), COUNT, say).await;
        if frontend != "server" {
            gateway
                .metric_is("gateway_frontend_current_connections", &labels, held + COUNT as f64)
                .await;
        }
        is_calm(&gateway).await;
        for stream in open {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        gateway
            .metric_is("gateway_frontend_current_connections", &labels, held)
            .await;
        is_calm(&gateway).await;
    }
    // The stats page's own connections come and go.
    eventually("descriptors given back", async || {
        descriptors(gateway.pid()) <= files + 4
    })
    .await;
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 4 * MIB, "{grown} bytes");
    gateway
        .metric_is("gateway_server_in_flight", &[("backend", "well")], 0.0)
        .await;
    gateway
        .metric_is("gateway_backend_queue", &[("backend", "narrow")], 0.0)
        .await;
    drop(keeps_the_place);
    gateway
        .metric_is("gateway_server_in_flight", &[("backend", "narrow")], 0.0)
        .await;
}

/// What ends a connection as soon as it has been read, again and again.
#[tokio::test]
async fn what_is_malformed_is_turned_away_and_leaves_nothing_behind() {
    let echo = Server::echo().await;
    let authority = Authority::new();
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        defaults {{ mode "tcp" }}
        frontend "proxy" {{ bind "127.0.0.1:0" {{ accept-proxy timeout="60s" }}; access-log "off"; default-backend "well" }}
        frontend "tls" {{ bind "127.0.0.1:0" {{ tls cert="a.pem" }}; access-log "off"; default-backend "well" }}
        frontend "hello" {{
            bind "127.0.0.1:0"
            access-log "off"
            acl "a" {{ sni "a.example" }}
            deny unless="a"
            default-backend "well"
        }}
    "#
    ))
    .with("@echo", echo.address())
    .file("a.pem", authority.issue(&["a.example"]).bundle())
    .start()
    .await;
    is_calm(&gateway).await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n";
    // A hello of 16 MiB, which would come in records of 16 KiB.
    let bomb = [&b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03"[..], &[7; 16_384 - 6]].concat();
    let cases = [
        ("proxy", b"PROXY TCP4 300.0.0.1 192.0.2.1 1 2\r\n".to_vec()),
        ("proxy", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("proxy", b"PROXY UNKNOWN ".repeat(20)),
        ("proxy", [&v2[..], b"\x21\x11\xff\xff"].concat()),
        ("proxy", [&v2[..], b"\x21\x11\x00\x0b", &[9; 11]].concat()),
        ("tls", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("tls", bomb.clone()),
        ("hello", [&bomb[..], &bomb[..]].concat()),
    ];
    let round = async |count: usize| {
        for (frontend, say) in &cases {
            for _ in 0..count {
                let mut client = gateway.connect(frontend).await;
                // It may be closed before all was taken.
                let _ = client.try_send(say).await;
                assert!(client.ends().await, "{frontend}: {} bytes were answered", say.len());
            }
        }
    };
    round(20).await;
    is_calm(&gateway).await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));
    for _ in 0..4 {
        round(50).await;
        is_calm(&gateway).await;
    }
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < MIB, "{grown} bytes");
    for frontend in ["proxy", "tls", "hello"] {
        is_empty(&gateway, frontend).await;
    }
    assert!(descriptors(gateway.pid()) <= files + 4);
    assert_eq!(echo.connections(), 6 * 20, "none of them reached a server");
}

#[tokio::test]
async fn resets_of_what_is_half_closed_leave_nothing_behind() {
    const COUNT: usize = 60;
    let echo = Server::echo().await;
    let waiting = Server::start(|mut wire, _| async move {
        wire.rest().await?;
        std::future::pending::<()>().await;
        Ok(())
    })
    .await;
    let resetting = Server::start(|mut wire, _| async move {
        wire.half_close().await?;
        wire.some().await?;
        wire.reset();
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        defaults {{ mode "tcp"; timeout client="60s" server="60s" }}
        frontend "clients" {{ bind "127.0.0.1:0"; default-backend "waiting" }}
        frontend "servers" {{ bind "127.0.0.1:0"; default-backend "resetting" }}
        backend "waiting" {{ server "s" "@waiting" }}
        backend "resetting" {{ server "s" "@resetting" }}
    "#
    ))
    .with("@echo", echo.address())
    .with("@waiting", waiting.address())
    .with("@resetting", resetting.address())
    .start()
    .await;
    is_calm(&gateway).await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));

    // The client has ended, waits for an answer, and vanishes.
    let open = flood(gateway.address("clients"), COUNT, b"hello").await;
    for stream in &open {
        socket2::SockRef::from(stream)
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }
    eventually("all ends at the server", async || {
        waiting.connections() == COUNT && (0..COUNT).all(|i| waiting.seen(i) == b"hello")
    })
    .await;
    is_calm(&gateway).await;
    for stream in open {
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    is_empty(&gateway, "clients").await;
    is_calm(&gateway).await;

    // The server has ended, is told something, and breaks off.
    let open = flood(gateway.address("servers"), COUNT, b"").await;
    eventually("all at the server", async || resetting.connections() == COUNT).await;
    is_calm(&gateway).await;
    for stream in &open {
        stream.try_write(b"hello").unwrap();
    }
    is_empty(&gateway, "servers").await;
    is_calm(&gateway).await;
    drop(open);

    eventually("descriptors given back", async || {
        descriptors(gateway.pid()) <= files + 4
    })
    .await;
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 4 * MIB, "{grown} bytes");
    for backend in ["waiting", "resetting"] {
        gateway
            .metric_is("gateway_server_in_flight", &[("backend", backend)], 0.0)
            .await;
    }
}

#[tokio::test]
async fn servers_that_reset_handshakes_hold_up_nobody_else() {
    const COUNT: usize = 100;
    let echo = Server::echo().await;
    let resetting = Server::start(|mut wire, _| async move {
        wire.some().await?;
        wire.reset();
        Ok(())
    })
    .await;
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        frontend "flooded" {{ mode "tcp"; bind "127.0.0.1:0"; access-log "off"; default-backend "resetting" }}
        backend "resetting" {{ mode "tcp"; retries 0; server "s" "@resetting" {{ tls verify="none" }} }}
    "#
    ))
    .with("@echo", echo.address())
    .with("@resetting", resetting.address())
    .start()
    .await;
    is_calm(&gateway).await;
    let round = async || {
        for mut client in flood_clients(&gateway, "flooded", COUNT).await {
            assert!(client.ends().await);
        }
        is_empty(&gateway, "flooded").await;
        is_calm(&gateway).await;
    };
    round().await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));
    for _ in 0..3 {
        round().await;
    }
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < MIB, "{grown} bytes");
    assert!(descriptors(gateway.pid()) <= files + 4);
    assert_eq!(resetting.connections(), 4 * COUNT);
}

#[tokio::test]
async fn a_name_server_that_is_dead_holds_up_nobody_else() {
    let echo = Server::echo().await;
    let dns = DnsServer::start().await;
    dns.fall_silent();
    let gateway = Gateway::kdl(&format!(
        r#"{CALM}
        resolver timeout="50ms" retries=1 min-ttl="50ms" {{ nameserver "@dns" }}
        frontend "flooded" {{ mode "tcp"; bind "127.0.0.1:0"; access-log "off"; default-backend "lost" }}
        backend "lost" {{
            mode "tcp"
            server "one" "lost.test:1"
            server-template "many" "many.test:1" count=100
        }}
    "#
    ))
    .with("@echo", echo.address())
    .with("@dns", dns.address())
    .start()
    .await;
    let round = async || {
        for mut client in flood_clients(&gateway, "flooded", 100).await {
            assert!(client.ends().await);
        }
        let asked = dns.questions("lost.test");
        eventually("it is asked again", async || dns.questions("lost.test") > asked).await;
        is_calm(&gateway).await;
    };
    round().await;
    let (memory, files) = (gateway.resident(), descriptors(gateway.pid()));
    for _ in 0..5 {
        round().await;
    }
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < MIB, "{grown} bytes");
    assert!(descriptors(gateway.pid()) <= files + 8);
    is_empty(&gateway, "flooded").await;
}

/// So many clients, each of which has said something.
async fn flood_clients(gateway: &Gateway, frontend: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = gateway.connect(frontend).await;
        let _ = client.try_send("hello").await;
        clients.push(client);
    }
    clients
}
