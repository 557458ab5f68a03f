//! Policy that the first-party components decide: acls, deny rules, rewrites and rate limits, over real requests.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::fmt::Write as _;

use gateway_tests::{Answer, Client, Gateway, HttpServer, RequestText, delete, get, post, within};
use rcgen::{CertificateParams, Issuer, KeyPair};

// ── acls ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn each_predicate_routes() {
    // What the acl says, requests for which it holds, requests for which it does not.
    let cases: [(&str, Vec<RequestText>, Vec<RequestText>); 18] = [
        (
            r#"path "/a" "/b""#,
            vec![get("/a"), get("/b?x"), get("/%61")],
            vec![get("/a/"), get("/A"), get("/ab"), get("/%2561")],
        ),
        (
            r#"path-prefix "/api/" "/v1/""#,
            vec![get("/api/"), get("/v1/x")],
            vec![get("/api"), get("/x/api/"), get("/API/")],
        ),
        (
            r#"path-suffix ".png" ".css""#,
            vec![get("/x.png"), get("/a/.css?v=1")],
            vec![get("/x.png/"), get("/?x.png")],
        ),
        (
            r##"path-regex #"^/item/\d+$"#"##,
            vec![get("/item/42")],
            vec![get("/item/"), get("/item/4x"), get("/a/item/4")],
        ),
        (
            r#"host "shop.example""#,
            vec![
                get("/").host("shop.example"),
                get("/").host("SHOP.Example:8080"),
                get("/").host("shop.example."),
            ],
            vec![
                get("/").host("www.shop.example"),
                get("/").host("shop.example.evil"),
                get("/").host("shop"),
            ],
        ),
        (
            r#"host "*.shop.example""#,
            vec![get("/").host("a.shop.example"), get("/").host("a.b.Shop.Example")],
            vec![get("/").host("shop.example"), get("/").host("ashop.example")],
        ),
        (
            r#"method "POST" "DELETE""#,
            vec![post("/", ""), delete("/")],
            vec![get("/")],
        ),
        (
            r#"header "x-client""#,
            vec![get("/").header("X-Client", "any"), get("/").header("x-CLIENT", "")],
            vec![get("/"), get("/").header("X-Clients", "any")],
        ),
        (
            r#"header "x-client" "a" "b""#,
            vec![
                get("/").header("X-Client", "a"),
                get("/").header("X-Client", "z").header("X-Client", "b"),
            ],
            vec![
                get("/").header("X-Client", "A"),
                get("/").header("X-Client", "ab"),
                get("/"),
            ],
        ),
        (
            r#"header "x-client" prefix="legacy/""#,
            vec![get("/").header("X-Client", "legacy/1")],
            vec![get("/").header("X-Client", "not legacy/1"), get("/")],
        ),
        (
            r#"header "x-client" suffix="/1""#,
            vec![get("/").header("X-Client", "legacy/1")],
            vec![get("/").header("X-Client", "legacy/12")],
        ),
        (
            r#"header "x-client" regex="^v[12]$""#,
            vec![get("/").header("X-Client", "v2")],
            vec![get("/").header("X-Client", "v3"), get("/").header("X-Client", "v22")],
        ),
        (
            r#"cookie "beta" "1""#,
            vec![
                get("/").header("Cookie", "a=b; beta=1"),
                get("/").header("Cookie", "beta=1"),
            ],
            vec![
                get("/").header("Cookie", "beta=12"),
                get("/").header("Cookie", "alphabeta=1"),
                get("/"),
            ],
        ),
        (
            r#"cookie "beta""#,
            vec![get("/").header("Cookie", "beta=")],
            vec![get("/").header("Cookie", "Beta=1"), get("/")],
        ),
        (
            r#"query "v" "1""#,
            vec![get("/?v=1"), get("/?x&v=1&y"), get("/?v=%31"), get("/?v=2&v=1")],
            vec![get("/?v=12"), get("/?V=1"), get("/v=1"), get("/?w=v=1")],
        ),
        (
            r#"query "v" prefix="a ""#,
            vec![get("/?v=a%20b")],
            vec![get("/?v=ab"), get("/?v"), get("/?v=a+b")],
        ),
        (
            r#"method "POST"; any { path "/a"; path "/b" }"#,
            vec![post("/a", ""), post("/b", "")],
            vec![get("/a"), post("/c", "")],
        ),
        (
            r#"path-prefix "/x/"; not { any { method "GET"; all { path "/x/y"; header "ok" } } }"#,
            vec![post("/x/z", ""), post("/x/y", "")],
            vec![get("/x/z"), post("/x/y", "").header("Ok", "1"), post("/z", "")],
        ),
    ];
    let (yes, no) = (HttpServer::answering("yes").await, HttpServer::answering("no").await);
    let mut text = String::new();
    for (n, (acl, _, _)) in cases.iter().enumerate() {
        writeln!(
            text,
            "frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; acl \"a\" {{ {acl} }}; use-backend \"yes\" if=\"a\"; default-backend \"no\" }}"
        )
        .unwrap();
    }
    text.push_str("backend \"yes\" { server \"s\" \"@yes\" }\nbackend \"no\" { server \"s\" \"@no\" }");
    let gateway = Gateway::kdl(&text)
        .with("@yes", yes.address())
        .with("@no", no.address())
        .start()
        .await;

    for (n, (acl, holds, fails)) in cases.into_iter().enumerate() {
        for (expected, requests) in [("yes", holds), ("no", fails)] {
            for request in requests {
                let answer = gateway.ask(&format!("f{n}"), request.clone()).await;
                assert_eq!(
                    (answer.status, answer.text()),
                    (200, expected),
                    "acl {{ {acl} }} for {request:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_clients_network_routes() {
    let (yes, no) = (HttpServer::answering("yes").await, HttpServer::answering("no").await);
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            acl "lan" { source "127.0.0.2" "127.1.0.0/16" "2001:db8::/32" }
            use-backend "yes" if="lan"
            default-backend "no"
        }
        backend "yes" { server "s" "@yes" }
        backend "no" { server "s" "@no" }
    "#,
    )
    .with("@yes", yes.address())
    .with("@no", no.address())
    .start()
    .await;

    for (from, expected) in [
        ([127, 0, 0, 1], "no"),
        ([127, 0, 0, 2], "yes"),
        ([127, 1, 255, 9], "yes"),
        ([127, 2, 0, 1], "no"),
    ] {
        let mut client = Client::connect_from(gateway.address("web"), from).await;
        assert_eq!(client.ask(get("/")).await.text(), expected, "{from:?}");
    }
}

#[tokio::test]
async fn tls_and_its_server_name_route() {
    let key = KeyPair::generate().unwrap();
    let names = vec![
        "shop.example".to_owned(),
        "a.wild.example".to_owned(),
        "other.example".to_owned(),
    ];
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let app = HttpServer::start(|request| Answer::ok(request.headers.get("x-route").unwrap_or_default())).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="bundle.pem" }
            bind "127.0.0.1:0"
            acl "secure" { tls }
            acl "shop"   { sni "shop.example" }
            acl "wild"   { sni "*.wild.example" }
            use-backend "shop" if="shop"
            use-backend "wild" if="wild"
            use-backend "secure" if="secure"
            default-backend "plain"
        }
        backend "shop"   { request { set-header "X-Route" "shop" };   server "s" "@app" }
        backend "wild"   { request { set-header "X-Route" "wild" };   server "s" "@app" }
        backend "secure" { request { set-header "X-Route" "secure" }; server "s" "@app" }
        backend "plain"  { request { set-header "X-Route" "plain" };  server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", format!("{}{}", leaf.pem(), key.serialize_pem()))
    .start()
    .await;

    let tls = gateway.addresses("web")[0];
    for (name, expected) in [
        ("shop.example", "shop"),
        ("a.wild.example", "wild"),
        ("other.example", "secure"),
    ] {
        let mut client = Client::connect_tls(tls, name, root.der()).await;
        assert_eq!(client.ask(get("/")).await.text(), expected, "{name}");
    }
    let mut client = Client::connect(gateway.addresses("web")[1]).await;
    assert_eq!(client.ask(get("/")).await.text(), "plain");
}

