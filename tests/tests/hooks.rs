//! What components may do beyond editing heads: filter bodies, call backends, route, be told of exchanges, limit with words.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::guest::{self, FACTS};
use gateway_tests::{Answer, Builder, Client, Gateway, HttpServer, get, head, post};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn with(kdl: &str, app: &HttpServer) -> Builder {
    Gateway::kdl(kdl).with("@app", app.address())
}

/// This block of a plugin that workers call, and of one that is called beside them.
fn both_ways(block: &str) -> [String; 2] {
    [block.to_owned(), format!("{block}\nheavy")]
}

/// A plugin with this block in front of one server.
fn in_front(block: &str, component: Vec<u8>, app: &HttpServer) -> Builder {
    let kdl = format!(
        r#"
        process {{ log "stdout" format="json" }}
        plugin "mine" "mine.wasm" {{
            {block}
        }}
        frontend "web" {{ bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }}
        backend "app" {{ server "s" "@app" }}
    "#
    );
    with(&kdl, app).file("mine.wasm", component)
}

const SKIP: (u8, u64) = (0, 0);
const STREAMED: (u8, u64) = (1, 0);
const HELD: (u8, u64) = (2, 0);

fn buffered(max: u64) -> (u8, u64) {
    (3, max)
}

fn buffered_or_skip(max: u64) -> (u8, u64) {
    (4, max)
}

/// Makes every letter of a piece a capital.
const CAPITALS: &str = "
    (local $i i32) (local $at i32)
    (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $length)))
        (local.set $at (i32.add (local.get $bytes) (local.get $i)))
        (if (i32.ge_u (i32.load8_u (local.get $at)) (i32.const 97))
            (then (i32.store8 (local.get $at) (i32.sub (i32.load8_u (local.get $at)) (i32.const 32)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (call $replace (local.get $bytes) (local.get $length))";

/// Answers each piece with how many came before it, as far as state says.
const COUNT: &str = "
    (i32.store8 (i32.const 3300) (i32.add (i32.const 48) (local.get $known)))
    (i32.store (i32.const 3104) (i32.add (local.get $known) (i32.const 1)))
    (call $replace (i32.const 3300) (i32.const 1))";

/// A component that filters bodies of requests by one way and of responses by another. A piece's function has `$state`,
/// `$known` (the state's length), `$bytes`, `$length` and `$last`, and answers with `$pass`, `$replace`, `$refuse` (a reply
/// of 403) or `$abort`.
fn bodies(request: ((u8, u64), &str), response: ((u8, u64), &str)) -> Vec<u8> {
    let hook = |of: &str, ((tag, max), piece): ((u8, u64), &str)| {
        format!(
            r#"(func (export "gateway:policy/{of}-body-filter@0.1.0#on-{of}-body") {FACTS} (result i32)
                (i32.store8 (i32.const 3000) (i32.const {tag}))
                (i64.store (i32.const 3008) (i64.const {max}))
                (i32.const 3000))
            (func (export "gateway:policy/{of}-body-filter@0.1.0#on-{of}-piece")
                (param $state i32) (param $known i32) (param $bytes i32) (param $length i32) (param $last i32) (result i32)
                {piece})"#
        )
    };
    let helpers = r#"
        ;; At 3,100: the state, the verdict, and what goes with it.
        (func $verdict (param $tag i32) (result i32)
            (i32.store8 (i32.const 3108) (local.get $tag)) (i32.const 3100))
        (func $pass (result i32) (call $verdict (i32.const 0)))
        (func $replace (param $at i32) (param $length i32) (result i32)
            (i32.store (i32.const 3112) (local.get $at)) (i32.store (i32.const 3116) (local.get $length))
            (call $verdict (i32.const 1)))
        (func $pass_rest (result i32) (call $verdict (i32.const 2)))
        (func $refuse (result i32)
            (i32.store16 (i32.const 3112) (i32.const 403))
            (i64.store (i32.const 3116) (i64.const 0)) (i64.store (i32.const 3124) (i64.const 0))
            (call $verdict (i32.const 3)))
        (func $abort (result i32) (call $verdict (i32.const 4)))"#;
    let exports = format!("{helpers}{}{}", hook("request", request), hook("response", response));
    guest::component("body-filter", &exports)
}

const DENY: &str = r#"on-failure "deny" status=507"#;

#[tokio::test]
async fn a_streamed_body_is_changed_on_its_way_and_goes_without_its_length() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
        let filter = bodies((STREAMED, CAPITALS), (STREAMED, CAPITALS));
        let gateway = in_front(deny, filter, &app).start().await;

        let answer = gateway.ask("web", post("/", "hello")).await;

        assert_eq!((answer.status, answer.text()), (200, "HELLO"));
        assert_eq!(answer.header("content-length"), None);
        let seen = app.last();
        assert_eq!(seen.body, b"HELLO");
        assert_eq!(seen.headers.get("content-length"), None);
        // The connection goes on.
        let mut client = gateway.connect("web").await;
        for _ in 0..3 {
            assert_eq!(client.ask(post("/", "again")).await.text(), "AGAIN");
        }
    }
}

/// Lets content of responses pass whose requests have a field `x-own`, and fails on that of others.
fn asking_for_a_requests_field() -> Vec<u8> {
    // One attribute of responses.
    let configure = "(i32.store (i32.const 612) (i32.const 2048)) (i32.store (i32.const 616) (i32.const 1))
        (i32.const 600)";
    let exports = format!(
        r#"(data (i32.const 2048) "\00\0c\00\00\0c\00\00\00")
        (data (i32.const 3072) "header:x-own")
        (func (export "gateway:policy/response-body-filter@0.1.0#on-response-body") {FACTS} (result i32)
            (if (i32.eqz (local.get $count)) (then unreachable))
            (call $none))
        (func (export "gateway:policy/response-body-filter@0.1.0#on-response-piece")
            (param i32 i32 i32 i32 i32) (result i32) unreachable)"#
    );
    guest::exporting(&["response-body-filter"], configure, &exports)
}

/// The request's fields are let go of when they have been written, where nobody asks for them.
#[tokio::test]
async fn who_filters_content_of_responses_is_told_of_their_requests() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::answering("x").await;
        let gateway = in_front(deny, asking_for_a_requests_field(), &app).start().await;
        let answer = gateway.ask("web", get("/").header("X-Own", "1")).await;
        assert_eq!((answer.status, answer.text()), (200, "x"));
        assert_eq!(gateway.ask("web", get("/")).await.status, 507);
    }
}

