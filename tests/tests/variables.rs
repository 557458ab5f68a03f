//! `%{…}` in texts of all kinds: what each stands for, and that what a client sends stays in its place.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::tls::Authority;
use gateway_tests::{Client, Gateway, HttpServer, get};

/// Variables that are known from a request's beginning to its line, with what they are in the test below; `@` stands for an
/// address or a port there.
const KNOWN: [(&str, &str); 15] = [
    ("tls-version", "TLSv1.3"),
    ("tls-cipher", "TLS_AES_256_GCM_SHA384"),
    ("sni", "shop.example"),
    ("client-ip", "@client-ip"),
    ("client-port", "@client-port"),
    ("destination-ip", "@destination-ip"),
    ("destination-port", "@destination-port"),
    ("method", "GET"),
    ("scheme", "https"),
    ("host", "shop.example"),
    ("http-version", "1.1"),
    ("header:x-in", "in"),
    ("cookie:c", "cookie"),
    ("query-param:q", "QA"),
    ("frontend", "web"),
];

#[tokio::test]
async fn a_variable_is_the_same_in_headers_redirects_responses_rewrites_and_lines() {
    let authority = Authority::new();
    let app = HttpServer::answering("x").await;
    let variables: Vec<String> = KNOWN.iter().map(|(name, _)| format!("%{{{name}}}")).collect();
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="text" }
        frontend "web" {
            bind "127.0.0.1:0" { tls cert="bundle.pem"; alpn "http/1.1" }
            request-id
            log-format "LINE %{request-id} @words"
            acl "return" { path "/return" }
            redirect location="/%{request-id}/@path" { path "/redirect" }
            return if="return" { header "X-Facts" "%{request-id} @words"; body "%{request-id} @words" }
            request { set-header "X-Facts" "%{request-id} @words"; set-path "/%{request-id}/@path" }
            response { set-header "X-Facts" "%{request-id} @words" }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@words", variables.join(" "))
    .with("@path", variables.join("/"))
    .with("@app", app.address())
    .file("bundle.pem", authority.issue(&["shop.example"]).bundle())
    .start()
    .await;
    let address = gateway.address("web");
    let mut client = Client::connect_tls(address, "shop.example", authority.certificate()).await;
    let me = client.address();
    let expected = |separator: &str| {
        let value = |(_, value): &(&str, &str)| match *value {
            "@client-ip" => me.ip().to_string(),
            "@client-port" => me.port().to_string(),
            "@destination-ip" => address.ip().to_string(),
            "@destination-port" => address.port().to_string(),
            value => value.to_owned(),
        };
        KNOWN.iter().map(value).collect::<Vec<_>>().join(separator)
    };
    let ask = |path: &str| {
        let request = get(&format!("{path}?q=Q%41")).host("Shop.Example:443");
        request.header("X-In", "in").header("Cookie", "c=cookie")
    };
    let mut ids = Vec::new();

    let answer = client.ask(ask("/redirect")).await;
    let (id, facts) = answer.header("location").unwrap()[1..].split_once('/').unwrap();
    assert_eq!((id.len(), facts), (36, &*expected("/")));
    ids.push(id.to_owned());

    let answer = client.ask(ask("/return")).await;
    let (id, facts) = answer.text().split_once(' ').unwrap();
    assert_eq!(facts, expected(" "));
    assert_eq!(answer.header("x-facts"), Some(answer.text()));
    ids.push(id.to_owned());

    let answer = client.ask(ask("/x")).await;
    let seen = app.last();
    let (id, facts) = seen.headers.get("x-facts").unwrap().split_once(' ').unwrap();
    assert_eq!(facts, expected(" "));
    assert_eq!(answer.header("x-facts"), seen.headers.get("x-facts"));
    assert_eq!(seen.target, format!("/{id}/{}?q=Q%41", expected("/")));
    ids.push(id.to_owned());

    for id in ids {
        gateway.says(&format!("LINE {id} {}", expected(" "))).await;
    }
}

