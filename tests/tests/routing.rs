//! Routing, redirects, fixed responses, error pages, variables and rewrites, over real requests.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::http2::{Http2Client, Http2Server, http2_get};
use gateway_tests::tls::Authority;
use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, get, head, method, post, refusing};

/// A gateway with one frontend `web`, whose block says this beside its bind and its way to `app`.
async fn gateway(says: &str, app: &HttpServer) -> Gateway {
    let text = format!(
        "frontend \"web\" {{ bind \"127.0.0.1:0\"; {says}\n default-backend \"app\" }}\n\
         backend \"app\" {{ server \"s\" \"@app\" }}"
    );
    Gateway::kdl(&text).with("@app", app.address()).start().await
}

#[tokio::test]
async fn a_backend_that_answers_everything_itself_needs_no_server() {
    let app = HttpServer::answering("app").await;
    let text = r#"
        frontend "web" {
            bind "127.0.0.1:0"
            use-backend "gone" { path-prefix "/old/" }
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
        backend "gone" {
            acl "ping" { path "/old/ping" }
            return status=202 if="ping" { body "pong" }
            deny status=410
        }
    "#;
    let gateway = Gateway::kdl(text).with("@app", app.address()).start().await;
    for (path, status) in [("/x", 200), ("/old/ping", 202), ("/old/x", 410)] {
        assert_eq!(gateway.ask("web", get(path)).await.status, status, "{path}");
    }
}

// ── conditions ────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn values_of_predicates_stand_in_files_and_are_read_again() {
    let app = HttpServer::answering("app").await;
    let many = |also: &str| {
        let names: String = (0..10_000).map(|n| format!("h{n}.example\n")).collect();
        format!("# a large list\n{names}\n{also}\n")
    };
    let text = r#"
        acl "ours" { host "www.example.net" file="lists/hosts.txt" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "robot" { header "user-agent" file="robots.txt" match="contains" }
            deny status=403 if="robot"
            deny status=410 { path-prefix file="gone.txt" }
            deny status=421 unless="ours"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#;
    let builder = || Gateway::kdl(text).with("@app", app.address());
    let gateway = builder()
        .file("lists/hosts.txt", many("*.shop.example"))
        .file("robots.txt", "# who is not wanted\r\n\r\nEvilBot\r\nscraper/\r\n")
        .file("gone.txt", "/old/\n/older/\n")
        .start()
        .await;
    let ask = async |request: RequestText| gateway.ask("web", request).await.status;
    for (host, status) in [
        ("h0.example", 200),
        ("H9999.example:8080", 200),
        ("a.shop.example", 200),
        ("www.example.net", 200),
        ("h10000.example", 421),
        ("new.example", 421),
    ] {
        assert_eq!(ask(get("/x").host(host)).await, status, "{host}");
    }
    assert_eq!(ask(get("/older/x").host("h0.example")).await, 410);
    let robot = get("/x")
        .host("h0.example")
        .header("User-Agent", "Mozilla/5.0 EvilBot/1");
    assert_eq!(ask(robot).await, 403);

    gateway.write("lists/hosts.txt", many("new.example"));
    assert!(gateway.reload(&builder()).await);
    assert_eq!(ask(get("/x").host("new.example")).await, 200);
    assert_eq!(ask(get("/x").host("a.shop.example")).await, 421);
    // What cannot be read leaves what was there.
    gateway.write("lists/hosts.txt", many("no host"));
    assert!(!gateway.reload(&builder()).await);
    gateway.says("lists/hosts.txt:10003:1").await;
    assert_eq!(ask(get("/x").host("new.example")).await, 200);
}

#[tokio::test]
async fn a_rule_may_ask_without_naming_an_acl() {
    let (app, api) = (HttpServer::answering("app").await, HttpServer::answering("api").await);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            acl "staff" { header "x-staff" }
            deny status=403 { path-prefix "/internal/"; not { source "127.0.0.2" } }
            deny status=410 unless="staff" { path "/gone" }
            use-backend "api" { path-prefix "/api/"; method "GET" }
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
        backend "api" { server "s" "@api" }
    "#,
    )
    .with("@app", app.address())
    .with("@api", api.address())
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/internal/x")).await.status, 403);
    let mut friend = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    assert_eq!(friend.ask(get("/internal/x")).await.status, 200);
    assert_eq!(gateway.ask("web", get("/gone")).await.status, 410);
    assert_eq!(
        gateway.ask("web", get("/gone").header("X-Staff", "1")).await.status,
        200
    );
    assert_eq!(gateway.ask("web", get("/api/x")).await.text(), "api");
    assert_eq!(gateway.ask("web", post("/api/x", "")).await.text(), "app");
}

