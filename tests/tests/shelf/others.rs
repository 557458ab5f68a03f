//! Those whose way into the gateway is short.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gateway_tests::{Client, Gateway, HttpServer, get};

use crate::shelf;

#[tokio::test]
async fn a_password_opens_the_door_and_its_owner_is_told_to_the_server() {
    let hash = Command::new("openssl")
        .args(["passwd", "-6", "-salt", "saltsalt", "correct horse"])
        .output()
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    let app = HttpServer::answering("x").await;
    let plugin = r#"plugin "shelf" builtin="basic-auth" {
        limit cpu="1s"; on-failure "deny" status=503
        config { realm "the back door"; user-header "x-user"; attempts 5 }
        config-file "users" "users"
    }"#;
    let gateway = shelf(plugin, &app)
        // As some editors write it: the mark in front is no part of a name.
        .file("users", format!("\u{feff}ada:{}\n", hash.trim()))
        .start()
        .await;
    let with = |password: &str| {
        let credentials = STANDARD.encode(format!("ada:{password}"));
        get("/").header("Authorization", &format!("Basic {credentials}"))
    };

    for _ in 0..20 {
        assert_eq!(
            gateway.ask("web", with("correct horse")).await.status,
            200,
            "what is known costs no attempt"
        );
    }
    assert_eq!(app.last().headers.all("x-user").collect::<Vec<_>>(), ["ada"]);
    assert!(!app.last().headers.has("authorization"));
    let stranger = gateway.ask("web", get("/")).await;
    assert_eq!(
        (stranger.status, stranger.header("www-authenticate")),
        (401, Some("Basic realm=\"the back door\", charset=\"UTF-8\""))
    );

    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(gateway.ask("web", with("wrong")).await.status);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[7], 429, "{statuses:?}");
}

#[tokio::test]
async fn a_key_opens_the_door_and_is_kept_from_the_server() {
    let app = HttpServer::answering("x").await;
    // `printf %s s3cret-of-ada | sha256sum`
    let plugin = r#"plugin "shelf" builtin="api-key" {
        limit cpu="1s"; on-failure "deny" status=503
        config {
            client name="ada" sha256="@digest"
            header "x-key"; query "key"; client-header "x-client"
        }
    }"#;
    let digest = "080cf4bb8b29b395d94ac3cb7d16f9aa4cd4e9577d415e4a73ce75dcc2057541";
    let gateway = shelf(plugin, &app).with("@digest", digest).start().await;

    assert_eq!(gateway.ask("web", get("/")).await.status, 401);
    assert_eq!(gateway.ask("web", get("/").header("X-Key", "guess")).await.status, 401);
    for request in [
        get("/a?x=1").header("X-Key", "s3cret-of-ada"),
        get("/a?key=s3cret-of-ada&x=1"),
    ] {
        assert_eq!(gateway.ask("web", request).await.status, 200);
        assert_eq!(app.last().headers.all("x-client").collect::<Vec<_>>(), ["ada"]);
        assert_eq!(
            (app.last().target.as_str(), app.last().headers.has("x-key")),
            ("/a?x=1", false)
        );
    }
}