/// What a client sends that would like to be something else where it is written.
const WILD: &str = "/?q=%22%27%3C%2Fscript%3E%5C%0a%24%7B1%7D%60%ff";

#[tokio::test]
async fn what_a_client_sends_stays_in_its_place_in_content_of_every_type() {
    // The type, the content with the variable in it, and what is sent.
    let cases = [
        ("text/plain", "q=%{query-param:q}", &b"q=\"'</script>\\\n${1}`\xff"[..]),
        (
            "text/html; charset=utf-8",
            r#"<p title="%{query-param:q}">"#,
            b"<p title=\"&quot;&#39;&lt;/script&gt;\\\n${1}`\xff\">",
        ),
        (
            "application/problem+json",
            r#"{"q":"%{query-param:q}","port":0%{client-port}}"#,
            br#"{"q":"\"\u0027\u003c/script\u003e\\\u000a\u0024{1}\u0060\ufffd","port":0"#,
        ),
        (
            "text/javascript",
            "f('%{query-param:q}')",
            br#"f('\"\u0027\u003c/script\u003e\\\u000a\u0024{1}\u0060\ufffd')"#,
        ),
        (
            "application/xml",
            "<a>%{query-param:q}</a>",
            b"<a>&quot;&#39;&lt;/script&gt;\\\n${1}`\xff</a>",
        ),
        // What is not the client's choice may stand anywhere.
        ("text/css", "/* %{frontend} */", b"/* f5 */"),
    ];
    let mut text = String::new();
    for (n, (kind, body, _)) in cases.iter().enumerate() {
        text.push_str(&format!(
            "frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; return {{ body #\"{body}\"# content-type=\"{kind}\" }} }}\n"
        ));
    }
    let gateway = Gateway::kdl(&text).start().await;
    for (n, (kind, _, expected)) in cases.iter().enumerate() {
        let answer = gateway.ask(&format!("f{n}"), get(WILD)).await;
        assert_eq!(answer.header("content-type"), Some(*kind));
        let found = &answer.body[..expected.len().min(answer.body.len())];
        assert_eq!(
            found.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{kind}"
        );
    }
}

/// A path and a query with all that divides parameters.
const DIVIDED: &str = "/a%20b&c+d?e=f&admin=1";

#[tokio::test]
async fn what_a_client_divides_becomes_no_further_parameters() {
    let app = HttpServer::answering("x").await;
    // A rule or an edit, and the Location or the target and field that follow.
    let redirects = [
        (
            r#"redirect location="/login?from=%{uri}&x=1""#,
            "/login?from=%2Fa%2520b%26c%2Bd%3Fe%3Df%26admin%3D1&x=1",
        ),
        (
            r#"redirect location="/login?host=%{authority}&%{query}#%{query}""#,
            "/login?host=test.example%3A80&e=f&admin=1#e=f&admin=1",
        ),
        (r#"redirect location="%{path}?%{query}""#, "/a%20b&c+d?e=f&admin=1"),
        (
            r#"redirect location="/%{path|url-encode}" keep-query"#,
            "/%2Fa%2520b%26c%2Bd?e=f&admin=1",
        ),
        // Part of a path says in a query what it said there.
        (
            r#"redirect regex="^/(.*)$" location="/find/$1?q=$1&p=%{path}""#,
            "/find/a%20b&c+d?q=a%20b%26c%2Bd&p=%2Fa%2520b%26c%2Bd",
        ),
    ];
    let mut text = String::from("backend \"app\" { server \"s\" \"@app\" }\n");
    for (n, (rule, _)) in redirects.iter().enumerate() {
        let frontend = format!("bind \"127.0.0.1:0\"; acl \"no\" {{ path \"/no\" }}; {rule} unless=\"no\"");
        text.push_str(&format!(
            "frontend \"f{n}\" {{ {frontend}; default-backend \"app\" }}\n"
        ));
    }
    text.push_str(
        r##"frontend "edits" {
            bind "127.0.0.1:0"
            request {
                set-header "X-From" "/login?from=%{uri|url-encode}&a=%{header:a|url-encode}"
                set-query-param "from" "%{uri}"
            }
            acl "mine" { path "/mine" }
            return if="mine" {
                header "Location" "/login?from=%{uri|url-encode}"
                body #"<a href="/login?from=%{uri|url-encode}">"# content-type="text/html"
            }
            default-backend "app"
        }"##,
    );
    let gateway = Gateway::kdl(&text).with("@app", app.address()).start().await;
    for (n, (rule, expected)) in redirects.iter().enumerate() {
        let answer = gateway
            .ask(&format!("f{n}"), get(DIVIDED).host("test.example:80"))
            .await;
        assert_eq!(answer.header("location"), Some(*expected), "{rule}");
    }

    let encoded = "%2Fa%2520b%26c%2Bd%3Fe%3Df%26admin%3D1";
    let request = get(DIVIDED).header("A", "1&2").header("A", "3");
    assert_eq!(gateway.ask("edits", request).await.status, 200);
    let seen = app.last();
    let field = format!("/login?from={encoded}&a=1%262%2C%203");
    assert_eq!(seen.headers.get("x-from"), Some(&*field));
    assert_eq!(seen.target, format!("{DIVIDED}&from={encoded}"));

    let answer = gateway.ask("edits", get("/mine?a=b&c")).await;
    let place = "/login?from=%2Fmine%3Fa%3Db%26c";
    assert_eq!(answer.header("location"), Some(place));
    assert_eq!(answer.text(), format!("<a href=\"{place}\">"));
}

