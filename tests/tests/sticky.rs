//! Persistence: who stays at which server, by a cookie or by something else of the request.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, Response, eventually, get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A gateway in front of the servers `a`, `b` and so on, known by their names, with this in its backend.
async fn gateway(servers: &[HttpServer], nodes: &str, properties: &str) -> Gateway {
    let mut lines = String::new();
    for (name, server) in ["a", "b", "c"].iter().zip(servers) {
        let address = server.address();
        lines += &format!("server \"{name}\" \"{address}\" cookie=\"{name}\" {properties}\n");
    }
    Gateway::kdl(&format!(
        r#"
        process {{ workers 2; log "stdout" format="json"}}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ {nodes}; {lines} }}
    "#
    ))
    .start()
    .await
}

async fn servers(names: &[&str]) -> Vec<HttpServer> {
    let mut servers = Vec::new();
    for name in names {
        servers.push(HttpServer::answering(name).await);
    }
    servers
}

fn cookies(response: &Response) -> Vec<&str> {
    response.headers.all("set-cookie").collect()
}

fn with(cookie: &str) -> RequestText {
    get("/").header("Cookie", cookie)
}

#[tokio::test]
async fn a_client_is_told_its_server_once_and_stays_there() {
    let servers = servers(&["a", "b"]).await;
    let gateway = gateway(&servers, r#"cookie "SRVID" insert indirect nocache"#, "").await;
    for _ in 0..4 {
        let first = gateway.ask("web", get("/")).await;
        let name = first.text().to_owned();
        assert_eq!(cookies(&first), [format!("SRVID={name}; path=/")]);
        assert_eq!(first.header("cache-control"), Some("private"));
        // Two requests and more: round robin alone would go elsewhere.
        for _ in 0..3 {
            let next = gateway.ask("web", with(&format!("x=1; SRVID={name}; y=\"2\""))).await;
            assert_eq!(next.text(), name);
            assert_eq!(cookies(&next), Vec::<&str>::new());
            assert_eq!(next.header("cache-control"), None, "nothing was set");
        }
    }
    let flags = |lines: &[serde_json::Value]| {
        let flags = lines
            .iter()
            .map(|line| line["cookie_flags"].as_str().unwrap().to_owned());
        flags.collect::<Vec<_>>()
    };
    let log = gateway.access_log(16).await;
    let mut flags = flags(&log);
    flags.sort();
    assert_eq!(
        (&*flags[0], &*flags[3], &*flags[4], &*flags[15]),
        ("NI", "NI", "VN", "VN")
    );
}

#[tokio::test]
async fn formats_of_ones_own_say_what_became_of_the_cookie() {
    let servers = servers(&["a"]).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app"; log-format "ended %{termination}%{cookie-flags}." }
        backend "app" { cookie "SRVID" insert; server "a" "@a" cookie="a" }
    "#,
    )
    .with("@a", servers[0].address())
    .start()
    .await;
    gateway.ask("web", with("SRVID=zzz")).await;
    gateway.says("ended --II.").await;
    gateway.ask("web", with("SRVID=a")).await;
    gateway.says("ended --VN.").await;
}

