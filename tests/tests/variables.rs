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