// ── maps ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn a_map_says_where_requests_go_and_what_texts_say() {
    let (app, shop) = (HttpServer::answering("app").await, HttpServer::answering("shop").await);
    let text = |version: &str| {
        Gateway::kdl(
            r#"
        map "hosts" file="hosts.map" match="domain"
        map "moved" file="moved.map" match="prefix"
        map "nets" file="nets.map" match="subnet" default="elsewhere"
        frontend "web" {
            bind "127.0.0.1:0"
            redirect location="%{path|map:moved}" code=301 { path-prefix "/moved/" }
            return if="who" { body "@version %{client-ip|map:nets}" content-type="text/css" }
            acl "who" { path "/who" }
            acl "plain" { header "x-plain" }
            use-backend "%{host|map:hosts}" unless="plain"
            use-backend "app-%{query-param:v}"
            request { set-header "X-Tenant" "%{host|map:hosts}"; set-header "X-Net" "%{client-ip|map:nets}" }
            response { set-header "X-Kind" "%{response-header:x-kind|map:moved}" }
            default-backend "app"
        }
        backend "app"   { server "s" "@app" }
        backend "app-2" { server "s" "@app"; request { set-header "X-Version" "2" } }
        backend "shop"  { server "s" "@shop" }
    "#,
        )
        .with("@version", version)
        .with("@app", app.address())
        .with("@shop", shop.address())
        .file("moved.map", "/moved/ /here\n/moved/far/ https://far.example/\n")
        .file("nets.map", "127.0.0.7 seven\n127.0.0.0/8 loopback\n")
    };
    let gateway = text("one").file("hosts.map", "shop.example shop\n").start().await;
    let mut client = Client::connect_from(gateway.address("web"), [127, 0, 0, 7]).await;
    let ask = |target: &str, host: &str| get(target).host(host);

    assert_eq!(client.ask(ask("/", "www.Shop.example:80")).await.text(), "shop");
    let seen = shop.last().headers;
    assert_eq!((seen.get("x-tenant"), seen.get("x-net")), (Some("shop"), Some("seven")));
    // What the map does not have goes on to the next rule, and what names no backend to the default.
    assert_eq!(client.ask(ask("/?v=2", "other.example")).await.text(), "app");
    let seen = app.last().headers;
    assert_eq!((seen.get("x-tenant"), seen.get("x-version")), (Some(""), Some("2")));
    assert_eq!(client.ask(ask("/?v=3", "other.example")).await.text(), "app");
    assert_eq!(app.last().headers.get("x-version"), None);
    let plain = ask("/", "shop.example").header("X-Plain", "1");
    assert_eq!(client.ask(plain).await.text(), "app");

    for (path, location) in [("/moved/x", "/here"), ("/moved/far/x", "https://far.example/")] {
        let answer = client.ask(ask(path, "a.example")).await;
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)));
    }
    assert_eq!(client.ask(ask("/who", "a.example")).await.text(), "one seven");
    assert_eq!(gateway.ask("web", get("/who")).await.text(), "one loopback");

    // Files are read again at a reload.
    gateway.write("hosts.map", "other.example shop\n");
    assert!(gateway.reload(&text("two")).await);
    assert_eq!(gateway.ask("web", get("/who")).await.text(), "two loopback");
    assert_eq!(gateway.ask("web", ask("/", "other.example")).await.text(), "shop");
    assert_eq!(gateway.ask("web", ask("/", "shop.example")).await.text(), "app");
}