#[tokio::test]
async fn an_indirect_cookie_is_taken_out_before_the_server_sees_it() {
    let servers = servers(&["a"]).await;
    let gateway = gateway(&servers, r#"cookie "SRVID" insert indirect"#, "").await;
    let mut client = gateway.connect("web").await;
    for (sent, seen) in [
        ("SRVID=a", None),
        ("SRVID=unknown", None),
        ("SRVID=a; SRVID=a", None),
        ("x=1;  y=\"a b\"; SRVID=a; z", Some("x=1;  y=\"a b\"; z")),
        ("SRVID=a; x=1", Some("x=1")),
        ("srvid=a; XSRVID=a; x=SRVID=a", Some("srvid=a; XSRVID=a; x=SRVID=a")),
    ] {
        client.ask(with(sent)).await;
        assert_eq!(servers[0].last().headers.get("cookie"), seen, "{sent}");
    }
    client
        .ask(with("a=1").header("Cookie", "SRVID=a").header("Cookie", "b=2"))
        .await;
    let last = servers[0].last();
    assert_eq!(last.headers.all("cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
}

#[tokio::test]
async fn without_indirect_the_server_sees_the_cookie() {
    let servers = servers(&["a"]).await;
    let gateway = gateway(&servers, r#"cookie "SRVID" insert"#, "").await;
    let response = gateway.ask("web", with("SRVID=a; x=1")).await;
    assert_eq!(cookies(&response), Vec::<&str>::new());
    assert_eq!(servers[0].last().headers.get("cookie"), Some("SRVID=a; x=1"));
}

#[tokio::test]
async fn the_cookie_goes_ahead_of_balancing_and_its_value_is_only_compared() {
    let servers = servers(&["a", "b", "c"]).await;
    let gateway = gateway(
        &servers,
        r#"balance "first"; cookie "SRVID" insert indirect"#,
        "max-connections=1000",
    )
    .await;
    assert_eq!(gateway.ask("web", with("SRVID=c")).await.text(), "c");
    let long = format!("SRVID={}", "c".repeat(4000));
    for odd in [
        "SRVID=d",
        "SRVID=",
        "SRVID=C",
        "SRVID=\"c\"",
        "SRVID=c~",
        "SRVID=|c",
        "SRVID=\u{e9}",
        &long,
    ] {
        let response = gateway.raw(
            "web",
            format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {odd}\r\nConnection: close\r\n\r\n"),
        );
        let response = response.await;
        assert!(
            response.starts_with("HTTP/1.1 200") && response.ends_with('a'),
            "{odd}: {response}"
        );
        assert!(response.contains("SRVID=a; path=/"), "{odd}");
    }
    // Of several the first that names a server counts.
    assert_eq!(gateway.ask("web", with("SRVID=x; SRVID=b; SRVID=c")).await.text(), "b");
}

#[tokio::test]
async fn a_server_that_is_down_gives_its_clients_to_another_which_they_are_told() {
    let mut servers = servers(&["a", "b"]).await;
    // A connection that meets the server's last moment is made, and gets no answer.
    let nodes = r#"retry-on "conn-failure" "empty-response"; cookie "SRVID" insert indirect; check "tcp" interval="50ms" fall=1 rise=1"#;
    let gateway = gateway(&servers, nodes, "").await;
    assert_eq!(gateway.ask("web", with("SRVID=a")).await.text(), "a");
    servers[0].stop().await;
    // At once, by a retry; and when it is known to be down.
    let response = gateway.ask("web", with("SRVID=a")).await;
    assert_eq!((response.text(), cookies(&response)), ("b", vec!["SRVID=b; path=/"]));
    gateway.metric_is("gateway_server_up", &[("server", "a")], 0.0).await;
    let response = gateway.ask("web", with("SRVID=a")).await;
    assert_eq!((response.text(), cookies(&response)), ("b", vec!["SRVID=b; path=/"]));
    let log = gateway.access_log(3).await;
    let mut flags: Vec<_> = log.iter().map(|line| line["cookie_flags"].as_str().unwrap()).collect();
    flags.sort_unstable();
    assert_eq!(flags, ["DI", "VI", "VN"]);
    servers[0].resume().await;
    gateway.metric_is("gateway_server_up", &[("server", "a")], 1.0).await;
    assert_eq!(gateway.ask("web", with("SRVID=a")).await.text(), "a");
}

#[tokio::test]
async fn a_drained_server_keeps_its_sessions_and_one_in_maintenance_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let servers = servers(&["a", "b"]).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 2; admin "@socket" level="admin" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" {
            cookie "SRVID" insert indirect
            server "a" "@a" cookie="a"
            server "b" "@b" cookie="b"
        }
    "#,
    )
    .with("@socket", socket.display())
    .with("@a", servers[0].address())
    .with("@b", servers[1].address())
    .start()
    .await;
    let order = async |order: &str| {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        stream.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.trim(), "", "{order}");
    };
    for (drained, back) in [
        ("set server app/a state drain", "enable server app/a"),
        ("set weight app/a 0", "set weight app/a 100%"),
    ] {
        order(drained).await;
        for _ in 0..4 {
            assert_eq!(gateway.ask("web", with("SRVID=a")).await.text(), "a", "{drained}");
            assert_eq!(gateway.ask("web", get("/")).await.text(), "b", "{drained}");
        }
        order(back).await;
    }
    order("disable server app/a").await;
    let response = gateway.ask("web", with("SRVID=a")).await;
    assert_eq!((response.text(), cookies(&response)), ("b", vec!["SRVID=b; path=/"]));
}