#[tokio::test]
async fn what_a_component_remembers_comes_back_with_the_next_piece() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::answering("x").await;
        let gateway = in_front(deny, bodies((STREAMED, COUNT), (SKIP, "unreachable")), &app)
            .start()
            .await;
        let mut client = gateway.connect("web").await;
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
            .await;
        app_got_something(&app).await;
        client.send("1\r\nb\r\n0\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        // Each instance sees one piece; two pieces and the end, in whatever portions they came.
        let body = app.last().body;
        assert!(body.starts_with(b"01"), "{body:?}");
    }
}

/// Gives the first piece time to be one of its own: what comes of the test does not depend on it.
async fn app_got_something(_: &HttpServer) {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn a_buffered_body_is_seen_whole_and_gets_its_new_length() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
        let filter = bodies((buffered(1000), COUNT), (buffered(1000), CAPITALS));
        let gateway = in_front(deny, filter, &app).start().await;
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n";
        let mut client = gateway.connect("web").await;
        client.send(chunked).await;

        let answer = client.response().await;

        assert_eq!((answer.text(), answer.header("content-length")), ("0", Some("1")));
        assert_eq!(
            (app.last().body, app.last().headers.get("content-length")),
            (b"0".to_vec(), Some("1"))
        );
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_held_is_refused_or_passes_unseen() {
    let app = HttpServer::start(|_| Answer::ok("0123456789")).await;
    for (request, response, status) in [
        (buffered(4), SKIP, 413),
        (SKIP, buffered(4), 502),
        (buffered_or_skip(4), SKIP, 200),
        (SKIP, buffered_or_skip(4), 200),
    ] {
        let filter = bodies((request, "unreachable"), (response, "unreachable"));
        let gateway = in_front(DENY, filter, &app).start().await;
        let answer = gateway.ask("web", post("/", "abcdefgh")).await;
        assert_eq!(answer.status, status);
        if status == 200 {
            assert_eq!((answer.text(), app.last().body), ("0123456789", b"abcdefgh".to_vec()));
        }
        let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n8\r\nabcdefgh\r\n0\r\n\r\n";
        let mut client = gateway.connect("web").await;
        client.send(chunked).await;
        assert_eq!(client.response().await.status, status);
    }
}

#[tokio::test]
async fn the_operators_bound_on_what_is_held_is_the_smaller_one() {
    let app = HttpServer::answering("x").await;
    let filter = bodies((buffered(1 << 40), "(call $pass)"), (SKIP, "unreachable"));
    let block = format!("{DENY}\nlimit body=\"1KiB\"");
    let gateway = in_front(&block, filter, &app).start().await;
    assert_eq!(gateway.ask("web", post("/", vec![b'x'; 1024])).await.status, 200);
    assert_eq!(gateway.ask("web", post("/", vec![b'x'; 1025])).await.status, 413);
}

#[tokio::test]
async fn while_its_head_is_held_a_body_may_be_answered_with_a_reply() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::answering("secret").await;
        let refused = (HELD, "(call $refuse)");
        let unseen = (SKIP, "unreachable");
        for (filter, requests) in [(bodies(refused, unseen), 0), (bodies(unseen, refused), 1)] {
            let before = app.requests().len();
            let gateway = in_front(deny, filter, &app).start().await;
            let answer = gateway.ask("web", post("/", "hello")).await;
            assert_eq!((answer.status, answer.text()), (403, ""));
            assert_eq!(app.requests().len() - before, requests);
        }
        // Behind a head that has gone it fails the call.
        let gateway = in_front(deny, bodies((STREAMED, "(call $refuse)"), unseen), &app)
            .start()
            .await;
        assert_eq!(gateway.ask("web", post("/", "hello")).await.status, 507);
    }
}

#[tokio::test]
async fn a_response_that_is_stopped_is_not_taken_for_whole() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::answering("hello").await;
        for piece in ["(call $abort)", "unreachable", "(call $loop) (call $pass)"] {
            let gateway = in_front(deny, bodies((SKIP, "unreachable"), (STREAMED, piece)), &app)
                .start()
                .await;
            let mut client = gateway.connect("web").await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let text = String::from_utf8(client.until_end().await).unwrap();
            // Its head may have gone or not: its end has not.
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 200"), "{text}");
            assert!(!text.ends_with("0\r\n\r\n") && !text.contains("hello"), "{text}");
            let lines = gateway.access_log(1).await;
            assert_eq!(lines[0]["reason"], "plugin-stopped");
        }
    }
}

#[tokio::test]
async fn a_filter_that_fails_and_is_to_be_skipped_lets_the_rest_pass() {
    for block in &both_ways(r#"on-failure "skip""#) {
        let app = HttpServer::start(|request| Answer::ok(&request.body)).await;
        for mode in [STREAMED, HELD, buffered(100)] {
            let filter = bodies((mode, "unreachable"), (mode, "unreachable"));
            let gateway = in_front(block, filter, &app).start().await;
            let answer = gateway.ask("web", post("/", "hello")).await;
            assert_eq!((answer.status, answer.text()), (200, "hello"));
        }
    }
}

