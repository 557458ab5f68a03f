//! What servers are told of the client, whom the gateway believes what it says of one, and the numbers that requests get.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Client, Gateway, HttpServer, get};

/// A gateway whose frontend says this, before a server that remembers what it was told.
async fn gateway(says: &str) -> (Gateway, HttpServer) {
    let app = HttpServer::answering("").await;
    let gateway = Gateway::kdl(
        r#"
        frontend "web" {
            bind "127.0.0.1:0"
            @says
            acl "vip" { source "203.0.113.0/24" }
            use-backend "vips" if="vip"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
        backend "vips" { server "vip-1" "@app" }
    "#,
    )
    .with("@says", says)
    .with("@app", app.address())
    .start()
    .await;
    (gateway, app)
}

/// Every value of a field as the server saw it.
fn seen(app: &HttpServer, name: &str) -> String {
    app.last().headers.all(name).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn forwarded_for_has_the_options_of_haproxy() {
    let (gateway, app) = gateway(r#"forwarded-for header="X-Client" if-none except="127.0.0.2,::1""#).await;
    gateway.ask("web", get("/")).await;
    assert_eq!(seen(&app, "x-client"), "127.0.0.1");
    assert_eq!(seen(&app, "x-forwarded-for"), "");
    gateway.ask("web", get("/").header("X-Client", "a")).await;
    assert_eq!(seen(&app, "x-client"), "a");
    let mut other = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    other.ask(get("/")).await;
    assert_eq!(seen(&app, "x-client"), "");
}

#[tokio::test]
async fn servers_are_told_in_each_of_the_usual_fields() {
    let (gateway, app) = gateway(
        r#"forwarded "for" "proto" "host" by="_edge-1"
            forwarded-headers "x-forwarded-proto" "x-forwarded-host" "x-forwarded-port" "x-real-ip""#,
    )
    .await;
    for _ in 0..2 {
        let lies = get("/")
            .host("shop.example:8080")
            .header("X-Forwarded-Proto", "https")
            .header("X-Forwarded-Host", "evil.example")
            .header("X-Forwarded-Port", "1")
            .header("X-Real-IP", "1.2.3.4");
        gateway.ask("web", lies).await;
        assert_eq!(
            seen(&app, "forwarded"),
            "for=127.0.0.1;by=_edge-1;proto=http;host=\"shop.example:8080\""
        );
        assert_eq!(seen(&app, "x-forwarded-proto"), "http");
        assert_eq!(seen(&app, "x-forwarded-host"), "shop.example:8080");
        assert_eq!(
            seen(&app, "x-forwarded-port"),
            gateway.address("web").port().to_string()
        );
        assert_eq!(seen(&app, "x-real-ip"), "127.0.0.1");
    }
}

#[tokio::test]
async fn a_client_that_asks_for_no_host_says_none_in_its_place() {
    const NO_HOST: &str = "GET / HTTP/1.0\r\nX-Forwarded-Host: shop.example\r\n\r\n";
    let headers = r#"forwarded-headers "x-forwarded-host""#;
    let (anybody, app) = gateway(headers).await;
    anybody.raw("web", NO_HOST).await;
    assert_eq!(seen(&app, "x-forwarded-host"), "");
    // A proxy that is trusted may.
    let (trusted, app) = gateway(&format!("trusted-proxies \"127.0.0.0/8\"; {headers}")).await;
    trusted.raw("web", NO_HOST).await;
    assert_eq!(seen(&app, "x-forwarded-host"), "shop.example");
}

/// Servers behind CGI cannot tell `X_Real_IP` from `X-Real-IP`, and would take the client's word for the gateway's.
#[tokio::test]
async fn a_client_says_nothing_beside_the_gateways_own_fields_by_an_underscore() {
    let (gateway, app) = gateway(
        r#"forwarded-for if-none; request-id
            forwarded-headers "x-forwarded-proto" "x-forwarded-host" "x-forwarded-port" "x-real-ip""#,
    )
    .await;
    let own = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-real-ip",
        "x-request-id",
    ];
    let mut lies = get("/").host("shop.example").header("X_Other", "mine");
    for name in own {
        lies = lies.header(&name.replace('-', "_"), "evil");
        lies = lies.header(&name.replacen('-', "_", 1), "evil");
    }
    gateway.ask("web", lies).await;
    let seen = app.last();
    for name in own {
        assert!(seen.headers.has(name), "{name}");
    }
    let raw = String::from_utf8_lossy(&seen.raw);
    assert!(!raw.contains("evil"), "{raw}");
    assert_eq!(seen.headers.get("x_other"), Some("mine"));
}

#[tokio::test]
async fn what_others_than_trusted_proxies_say_of_the_client_is_dropped() {
    let (gateway, app) = gateway(r#"trusted-proxies "127.0.0.2"; forwarded-for; forwarded"#).await;
    let lies = || {
        get("/")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-Prefix", "/admin")
            .header("Forwarded", "for=203.0.113.9")
            .header("X-Real-IP", "203.0.113.9")
            // What servers behind CGI cannot tell from those above.
            .header("X_Forwarded_For", "203.0.113.9")
            .header("X_Real-IP", "203.0.113.9")
    };
    gateway.ask("web", lies()).await;
    assert_eq!(seen(&app, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen(&app, "forwarded"), "for=127.0.0.1;proto=http");
    assert_eq!(seen(&app, "x-forwarded-prefix") + &seen(&app, "x-real-ip"), "");
    assert_eq!(seen(&app, "x_forwarded_for") + &seen(&app, "x_real-ip"), "");

    let mut proxy = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    proxy.ask(lies()).await;
    assert_eq!(seen(&app, "x-forwarded-for"), "203.0.113.9, 127.0.0.2");
    assert_eq!(seen(&app, "forwarded"), "for=203.0.113.9, for=127.0.0.2;proto=http");
    assert_eq!(seen(&app, "x-forwarded-prefix"), "/admin");
    // No `client-ip=`: what decides is still who connects.
    let lines = gateway.access_log(2).await;
    assert!(lines.iter().all(|line| line["backend"] == "app"), "{lines:?}");
}

#[tokio::test]
async fn the_client_that_trusted_proxies_name_counts_for_rules_and_logs() {
    let (gateway, app) = gateway(
        r#"trusted-proxies "127.0.0.2" "10.0.0.0/8" client-ip="x-forwarded-for"
            forwarded-headers "x-real-ip" "x-forwarded-proto""#,
    )
    .await;
    let mut proxy = Client::connect_from(gateway.address("web"), [127, 0, 0, 2]).await;
    // Right to left over what is trusted, and not a step further.
    let asked = get("/")
        .header("X-Forwarded-For", "198.51.100.1, 203.0.113.9, 10.1.1.1")
        .header("X-Forwarded-Proto", "https");
    proxy.ask(asked).await;
    assert_eq!(seen(&app, "x-real-ip"), "203.0.113.9");
    assert_eq!(seen(&app, "x-forwarded-proto"), "https");
    // The next request of the same connection is another client's.
    proxy.ask(get("/").header("X-Forwarded-For", "198.51.100.1")).await;
    assert_eq!(seen(&app, "x-real-ip"), "198.51.100.1");
    // Who is not trusted cannot choose who it is.
    gateway
        .ask("web", get("/").header("X-Forwarded-For", "203.0.113.9"))
        .await;
    assert_eq!(seen(&app, "x-real-ip"), "127.0.0.1");

    let lines = gateway.access_log(3).await;
    let mut said: Vec<_> = lines
        .iter()
        .map(|line| {
            let (client, backend) = (line["client"].as_str().unwrap(), line["backend"].as_str().unwrap());
            format!("{} {backend}", client.split(':').next().unwrap())
        })
        .collect();
    said.sort_unstable();
    assert_eq!(said, ["127.0.0.1 app", "198.51.100.1 app", "203.0.113.9 vips"]);
}

#[tokio::test]
async fn forwarded_names_the_client_too() {
    let (gateway, app) =
        gateway(r#"trusted-proxies "127.0.0.1" client-ip="forwarded"; forwarded-headers "x-real-ip""#).await;
    let asked = get("/").header("Forwarded", "for=1.2.3.4, for=\"[2001:db8::7]:443\";proto=https");
    gateway.ask("web", asked).await;
    assert_eq!(seen(&app, "x-real-ip"), "2001:db8::7");
    let asked = get("/").header("Forwarded", "for=\"1.2.3.4, for=203.0.113.9");
    gateway.ask("web", asked).await;
    assert_eq!(seen(&app, "x-real-ip"), "127.0.0.1");
}

#[tokio::test]
async fn each_request_gets_a_number_that_server_client_and_log_are_told() {
    let (gateway, app) = gateway(r#"request-id response"#).await;
    let mut client = gateway.connect("web").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = client.ask(get("/").header("X-Request-Id", "mine")).await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert_eq!(seen(&app, "x-request-id"), id);
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "{id}");
        ids.push(id);
    }
    // One that is refused at once is found in the log, too.
    let refused = gateway.raw("web", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(
        refused.starts_with("HTTP/1.1 400") && refused.contains("x-request-id: "),
        "{refused}"
    );
    let lines = gateway.access_log(3).await;
    for id in &ids {
        assert!(lines.iter().any(|line| line["request_id"] == id.as_str()), "{lines:?}");
    }
    assert_ne!(ids[0], ids[1]);
    assert!(lines.iter().all(|line| line["request_id"].is_string()), "{lines:?}");
}

#[tokio::test]
async fn a_number_that_comes_along_is_kept_from_those_who_may_say_one() {
    let (gateway, app) = gateway(r#"trusted-proxies "127.0.0.2"; request-id header="X-Trace" version="v4""#).await;
    let address = gateway.address("web");
    let mut proxy = Client::connect_from(address, [127, 0, 0, 2]).await;
    proxy.ask(get("/").header("X-Trace", "Root=1-6789")).await;
    assert_eq!(seen(&app, "x-trace"), "Root=1-6789");
    // Not what could not stand in a log line, or twice.
    for request in [
        get("/").header("X-Trace", "a b"),
        get("/").header("X-Trace", &"a".repeat(129)),
        get("/").header("X-Trace", "a").header("X-Trace", "b"),
    ] {
        proxy.ask(request).await;
        let id = seen(&app, "x-trace");
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
    }
    gateway.ask("web", get("/").header("X-Trace", "Root=1-6789")).await;
    assert_eq!(seen(&app, "x-trace").len(), 36);
}

#[tokio::test]
async fn nobody_says_behind_the_content_who_the_client_is() {
    let (gateway, app) = gateway(
        r#"trusted-proxies "127.0.0.0/8" client-ip="X-Client"; forwarded-for header="X-Told"; request-id header="X-Number" incoming="trusted""#,
    )
    .await;
    let lies = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X_Forwarded_For",
        "X-Real-IP",
        "Forwarded",
        "X-Client",
        "x_client",
        "X-Told",
        "X-Number",
    ];
    let list = lies.join(", ");
    let trailers: String = lies.iter().map(|name| format!("{name}: a.lie\r\n")).collect();
    let mut client = gateway.connect("web").await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: {list}, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n{trailers}X-Sum: 7\r\n\r\n"
        ))
        .await;
    assert_eq!(client.response().await.status, 200);
    let seen = app.seen_text().to_ascii_lowercase();
    assert!(seen.contains("x-sum: 7") && !seen.contains("a.lie"), "{seen}");
}

#[tokio::test]
async fn connection_does_not_take_away_what_proxies_say() {
    let (gateway, app) = gateway(
        r#"trusted-proxies "127.0.0.0/8" client-ip="X-Client"; request-id header="X-Number" incoming="trusted""#,
    )
    .await;
    let request = get("/")
        .header("X-Client", "203.0.113.9")
        .header("X-Number", "7")
        .header("X-Hop", "1")
        .header("Connection", "X-Client, X-Number, X-Hop");
    gateway.ask("web", request).await;
    assert_eq!(seen(&app, "x-client"), "203.0.113.9");
    assert_eq!(seen(&app, "x-number"), "7");
    assert_eq!(seen(&app, "x-hop"), "");
    assert_eq!(gateway.access_log(1).await[0]["backend"], "vips");
}