#[tokio::test]
async fn who_belongs_to_a_full_server_waits_for_it() {
    let slow = HttpServer::start(|request| match &*request.target {
        "/hold" => Answer::nothing()
            .then_pause(Duration::from_millis(300))
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld"),
        _ => Answer::ok("a"),
    });
    let servers = [slow.await, HttpServer::answering("b").await];
    let nodes = r#"balance "leastconn"; cookie "SRVID" insert indirect; timeout queue="5s""#;
    let gateway = gateway(&servers, nodes, "max-connections=1").await;
    let mut holder = gateway.connect("web").await;
    holder.send(get("/hold").header("Cookie", "SRVID=a").bytes()).await;
    servers[0].has_seen(1).await;
    // The other one is free and is not taken; whoever belongs nowhere takes it.
    let mut waiting = gateway.connect("web").await;
    waiting.send(with("SRVID=a").bytes()).await;
    gateway.metric_is("gateway_server_queue", &[("server", "a")], 1.0).await;
    assert_eq!(gateway.ask("web", get("/")).await.text(), "b");
    assert_eq!(waiting.response().await.text(), "a");
    assert_eq!(holder.response().await.text(), "held");
    gateway.metric_is("gateway_server_queue", &[("server", "a")], 0.0).await;
}

#[tokio::test]
async fn a_wait_for_ones_own_server_ends_elsewhere_or_as_told() {
    for (redispatch, expected) in [("each", 200), ("off", 503)] {
        let stalls = HttpServer::start(|_| Answer::nothing().then_stall()).await;
        let servers = [stalls, HttpServer::answering("b").await];
        let nodes =
            format!(r#"retries 3 redispatch="{redispatch}"; cookie "SRVID" insert indirect; timeout queue="100ms""#);
        let gateway = gateway(&servers, &nodes, "max-connections=1").await;
        let mut holder = gateway.connect("web").await;
        holder.send(with("SRVID=a").bytes()).await;
        servers[0].has_seen(1).await;
        let response = gateway.ask("web", with("SRVID=a")).await;
        assert_eq!(response.status, expected, "{redispatch}");
        if expected == 200 {
            assert_eq!((response.text(), cookies(&response)), ("b", vec!["SRVID=b; path=/"]));
        }
    }
}

#[tokio::test]
async fn who_waits_for_a_server_that_goes_goes_elsewhere() {
    let stalls = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let mut servers = [stalls, HttpServer::answering("b").await];
    let nodes = r#"cookie "SRVID" insert indirect; timeout queue="30s"; check "tcp" interval="50ms" fall=1"#;
    let gateway = gateway(&servers, nodes, "max-connections=1").await;
    let mut holder = gateway.connect("web").await;
    holder.send(with("SRVID=a").bytes()).await;
    servers[0].has_seen(1).await;
    let mut waiting = gateway.connect("web").await;
    waiting.send(with("SRVID=a").bytes()).await;
    gateway.metric_is("gateway_server_queue", &[("server", "a")], 1.0).await;
    servers[0].stop().await;
    assert_eq!(waiting.response().await.text(), "b");
}

#[tokio::test]
async fn attributes_stand_as_they_were_said() {
    let servers = servers(&["a"]).await;
    let nodes = r#"cookie "SRVID" insert httponly secure samesite="lax" domain=".example.net" path="/app" attr="Priority=High""#;
    let gateway = gateway(&servers, nodes, "").await;
    let response = gateway.ask("web", get("/")).await;
    let expected = "SRVID=a; path=/app; domain=.example.net; HttpOnly; Secure; SameSite=Lax; Priority=High";
    assert_eq!(cookies(&response), [expected]);
}

#[tokio::test]
async fn postonly_sets_it_in_answers_to_post_only() {
    let servers = servers(&["a"]).await;
    let gateway = gateway(&servers, r#"cookie "SRVID" insert postonly"#, "").await;
    assert_eq!(cookies(&gateway.ask("web", get("/")).await), Vec::<&str>::new());
    assert_eq!(cookies(&gateway.ask("web", post("/", "x")).await), ["SRVID=a; path=/"]);
}

#[tokio::test]
async fn dates_end_a_cookie_and_are_moved_on() {
    let servers = servers(&["a", "b"]).await;
    let gateway = gateway(
        &servers,
        r#"cookie "SRVID" insert indirect nocache max-idle="30m" max-life="8h""#,
        "",
    )
    .await;
    let first = gateway.ask("web", get("/")).await;
    let told = cookies(&first)[0].to_owned();
    let (cookie, attributes) = told.split_once(';').unwrap();
    assert_eq!(
        (cookie.len(), attributes),
        ("SRVID=a|AAAAA|AAAAA".len(), " path=/"),
        "{told}"
    );
    // Good as it is, and within one step of the clock not told again; a step later with the first date as it was.
    let life = cookie.rsplit_once('|').unwrap().1;
    eventually("the date moves on", async || {
        let next = gateway.ask("web", with(cookie)).await;
        assert_eq!(next.text(), first.text());
        let moved = cookies(&next).first().map(|told| (*told).to_owned());
        // Nor is a new date for a cache that many share.
        assert_eq!(next.header("cache-control"), moved.as_ref().map(|_| "private"));
        moved.is_some_and(|told| told.contains(life) && !told.starts_with(cookie))
    })
    .await;
    // 2009; and a first date without a last one.
    for old in ["SRVID=a|SZX+7|SZX+7", "SRVID=a|SZX+7"] {
        let response = gateway.ask("web", with(old)).await;
        assert_eq!(cookies(&response).len(), 1, "{old}");
    }
    for flags in ["EI", "OI"] {
        gateway.says(&format!(r#""cookie_flags":"{flags}""#)).await;
    }
}

#[tokio::test]
async fn a_servers_own_cookie_is_rewritten_prefixed_replaced_or_preserved() {
    let app = || {
        HttpServer::start(|_| {
            Answer::ok("x")
                .header("Set-Cookie", "SID=abc; Path=/")
                .header("Set-Cookie", "o=1")
        })
    };
    for (mode, sent, seen, told) in [
        ("rewrite", "SID=a", "SID=a", vec!["SID=a; Path=/", "o=1"]),
        (
            "prefix",
            "SID=a~abc; x=1",
            "SID=abc; x=1",
            vec!["SID=a~abc; Path=/", "o=1"],
        ),
        ("prefix", "SID=zzz~abc", "SID=abc", vec!["SID=a~abc; Path=/", "o=1"]),
        ("insert", "SID=a", "SID=a", vec!["o=1"]),
        ("insert", "SID=z", "SID=z", vec!["o=1", "SID=a; path=/"]),
        ("insert preserve", "SID=z", "SID=z", vec!["SID=abc; Path=/", "o=1"]),
        ("", "SID=a", "SID=a", vec!["SID=abc; Path=/", "o=1"]),
        ("indirect", "SID=a", "SID=a", vec!["o=1"]),
    ] {
        let servers = [app().await];
        let gateway = gateway(&servers, &format!("cookie \"SID\" {mode}"), "").await;
        let response = gateway.ask("web", with(sent)).await;
        assert_eq!(servers[0].last().headers.get("cookie"), Some(seen), "{mode} {sent}");
        assert_eq!(cookies(&response), told, "{mode} {sent}");
    }
}

#[tokio::test]
async fn a_prefix_leads_to_its_server() {
    let servers = servers(&["a", "b"]).await;
    let gateway = gateway(&servers, r#"cookie "SID" prefix"#, "").await;
    for _ in 0..4 {
        assert_eq!(gateway.ask("web", with("SID=b~b~anything")).await.text(), "b");
        assert_eq!(servers[1].last().headers.get("cookie"), Some("SID=b~anything"));
    }
}

/// A gateway that chooses among three servers as told.
async fn balanced(balance: &str, servers: &[HttpServer]) -> Gateway {
    Gateway::kdl(&format!(
        r#"
        process {{ workers 2 }}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ balance {balance}; server "a" "@a"; server "b" "@b"; server "c" "@c" }}
    "#
    ))
    .with("@a", servers[0].address())
    .with("@b", servers[1].address())
    .with("@c", servers[2].address())
    .start()
    .await
}

#[tokio::test]
async fn a_header_a_parameter_a_cookie_or_the_uri_keeps_requests_together() {
    let servers = servers(&["a", "b", "c"]).await;
    let header = |n: usize| get(&format!("/{n}")).header("X-Session-Id", &format!("s{}", n % 20));
    let query = |n: usize| get(&format!("/{n}?a={n}&user=u{}&b", n % 20));
    let cookie = |n: usize| with(&format!("x={n}; sid=c{}", n % 20));
    let uri = |n: usize| get(&format!("/path{}?q={n}", n % 20));
    let depth = |n: usize| get(&format!("/dir{}/{n}", n % 20));
    let ways: [(&str, &dyn Fn(usize) -> RequestText); 5] = [
        (r#""header" name="x-session-id" consistent"#, &header),
        (r#""query" name="user""#, &query),
        (r#""cookie" name="sid" consistent"#, &cookie),
        (r#""uri""#, &uri),
        (r#""uri" depth=1 consistent"#, &depth),
    ];
    for (balance, request) in ways {
        let gateway = balanced(balance, &servers).await;
        let mut seen: Vec<Option<String>> = vec![None; 20];
        for n in 0..60 {
            let got = gateway.ask("web", request(n)).await.text().to_owned();
            let before = seen[n % 20].get_or_insert(got.clone());
            assert_eq!(*before, got, "{balance}: request {n}");
        }
        for name in ["a", "b", "c"] {
            assert!(
                seen.iter().flatten().any(|seen| seen == name),
                "{balance}: nothing at {name}"
            );
        }
    }
}

#[tokio::test]
async fn requests_without_what_is_hashed_take_turns() {
    let servers = servers(&["a", "b", "c"]).await;
    let gateway = balanced(r#""header" name="x-session-id""#, &servers).await;
    let mut client: Client = gateway.connect("web").await;
    let mut seen = Vec::new();
    for request in [get("/"), get("/").header("X-Session-Id", ""), get("/")] {
        seen.push(client.ask(request).await.text().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn who_was_at_which_server_is_learned_by_all_workers_and_forgotten_after_a_while() {
    let servers = servers(&["a", "b", "c"]).await;
    let nodes = r#"stick "header" name="X-Session-Id" expire="1s" size=1000"#;
    let text = format!(
        r#"
        process {{ workers 2 }}
        frontend "web" {{ bind "127.0.0.1:0"; default-backend "app" }}
        backend "app" {{ {nodes}; server "a" "@a"; server "b" "@b"; server "c" "@c" }}
    "#
    );
    let builder = || {
        Gateway::kdl(&text)
            .with("@a", servers[0].address())
            .with("@b", servers[1].address())
            .with("@c", servers[2].address())
    };
    let gateway = builder().start().await;
    let ask = async |id: &str| {
        let response = gateway.ask("web", get("/").header("X-Session-Id", id)).await;
        response.text().to_owned()
    };
    let mut first = Vec::new();
    for n in 0..6 {
        first.push(ask(&format!("s{n}")).await);
    }
    for name in ["a", "b", "c"] {
        assert!(first.iter().any(|first| first == name), "{first:?}");
    }
    for _ in 0..3 {
        for (n, first) in first.iter().enumerate() {
            assert_eq!(ask(&format!("s{n}")).await, *first, "client {n}");
        }
    }
    // A reload that leaves it as it is forgets nobody.
    assert!(gateway.reload(&builder()).await);
    for (n, first) in first.iter().enumerate() {
        assert_eq!(ask(&format!("s{n}")).await, *first, "client {n}");
    }
    // Whoever stays away is forgotten: in the end each is met at another server.
    eventually("somebody is elsewhere", async || {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        ask("s0").await != first[0]
    })
    .await;
}

#[tokio::test]
async fn a_client_goes_back_to_where_it_was_in_tcp_mode_and_elsewhere_when_that_is_gone() {
    let mut servers = [
        gateway_tests::Server::greeting("a").await,
        gateway_tests::Server::greeting("b").await,
    ];
    let gateway = Gateway::kdl(
        r#"
        process { workers 2 }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { mode "tcp"; stick "client-ip" expire="1h"; server "a" "@a"; server "b" "@b" }
    "#,
    )
    .with("@a", servers[0].address())
    .with("@b", servers[1].address())
    .start()
    .await;
    let address = gateway.address("raw");
    let greet = async |last: u8| Client::connect_from(address, [127, 0, 0, last]).await.exactly(1).await;
    let (one, other) = (greet(2).await, greet(3).await);
    for _ in 0..4 {
        assert_eq!((greet(2).await, greet(3).await), (one.clone(), other.clone()));
    }
    let at = usize::from(one == b"b");
    servers[at].stop().await;
    let moved = greet(2).await;
    assert_ne!(moved, one);
    servers[at].resume().await;
    assert_eq!(greet(2).await, moved, "it stays where it went");
}
