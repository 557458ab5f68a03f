//! Requests that two readers could read differently, byte by byte: what the client gets, what a server sees, and the reason in
//! the log.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Gateway, HttpServer, get};

const PLAIN: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" {
        bind "127.0.0.1:0"
        timeout http-request="500ms" client="500ms"
        request-limits head="8KiB" headers=20 uri="1KiB" body="1KiB"
        default-backend "app"
    }
    backend "app" { server "app-1" "@app" }
"#;

/// What has to become of a request.
enum Fate {
    /// It is refused before a server is looked for: this status, this reason, the connection is closed, no server sees any of it.
    Refused(u16, &'static str),
    /// A server has seen its head by then, but never sees it whole.
    BrokenOff(u16, &'static str),
    /// It is passed on with this target and content, and nothing else with it.
    Passed(&'static str, &'static str),
    /// It is passed on likewise, and the connection ends with its response: nothing behind it is served, for somebody in front may have
    /// taken it to be of another length (RFC 9112, section 6.1).
    Last(&'static str, &'static str),
}

use Fate::{BrokenOff, Last, Passed, Refused};

/// Behind every request that is refused, or the last, stands another one, which must not be served.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";

#[rustfmt::skip]
const REQUESTS: &[(&str, &str, Fate)] = &[
    // Lengths.
    ("a plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nfour", Refused(400, "bad-length")),
    ("a minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\nfour", Refused(400, "bad-length")),
    ("a list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4,4\r\n\r\nfour", Refused(400, "bad-length")),
    ("a list that differs", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nfour", Refused(400, "bad-length")),
    ("hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nfour", Refused(400, "bad-length")),
    ("empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nfour", Refused(400, "bad-length")),
    ("a space in it", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 0\r\n\r\nfour", Refused(400, "bad-length")),
    ("a fraction", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4.0\r\n\r\nfour", Refused(400, "bad-length")),
    ("an exponent", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4e0\r\n\r\nfour", Refused(400, "bad-length")),
    ("beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551620\r\n\r\nfour", Refused(400, "bad-length")),
    ("two that differ", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\nfour", Refused(400, "bad-length")),
    ("two that agree", "POST /agree HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfour", Passed("/agree", "four")),
    ("zeros before it", "POST /zeros HTTP/1.1\r\nHost: a\r\nContent-Length: 0004\r\n\r\nfour", Passed("/zeros", "four")),
    ("beyond the limit", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n", Refused(413, "body-too-large")),
    // Codings.
    ("chunked and a length", "POST /both HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Last("/both", "")),
    ("a length and chunked", "POST /both HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n4\r\nfour\r\n0\r\n\r\n", Last("/both", "four")),
    ("tab before it", "POST /tab HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", Passed("/tab", "")),
    ("space behind it", "POST /space HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \t\r\n\r\n0\r\n\r\n", Passed("/space", "")),
    ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("chunkedx", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nfour", Refused(400, "bad-transfer-encoding")),
    ("chunked, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("identity, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("chunked, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("two fields", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("two fields, chunked last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("quoted", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 4\r\n\r\nfour", Refused(400, "bad-transfer-encoding")),
    ("with a comma", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    ("vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n", Refused(400, "bad-header")),
    ("in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400, "bad-transfer-encoding")),
    // Chunks.
    ("an extension", "POST /ext HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a=\"b\"\r\nfour\r\n0\r\n\r\n", Passed("/ext", "four")),
    ("a trailer", "POST /trailer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\nX: y\r\n\r\n", Passed("/trailer", "four")),
    ("zeros before the size", "POST /000 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0004\r\nfour\r\n000\r\n\r\n", Passed("/000", "four")),
    ("no size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("a size that is none", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("a signed size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("0x4", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x4\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("a size beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000004\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("no CRLF behind it", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("LF behind the size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("LF behind the chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("LF in an extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("CR in an extension", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a\rb\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("a trailer that is none", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX y\r\n\r\n", BrokenOff(400, "bad-body")),
    // Lines.
    ("a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Refused(400, "bad-header")),
    ("a fold", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Refused(400, "bad-header")),
    ("a fold with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Refused(400, "bad-header")),
    ("a fold before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400, "bad-header")),
    ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(400, "bad-header")),
    ("a tab before the colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Refused(400, "bad-header")),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused(400, "bad-header")),
    ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", Refused(400, "bad-header")),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Refused(400, "bad-header")),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", Refused(400, "bad-header")),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", Refused(400, "bad-header")),
    ("parentheses in a name", "GET / HTTP/1.1\r\nHost: a\r\nX(): b\r\n\r\n", Refused(400, "bad-header")),
    ("a letter beyond ASCII in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n", Refused(400, "bad-header")),
    ("a letter beyond ASCII in a value", "GET /value HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n", Passed("/value", "")),
    ("an empty line before it", "\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/empty", "")),
    // Hosts.
    ("none", "GET / HTTP/1.1\r\n\r\n", Refused(400, "no-host")),
    ("two", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400, "several-hosts")),
    ("two that agree", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400, "several-hosts")),
    ("empty", "GET /nobody HTTP/1.1\r\nHost:\r\n\r\n", Passed("/nobody", "")),
    ("a port", "GET /port HTTP/1.1\r\nHost: a:8080\r\n\r\n", Passed("/port", "")),
    ("an address", "GET /v6 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Passed("/v6", "")),
    ("a port that is none", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refused(400, "bad-host")),
    ("two ports", "GET / HTTP/1.1\r\nHost: a:80:81\r\n\r\n", Refused(400, "bad-host")),
    ("a user", "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Refused(400, "bad-host")),
    ("a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400, "bad-host")),
    ("a query", "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Refused(400, "bad-host")),
    ("a list of hosts", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400, "bad-host")),
    ("a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400, "bad-host")),
    ("beyond ASCII", "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", Refused(400, "bad-host")),
    ("half an address", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400, "bad-host")),
    // Targets.
    ("absolute", "GET http://b/absolute HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/absolute", "")),
    ("absolute without a path", "GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/", "")),
    ("absolute with a query and no path", "GET http://b?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/?x=1", "")),
    ("absolute with a user", "GET http://user@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("absolute with a port that is none", "GET http://b:x/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("another scheme", "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("an authority", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "connect-method")),
    ("a star", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("a star with OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Passed("*", "")),
    ("two slashes", "GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", Passed("//b/c", "")),
    ("no slash", "GET b/c HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("a fragment is nobody else's business", "GET /f#g HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/f", "")),
    ("beyond ASCII in it", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("a control character", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("DEL", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("NUL", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("JSON in a query", "GET /json?q={\"a\":\"<b>\"} HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/json?q={%22a%22:%22%3Cb%3E%22}", "")),
    ("brackets and backticks in a path", "GET /<a>`b?`c HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/%3Ca%3E%60b?`c", "")),
    ("quotes elsewhere", "GET /quotes HTTP/1.1\r\nHost: a\r\nX: /?\"<`>\"\r\n\r\n", Passed("/quotes", "")),
    ("dots are resolved", "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/b", "")),
    // Request lines.
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("a tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-request")),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-request")),
    ("an odd method", "PURGE-ALL /odd HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/odd", "")),
    ("a method in small letters", "get /small HTTP/1.1\r\nHost: a\r\n\r\n", Passed("/small", "")),
    ("a method that is none", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-request")),
    ("a method with a colon", "GET: / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-request")),
    ("no version", "GET /\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(505, "bad-version")),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505, "bad-version")),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(505, "bad-version")),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refused(400, "bad-header")),
    ("http/1.1", "GET / http/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-request")),
    ("HTTPS/1.1", "GET / HTTPS/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-request")),
    ("a space behind the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400, "bad-header")),
    ("a ClientHello", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", Refused(400, "bad-request")),
    ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n", Refused(400, "bad-request")),
    // Limits and time.
    ("a head without end", "GET / HTTP/1.1\r\nHost: a\r\nX: ", Refused(408, "request-timeout")),
    ("a body that does not come", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nnot all", BrokenOff(408, "client-timeout")),
    ("a chunk that does not come", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfo", BrokenOff(408, "client-timeout")),
];

#[tokio::test]
async fn requests_are_understood_in_one_way_or_refused() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut came = Vec::new();
    for (what, bytes, fate) in REQUESTS {
        let (requests, seen) = (app.requests().len(), app.seen_text().len());
        let mut client = gateway.connect("web").await;
        let is_slow = matches!(fate, Refused(408, _) | BrokenOff(408, _));
        // What never ends cannot be followed by anything.
        let follow = if matches!(fate, Passed(..)) || is_slow {
            ""
        } else {
            SMUGGLED
        };
        client.send(format!("{bytes}{follow}")).await;
        let answer = client.try_response().await;
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        if !matches!(fate, Passed(..)) {
            assert!(client.ends().await, "{what}: the connection stays open");
        }
        drop(client);
        let whole: Vec<_> = app.requests().drain(requests..).collect();
        came.push((status, whole, app.seen_text().len() > seen));
    }
    // The one worker writes a line when it has answered: in this order.
    let lines = gateway.access_log(REQUESTS.len()).await;
    let mut wrong = Vec::new();
    for (((what, _, fate), (status, whole, is_seen)), line) in REQUESTS.iter().zip(came).zip(lines) {
        let reason = line["reason"].as_str().unwrap_or("-").to_owned();
        let ok = match fate {
            Refused(expected, why) => {
                (status, &*reason) == (*expected, *why) && !is_seen && line["status"] == *expected
            }
            BrokenOff(expected, why) => (status, &*reason) == (*expected, *why) && whole.is_empty(),
            Passed(target, body) | Last(target, body) => {
                let fits = |request: &gateway_tests::Request| {
                    let lengths: Vec<_> = request.headers.all("content-length").collect();
                    let codings: Vec<_> = request.headers.all("transfer-encoding").collect();
                    request.target == *target
                        && request.body == body.as_bytes()
                        && lengths.len() + codings.len() <= 1
                        && lengths.iter().all(|length| *length == body.len().to_string())
                        && codings.iter().all(|coding| *coding == "chunked")
                };
                status == 200 && whole.len() == 1 && whole.iter().all(fits)
            }
        };
        if !ok {
            wrong.push(format!("{what}: {status} {reason}; the server saw {whole:?}; {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!app.seen_text().contains("/smuggled"));
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

#[tokio::test]
async fn characters_that_no_uri_has_are_encoded_in_requests_that_come_together() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let first = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let second = "POST /2?q={\"a\":1} HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n/?\"<>\"\r\n";
    let third = "GET /<3>?\" HTTP/1.1\r\nHost: a\r\n\r\n";
    let fourth = "GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let rest = [second, third, fourth].concat();
    for pieces in [
        vec![[first, rest.as_str()].concat()],
        vec![first.to_owned(), rest.clone()],
    ] {
        let before = app.requests().len();
        let mut client = gateway.connect("web").await;
        for (n, piece) in pieces.iter().enumerate() {
            if n > 0 {
                // It comes in another read.
                assert_eq!(client.response().await.status, 200);
            }
            client.send(piece).await;
        }
        for _ in pieces.len()..5 {
            assert_eq!(client.response().await.status, 200, "{pieces:?}");
        }
        client.closed().await;
        let seen = app.requests().split_off(before);
        let targets: Vec<_> = seen.iter().map(|request| &*request.target).collect();
        assert_eq!(targets, ["/1", "/2?q={%22a%22:1}", "/%3C3%3E?%22", "/4"], "{pieces:?}");
        assert_eq!(seen[1].body, b"/?\"<>\"\r\n", "{pieces:?}");
    }

    // One whose target has only begun.
    let mut client = gateway.connect("web").await;
    let (begun, goes_on) = second.split_at("POST /2?q={\"a".len());
    client.send(format!("{first}{begun}")).await;
    assert_eq!(client.response().await.status, 200);
    client.send(goes_on).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(app.last().target, "/2?q={%22a%22:1}");
}

#[tokio::test]
async fn what_is_beyond_the_limits_of_requests_is_refused_with_its_reason() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let long = |n: usize| "x".repeat(n);
    let fields: String = (0..30).map(|n| format!("X-{n}: 1\r\n")).collect();
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(2_000)),
            414,
            "uri-too-long",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9_000)),
            414,
            "uri-too-long",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(9_000)),
            431,
            "head-too-large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
            431,
            "head-too-large",
        ),
        (
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", long(9_000)),
            431,
            "head-too-large",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", long(100_000)),
            431,
            "head-too-large",
        ),
        (
            format!("{chunked}800\r\n{}\r\n0\r\n\r\n", long(2048)),
            413,
            "body-too-large",
        ),
        (
            format!("{chunked}4;{}\r\nfour\r\n0\r\n\r\n", long(40_000)),
            400,
            "bad-body",
        ),
        (
            format!("{chunked}4\r\nfour\r\n0\r\nX: {}\r\n\r\n", long(40_000)),
            400,
            "bad-body",
        ),
        (format!("{chunked}4\r\nfour\r\n0\r\n{fields}\r\n"), 400, "bad-body"),
    ];
    for (n, (bytes, status, reason)) in cases.into_iter().enumerate() {
        let before = app.seen_text().len();
        let mut client = gateway.connect("web").await;
        // The gateway need not read all of it.
        let _ = client.try_send(&bytes).await;
        let answer = client.try_response().await;
        let shown = &bytes[..60];
        assert_eq!(answer.map(|answer| answer.status), Some(status), "{shown}");
        // Where the next request begins is known when only the target was too long, and the head was not.
        if status != 414 || bytes.len() > 8 << 10 {
            assert!(client.ends().await, "{shown}: the connection stays open");
        }
        let line = gateway.access_log(n + 1).await.remove(n);
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&status.into(), &reason.into()),
            "{shown}: {line}"
        );
        // Of content that is not as it should be a server has seen the head by then, and never sees the request whole.
        let seen = app.seen_text().split_off(before);
        assert_eq!(app.requests().len(), 0, "{shown}: the server saw {seen}");
        assert_eq!(seen.contains("POST / HTTP/1.1"), !seen.is_empty(), "{shown}: {seen}");
        assert!(seen.is_empty() || bytes.starts_with(chunked), "{shown}: {seen}");
    }
}