#[tokio::test]
async fn what_else_predicates_ask() {
    let app = HttpServer::answering("x").await;
    // What is denied, requests that are, requests that are not.
    let cases: [(&str, Vec<RequestText>, Vec<RequestText>); 8] = [
        (
            r#"path-contains "/.git""#,
            vec![get("/a/.git/config")],
            vec![get("/a/git?/.git")],
        ),
        (
            r##"host-regex #"^shop\d+\.example$"#"##,
            vec![get("/").host("Shop12.example:80")],
            vec![get("/").host("shop.example")],
        ),
        (
            r#"header "user-agent" contains="bot""#,
            vec![get("/").header("User-Agent", "a robot")],
            vec![get("/"), get("/").header("User-Agent", "bo t")],
        ),
        (
            r#"header-count "x-forwarded-for" min=2"#,
            vec![get("/").header("X-Forwarded-For", "a").header("X-Forwarded-For", "b")],
            vec![get("/"), get("/").header("X-Forwarded-For", "a, b")],
        ),
        (
            r#"header-length "cookie" min=11"#,
            vec![get("/").header("Cookie", "a=123456789")],
            vec![get("/"), get("/").header("Cookie", "a=12345678")],
        ),
        (r#"uri-length min=6"#, vec![get("/ab?cd")], vec![get("/ab?c"), get("/")]),
        (r#"http-version "1.1""#, vec![get("/")], vec![]),
        (r#"not { http-version "1.1" "2" }"#, vec![], vec![get("/")]),
    ];
    let mut text = String::from("backend \"app\" { server \"s\" \"@app\" }\n");
    for (n, (test, _, _)) in cases.iter().enumerate() {
        text.push_str(&format!(
            "frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; deny {{ {test} }}; default-backend \"app\" }}\n"
        ));
    }
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    for (n, (test, denied, passed)) in cases.into_iter().enumerate() {
        for (expected, requests) in [(403, denied), (200, passed)] {
            for request in requests {
                let answer = gateway.ask(&format!("f{n}"), request.clone()).await;
                assert_eq!(answer.status, expected, "{test} for {request:?}");
            }
        }
    }
    let mut old = Client::connect(gateway.address("f7")).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(old.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 403 "), "{answer}");
}

// ── redirects ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn redirects_lead_where_they_say() {
    let app = HttpServer::answering("x").await;
    // The rule, a request, and the Location that follows.
    let cases = [
        (
            r#"redirect scheme="https""#,
            get("/a?b=c"),
            302,
            "https://test.example/a?b=c",
        ),
        (
            r#"redirect scheme="https" code=301"#,
            get("/a").host("A.example:8080"),
            301,
            "https://A.example/a",
        ),
        (
            r#"redirect scheme="https" port=8443"#,
            get("/").host("[2001:db8::1]:8080"),
            302,
            "https://[2001:db8::1]:8443/",
        ),
        (
            r#"redirect scheme="https" port=443"#,
            get("/"),
            302,
            "https://test.example/",
        ),
        (
            r#"redirect scheme="http""#,
            get("/").host("a.example:8080"),
            302,
            "http://a.example:8080/",
        ),
        (
            r#"redirect host="www.example.net" code=308"#,
            get("/a?b"),
            308,
            "http://www.example.net/a?b",
        ),
        (
            r#"redirect host="www.%{host}" scheme="https" drop-query"#,
            get("/a?b").host("A.example:81"),
            302,
            "https://www.a.example/a",
        ),
        (
            r#"redirect prefix="https://new.example/old" code=307"#,
            get("/a?b"),
            307,
            "https://new.example/old/a?b",
        ),
        (
            r#"redirect prefix="/new" drop-query code=303"#,
            get("/a?b"),
            303,
            "/new/a",
        ),
        (r#"redirect location="/login""#, get("/a?b"), 302, "/login"),
        (
            r#"redirect location="/login?from=%{uri}""#,
            get("/a?b=c%20d"),
            302,
            "/login?from=%2Fa%3Fb%3Dc%2520d",
        ),
        (r#"redirect location="/login" keep-query"#, get("/a?b"), 302, "/login?b"),
        // A query stands before the fragment, behind which a browser would keep it to itself.
        (
            r##"redirect location="/app#/login" keep-query"##,
            get("/a?b"),
            302,
            "/app?b#/login",
        ),
        (
            r##"redirect location="/app?c=%{path}#top?" keep-query"##,
            get("/a?b"),
            302,
            "/app?c=%2Fa&b#top?",
        ),
        (
            r#"redirect location="/to/%{query-param:next}""#,
            get("/?next=%0d%0aSet-Cookie:x/../%3F"),
            302,
            "/to/%0D%0ASet-Cookie%3Ax%2F..%2F%3F",
        ),
        (
            r#"redirect location="/u/%{cookie:user}/%{header:x-none}/%{method}""#,
            get("/").header("Cookie", "user=ann"),
            302,
            "/u/ann//GET",
        ),
    ];
    let mut text = String::from("backend \"app\" { server \"s\" \"@app\" }\n");
    for (n, (rule, ..)) in cases.iter().enumerate() {
        text.push_str(&format!(
            "frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; {rule}; default-backend \"app\" }}\n"
        ));
    }
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    for (n, (rule, request, code, location)) in cases.into_iter().enumerate() {
        let mut client = gateway.connect(&format!("f{n}")).await;
        // The connection is as good as before, twice.
        for _ in 0..2 {
            let answer = client.ask(request.clone()).await;
            assert_eq!(
                (answer.status, answer.header("location")),
                (code, Some(location)),
                "{rule}"
            );
            assert_eq!(answer.header("content-length"), Some("0"), "{rule}");
            let is_kept = matches!(code, 301 | 308);
            assert_eq!(
                answer.header("cache-control"),
                (!is_kept).then_some("no-cache"),
                "{rule}"
            );
        }
    }
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_never_leads_where_the_client_says() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(
        r#"acl "moved" { header "moved" }; redirect location="%{path}" if="moved"; redirect prefix="/""#,
        &app,
    )
    .await;
    for (target, moved, location) in [
        ("//evil.example/x", true, "/evil.example/x"),
        ("//evil.example/x", false, "/evil.example/x"),
        ("///evil.example", true, "/evil.example"),
        ("/%5cevil.example", true, "/%5Cevil.example"),
    ] {
        let request = if moved {
            get(target).header("Moved", "1")
        } else {
            get(target)
        };
        let answer = gateway.ask("web", request).await;
        assert_eq!(answer.header("location"), Some(location), "{target}");
    }
}

#[tokio::test]
async fn a_redirect_takes_parts_of_the_path_along() {
    let app = HttpServer::answering("x").await;
    // The rule, a request, and the Location that follows.
    let cases = [
        (
            r#"redirect regex="^/old/(.*)$" location="/new/$1""#,
            "/old/a/b%20c?x=1",
            "/new/a/b%20c",
        ),
        (
            r#"redirect regex="^/old/(.*)$" location="/new/$1" keep-query"#,
            "/old/a?x=1",
            "/new/a?x=1",
        ),
        (
            r##"redirect regex=#"^/(?<lang>[a-z]{2})/(\d+)"# location="https://www.example.net/$2/%{host}/${lang}$$""##,
            "/de/42/rest",
            "https://www.example.net/42/test.example/de$",
        ),
        (
            r#"redirect regex="^/a(b)?(c)$" location="/x$1/$2$2$0""#,
            "/ac",
            "/x/cc/ac",
        ),
        (r#"redirect regex="/none$" location="/all""#, "/a/none", "/all"),
        // A client's path does not choose where it is led.
        (
            r#"redirect regex="^/go(.*)$" location="/$1""#,
            "/go//evil.example/x",
            "/evil.example/x",
        ),
        (
            r#"redirect regex="^/go/(.*)$" location="/$1""#,
            "/go/%5cevil.example",
            "/%5Cevil.example",
        ),
        (
            r#"redirect regex="^/go/(.*)$" location="/%{query-param:q}/$1""#,
            "/go/%0d%0ax:y?q=%0d%0a/",
            "/%0D%0A%2F/%0D%0Ax:y",
        ),
    ];
    let mut text = String::from("backend \"app\" { server \"s\" \"@app\" }\n");
    for (n, (rule, ..)) in cases.iter().enumerate() {
        text.push_str(&format!(
            "frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; {rule}; default-backend \"app\" }}\n"
        ));
    }
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    for (n, (rule, target, location)) in cases.into_iter().enumerate() {
        let mut client = gateway.connect(&format!("f{n}")).await;
        // A second time from memory.
        for _ in 0..2 {
            let answer = client.ask(get(target)).await;
            assert_eq!(answer.header("location"), Some(location), "{rule} for {target}");
            assert_eq!(answer.status, 302, "{rule}");
        }
        assert_eq!(client.ask(get("/other")).await.text(), "x", "{rule}");
    }
}

#[tokio::test]
async fn a_redirect_whose_expression_does_not_match_leaves_the_next_rule_to_be_asked() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "get" { method "GET" }
            redirect regex="^/old/(.*)$" location="/new/$1" code=301 if="get"
            redirect regex="^/(old|gone)/" location="/$1.html" { header "x-html" }
            deny status=410 { path-prefix "/old/" }
            default-backend "app"
        }
        backend "app" {
            redirect regex="^/(v[0-9]+)$" location="/$1/" code=308
            server "s" "@app"
        }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let ask = async |request: RequestText| {
        let answer = gateway.ask("web", request).await;
        (answer.status, answer.header("location").map(str::to_owned))
    };
    let leads = |status: u16, location: &str| (status, Some(location.to_owned()));
    assert_eq!(ask(get("/old/x")).await, leads(301, "/new/x"));
    assert_eq!(ask(post("/old/x", "")).await, (410, None));
    assert_eq!(
        ask(post("/old/x", "").header("X-Html", "1")).await,
        leads(302, "/old.html")
    );
    assert_eq!(
        ask(get("/gone/x").header("X-Html", "1")).await,
        leads(302, "/gone.html")
    );
    assert_eq!(ask(get("/v2")).await, leads(308, "/v2/"));
    assert_eq!(ask(get("/v2/")).await, (200, None));
    let lines = gateway.access_log(6).await;
    let config = gateway.config();
    let line_of = |text: &str| {
        config
            .lines()
            .position(|line| line.contains(text))
            .map(|at| at as u64 + 1)
    };
    for (line, rule) in [(0, "^/old/"), (2, "(old|gone)"), (4, "(v[0-9]+)")] {
        let line = &lines[line];
        assert_eq!(
            (&line["reason"], line["rule"].as_u64()),
            (&"redirect".into(), line_of(rule)),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_frontend_has_more_redirects_with_captures_than_a_component_is_asked_about() {
    let app = HttpServer::answering("x").await;
    let rules: String = (0..70)
        .map(|n| format!("redirect regex=\"^/{n}/(.*)$\" location=\"/to/{n}/$1\"\n"))
        .collect();
    let gateway = gateway(&rules, &app).await;
    for n in [0, 63, 64, 69] {
        let answer = gateway.ask("web", get(&format!("/{n}/a"))).await;
        assert_eq!(answer.header("location"), Some(&*format!("/to/{n}/a")));
    }
    assert_eq!(gateway.ask("web", get("/70/a")).await.status, 200);
}

#[tokio::test]
async fn captures_that_are_too_long_for_a_call_are_answered_with_414() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(
        r#"request-limits head="64KiB" uri="32KiB"; redirect regex="^(/(.*))$" location="/n$1/$2" { path-prefix "/a" }"#,
        &app,
    )
    .await;
    for (length, status) in [(5_000, 302), (9_000, 414)] {
        let answer = gateway.ask("web", get(&format!("/{}", "a".repeat(length)))).await;
        assert_eq!(answer.status, status, "{length}");
    }
}

#[tokio::test]
async fn a_location_is_bounded_however_often_the_clients_words_stand_in_it() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(r#"redirect location="/x?a=%{uri}&b=%{uri}&c=%{uri}""#, &app).await;
    for (length, status) in [(5_000, 302), (6_000, 414)] {
        let answer = gateway.ask("web", get(&format!("/{}", "a".repeat(length)))).await;
        assert_eq!(answer.status, status, "{length}");
    }
}

#[tokio::test]
async fn a_client_without_a_host_is_sent_to_the_address_it_came_to() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(r#"redirect scheme="https""#, &app).await;
    let mut old = Client::connect(gateway.address("web")).await;
    old.send("GET /x HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(old.rest().await).unwrap();
    assert!(answer.contains("\r\nlocation: https://127.0.0.1/x\r\n"), "{answer}");
}

#[tokio::test]
async fn plain_requests_are_sent_to_tls_and_those_in_tls_are_not() {
    let authority = Authority::new();
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            bind "127.0.0.1:0" { tls cert="bundle.pem" }
            redirect scheme="https" code=301 set-cookie="seen=1" unless="tls"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", authority.issue(&["shop.example"]).bundle())
    .start()
    .await;
    let [plain, tls] = gateway.addresses("web")[..] else {
        panic!("two binds")
    };
    let mut client = Client::connect(plain).await;
    let answer = client.ask(get("/cart?x=1").host("shop.example:8080")).await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), Some("https://shop.example/cart?x=1"));
    assert_eq!(answer.header("set-cookie"), Some("seen=1; path=/"));
    let mut client = Client::connect_tls(tls, "shop.example", authority.certificate()).await;
    assert_eq!(client.ask(get("/cart")).await.status, 200);
}

#[tokio::test]
async fn a_request_with_a_body_is_redirected_and_its_connection_closed() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(r#"redirect location="/x" code=307 { method "POST" }"#, &app).await;
    let answer = gateway.ask("web", post("/", "content that nobody reads")).await;
    assert_eq!((answer.status, answer.header("connection")), (307, Some("close")));
    let answer = gateway.ask("web", head("/")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn rules_are_gone_through_in_their_order() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(
        r#"
        return status=200 if="ok" { body "first" }
        deny status=403 if="bad"
        redirect location="/third" if="ok or bad or moved"
        deny status=410 if="moved or gone"
        acl "ok"    { header "ok" }
        acl "bad"   { header "bad" }
        acl "moved" { header "moved" }
        acl "gone"  { header "gone" }
        "#,
        &app,
    )
    .await;
    for (headers, expected) in [
        (&["ok", "bad", "moved"][..], 200),
        (&["bad", "moved", "gone"], 403),
        (&["moved", "gone"], 302),
        (&["gone"], 410),
    ] {
        let request = headers.iter().fold(get("/"), |request, name| request.header(name, "1"));
        assert_eq!(gateway.ask("web", request).await.status, expected, "{headers:?}");
    }
    assert_eq!(gateway.ask("web", get("/")).await.text(), "x");
}

// ── responses that are made here ──────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_response_may_be_in_the_configuration() {
    let app = HttpServer::answering("x").await;
    let text = r##"
        frontend "web" {
            bind "127.0.0.1:0"
            return status=200 if="hello" {
                header "X-Frontend" "%{frontend}"
                header "X-User" "%{query-param:user}"
                body "hello %{query-param:user}" content-type="text/html"
            }
            return if="robots" { file "robots.txt" }
            return status=418 if="json" { body #"{"host":"%{host}","agent":"%{header:user-agent}"}"# content-type="application/json" }
            return status=204 if="empty"
            acl "hello"  { path "/hello" }
            acl "robots" { path "/robots.txt" }
            acl "json"   { path "/json" }
            acl "empty"  { path "/empty" }
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "##;
    let gateway = Gateway::kdl(text)
        .with("@app", app.address())
        .file("robots.txt", "User-agent: *\nDisallow: /\n")
        .start()
        .await;
    let mut client = gateway.connect("web").await;
    let hello = client.ask(get("/hello?user=%3Cscript%3E%0aX")).await;
    assert_eq!(hello.text(), "hello &lt;script&gt;\nX");
    assert_eq!(hello.header("content-type"), Some("text/html"));
    assert_eq!(hello.header("x-frontend"), Some("web"));
    assert_eq!(hello.header("x-user"), Some("<script>_X"));
    let robots = client.ask(get("/robots.txt")).await;
    assert_eq!((robots.status, robots.text()), (200, "User-agent: *\nDisallow: /\n"));
    assert_eq!(robots.header("content-type"), Some("text/plain; charset=utf-8"));
    let robots = client.ask(head("/robots.txt")).await;
    assert_eq!((robots.header("content-length"), robots.body.len()), (Some("26"), 0));
    let json = client
        .ask(get("/json").host("a.example").header("User-Agent", "a\"b\\c"))
        .await;
    assert_eq!(
        (json.status, json.text()),
        (418, r#"{"host":"a.example","agent":"a\"b\\c"}"#)
    );
    let empty = client.ask(get("/empty")).await;
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
    assert_eq!(client.ask(get("/")).await.text(), "x");
}

// ── error pages ───────────────────────────────────────────────────────────────────────────────────────────────────────

const PAGE_503: &str = "HTTP/1.0 503 Service Unavailable\r\nCache-Control: no-cache\r\nConnection: close\r\n\
                        Content-Type: text/html\r\nX-Page: frontend\r\n\r\n<html>sorry</html>\n";

#[tokio::test]
async fn error_pages_stand_in_for_the_gateways_own_words() {
    let (nobody, _guard) = refusing();
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        defaults { error-page 503 "503.http"; error-page 403 404 "sorry.html"; retries 0 }
        frontend "web" {
            bind "127.0.0.1:0"
            error-page 404 "404.json"
            deny status=403 { path "/denied" }
            deny status=410 { path "/gone" }
            use-backend "down" { path "/down" }
            use-backend "own" { path "/own" }
            use-backend "app" { path "/app" }
        }
        backend "down" { server "s" "@nobody" }
        backend "own"  { error-page 503 "own.html"; server "s" "@nobody" }
        backend "app"  { server "s" "@app" }
    "#,
    )
    .with("@nobody", nobody)
    .with("@app", app.address())
    .file("503.http", PAGE_503)
    .file("sorry.html", "<p>sorry")
    .file("404.json", "{}")
    .file("own.html", "<p>own")
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    // The page of HAProxy's format; its `Connection: close` is not sent on a connection that stays.
    for _ in 0..2 {
        let down = client.ask(get("/down")).await;
        assert_eq!((down.status, down.text()), (503, "<html>sorry</html>\n"));
        assert_eq!(down.header("content-type"), Some("text/html"));
        assert_eq!(down.header("cache-control"), Some("no-cache"));
        assert_eq!(down.header("x-page"), Some("frontend"));
        assert_eq!(down.header("connection"), None);
    }
    let own = client.ask(get("/own")).await;
    assert_eq!((own.status, own.text()), (503, "<p>own"));
    let denied = client.ask(get("/denied")).await;
    assert_eq!((denied.status, denied.text()), (403, "<p>sorry"));
    let lost = client.ask(get("/nowhere")).await;
    assert_eq!(
        (lost.status, lost.text(), lost.header("content-type")),
        (404, "{}", Some("application/json"))
    );
    let silent = client.ask(head("/nowhere")).await;
    assert_eq!(
        (silent.status, silent.header("content-length"), silent.body.len()),
        (404, Some("2"), 0)
    );
    assert_eq!(client.ask(get("/gone")).await.text(), "410 Gone\n");
    assert_eq!(client.ask(get("/app")).await.text(), "x");
}

#[tokio::test]
async fn a_slow_client_gets_the_page_for_408() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            timeout http-request="100ms"
            error-page 408 "408.html"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("408.html", "<p>slow")
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text()), (408, "<p>slow"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_page_takes_the_place_of_servers_answers_where_it_says_so() {
    let app = HttpServer::start(|request| {
        let answer = match request.target.as_str() {
            "/404" => Answer::status(404),
            "/500" => Answer::status(500),
            "/long" => return Answer::raw("HTTP/1.1 503 No\r\nContent-Length: 9000000\r\n\r\n").then_stream(9_000_000),
            "/chunked" => {
                return Answer::raw("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
            }
            _ => Answer::status(503),
        };
        answer
            .header("Content-Type", "text/plain")
            .header("Content-Encoding", "gzip")
            .header("ETag", "\"a\"")
            .header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            .header("Retry-After", "7")
            .header("Set-Cookie", "a=b")
            .body("a trace of the stack")
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        defaults { error-page 404 "sorry.html"; error-page 503 "503.http" intercept }
        frontend "web" {
            bind "127.0.0.1:0"
            error-page 500 "sorry.html" intercept
            response { set-header "X-Broken" "%{status}" if-status="500-599" }
            default-backend "app"
        }
        backend "app" { error-page 500 "own.html" intercept; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("503.http", PAGE_503)
    .file("sorry.html", "<p>sorry")
    .file("own.html", "<p>own")
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    for target in ["/503", "/long", "/chunked", "/503"] {
        let answer = client.ask(get(target)).await;
        assert_eq!(
            (answer.status, answer.text()),
            (503, "<html>sorry</html>\n"),
            "{target}"
        );
        assert_eq!(answer.header("content-type"), Some("text/html"), "{target}");
        assert_eq!(answer.header("content-length"), Some("19"), "{target}");
        assert_eq!(answer.header("x-broken"), Some("503"), "{target}");
        for gone in ["content-encoding", "etag", "last-modified", "transfer-encoding"] {
            assert_eq!(answer.header(gone), None, "{target}");
        }
    }
    let answer = client.ask(get("/503")).await;
    assert_eq!(
        (answer.header("retry-after"), answer.header("set-cookie")),
        (Some("7"), Some("a=b"))
    );
    let silent = client.ask(head("/503")).await;
    assert_eq!(
        (silent.status, silent.header("content-length"), silent.body.len()),
        (503, Some("19"), 0)
    );
    let own = client.ask(post("/500", "content")).await;
    assert_eq!(
        (own.status, own.text(), own.header("connection")),
        (500, "<p>own", None)
    );
    // A page that does not say so leaves the server's answer alone.
    let left = client.ask(get("/404")).await;
    assert_eq!(
        (left.status, left.text(), left.header("etag")),
        (404, "a trace of the stack", Some("\"a\""))
    );
    // What came whole with its head costs no connection: only the long answer did.
    assert_eq!(app.connections(), 2);
    let lines = gateway.access_log(8).await;
    for (line, status, reason) in [
        (&lines[0], 503_u16, "error-page".into()),
        (&lines[6], 500, "error-page".into()),
        (&lines[7], 404, serde_json::Value::Null),
    ] {
        assert_eq!(
            (&line["status"], &line["reason"], &line["server"], &line["termination"]),
            (&status.into(), &reason, &"s".into(), &"--".into()),
            "{line}"
        );
    }
    let stream = Http2Client::connect(gateway.address("web")).await.get("/500").await;
    assert_eq!(
        (stream.status, stream.text(), stream.header("etag")),
        (500, "<p>own", None)
    );
}

// ── edits by the response's status ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn response_edits_may_depend_on_the_servers_status() {
    let app =
        HttpServer::start(|request| Answer::status(request.target[1..].parse().unwrap()).header("X-Debug", "1")).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            acl "api" { header "x-api" }
            response {
                set-header "X-Missing" "%{status}" if-status=404
                set-header "X-Broken" "yes" if-status="500-599,403" if="api"
                delete-header "X-Debug" unless="api" if-status="200-299"
                set-status 404 if-status=410
            }
            default-backend "app"
        }
        backend "app" {
            response { set-header "X-Fine" "yes" if-status="200-399" }
            server "s" "@app"
        }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    // The server's status, whether the client is of the api; what it gets, and which headers.
    for (status, is_api, gets, expected) in [
        (200, false, 200, "x-fine"),
        (200, true, 200, "x-debug x-fine"),
        (404, false, 404, "x-debug x-missing"),
        (410, false, 404, "x-debug"),
        (500, false, 500, "x-debug"),
        (503, true, 503, "x-debug x-broken"),
        (403, true, 403, "x-debug x-broken"),
        (304, true, 304, "x-debug x-fine"),
    ] {
        let request = get(&format!("/{status}"));
        let request = if is_api { request.header("X-Api", "1") } else { request };
        for _ in 0..2 {
            let answer = gateway.ask("web", request.clone()).await;
            let has: Vec<_> = ["x-debug", "x-missing", "x-broken", "x-fine"]
                .into_iter()
                .filter(|name| answer.header(name).is_some())
                .collect();
            assert_eq!((answer.status, &*has.join(" ")), (gets, expected), "{status} {is_api}");
        }
    }
}

/// What a component is handed with one call has at most 1 MiB: with more, the edits fail, and so does the answer.
#[tokio::test]
async fn an_answer_whose_edits_fail_is_one_error() {
    let (nobody, _guard) = refusing();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            request-limits head="1MiB"
            redirect location="/there" { path "/moved" }
            deny status=403 { path "/denied" }
            response { set-header "X-Asked" "%{header:cookie}%{cookie:a}" always }
            default-backend "down"
        }
        backend "down" { retries 0; server "s" "@nobody" }
    "#,
    )
    .with("@nobody", nobody)
    .start()
    .await;
    let cookie = format!("a={}", "x".repeat(600 << 10));
    /// What is asked for, what is counted once then, and the errors so far.
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], f64);
    let cases: [Case; 3] = [
        (
            "/",
            "gateway_frontend_errors_total",
            &[("reason", "connect-failed")],
            1.0,
        ),
        ("/denied", "gateway_frontend_denied_requests_total", &[], 1.0),
        (
            "/moved",
            "gateway_frontend_errors_total",
            &[("reason", "policy-failure")],
            2.0,
        ),
    ];
    // What was counted is what was wrong first; an answer that was no error is one when its edits fail.
    for (path, counted, labels, errors) in cases {
        let answer = gateway.ask("web", get(path).header("Cookie", &cookie)).await;
        assert_eq!(answer.status, 500, "{path}");
        gateway.metric_is(counted, labels, 1.0).await;
        gateway.metric_is("gateway_frontend_errors_total", &[], errors).await;
    }
    for line in gateway.access_log(3).await {
        assert_eq!(line["status"], 500, "{line}");
        assert_eq!(line["reason"], "policy-failure", "{line}");
    }
}

#[tokio::test]
async fn edits_that_are_always_made_are_of_the_gateways_own_answers_too() {
    let (nobody, _guard) = refusing();
    let app = HttpServer::start(|_| Answer::ok("x").header("X-Back", "server")).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "moved" { path "/moved" }
            error-page 403 "sorry.html"
            deny status=403 { path "/denied" }
            redirect location="/there" if="moved"
            acl "made" { path "/made" }
            return if="made" { body "made" }
            use-backend "down" { path "/down" }
            response {
                set-header "X-Frame-Options" "DENY" always
                set-header "X-Asked" "%{method} %{path} %{header:x-mine} %{status}" always
                set-header "X-Backend" "%{backend}" always
                add-header "X-Moved" "yes" always if="moved"
                add-header "X-Stays" "yes" always unless="moved"
                add-header "X-Fault" "yes" always if-status="400-599"
                set-header "X-Server" "%{server}"
            }
            default-backend "app"
        }
        backend "app" { response { set-header "X-Back" "always" always }; server "s" "@app" }
        backend "down" { response { set-header "X-Back" "down" always }; retries 0; server "s" "@nobody" }
    "#,
    )
    .with("@app", app.address())
    .with("@nobody", nobody)
    .file("sorry.html", "<p>sorry")
    .start()
    .await;
    /// What is asked for, the status, and the headers that come of the edits.
    type Case = (&'static str, u16, &'static [(&'static str, &'static str)]);
    let cases: [Case; 5] = [
        (
            "/",
            200,
            &[
                ("x-backend", "app"),
                ("x-stays", "yes"),
                ("x-server", "s"),
                ("x-back", "always"),
            ],
        ),
        (
            "/denied",
            403,
            &[("x-backend", ""), ("x-stays", "yes"), ("x-fault", "yes")],
        ),
        ("/moved", 302, &[("x-backend", ""), ("x-moved", "yes")]),
        ("/made", 200, &[("x-backend", ""), ("x-stays", "yes")]),
        (
            "/down",
            503,
            &[
                ("x-backend", "down"),
                ("x-stays", "yes"),
                ("x-fault", "yes"),
                ("x-back", "down"),
            ],
        ),
    ];
    let names = ["x-backend", "x-moved", "x-stays", "x-fault", "x-server", "x-back"];
    let mut client = gateway.connect("web").await;
    let streams = Http2Client::connect(gateway.address("web")).await;
    for (path, status, expected) in cases {
        let answer = client.ask(get(path).header("X-Mine", "me")).await;
        let mut request = http2_get(path);
        request.headers_mut().insert("x-mine", "me".parse().unwrap());
        let stream = streams.ask(request).await;
        let asked = format!("GET {path} me {status}");
        let both = |name: &str| [answer.header(name), stream.header(name)];
        assert_eq!(both("x-frame-options"), [Some("DENY"); 2], "{path}");
        assert_eq!(both("x-asked"), [Some(&*asked); 2], "{path}");
        for name in names {
            let expected = expected.iter().find(|(known, _)| *known == name);
            assert_eq!(both(name), [expected.map(|(_, value)| *value); 2], "{path}: {name}");
        }
        assert_eq!((answer.status, stream.status), (status, status));
    }
    assert_eq!(client.ask(get("/denied")).await.text(), "<p>sorry");
    let silent = client.ask(head("/denied")).await;
    assert_eq!(
        (
            silent.header("x-fault"),
            silent.header("content-length"),
            silent.body.len()
        ),
        (Some("yes"), Some("8"), 0)
    );
    // Of a head that could not be served nothing was asked: what depends on the request is not made.
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    ] {
        let answer = gateway.raw("web", head).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 400 "), "{answer}");
        assert!(answer.contains("\r\nx-frame-options: deny\r\n"), "{answer}");
        assert!(answer.contains("\r\nx-fault: yes\r\n"), "{answer}");
        assert!(!answer.contains("x-moved") && !answer.contains("x-stays"), "{answer}");
    }
    let lines = gateway.access_log(14).await;
    assert_eq!(
        (&lines[2]["status"], &lines[2]["reason"]),
        (&403.into(), &"denied".into())
    );
}

// ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_acl_on_a_path_cannot_be_gone_around() {
    let app = HttpServer::answering("x").await;
    let strict = gateway(
        r#"normalize-path merge-slashes escaped-slashes="reject"; deny { path "/admin"; }; deny { path-prefix "/admin/" }"#,
        &app,
    )
    .await;
    let plain = gateway(r#"deny { path "/admin"; }; deny { path-prefix "/admin/" }"#, &app).await;
    let off = gateway(
        r#"normalize-path "off"; deny { path "/admin"; }; deny { path-prefix "/admin/" }"#,
        &app,
    )
    .await;
    // The spelling; what becomes of it where all is normalised, by default, and when it is off.
    for (target, of_strict, of_plain, of_off) in [
        ("/admin/x", 403, 403, 403),
        ("/a/../admin/x", 403, 403, 200),
        ("/./admin/x", 403, 403, 200),
        ("/%61dmin/x", 403, 403, 200),
        ("/a/%2e%2e/admin", 403, 403, 200),
        ("/admin/.", 403, 403, 403),
        ("//admin/x", 403, 200, 200),
        ("/a//../../admin/x", 403, 403, 200),
        ("/a%2f..%2fadmin", 400, 200, 200),
        ("/a%5c..%5cadmin", 400, 200, 200),
        ("/%2561dmin/x", 200, 200, 200),
        // To servers that take what follows `;` away, this is `..`.
        ("/a/..;/admin/x", 400, 400, 200),
        ("/a/%2e%2e%3Bx=1/admin/x", 400, 400, 200),
        ("/a;x=1/b", 200, 200, 200),
    ] {
        for (gateway, expected) in [(&strict, of_strict), (&plain, of_plain), (&off, of_off)] {
            assert_eq!(gateway.ask("web", get(target)).await.status, expected, "{target}");
        }
    }
    // What is forwarded is what was asked about.
    for (sent, seen) in [
        ("/b/./c/../%64?x=/../%2e", "/b/d?x=/../%2e"),
        ("/b//c", "/b/c"),
        ("/100%", "/100%25"),
    ] {
        assert_eq!(strict.ask("web", get(sent)).await.status, 200);
        assert_eq!(app.last().target, seen, "{sent}");
    }
    assert_eq!(plain.ask("web", get("/b//c%2fd")).await.status, 200);
    assert_eq!(app.last().target, "/b//c%2Fd");
    assert_eq!(off.ask("web", get("/b//../%64%2f")).await.status, 200);
    assert_eq!(app.last().target, "/b//../%64%2f");
    assert_eq!(plain.ask("web", method("OPTIONS", "*")).await.status, 200);
    assert_eq!(app.last().target, "*");
}

// ── edits ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn values_have_variables() {
    let app = HttpServer::start(|_| Answer::ok("x").header("X-Version", "7")).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            request {
                set-header "X-Client" "%{client-ip}:%{client-port}"
                set-header "X-Local" "%{destination-ip}:%{destination-port}"
                set-header "X-What" "%{method} %{scheme} %{host} %{path} %{query} HTTP/%{http-version}"
                set-header "X-In" "<%{header:x-in}>"
                set-header "X-Literal" "100% %%{host}"
                set-header "X-Way" "%{frontend}/%{backend}"
                set-header "X-Param" "%{query-param:p}"
            }
            response {
                set-header "X-From" "%{backend}/%{server} %{status} %{response-header:x-version} %{header:x-in}"
                set-header "X-At" "%{time}"
            }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = Client::connect_from(gateway.address("web"), [127, 0, 0, 7]).await;
    let request = get("/a%20b?p=%0d%0aX-Evil:%201&q")
        .host("A.example:80")
        .header("X-In", "one")
        .header("X-In", "two")
        .header("X-Client", "forged");
    let answer = client.ask(request).await;
    let seen = app.last().headers;
    let one = |name| seen.all(name).collect::<Vec<_>>().join("|");
    assert!(one("x-client").starts_with("127.0.0.7:"), "{}", one("x-client"));
    assert_eq!(one("x-local"), gateway.address("web").to_string());
    assert_eq!(
        one("x-what"),
        "GET http a.example /a%20b p=%0d%0aX-Evil:%201&q HTTP/1.1"
    );
    assert_eq!(one("x-in"), "<one, two>");
    assert_eq!(one("x-literal"), "100% %{host}");
    assert_eq!(one("x-way"), "web/app");
    assert_eq!(one("x-param"), "__X-Evil: 1");
    assert!(!seen.has("x-evil"));
    assert_eq!(answer.header("x-from"), Some("app/app-1 200 7 <one, two>"));
    let at = answer.header("x-at").unwrap();
    assert!(at.len() == 25 && at.contains('T') && at.ends_with("+00:00"), "{at}");
}

#[tokio::test]
async fn edits_are_made_when_their_condition_holds() {
    let app = HttpServer::start(|_| Answer::ok("x").header("Server", "s")).await;
    let gateway = gateway(
        r#"
        acl "beta" { cookie "beta" "1" }
        acl "api"  { path-prefix "/api/" }
        request {
            set-header "X-Channel" "stable"
            set-header "X-Channel" "beta" if="beta"
            strip-prefix "/api" if="api"
            set-query-param "beta" "yes" if="beta and api"
            delete-header "Cookie" unless="api"
        }
        response {
            delete-header "Server" if="api"
            set-status 299 if="beta"
        }
        "#,
        &app,
    )
    .await;
    for (request, target, channel, cookies, status, server) in [
        (get("/x").header("Cookie", "a=b"), "/x", "stable", 0, 200, true),
        (get("/x").header("Cookie", "beta=1"), "/x", "beta", 0, 299, true),
        (
            get("/api/x?y").header("Cookie", "beta=1"),
            "/x?y&beta=yes",
            "beta",
            1,
            299,
            false,
        ),
        (get("/api/x?y"), "/x?y", "stable", 0, 200, false),
    ] {
        let answer = gateway.ask("web", request.clone()).await;
        let seen = app.last();
        assert_eq!(seen.target, target, "{request:?}");
        assert_eq!(seen.headers.get("x-channel"), Some(channel), "{request:?}");
        assert_eq!(seen.headers.all("cookie").count(), cookies, "{request:?}");
        assert_eq!(
            (answer.status, answer.headers.has("server")),
            (status, server),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn paths_and_queries_are_rewritten() {
    let app = HttpServer::answering("x").await;
    let cases = [
        (r#"set-path "/down""#, "/a?b", "/down?b"),
        (r#"set-path "/%{host}%{path}""#, "/a%20b?c", "/test.example/a%20b?c"),
        (r#"add-prefix "/v1""#, "/a?b", "/v1/a?b"),
        (r#"strip-prefix "/api""#, "/api?b", "/?b"),
        (r#"strip-prefix "/api""#, "/apiary", "/apiary"),
        (
            r##"rewrite-path regex=#"^/(?<a>\w+)/(\w+)$"# to="/$2/${a}/%{method}""##,
            "/x/y",
            "/y/x/GET",
        ),
        (r#"set-query "v=2""#, "/a", "/a?v=2"),
        (r#"set-query """#, "/a?b", "/a"),
        (r#"set-query "u=%{header:x-user}&%{query}""#, "/a?b", "/a?u=&b"),
        (
            r#"rewrite-query regex="secret=[^&]*" to="secret=x""#,
            "/a?secret=1&b",
            "/a?secret=x&b",
        ),
        (r#"set-query-param "a b" "c d""#, "/?a%20b=1&x", "/?a%20b=c%20d&x"),
        (r#"delete-query-param "debug""#, "/?debug=1", "/"),
        (
            r#"strip-prefix "/api"; add-prefix "/v2"; set-query-param "k" "%{path}""#,
            "/api/x",
            "/v2/x?k=%2Fapi%2Fx",
        ),
    ];
    let mut text = String::from("backend \"app\" { server \"s\" \"@app\" }\n");
    for (n, (edits, ..)) in cases.iter().enumerate() {
        text.push_str(&format!(
            "frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; request {{ {edits} }}; default-backend \"app\" }}\n"
        ));
    }
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    for (n, (edits, sent, seen)) in cases.into_iter().enumerate() {
        assert_eq!(gateway.ask(&format!("f{n}"), get(sent)).await.status, 200, "{edits}");
        assert_eq!(app.last().target, seen, "{edits} of {sent}");
    }
}

/// Once, a value that a replacement left with white space around it, or a path that was none any more, made the component fail
/// and the request with it.
#[tokio::test]
async fn no_replacement_that_the_host_refuses_fails_the_request() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(
        r#"request {
            replace-header "Authorization" prefix="Bearer" to=""
            replace-header "X-B" regex="b$" to=""
            rewrite-path regex="^/." to="/x"
        }"#,
        &app,
    )
    .await;
    let request = get("/e").header("Authorization", "Bearer abc").header("X-B", "a b");
    let answer = gateway.ask("web", request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = app.last();
    assert_eq!(seen.headers.get("authorization"), Some("abc"));
    assert_eq!(seen.headers.get("x-b"), Some("a"));
}

#[tokio::test]
async fn a_websocket_is_asked_about_by_its_name() {
    let app = HttpServer::answering("x").await;
    let gateway = gateway(
        r#"deny status=426 unless="websocket" { path-prefix "/chat" }; deny { upgrade "tcp" }"#,
        &app,
    )
    .await;
    let asking = |protocol| get("/chat").header("Connection", "upgrade").header("Upgrade", protocol);
    assert_eq!(gateway.ask("web", get("/chat")).await.status, 426);
    assert_eq!(
        gateway
            .ask("web", get("/chat").header("Upgrade", "websocket"))
            .await
            .status,
        426
    );
    assert_eq!(gateway.ask("web", asking("WebSocket")).await.status, 200);
    assert_eq!(gateway.ask("web", asking("tcp")).await.status, 426);
    assert_eq!(
        gateway
            .ask(
                "web",
                get("/x").header("Connection", "upgrade").header("Upgrade", "tcp")
            )
            .await
            .status,
        403
    );
}

// ── rules of backends ─────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_backend_decides_about_what_has_come_to_it() {
    let (app, api) = (HttpServer::answering("app").await, HttpServer::answering("api").await);
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="text" }
        frontend "one" {
            bind "127.0.0.1:0"
            acl "is-api" { path-prefix "/api/" }
            acl "beta" { cookie "beta" "1" }
            deny status=410 { path "/gone" }
            use-backend "api" if="is-api"
            default-backend "app"
            request { set-header "X-Beta" "1" if="beta" }
        }
        frontend "two" { bind "127.0.0.1:0"; default-backend "api" }
        backend "app" {
            server "s" "@app"
            request { set-header "X-Plain" "yes" unless="tls" }
        }
        backend "api" {
            acl "write" { method "POST" "DELETE" }
            acl "beta" { header "x-beta" }
            deny status=405 if="write and not beta"
            redirect location="/api/v2/%{query-param:id}" if="old"
            acl "old" { path-prefix "/api/v1/" }
            return status=418 if="tea" { body "short and stout" }
            acl "tea" { path "/api/tea" }
            deny { path-prefix "/api/internal/" }
            request { set-header "X-Write" "%{frontend}" if="write"; strip-prefix "/api" unless="beta" }
            response { set-status 203 if="beta" }
            error-page 403 "sorry.html"
            server "s" "@api"
        }
    "#,
    )
    .with("@app", app.address())
    .with("@api", api.address())
    .file("sorry.html", "<p>the api's")
    .start()
    .await;
    let mut one = gateway.connect("one").await;
    // What is of the backend `api` is asked of its requests alone.
    assert_eq!(one.ask(post("/x", "")).await.text(), "app");
    assert_eq!(app.last().headers.get("x-plain"), Some("yes"));
    assert_eq!(one.ask(get("/gone")).await.status, 410);
    assert_eq!(one.ask(get("/api/x")).await.text(), "api");
    let seen = api.last();
    assert_eq!((seen.target.as_str(), seen.headers.get("x-write")), ("/x", None));
    // The frontend's `beta` is another acl than the backend's.
    let answer = one.ask(get("/api/x").header("Cookie", "beta=1")).await;
    assert_eq!((answer.status, api.last().target.as_str()), (200, "/x"));
    let answer = one.ask(get("/api/v1/x?id=7")).await;
    assert_eq!((answer.status, answer.header("location")), (302, Some("/api/v2/7")));
    let answer = one.ask(get("/api/tea")).await;
    assert_eq!((answer.status, answer.text()), (418, "short and stout"));
    let answer = one.ask(get("/api/internal/x")).await;
    assert_eq!((answer.status, answer.text()), (403, "<p>the api's"));

    // The same rules for whoever leads there.
    assert_eq!(gateway.ask("two", post("/api/x", "")).await.status, 405);
    let answer = gateway.ask("two", post("/api/x", "").header("X-Beta", "1")).await;
    assert_eq!((answer.status, answer.text()), (203, "api"));
    let seen = api.last();
    assert_eq!(
        (seen.target.as_str(), seen.headers.get("x-write")),
        ("/api/x", Some("two"))
    );
    // Lines name the backend, and the rule.
    gateway.says(" api/<NOSRV> ").await;
    gateway.says("\"POST /api/x HTTP/1.1\" reason=denied rule=").await;
}

// ── acls at the top of the file ───────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_acl_at_the_top_is_asked_by_frontends_and_backends() {
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        acl "internal" { path-prefix "/internal/" }
        acl "write" { method "POST" }
        acl "local" { source "127.0.0.0/8" }
        frontend "one" {
            bind "127.0.0.1:0"
            acl "own" { path "/own" }
            deny status=403 if="internal and not own"
            return if="own or write" { body "own or write" }
            default-backend "app"
        }
        frontend "two" {
            bind "127.0.0.1:0"
            deny status=451 if="internal"
            request { set-header "X-Internal" "no" unless="internal" }
            default-backend "app"
        }
        frontend "raw" { mode "tcp"; bind "127.0.0.1:0"; deny unless="local"; default-backend "raw" }
        backend "app" {
            deny status=405 if="write"
            server "app-1" "@app"
        }
        backend "raw" { mode "tcp"; server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    for (frontend, request, status) in [
        ("one", get("/internal/x"), 403),
        ("two", get("/internal/x"), 451),
        ("one", get("/own"), 200),
        ("one", post("/x", "a"), 200),
        ("two", post("/x", "a"), 405),
        ("two", get("/x"), 200),
        ("raw", get("/internal/x"), 200),
    ] {
        let answer = gateway.ask(frontend, request).await;
        assert_eq!(answer.status, status, "{frontend}");
    }
    assert_eq!(app.requests().len(), 2);
    assert_eq!(app.requests()[0].headers.get("x-internal"), Some("no"));
}

// ── the host that servers are asked for ───────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn servers_are_asked_for_another_host() {
    let app = HttpServer::answering("app").await;
    let two = Http2Server::answering("two").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        map "hosts" file="hosts.map" match="domain"
        frontend "web" {
            bind "127.0.0.1:0"
            forwarded-headers "x-forwarded-host"
            acl "two" { path-prefix "/two" }
            acl "keep" { path-prefix "/keep" }
            acl "mapped" { path-prefix "/mapped" }
            acl "said" { path-prefix "/said" }
            request {
                set-host "edge.internal" unless="keep"
                set-header "X-Asked" "%{authority}"
            }
            use-backend "two" if="two"
            use-backend "mapped" if="mapped"
            use-backend "said" if="said"
            default-backend "app"
        }
        backend "app" { server "a" "@app" }
        backend "two" { request { set-host "two.internal:8443" }; server "a" "@two" h2 }
        backend "mapped" { request { set-host "%{host|map:hosts}" }; server "a" "@app" }
        backend "said" { request { set-host "%{query-param:host}.internal" }; server "a" "@app" }
    "#,
    )
    .with("@app", app.address())
    .with("@two", two.address())
    .file("hosts.map", "shop.example shop.internal\n")
    .start()
    .await;
    let ask = async |target: &str, host: &str| gateway.ask("web", get(target).host(host)).await.status;
    for (target, host) in [
        ("/x", "edge.internal"),
        ("/keep", "www.Shop.example:8080"),
        ("/mapped", "shop.internal"),
        ("/said?host=a-b", "a-b.internal"),
    ] {
        assert_eq!(ask(target, "www.Shop.example:8080").await, 200, "{target}");
        let seen = app.last().headers;
        assert_eq!(seen.get("host"), Some(host), "{target}");
        assert_eq!(seen.get("x-forwarded-host"), Some("www.Shop.example:8080"));
        assert_eq!(seen.get("x-asked"), Some("www.Shop.example:8080"));
    }
    assert_eq!(ask("/two", "www.shop.example").await, 200);
    let seen = two.last();
    assert_eq!(seen.uri().authority().unwrap(), "two.internal:8443");
    assert!(!seen.headers().contains_key("host"));

    // What is no host goes nowhere, whoever wrote it.
    let before = app.requests().len();
    for target in [
        "/mapped",
        "/said?host=a%20b",
        "/said?host=a%0d%0aX-Evil:%201",
        "/said?host=a/b",
        "/said?host=user@",
        "/said?host=a:99999999",
    ] {
        assert_eq!(ask(target, "other.example").await, 400, "{target}");
    }
    assert_eq!(app.requests().len(), before);
    let lines = gateway.access_log(11).await;
    assert!(lines[5..].iter().all(|line| line["reason"] == "bad-host"), "{lines:#?}");
    assert_eq!(lines[0]["host"], "www.Shop.example:8080");
}