#[tokio::test]
async fn conditions_join_acls_and_the_first_rule_wins() {
    let app = HttpServer::start(|request| Answer::ok(request.headers.get("x-route").unwrap_or_default())).await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            acl "a" { header "a" }
            acl "b" { header "b" }
            acl "c" { header "c" }
            use-backend "one" if="a and not (b or c)"
            use-backend "two" if="a or b and c"
            default-backend "none"
        }
        backend "one"  { request { set-header "X-Route" "one" };  server "s" "@app" }
        backend "two"  { request { set-header "X-Route" "two" };  server "s" "@app" }
        backend "none" { request { set-header "X-Route" "none" }; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for bits in 0..8 {
        let (a, b, c) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        let with = |request: RequestText, name, has| {
            if has { request.header(name, "1") } else { request }
        };
        let request = with(with(with(get("/"), "a", a), "b", b), "c", c);
        let expected = if a && !(b || c) {
            "one"
        } else if a || (b && c) {
            "two"
        } else {
            "none"
        };
        assert_eq!(
            gateway.ask("web", request).await.text(),
            expected,
            "a {a}, b {b}, c {c}"
        );
    }
}

#[tokio::test]
async fn a_denied_request_reaches_no_server() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            acl "admin" { path-prefix "/admin/" }
            acl "lan"   { source "127.0.0.2" }
            acl "gone"  { path "/admin/gone" }
            deny status=403 if="admin and not lan"
            deny status=410 if="gone"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/admin/x")).await.status, 403);
    assert_eq!(client.ask(get("/admin/gone")).await.status, 403, "the first rule wins");
    assert_eq!(
        client.ask(post("/admin/x", "content that nobody reads")).await.status,
        403
    );
    assert_eq!(app.requests().len(), 0);
    // The refused connection is as good as before.
    let mut client = gateway.connect("web").await;
    assert_eq!(client.ask(get("/admin/x")).await.status, 403);
    assert_eq!(client.ask(get("/")).await.status, 200);
    let mut friend = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    assert_eq!(friend.ask(get("/admin/x")).await.status, 200);
    assert_eq!(friend.ask(get("/admin/gone")).await.status, 410);
}