#[tokio::test]
async fn a_response_whose_last_piece_is_still_looked_at_is_not_over() {
    let app = HttpServer::answering("content").await;
    // Half a second or more.
    const SLOW_AT_LAST: &str = "(local $i i32)
        (if (local.get $last) (then
            (local.set $i (i32.const 600000000))
            (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))))
        (call $pass)";
    let kdl = r#"
        process { log "stdout" format="json" }
        plugin "mine" "mine.wasm" { heavy wait="60s"; limit cpu="10s"; on-failure "deny" status=507 }
        frontend "web" { bind "127.0.0.1:0"; timeout http-keep-alive="50ms"; use-plugin "mine"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#;
    let gateway = with(kdl, &app)
        .file("mine.wasm", bodies((SKIP, "unreachable"), (STREAMED, SLOW_AT_LAST)))
        .start()
        .await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        assert_eq!(client.ask(get("/")).await.text(), "content");
    }
    assert!(
        gateway
            .access_log(2)
            .await
            .iter()
            .all(|line| line["termination"] == "--")
    );
}

#[tokio::test]
async fn a_response_to_head_loses_a_length_that_would_not_be_right() {
    let app = HttpServer::start(|request| match request.method.as_str() {
        "HEAD" => Answer::head_only(5),
        _ => Answer::ok("hello"),
    })
    .await;
    let gateway = in_front(DENY, bodies((SKIP, "unreachable"), (STREAMED, CAPITALS)), &app)
        .start()
        .await;
    let answer = gateway.ask("web", head("/")).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, None));
    let gateway = in_front(DENY, bodies((SKIP, "unreachable"), (SKIP, "unreachable")), &app)
        .start()
        .await;
    assert_eq!(gateway.ask("web", head("/")).await.header("content-length"), Some("5"));
}

#[tokio::test]
async fn a_filtered_body_is_compressed_afterwards() {
    let app = HttpServer::start(|_| Answer::ok("hello ".repeat(1000)).header("content-type", "text/plain")).await;
    let kdl = r#"
        plugin "mine" "mine.wasm" { on-failure "deny" status=507 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; compress "gzip"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#;
    let filter = bodies((SKIP, "unreachable"), (STREAMED, CAPITALS));
    let gateway = with(kdl, &app).file("mine.wasm", filter).start().await;
    let answer = gateway.ask("web", get("/").header("accept-encoding", "gzip")).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.len() < 1000, "{}", answer.body.len());
}

/// A component that asks `auth` about each request, and lets through what it answers with 200. What it does is
/// `outcome`: a function body that has `$error` (0 for an answer), `$status`, `$state_at` and `$state_length`.
fn asking(on_answer: &str) -> Vec<u8> {
    let exports = format!(
        r#"(data (i32.const 2048) "authGET/check?user=7state")
        (func (export "gateway:policy/request-filter@0.1.0#on-request") {FACTS} (result i32) (call $ask))
        (func $ask (result i32)
            (i32.store8 (i32.const 3000) (i32.const 3))
            (i32.store (i32.const 3004) (i32.const 2048)) (i32.store (i32.const 3008) (i32.const 4))
            (i32.store (i32.const 3012) (i32.const 2052)) (i32.store (i32.const 3016) (i32.const 3))
            (i32.store (i32.const 3020) (i32.const 2055)) (i32.store (i32.const 3024) (i32.const 13))
            (i32.store (i32.const 3048) (i32.const 2068)) (i32.store (i32.const 3052) (i32.const 5))
            (i32.const 3000))
        (func (export "gateway:policy/call-answered@0.1.0#on-answer")
            {FACTS} (param $error i32) (param $status i32) (param i32 i32 i32 i32)
            (param $state_at i32) (param $state_length i32) (result i32)
            {on_answer})"#
    );
    guest::component("authorization", &exports)
}

/// Lets through what `auth` answers with 200; 403 to other answers, 504 where there is none.
const JUDGE: &str = "
    (if (local.get $error) (then (return (call $reply (i32.const 504) (i32.const 0)))))
    (if (i32.ne (local.get $state_length) (i32.const 5)) (then unreachable))
    (if (i32.ne (i32.load8_u (local.get $state_at)) (i32.const 115)) (then unreachable))
    (if (i32.ne (local.get $status) (i32.const 200))
        (then (return (call $reply (i32.const 403) (i32.const 0)))))
    (call $none)";

fn with_auth(block: &str, component: Vec<u8>, app: &HttpServer, auth: std::net::SocketAddr) -> Builder {
    let kdl = format!(
        r#"
        process {{ workers 1 }}
        plugin "mine" "mine.wasm" {{
            on-failure "deny" status=507
            {block}
        }}
        frontend "web" {{ bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }}
        backend "app" {{ server "s" "@app" }}
        backend "auth" {{ server "s" "@auth" }}
    "#
    );
    with(&kdl, app).with("@auth", auth).file("mine.wasm", component)
}