#[tokio::test]
async fn a_map_that_cannot_be_used_stops_the_start_with_its_line() {
    let app = HttpServer::answering("app").await;
    let gateway = |map: &str, content: &str| {
        Gateway::kdl(
            r#"
        map "hosts" file="hosts.map" @options
        frontend "web" { bind "127.0.0.1:0"; use-backend "%{host|map:hosts}"; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
        )
        .with("@options", map)
        .with("@app", app.address())
        .file("hosts.map", content)
    };
    for (options, content, expected) in [
        (
            "",
            "a.example app\n\nb.example shop\n",
            "hosts.map:3: there is no backend \"shop\"",
        ),
        (
            r#"default="rest""#,
            "a.example app\n",
            "hosts.map: there is no backend \"rest\"",
        ),
        ("", "a.example\n", "hosts.map:1: the key \"a.example\" has no value"),
        (
            "",
            "a app\na app\n",
            "hosts.map:2: the key \"a\" stands in line 1 already",
        ),
        ("max-entries=1", "a app\nb app\n", "hosts.map:2: more than 1 entries"),
        (r#"max-size="4B""#, "a app\n", "hosts.map: it has more than 4 bytes"),
        (
            r#"match="regex""#,
            "a app\n( app\n",
            "hosts.map:2: not a regular expression",
        ),
        (
            r#"match="subnet""#,
            "10.0.0.0/99 app\n",
            "hosts.map:1: \"10.0.0.0/99\" is neither",
        ),
        (
            r#"match="subnet""#,
            "10.0.0.0/8 app\n::ffff:10.0.0.0/104 app\n",
            "hosts.map:2: the key \"::ffff:10.0.0.0/104\" stands in line 1 already",
        ),
        (
            r#"match="domain""#,
            "Shop.example app\n.shop.example app\n",
            "hosts.map:2: the key \".shop.example\" stands in line 1 already",
        ),
    ] {
        let stopped = gateway(options, content).refused().await;
        assert!(stopped.output.contains(expected), "{expected} in\n{}", stopped.output);
    }
}

#[tokio::test]
async fn the_name_in_a_hello_is_looked_up_in_tcp_mode() {
    let authority = Authority::new();
    let servers = ["a.example", "b.example"].map(|name| (name, authority.issue(&[name]).bundle()));
    // Two gateways that end TLS, behind one that passes it through.
    let mut ends = Vec::new();
    for (name, bundle) in servers {
        let text = format!(
            "frontend \"web\" {{ bind \"127.0.0.1:0\" {{ tls cert=\"bundle.pem\" }}; return {{ body \"{name}\" }} }}"
        );
        ends.push(Gateway::kdl(&text).file("bundle.pem", bundle).start().await);
    }
    let gateway = Gateway::kdl(
        r#"
        map "names" file="names.map" match="domain"
        frontend "tls" { mode "tcp"; bind "127.0.0.1:0"; use-backend "%{sni|map:names}"; default-backend "b" }
        backend "a" { mode "tcp"; server "s" "@a" }
        backend "b" { mode "tcp"; server "s" "@b" }
    "#,
    )
    .with("@a", ends[0].address("web"))
    .with("@b", ends[1].address("web"))
    .file("names.map", "a.example a\n")
    .start()
    .await;
    for name in ["a.example", "b.example"] {
        let mut client = Client::connect_tls(gateway.address("tls"), name, authority.certificate()).await;
        assert_eq!(client.ask(get("/")).await.text(), name);
    }
}

// ── the client's certificate ──────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn servers_are_told_of_the_clients_certificate() {
    let authority = Authority::new();
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="text" }
        frontend "web" {
            bind "127.0.0.1:0" {
                tls cert="bundle.pem" { client-ca "ca.pem" verify="optional" }
                alpn "http/1.1"
            }
            log-format "LINE %{client-cert-verify} %{client-cert-not-before} %{client-cert-not-after} %{client-cert-der}"
            request {
                set-header "X-Verify" "%{client-cert-verify}"
                set-header "X-Valid" "%{client-cert-not-before} %{client-cert-not-after}"
                set-header "X-Cert" "%{client-cert-der}"
                set-header "X-Serial" "%{client-cert-serial}"
            }
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("bundle.pem", authority.issue(&["shop.example"]).bundle())
    .file("ca.pem", authority.pem())
    .start()
    .await;
    let shown = authority.issue(&["client.example"]);
    let told = |name: &str| app.last().headers.get(name).map(str::to_owned);

    let config = authority.client_with(&shown);
    let mut client = Client::connect_tls_with(gateway.address("web"), "shop.example", config).await;
    // What a client says of itself is written over.
    client
        .ask(get("/").header("X-Verify", "SUCCESS").header("X-Cert", "mine"))
        .await;
    let der = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, shown.certificate());
    assert_eq!(told("x-verify").as_deref(), Some("SUCCESS"));
    assert_eq!(told("x-cert"), Some(der.clone()));
    assert_eq!(told("x-serial"), Some(format!("{:02x}", shown.serial())));
    let valid = told("x-valid").unwrap();
    let (from, until) = valid.split_once(' ').unwrap();
    for moment in [from, until] {
        let shape: String = moment
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00Z");
    }
    assert!(from < until, "{valid}");
    gateway.says(&format!("LINE SUCCESS {valid} {der}")).await;

    let mut client = Client::connect_tls_with(gateway.address("web"), "shop.example", authority.client()).await;
    client.ask(get("/").header("X-Cert", "forged")).await;
    assert_eq!(told("x-verify").as_deref(), Some("NONE"));
    assert_eq!(told("x-cert").as_deref().unwrap_or_default(), "");
    gateway.says("LINE NONE - - -").await;
}

#[test]
fn a_pipe_or_device_in_place_of_a_file_holds_no_start_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for place in [pipe.to_str().unwrap(), "/dev/zero"] {
        let checked = Gateway::kdl(
            r#"
            plugin "geo" "@place" { on-failure "skip" }
            map "hosts" file="@place"
            frontend "web" {
                bind "127.0.0.1:0" { tls cert="@place" }
                use-plugin "geo"
                error-page 503 "@place"
                return if="file" { file "@place" }
                acl "file" { path "/file" }
                use-backend "%{host|map:hosts}"
            }
            backend "app" { server "app-1" "127.0.0.1:1" }
        "#,
        )
        .with("@place", place)
        .check(&[]);
        assert_eq!(checked.code, Some(1), "{}{}", checked.stdout, checked.stderr);
        let said = checked.stdout.matches("not a regular file").count();
        // The plugin's, the map's, the page's and the response's.
        assert!(said >= 4, "{}", checked.stdout);
    }
}