#[tokio::test]
async fn what_is_known_is_not_asked_again_until_a_reload() {
    let app = HttpServer::answering("x").await;
    let config = |answers: u32, denied: &str| {
        Gateway::kdl(
            r#"
            process { workers 1; policy answers=@answers }
            frontend "web" {
                bind "127.0.0.1:0"
                acl "denied" { path "@denied" }
                deny status=403 if="denied"
                request { set-header "x-edge" "%{path}" }
                default-backend "app"
            }
            backend "app" { server "s" "@app" }
        "#,
        )
        .with("@answers", answers)
        .with("@denied", denied)
        .with("@app", app.address())
    };
    let gateway = config(64, "/b").start().await;
    let mut client = gateway.connect("web").await;
    for (path, status) in [("/a", 200), ("/b", 403)] {
        for _ in 0..5 {
            assert_eq!(client.ask(get(path)).await.status, status, "{path}");
        }
    }
    let edited = app.requests();
    assert_eq!(edited.len(), 5);
    assert!(edited.iter().all(|request| request.headers.get("x-edge") == Some("/a")));
    let repeats = "gateway_policy_repeats_total";
    // Three of five times: twice it was asked.
    gateway.metric_is(repeats, &[("policy", "acl web")], 6.0).await;
    gateway
        .metric_is(repeats, &[("policy", "header-rewrite web")], 3.0)
        .await;
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "acl web")], 10.0)
        .await;

    assert!(gateway.reload(&config(64, "/a")).await);
    for (path, status) in [("/a", 403), ("/b", 200)] {
        assert_eq!(client.ask(get(path)).await.status, status, "{path}");
    }

    let gateway = config(0, "/b").start().await;
    let mut client = gateway.connect("web").await;
    for _ in 0..5 {
        assert_eq!(client.ask(get("/b")).await.status, 403);
    }
    gateway
        .metric_is("gateway_policy_calls_total", &[("policy", "acl web")], 5.0)
        .await;
    gateway.metric_is(repeats, &[("policy", "acl web")], 0.0).await;
}