#[tokio::test]
async fn a_component_that_fails_at_each_answer_is_put_in_quarantine() {
    let app = HttpServer::answering("in").await;
    let auth = HttpServer::start(|_| Answer::ok("yes")).await;
    let block = r#"call "auth"; quarantine failures=3 from="1h" to="1h""#;
    let gateway = with_auth(block, asking("unreachable"), &app, auth.address())
        .start()
        .await;
    // That its other hook, which makes the call, has succeeded each time says nothing of the one that fails.
    for _ in 0..6 {
        assert_eq!(gateway.ask("web", get("/")).await.status, 507);
    }
    gateway
        .metric_is("gateway_policy_quarantines_total", &[("policy", "mine")], 1.0)
        .await;
    assert_eq!(auth.requests().len(), 3);
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn another_service_decides_on_a_request_before_it_goes_on() {
    for block in &both_ways(r#"call "auth""#) {
        let app = HttpServer::answering("in").await;
        let auth = HttpServer::start(|_| Answer::ok("yes")).await;
        let gateway = with_auth(block, asking(JUDGE), &app, auth.address()).start().await;
        let mut client = gateway.connect("web").await;
        for _ in 0..3 {
            assert_eq!(client.ask(get("/")).await.text(), "in");
        }
        let asked = auth.requests();
        assert_eq!((asked.len(), asked[0].target.as_str()), (3, "/check?user=7"));
        assert!(asked[0].headers.has("host"));
        // One connection serves all calls of the worker.
        assert!(asked.iter().all(|request| request.connection == 0));

        let auth = HttpServer::start(|_| Answer::status(401)).await;
        let gateway = with_auth(block, asking(JUDGE), &app, auth.address()).start().await;
        assert_eq!(gateway.ask("web", get("/")).await.status, 403);
        assert_eq!(app.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_holds_up_nobody_else_and_its_caller_not_for_long() {
    let app = HttpServer::answering("in").await;
    let auth = HttpServer::start(|_| Answer::nothing().then_stall()).await;
    let block = r#"call "auth" timeout="200ms" in-flight=1"#;
    let gateway = with_auth(block, asking(JUDGE), &app, auth.address()).start().await;
    let start = std::time::Instant::now();
    // The first waits; the others are told at once that it is busy.
    let answers = tokio::join!(
        gateway.ask("web", get("/")),
        gateway.ask("web", get("/")),
        gateway.ask("web", get("/")),
    );
    let statuses = [answers.0.status, answers.1.status, answers.2.status];
    assert_eq!(statuses, [504; 3]);
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(
        !auth.requests().is_empty() && auth.requests().len() < 3,
        "{}",
        auth.requests().len()
    );
    assert!(app.requests().is_empty());
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_never_came_is_an_error_to_the_component() {
    let app = HttpServer::answering("in").await;
    for auth in [
        HttpServer::start(|_| Answer::ok(vec![b'x'; 2000])).await,
        HttpServer::start(|_| Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx").then_close()).await,
        HttpServer::start(|_| Answer::nothing().then_close()).await,
    ] {
        let block = r#"call "auth" max-body="1KiB""#;
        let gateway = with_auth(block, asking(JUDGE), &app, auth.address()).start().await;
        assert_eq!(gateway.ask("web", get("/")).await.status, 504);
    }
    let (nobody, _held) = gateway_tests::refusing();
    let gateway = with_auth(r#"call "auth""#, asking(JUDGE), &app, nobody).start().await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 504);
}

#[tokio::test]
async fn a_component_that_goes_on_calling_fails() {
    let app = HttpServer::answering("in").await;
    let auth = HttpServer::answering("yes").await;
    let gateway = with_auth(r#"call "auth""#, asking("(call $ask)"), &app, auth.address())
        .start()
        .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 507);
    assert_eq!((auth.requests().len(), app.requests().len()), (4, 0));
}

#[tokio::test]
async fn who_calls_without_a_grant_is_not_loaded_and_a_grant_without_use_is_an_error() {
    let app = HttpServer::answering("in").await;
    let stopped = in_front(DENY, asking(JUDGE), &app).refused().await;
    for words in ["call-answered", "add `call \"BACKEND\"`"] {
        assert!(stopped.output.contains(words), "{}", stopped.output);
    }

    let filter = guest::filter("(call $none)", "");
    for (block, words) in [
        (r#"call "app""#, "`call` does nothing"),
        (r#"limit body="1KiB""#, "`limit body=` does nothing"),
        (r#"limit kv="1MiB""#, "was not granted"),
        (r#"call "nobody""#, "there is no backend"),
        (r#"route-to "nobody""#, "there is no backend"),
    ] {
        let stopped = in_front(&format!("{DENY}\n{block}"), filter.clone(), &app)
            .refused()
            .await;
        assert!(stopped.output.contains(words), "{block}: {}", stopped.output);
    }
}

#[tokio::test]
async fn a_component_routes_to_backends_that_it_was_granted_and_to_no_other() {
    let (app, other) = (HttpServer::answering("app").await, HttpServer::answering("other").await);
    let route = r#"(i32.store8 (i32.const 3000) (i32.const 2))
        (i32.store (i32.const 3004) (i32.const 3100)) (i32.store (i32.const 3008) (i32.const 5))
        (i64.store (i32.const 3100) (i64.const 0x726568746f)) (i32.const 3000)"#;
    let kdl = r#"
        plugin "mine" "mine.wasm" { on-failure "deny" status=507; @grant }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app"
            @route
            request { set-header "x-front" "yes" } }
        backend "app" { server "s" "@app" }
        backend "other" { server "s" "@other"; request { set-header "x-own" "yes" } }
    "#;
    let case = |grant: &str, route_rule: &str| {
        with(kdl, &app)
            .with("@other", other.address())
            .with("@grant", grant)
            .with("@route", route_rule)
            .file("mine.wasm", guest::filter(route, ""))
    };
    let gateway = case(r#"route-to "other""#, "").start().await;
    assert_eq!(gateway.ask("web", get("/")).await.text(), "other");
    let seen = other.last();
    assert_eq!(
        (seen.headers.get("x-own"), seen.headers.get("x-front")),
        (Some("yes"), Some("yes"))
    );

    // Where its frontend leads there anyway, nothing has to be granted.
    let gateway = case("", r#"use-backend "other" { path "/never" }"#).start().await;
    assert_eq!(gateway.ask("web", get("/")).await.text(), "other");
}

/// Regression: its rules were passed over, and the conditions of its edits asked the frontend's acls in the place of its own.
#[tokio::test]
async fn a_backend_that_only_a_plugin_leads_to_decides_as_if_its_frontend_led_there() {
    let (app, other) = (HttpServer::answering("app").await, HttpServer::answering("other").await);
    let route = r#"(i32.store8 (i32.const 3000) (i32.const 2))
        (i32.store (i32.const 3004) (i32.const 3100)) (i32.store (i32.const 3008) (i32.const 5))
        (i64.store (i32.const 3100) (i64.const 0x726568746f)) (i32.const 3000)"#;
    let kdl = r#"
        plugin "mine" "mine.wasm" { on-failure "deny"; route-to "other" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "any" { path-prefix "/" }
            request { set-header "x-front" "yes" if="any" }
            use-plugin "mine"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
        backend "other" {
            acl "marked" { path "/marked" }
            acl "plain" { path "/plain" }
            deny status=451 unless="marked or plain"
            request { set-header "x-marked" "yes" if="marked" }
            server "s" "@other"
        }
    "#;
    let gateway = with(kdl, &app)
        .with("@other", other.address())
        .file("mine.wasm", guest::filter(route, ""))
        .start()
        .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 451);
    for (path, marked) in [("/marked", Some("yes")), ("/plain", None)] {
        assert_eq!(gateway.ask("web", get(path)).await.text(), "other", "{path}");
        let seen = other.last();
        assert_eq!(seen.headers.get("x-marked"), marked, "{path}");
        assert_eq!(seen.headers.get("x-front"), Some("yes"), "{path}");
    }
}

#[tokio::test]
async fn a_route_that_was_not_granted_fails_the_call() {
    let (app, other) = (HttpServer::answering("app").await, HttpServer::answering("other").await);
    let route = r#"(i32.store8 (i32.const 3000) (i32.const 2))
        (i32.store (i32.const 3004) (i32.const 3100)) (i32.store (i32.const 3008) (i32.const 5))
        (i64.store (i32.const 3100) (i64.const 0x726568746f)) (i32.const 3000)"#;
    let kdl = r#"
        plugin "mine" "mine.wasm" { on-failure "deny" status=507 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "mine"; default-backend "app" }
        frontend "elsewhere" { bind "127.0.0.1:0"; default-backend "other" }
        backend "app" { server "s" "@app" }
        backend "other" { server "s" "@other" }
    "#;
    let gateway = with(kdl, &app)
        .with("@other", other.address())
        .file("mine.wasm", guest::filter(route, ""))
        .start()
        .await;
    assert_eq!(gateway.ask("web", get("/")).await.status, 507);
    assert_eq!((app.requests().len(), other.requests().len()), (0, 0));
    gateway.says("route-to").await;
}

#[tokio::test]
async fn a_component_answers_in_place_of_a_server() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::answering("secret").await;
        let exports = format!(
            r#"(func (export "gateway:policy/request-filter@0.1.0#on-request") {FACTS} (result i32) (call $none))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") {FACTS} (result i32)
            (call $reply (i32.const 451) (i32.const 3)))"#
        );
        let component = guest::component("header-rewrite", &exports);
        let gateway = in_front(deny, component, &app).start().await;
        let mut client = gateway.connect("web").await;
        for _ in 0..2 {
            let answer = client.ask(get("/")).await;
            assert_eq!((answer.status, answer.body.len()), (451, 3));
        }
    }
}

/// A component that wants `path`, `status`, `bytes-sent` and `backend` of exchanges that are over, and writes them into the log as they
/// are.
fn telling() -> Vec<u8> {
    telling_of(&["access-log"], &["path", "status", "bytes-sent", "backend"], "")
}

/// A component of these hooks that wants these facts of what is over, and writes them into the log as they are.
fn telling_of(hooks: &[&str], facts: &[&str], exports: &str) -> Vec<u8> {
    let count = facts.len();
    let needs = format!(
        "(i32.store (i32.const 620) (i32.const 640)) (i32.store (i32.const 624) (i32.const {count})) (i32.const 600)"
    );
    // A list of texts at 640, and the texts behind it.
    let mut at = 640 + 8 * count;
    let mut list = String::new();
    for fact in facts {
        for number in [at, fact.len()] {
            let bytes = u32::try_from(number).unwrap().to_le_bytes();
            list.extend(bytes.map(|byte| format!("\\{byte:02x}")));
        }
        at += fact.len();
    }
    let texts = facts.concat();
    let exports = format!(
        r#"(import "gateway:policy/log@0.1.0" "write" (func $write (param i32 i32 i32)))
        ;; end of imports
        (data (i32.const 640) "{list}{texts}")
        (func (export "gateway:policy/access-log@0.1.0#on-log") {FACTS}
            (call $write (i32.const 1) (local.get $bytes) (local.get $length)))
        {exports}"#
    );
    guest::exporting(hooks, &needs, &exports)
}

#[tokio::test]
async fn a_component_is_told_of_an_exchange_that_is_over() {
    for block in &both_ways("on-failure \"skip\"\ngrant \"log\"") {
        let app = HttpServer::answering("hello").await;
        let gateway = in_front(block, telling(), &app).start().await;
        assert_eq!(gateway.ask("web", get("/a")).await.text(), "hello");
        gateway.says("/a2005app").await;
        gateway
            .raw("web", "GET /b HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n")
            .await;
        assert_eq!(gateway.ask("web", get("/c")).await.status, 200);
        gateway.says("/c2005app").await;
        gateway.metric_is("gateway_policy_untold_total", &[], 0.0).await;
    }
}

/// The component is as slow as its facts take; the server never answers.
#[tokio::test]
async fn a_component_is_told_of_an_exchange_whose_client_left_before_its_answer() {
    // Nobody accepts: the kernel takes the connection.
    let app = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        plugin "told" "told.wasm" { on-failure "skip"; grant "log" }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "told"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.local_addr().unwrap())
    .file("told.wasm", telling())
    .start()
    .await;
    let mut client = TcpStream::connect(gateway.address("web")).await.unwrap();
    client
        .write_all(b"GET /gone HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    gateway
        .metric_is("gateway_server_in_flight", &[("server", "s")], 1.0)
        .await;
    drop(client);
    gateway.says("/gone0app").await;
    gateway.metric_is("gateway_policy_untold_total", &[], 0.0).await;
    let [line] = &gateway.access_log(1).await[..] else {
        panic!("one line")
    };
    assert_eq!(line["termination"], "CH", "{line}");
}

/// What a connection is told of by; between what it has, what only a request has.
const OF_A_CONNECTION: [&str; 9] = [
    "backend",
    "method",
    "path",
    "scheme",
    "http-version",
    "status",
    "server",
    "bytes-sent",
    "reason",
];

#[tokio::test]
async fn a_component_is_told_of_a_connection_that_is_over() {
    for block in &both_ways("on-failure \"skip\"\ngrant \"log\"") {
        let kdl = format!(
            r#"
            process {{ log "stdout" format="json" }}
            plugin "told" "told.wasm" {{ {block} }}
            plugin "closed" "closed.wasm" {{ {block} }}
            frontend "raw" {{ mode "tcp"; bind "127.0.0.1:0"; use-plugin "told"; default-backend "app" }}
            frontend "shut" {{ mode "tcp"; bind "127.0.0.1:0"; use-plugin "closed"; default-backend "app" }}
            backend "app" {{ mode "tcp"; server "app-1" "echo" }}
        "#
        );
        let refuses = format!(
            r#"(func (export "gateway:policy/connection-filter@0.1.0#on-connect") {FACTS} (result i32)
                (i32.store8 (i32.const 3000) (i32.const 1)) (i32.const 3000))"#
        );
        let gateway = Gateway::kdl(&kdl)
            .file("told.wasm", telling_of(&["access-log"], &OF_A_CONNECTION, ""))
            .file(
                "closed.wasm",
                telling_of(&["access-log", "connection-filter"], &OF_A_CONNECTION, &refuses),
            )
            .start()
            .await;
        let mut client = gateway.connect("raw").await;
        client.send("hello").await;
        assert_eq!(client.exactly(5).await, b"hello");
        assert!(!gateway.output().contains("appapp-1"), "it is not over");
        client.half_close().await;
        assert!(client.until_end().await.is_empty());
        gateway.says("appapp-15").await;
        assert!(Client::is_turned_away(gateway.address("shut"), [127, 0, 0, 1]).await);
        gateway.says("0refused-by-plugin").await;
        gateway.metric_is("gateway_policy_untold_total", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_component_that_fails_when_it_is_told_of_a_connection_costs_none() {
    let fails = |body: &str| {
        let on_log = format!(r#"(func (export "gateway:policy/access-log@0.1.0#on-log") {FACTS} {body})"#);
        guest::component("logger", &on_log)
    };
    let kdl = r#"
        process { workers 1 }
        plugin "traps" "traps.wasm" { on-failure "deny" }
        plugin "loops" "loops.wasm" { limit cpu="5ms"; on-failure "deny" }
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0"
            use-plugin "traps"
            use-plugin "loops"
            default-backend "app"
        }
        backend "app" { mode "tcp"; server "app-1" "echo" }
    "#;
    let gateway = Gateway::kdl(kdl)
        .file("traps.wasm", fails("unreachable"))
        .file("loops.wasm", fails("(call $loop)"))
        .start()
        .await;
    let mut other = gateway.connect("raw").await;
    for told in [1.0, 2.0] {
        let mut client = gateway.connect("raw").await;
        client.send("hello").await;
        client.half_close().await;
        assert_eq!(client.until_end().await, b"hello");
        for (plugin, kind) in [("traps", "trap"), ("loops", "deadline")] {
            let labels = [("policy", plugin), ("kind", kind)];
            gateway.metric_is("gateway_policy_failures_total", &labels, told).await;
        }
        other.send("still").await;
        assert_eq!(other.exactly(5).await, b"still");
    }
}

#[tokio::test]
async fn what_a_component_tags_an_exchange_with_stands_in_its_line() {
    for deny in &both_ways(DENY) {
        let app = HttpServer::answering("hello").await;
        let exports = format!(
            r#"(import "gateway:policy/tags@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
        ;; end of imports
        (data (i32.const 2048) "guest.saw\"it")
        (func (export "gateway:policy/request-filter@0.1.0#on-request") {FACTS} (result i32)
            (call $set (i32.const 2048) (i32.const 9) (i32.const 2057) (i32.const 3) (i32.const 3000))
            (call $none))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") {FACTS} (result i32) (call $none))"#
        );
        let gateway = in_front(deny, guest::component("header-rewrite", &exports), &app)
            .start()
            .await;
        assert_eq!(gateway.ask("web", get("/")).await.status, 200);
        let lines = gateway.access_log(1).await;
        assert_eq!(lines[0]["tags"]["guest.saw"], "\"it");
    }
}

#[tokio::test]
async fn clients_are_told_of_the_limits_that_apply_to_them() {
    let app = HttpServer::answering("x").await;
    let kdl = r#"
        rate-limit "all" { allow "1/d" burst=2 }
        frontend "web" { bind "127.0.0.1:0"; limit "all"; rate-limit-headers; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#;
    let gateway = with(kdl, &app).start().await;
    for (status, remaining, reset) in [(200, 1, 86_400), (200, 0, 172_800), (429, 0, 172_800)] {
        let answer = gateway.ask("web", get("/")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""all";q=2;w=172800"#));
        assert_eq!(
            answer.header("ratelimit"),
            Some(format!(r#""all";r={remaining};t={reset}"#).as_str())
        );
    }
    let without = with(&kdl.replace("rate-limit-headers;", ""), &app).start().await;
    assert_eq!(without.ask("web", get("/")).await.header("ratelimit"), None);

    let nothing = with(&kdl.replace("limit \"all\";", ""), &app).refused().await;
    assert!(
        nothing.output.contains("`rate-limit-headers` does nothing"),
        "{}",
        nothing.output
    );
}

/// A component comes, by `gateway plugin test`, to what fixtures expect: what the tests above have seen of the gateway.
fn meets(component: &[u8], fixtures: &str) {
    let (is_met, said) = tried(component, fixtures);
    assert!(is_met, "{said}");
}

/// What is said of a component that does not.
fn told(component: &[u8], fixtures: &str) -> String {
    let (is_met, said) = tried(component, fixtures);
    assert!(!is_met, "{said}");
    said
}

fn tried(component: &[u8], fixtures: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("mine.wasm"), component).unwrap();
    std::fs::write(path("f.kdl"), fixtures).unwrap();
    let mut command = gateway_tests::command();
    let output = command
        .args(["plugin", "test"])
        .args([path("mine.wasm"), path("f.kdl")])
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

#[test]
fn fixtures_come_to_what_the_gateway_makes_of_bodies() {
    let plugin = r#"plugin { on-failure "deny" status=507; limit body="1KiB" }"#;
    let case = |body: &str, expect: &str| {
        format!(
            "{plugin}\ncase \"x\" {{ request \"POST\" \"/\" {{ {body} }}; response 200 {{ body \"hello\" }}; expect {{ {expect} }} }}"
        )
    };
    meets(
        &bodies((STREAMED, CAPITALS), (STREAMED, CAPITALS)),
        &case(
            r#"body "he" "llo""#,
            r#"request { body "HELLO"; no-header "content-length" }; response { body "HELLO"; no-header "content-length" }"#,
        ),
    );
    // One piece more than came, for the end.
    meets(
        &bodies((STREAMED, COUNT), (SKIP, "unreachable")),
        &case(
            r#"body "a" "b""#,
            r#"request { body "012" }; response { body "hello"; header "content-length" "5" }"#,
        ),
    );
    meets(
        &bodies((buffered(1 << 20), COUNT), (SKIP, "unreachable")),
        &case(
            r#"body "a" "b""#,
            r#"request { body "0"; header "content-length" "1" }"#,
        ),
    );
    let long = format!("body {:?} {:?}", "x".repeat(600), "y".repeat(600));
    meets(
        &bodies((buffered(1 << 20), COUNT), (SKIP, "unreachable")),
        &case(&long, "reply 413"),
    );
    meets(
        &bodies((buffered_or_skip(1 << 20), COUNT), (SKIP, "unreachable")),
        &case(&long, r#"request { header "content-length" "1200" }"#),
    );
    meets(
        &bodies((SKIP, "unreachable"), (buffered(4), COUNT)),
        &case(r#"body "a""#, "reply 502"),
    );
    meets(
        &bodies((HELD, "(call $refuse)"), (SKIP, "unreachable")),
        &case(r#"body "a""#, "reply 403"),
    );
    meets(
        &bodies((STREAMED, "(call $abort)"), (SKIP, "unreachable")),
        &case(r#"body "a""#, "abort"),
    );
    meets(
        &bodies((STREAMED, "(call $pass_rest)"), (SKIP, "unreachable")),
        &case(r#"body "a" "b""#, r#"request { body "ab" }"#),
    );
    // A reply when the head has gone is no reply.
    meets(
        &bodies((STREAMED, "(call $refuse)"), (SKIP, "unreachable")),
        &case(r#"body "a""#, r#"reply 507; failure "trap" hook="on-request-piece""#),
    );
    let skips =
        case(r#"body "a" "b""#, r#"request { body "ab" }; failure "trap""#).replace("\"deny\" status=507", "\"skip\"");
    meets(&bodies((STREAMED, "unreachable"), (SKIP, "unreachable")), &skips);
}

/// Of an operator's slow plugin, the worker hands over what no thread has time for: to the instance that has seen the rest.
#[tokio::test]
async fn pieces_that_no_thread_has_time_for_go_to_the_instance_that_has_seen_those_before() {
    // Some milliseconds for each; and what an instance has seen is what came before.
    let counts = "(local $i i32) (local.set $i (i32.const 15000000))
        (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
        (if (i32.ne (i32.load (i32.const 3400)) (local.get $known)) (then (unreachable)))
        (i32.store (i32.const 3400) (i32.add (local.get $known) (i32.const 1)))
        (i32.store (i32.const 3104) (i32.add (local.get $known) (i32.const 1)))
        (call $pass)";
    let app = HttpServer::answering("app").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; policy slow-call="1ms" }
        plugin "slow" "slow.wasm" { limit cpu="10s"; on-failure "deny" status=507 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "slow"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("slow.wasm", bodies((STREAMED, counts), (SKIP, "unreachable")))
    .start()
    .await;
    let upload = || post("/", vec![b'a'; 200_000]);
    assert_eq!(gateway.ask("web", upload()).await.status, 200);
    gateway
        .metric_is("gateway_policy_slow", &[("policy", "slow")], 1.0)
        .await;
    let mut asking = Vec::new();
    for _ in 0..90 {
        let (mut client, upload) = (gateway.connect("web").await, upload());
        asking.push(tokio::spawn(async move { client.ask(upload).await.status }));
    }
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn fixtures_ask_about_the_bodies_that_the_gateway_asks_about_and_break_off_where_it_does() {
    let plugin = "plugin { on-failure \"deny\" status=507 }";
    let case = |request: &str, response: &str, expect: &str| {
        format!("{plugin}\ncase \"x\" {{ request {request}; response {response}; expect {{ {expect} }} }}")
    };
    // Nobody is asked about a body that is not there.
    let unasked = bodies((STREAMED, "unreachable"), (STREAMED, "unreachable"));
    for (request, response) in [
        (r#""GET" "/""#, "204"),
        (r#""POST" "/" { body "" }"#, r#"200 { body "" }"#),
    ] {
        let said = told(&unasked, &case(request, response, "continue"));
        assert!(said.contains("nothing of the plugin was called"), "{said}");
    }
    let app = HttpServer::start(|_| Answer::ok("hello")).await;
    let unasked = bodies((STREAMED, "unreachable"), (SKIP, "unreachable"));
    let gateway = in_front(DENY, unasked, &app).start().await;
    assert_eq!(gateway.ask("web", post("/", "")).await.status, 200);
    // About the answer to a HEAD somebody is asked, and shown nothing.
    let headless = r#"response { no-header "content-length"; body "hello" }"#;
    let filter = bodies((SKIP, "unreachable"), (STREAMED, "unreachable"));
    meets(&filter, &case(r#""HEAD" "/""#, r#"200 { body "hello" }"#, headless));
    let gateway = in_front(DENY, filter, &app).start().await;
    let answer = gateway.ask("web", head("/")).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, None));

    // Who fails when the response's head has gone on has nobody to tell a status: the response breaks off.
    let late = "(if (local.get $known) (then unreachable)) (i32.store (i32.const 3104) (i32.const 1)) (call $pass)";
    for (mode, first, then) in [
        (STREAMED, "abort", "abort"),
        (HELD, "reply 507", "abort"),
        (buffered(1_000), "reply 507", "response { body \"ab\" }"),
    ] {
        let failure = |expect: &str| match expect.contains("body") {
            true => expect.to_owned(),
            false => format!("{expect}; failure \"trap\" hook=\"on-response-piece\""),
        };
        let body = r#"200 { body "a" "b" }"#;
        let at_once = bodies((SKIP, "unreachable"), (mode, "unreachable"));
        meets(&at_once, &case(r#""GET" "/""#, body, &failure(first)));
        let later = bodies((SKIP, "unreachable"), (mode, late));
        meets(&later, &case(r#""GET" "/""#, body, &failure(then)));
    }
    // A request's head that has gone on is nobody's answer.
    let later = bodies((STREAMED, late), (SKIP, "unreachable"));
    let expect = r#"reply 507; failure "trap" hook="on-request-piece""#;
    meets(&later, &case(r#""POST" "/" { body "a" "b" }"#, "200", expect));
}

#[test]
fn fixtures_come_to_what_the_gateway_makes_of_calls_routes_and_failures() {
    let auth = |answers: &str, expect: &str| {
        format!(
            "backend \"auth\"\nplugin {{ on-failure \"deny\" status=507; call \"auth\" max-body=\"1KiB\" }}\n\
             case \"x\" {{ request \"GET\" \"/\"; {answers}; expect {{ {expect} }} }}"
        )
    };
    let called = r#"call "auth" method="GET" target="/check?user=7""#;
    meets(&asking(JUDGE), &auth("answer 200", &format!("continue; {called}")));
    meets(&asking(JUDGE), &auth("answer 401 { body \"no\" }", "reply 403"));
    for error in ["timeout", "busy", "unreachable"] {
        meets(&asking(JUDGE), &auth(&format!("answer error=\"{error}\""), "reply 504"));
    }
    let long = format!("answer 200 {{ body {:?} }}", "x".repeat(1_025));
    meets(&asking(JUDGE), &auth(&long, "reply 504"));
    let all = ["answer 200"; 4].join("; ");
    meets(
        &asking("(call $ask)"),
        &auth(&all, r#"reply 507; failure "trap" hook="on-answer""#),
    );

    let route = r#"(i32.store8 (i32.const 3000) (i32.const 2))
        (i32.store (i32.const 3004) (i32.const 3100)) (i32.store (i32.const 3008) (i32.const 5))
        (i64.store (i32.const 3100) (i64.const 0x726568746f)) (i32.const 3000)"#;
    let case = |top: &str, expect: &str| {
        format!("{top}\ncase \"x\" {{ request \"GET\" \"/\"; response 200; expect {{ {expect} }} }}")
    };
    let granted = "backend \"other\"\nplugin { route-to \"other\" }";
    meets(&guest::filter(route, ""), &case(granted, "route \"other\""));
    meets(&guest::filter(route, ""), &case("", r#"reply 503; failure "trap""#));
    meets(
        &guest::filter("(call $loop) unreachable", ""),
        &case(
            "plugin { limit cpu=\"5ms\"; on-failure \"skip\" }",
            r#"continue; failure "deadline" hook="on-request""#,
        ),
    );
    meets(
        &guest::filter("(drop (memory.grow (i32.const 1000))) unreachable", ""),
        &case(
            "plugin { on-failure \"deny\" status=500 }",
            r#"reply 500; failure "memory""#,
        ),
    );
    meets(&guest::filter("(call $none)", ""), &case("", "response status=200"));
    // In TCP mode a failure that denies closes the connection.
    let connection =
        r#"case "x" { connection client="192.0.2.7:1"; expect { refuse; failure "trap" hook="on-connect" } }"#;
    meets(&guest::connection("unreachable"), connection);
    meets(
        &guest::connection("(call $none)"),
        r#"case "x" { connection client="192.0.2.7:1"; expect { continue } }"#,
    );
}

#[test]
fn fixtures_see_what_a_component_is_told_of_an_exchange_that_is_over() {
    let fixtures = r#"
        plugin { on-failure "skip"; grant "log" }
        case "all of it" {
            request "GET" "/a"
            response 404 { body "hello" }
            log backend="app" bytes-sent=5
            expect { logs "/a4045app"; logs-not "/b" }
        }"#;
    meets(&telling(), fixtures);

    let of_a_connection = r#"
        plugin { on-failure "skip"; grant "log" }
        case "a connection" {
            connection client="192.0.2.7:4711"
            log backend="app" bytes-sent=5
            expect { logs "app5" }
        }"#;
    meets(&telling_of(&["access-log"], &OF_A_CONNECTION, ""), of_a_connection);
}