/// Of a small share, nobody would notice soon.
#[tokio::test]
async fn a_backend_that_no_client_could_be_sent_to_stops_the_start() {
    let gateway = |web: &str, plugin: &str| {
        Gateway::kdl(&format!(
            r#"
            plugin "canary" builtin="canary-route" {{
                limit cpu="1s"; on-failure "skip"
                {plugin}
                config {{ backend "next"; percent 0.1; by client-ip=#true }}
            }}
            frontend "web" {{
                bind "127.0.0.1:0"
                {web}
                use-plugin "canary"; default-backend "now"
            }}
            frontend "other" {{ bind "127.0.0.1:0"; default-backend "next" }}
            backend "now" {{ server "s" "echo" }}
            backend "next" {{ server "s" "echo" }}
        "#
        ))
    };
    let refused = gateway("", "").refused().await;
    assert_eq!(refused.code, Some(1));
    let why = r#"may not send requests of frontend "web" to "next": add `route-to "next"` to the plugin's block"#;
    assert!(refused.output.contains(why), "{}", refused.output);

    // Granted; or where the frontend leads anyway.
    gateway("", "route-to \"next\"").start().await;
    let anyway = r#"acl "new" { path-prefix "/new/" }; use-backend "next" if="new""#;
    gateway(anyway, "").start().await;
}

#[tokio::test]
async fn a_share_of_the_clients_goes_to_another_backend_and_stays_there() {
    let (now, next) = (HttpServer::answering("now").await, HttpServer::answering("next").await);
    let gateway = Gateway::kdl(
        r#"
        plugin "canary" builtin="canary-route" {
            limit cpu="1s"; on-failure "skip"
            route-to "next"
            config {
                backend "next"
                percent 50.0
                by header="x-user"
                assign cookie="lot" max-age="1h"
                force header="x-canary" on="yes" off="no"
            }
        }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "canary"; default-backend "now" }
        backend "now" { server "s" "@now" }
        backend "next" { server "s" "@next" }
    "#,
    )
    .with("@now", now.address())
    .with("@next", next.address())
    .start()
    .await;

    let mut chosen = 0;
    for user in 0..40 {
        let ask = || gateway.ask("web", get("/").header("X-User", &format!("user-{user}")));
        let first = ask().await;
        assert_eq!(ask().await.text(), first.text(), "user-{user} stays");
        assert_eq!(first.header("set-cookie"), None);
        chosen += u32::from(first.text() == "next");
    }
    assert!((8..=32).contains(&chosen), "{chosen} of 40");

    let stranger = gateway.ask("web", get("/")).await;
    let cookie = stranger
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    for _ in 0..5 {
        let again = gateway.ask("web", get("/").header("Cookie", &cookie)).await;
        assert_eq!((again.text(), again.header("set-cookie")), (stranger.text(), None));
    }
    assert_eq!(
        gateway.ask("web", get("/").header("X-Canary", "yes")).await.text(),
        "next"
    );
    assert_eq!(
        gateway.ask("web", get("/").header("X-Canary", "no")).await.text(),
        "now"
    );
}

#[tokio::test]
async fn requests_have_numbers_that_client_and_server_see() {
    let app = HttpServer::answering("x").await;
    let plugin =
        r#"plugin "shelf" builtin="request-id" { limit cpu="1s"; on-failure "skip"; config { keep; prefix "eu1-" } }"#;
    let gateway = shelf(plugin, &app).start().await;

    let first = gateway.ask("web", get("/").header("X-Request-Id", "not one")).await;
    let id = first.header("x-request-id").unwrap();
    assert!(id.starts_with("eu1-0") && id.len() == 40, "{id}");
    assert_eq!(app.last().headers.all("x-request-id").collect::<Vec<_>>(), [id]);
    let second = gateway.ask("web", get("/")).await;
    assert_ne!(second.header("x-request-id"), Some(id));
    let kept = gateway.ask("web", get("/").header("X-Request-Id", "theirs-1")).await;
    assert_eq!(kept.header("x-request-id"), Some("theirs-1"));
}

#[tokio::test]
async fn a_page_is_there_in_the_place_of_everything_while_something_is_repaired() {
    let app = HttpServer::answering("x").await;
    let plugin = r#"plugin "shelf" builtin="maintenance" {
        limit cpu="1s"; on-failure "deny" status=503
        config {
            retry-after "10m"
            allow "127.0.0.2"
            allow-path "/health"
            bypass cookie="preview" value="0123456789abcdef"
        }
        config-file "body" "soon.html"
    }"#;
    let gateway = shelf(plugin, &app).file("soon.html", "<h1>Soon</h1>").start().await;

    let page = gateway.ask("web", get("/")).await;
    assert_eq!(
        (page.status, page.header("retry-after"), page.text()),
        (503, Some("600"), "<h1>Soon</h1>")
    );
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(gateway.ask("web", get("/health")).await.status, 200);
    let preview = get("/").header("Cookie", "preview=0123456789abcdef");
    assert_eq!(gateway.ask("web", preview).await.status, 200);
    let mut office = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    assert_eq!(office.ask(get("/")).await.status, 200);
}

#[tokio::test]
async fn programs_are_refused_by_their_names_or_asked_about_by_acls() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        plugin "bots" builtin="bot-filter" { limit cpu="1s"; on-failure "skip"; config { deny "ai" "scanner"; deny-empty } }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "bots"; default-backend "app" }
        frontend "soft" {
            bind "127.0.0.1:0"
            acl "bot" { plugin "bots" }
            deny status=429 if="bot"
            default-backend "app"
        }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;

    for (agent, refused) in [
        ("Mozilla/5.0 Firefox/140.0", false),
        ("GPTBot/1.2", true),
        ("sqlmap/1.8", true),
        ("", true),
    ] {
        let request = || get("/").header("User-Agent", agent);
        assert_eq!(
            gateway.ask("web", request()).await.status,
            if refused { 403 } else { 200 },
            "{agent}"
        );
        assert_eq!(
            gateway.ask("soft", request()).await.status,
            if refused { 429 } else { 200 },
            "{agent}"
        );
    }
    assert_eq!(
        gateway
            .ask("web", get("/robots.txt").header("User-Agent", "GPTBot/1.2"))
            .await
            .status,
        200
    );
}