// ── rewrites ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn request_headers_are_edited_in_order() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            request {
                set-header "X-Set" "new"
                add-header "X-Add" "one more"
                delete-header "X-Debug"
                replace-header "X-Id" regex="^user-(\\d+)$" to="u$1"
                replace-header "X-Pre" prefix="old-" to="new-"
            }
            default-backend "app"
        }
        backend "app" { request { set-header "X-Pool" "app"; add-header "X-Add" "and another" }; server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    let request = get("/")
        .header("X-Set", "old")
        .header("X-Set", "older")
        .header("X-Add", "first")
        .header("X-Debug", "1")
        .header("x-debug", "2")
        .header("X-Id", "user-42")
        .header("X-Id", "root")
        .header("X-Pre", "old-1")
        .header("X-Pool", "forged");
    gateway.ask("web", request).await;

    let seen = app.last().headers;
    let all = |name| seen.all(name).collect::<Vec<_>>();
    assert_eq!(all("x-set"), ["new"]);
    assert_eq!(all("x-add"), ["first", "one more", "and another"]);
    assert_eq!(all("x-debug"), [""; 0]);
    assert_eq!(all("x-id"), ["u42", "root"]);
    assert_eq!(all("x-pre"), ["new-1"]);
    assert_eq!(all("x-pool"), ["app"]);
}

#[tokio::test]
async fn paths_are_rewritten_and_queries_kept() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            request { rewrite-path prefix="/old/" to="/new/"; rewrite-path regex="^/user/(\\w+)/edit$" to="/edit/${1}" }
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for (sent, seen) in [
        ("/old/x?q=/old/", "/new/x?q=/old/"),
        ("/old/", "/new/"),
        ("/older", "/older"),
        ("/x/old/", "/x/old/"),
        ("/user/ann/edit?a", "/edit/ann?a"),
        ("/user/ann", "/user/ann"),
    ] {
        assert_eq!(gateway.ask("web", get(sent)).await.status, 200);
        assert_eq!(app.last().target, seen, "{sent}");
    }
}

#[tokio::test]
async fn response_headers_and_locations_are_edited() {
    let app = HttpServer::start(|request| {
        Answer::status(302)
            .header("Server", "secret/1.0")
            .header("Location", request.headers.get("x-location").unwrap_or_default())
            .header("X-Version", "build-7")
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            response {
                set-header "X-Served-By" "gateway"
                delete-header "Server"
                replace-header "X-Version" prefix="build-" to="v"
                rewrite-location prefix="http://" to="https://"
            }
            default-backend "app"
        }
        backend "app" {
            response { rewrite-location regex="^(https?)://internal:[0-9]+/" to="$1://public.example/"; add-header "X-Pool" "app" }
            server "s" "@app"
        }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for (sent, seen) in [
        ("http://internal:8080/x?http://", "https://public.example/x?http://"),
        ("http://elsewhere/", "https://elsewhere/"),
        ("/relative", "/relative"),
    ] {
        let answer = gateway.ask("web", get("/").header("X-Location", sent)).await;
        assert_eq!(answer.header("location"), Some(seen));
        assert_eq!(answer.header("x-served-by"), Some("gateway"));
        assert_eq!(answer.header("x-version"), Some("v7"));
        assert_eq!(answer.header("x-pool"), Some("app"));
        assert!(!answer.headers.has("server"));
    }
}

// ── rate limits ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Refills so slowly that nothing comes back during a test.
const SLOW: &str = r#"allow "1/d" burst=5"#;

async fn limited(key: &str) -> (HttpServer, Gateway) {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 4; log "stdout" format="json" }
        rate-limit "r" { @key; @allow }
        frontend "web" { bind "127.0.0.1:0"; limit "r"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@key", key)
    .with("@allow", SLOW)
    .with("@app", app.address())
    .start()
    .await;
    (app, gateway)
}

#[tokio::test]
async fn the_workers_count_together() {
    let (app, gateway) = limited(r#"key "client-ip""#).await;

    // A connection each, so that every worker gets some.
    let mut statuses = Vec::new();
    for _ in 0..60 {
        let answer = gateway.ask("web", get("/")).await;
        if answer.status == 429 {
            let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
            assert!((1..=86_400).contains(&seconds), "Retry-After: {seconds}");
        }
        statuses.push(answer.status);
    }

    assert_eq!(statuses[..5], [200; 5]);
    assert_eq!(statuses[5..], [429; 55]);
    assert_eq!(app.requests().len(), 5);
    // Another client has a bucket of its own.
    let mut other = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    assert_eq!(other.ask(get("/")).await.status, 200);
}

#[tokio::test]
async fn of_a_bucket_that_is_known_a_token_is_taken_each_time() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy answers=64 }
        rate-limit "r" { key "header" "x-client"; @allow }
        frontend "web" { bind "127.0.0.1:0"; limit "r"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@allow", SLOW)
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("web").await;
    for name in ["one", "other"] {
        for count in 0..8 {
            let status = client.ask(get("/").header("x-client", name)).await.status;
            assert_eq!(status, if count < 5 { 200 } else { 429 }, "{name} {count}");
        }
    }
    let of = [("policy", "rate-limit web")];
    gateway.metric_is("gateway_policy_calls_total", &of, 16.0).await;
    // Twice each it was asked.
    gateway.metric_is("gateway_policy_repeats_total", &of, 12.0).await;
}

#[tokio::test]
async fn a_limit_may_count_responses_by_their_status() {
    let app = HttpServer::start(|request| match &*request.target {
        "/missing" => Answer::status(404),
        "/broken" => Answer::status(500),
        _ => Answer::ok("x"),
    })
    .await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 4; log "stdout" format="json" }
        rate-limit "misses" { key "header" "x-client"; allow "1/d" burst=5; count-status "400-499" }
        frontend "web" { bind "127.0.0.1:0"; limit "misses"; deny { path "/denied" }; default-backend "app" }
        frontend "other" { bind "127.0.0.1:0"; limit "misses"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let ask = async |frontend: &str, path: &str, client: &str| {
        gateway.ask(frontend, get(path).header("X-Client", client)).await.status
    };
    for _ in 0..20 {
        assert_eq!(ask("web", "/x", "one").await, 200);
        assert_eq!(ask("web", "/broken", "one").await, 500);
    }
    // What the gateway answers counts as what servers do, and all workers and frontends count together.
    for (frontend, path, status) in [
        ("web", "/missing", 404),
        ("web", "/denied", 403),
        ("other", "/missing", 404),
        ("web", "/x", 200),
        ("web", "/missing", 404),
        ("other", "/missing", 404),
    ] {
        assert_eq!(ask(frontend, path, "one").await, status, "{path}");
    }
    for path in ["/x", "/missing", "/denied", "/broken"] {
        assert_eq!(ask("web", path, "one").await, 429, "{path}");
        assert_eq!(ask("other", path, "one").await, 429, "{path}");
    }
    let refused = gateway.ask("web", get("/x").header("X-Client", "one")).await;
    let seconds: u64 = refused.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=86_400).contains(&seconds), "Retry-After: {seconds}");
    assert_eq!(ask("web", "/missing", "two").await, 404);
    assert_eq!(ask("web", "/x", "two").await, 200);
}

#[tokio::test]
async fn clients_that_ask_at_once_get_no_more_than_the_limit() {
    let (app, gateway) = limited(r#"key "client-ip""#).await;
    let address = gateway.address("web");

    let tasks: Vec<_> = (0..64)
        .map(|_| tokio::spawn(async move { Client::connect(address).await.ask(get("/")).await.status }))
        .collect();
    let mut allowed = 0;
    for task in tasks {
        let status = within(gateway_tests::PATIENCE, "the answer", task).await.unwrap();
        assert!(matches!(status, 200 | 429), "{status}");
        allowed += usize::from(status == 200);
    }

    assert_eq!((allowed, app.requests().len()), (5, 5));
}

#[tokio::test]
async fn requests_are_counted_by_what_the_key_says() {
    // Per key: requests that share a bucket, and one that has its own.
    let cases: [(&str, [RequestText; 2], RequestText); 8] = [
        (r#"key "path""#, [get("/a?x"), post("/a", "")], get("/b")),
        (
            r#"key "host""#,
            [get("/").host("A.example"), get("/").host("a.example:80")],
            get("/").host("b.example"),
        ),
        (r#"key "method""#, [get("/a"), get("/b")], delete("/a")),
        (
            r#"key "header" "x-key""#,
            [get("/").header("X-Key", "k"), get("/b").header("x-key", "k")],
            get("/").header("X-Key", "l"),
        ),
        (
            r#"key "header" "x-key""#,
            [get("/"), get("/b")],
            get("/").header("X-Key", ""),
        ),
        (
            r#"key "cookie" "session""#,
            [
                get("/").header("Cookie", "session=1"),
                get("/").header("Cookie", "a=b; session=1"),
            ],
            get("/").header("Cookie", "session=2"),
        ),
        (
            r#"key "query" "token""#,
            [get("/?token=a"), get("/x?y&token=a")],
            get("/?token=b"),
        ),
        (r#"key "path"; key "method""#, [get("/a"), get("/a?x")], post("/a", "")),
    ];
    for (key, [first, second], other) in cases {
        let (_app, gateway) = limited(key).await;
        for n in 0..5 {
            let request = if n % 2 == 0 { &first } else { &second };
            assert_eq!(
                gateway.ask("web", request.clone()).await.status,
                200,
                "{key}: {request:?}"
            );
        }
        for request in [first, second] {
            assert_eq!(
                gateway.ask("web", request.clone()).await.status,
                429,
                "{key}: {request:?}"
            );
        }
        assert_eq!(gateway.ask("web", other.clone()).await.status, 200, "{key}: {other:?}");
    }
}

#[tokio::test]
async fn an_address_prefix_counts_a_network_together() {
    let (_app, gateway) = limited(r#"key "client-ip" ipv4-prefix=24"#).await;
    let from = |host| [127, 0, 7, host];
    for n in 0..5 {
        let mut client = Client::connect_from(gateway.address("web"), from(n + 1)).await;
        assert_eq!(client.ask(get("/")).await.status, 200);
    }
    let mut neighbour = Client::connect_from(gateway.address("web"), from(99)).await;
    assert_eq!(neighbour.ask(get("/")).await.status, 429);
    let mut stranger = Client::connect_from(gateway.address("web"), [127, 0, 8, 1]).await;
    assert_eq!(stranger.ask(get("/")).await.status, 200);
}

#[tokio::test]
async fn a_limit_refills() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        rate-limit "r" { key "client-ip"; allow "1/s" burst=1 }
        frontend "web" { bind "127.0.0.1:0"; limit "r"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
    let refused = gateway.ask("web", get("/")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    gateway_tests::eventually("a token comes back", async || {
        gateway.ask("web", get("/")).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_about_what_its_condition_holds_of_and_counts_nothing_else() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        rate-limit "first" { key "client-ip"; @allow }
        rate-limit "second" { key "client-ip"; @allow }
        rate-limit "third" { key "client-ip"; allow "1/d" burst=8 }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "office" { header "x-office" }
            acl "login" { path "/login" }
            limit "first" if="login and not office"
            limit "second" unless="office"
            limit "third" unless="office"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@allow", SLOW)
    .with("@app", app.address())
    .start()
    .await;
    let status = async |request: RequestText| gateway.ask("web", request).await.status;
    for _ in 0..20 {
        assert_eq!(status(get("/login").header("X-Office", "1")).await, 200);
    }
    // The first is not asked here, and the second is.
    for _ in 0..4 {
        assert_eq!(status(get("/")).await, 200);
    }
    // One token is left of the second, and all of the first.
    assert_eq!(status(get("/login")).await, 200);
    assert_eq!(status(get("/")).await, 429);
    assert_eq!(status(get("/login")).await, 429);
    assert_eq!(status(get("/login").header("X-Office", "1")).await, 200);
}
