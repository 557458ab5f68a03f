//! Line ends that are none: LF without CR and CR without LF, in every place of a request. What the client gets, and that what
//! the rules decide by, what the server sees and what the log says are one and the same (RFC 9112, section 2.2).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::{Gateway, HttpServer, get};

const PLAIN: &str = r#"
    process { workers 1; log "stdout" format="json" }
    frontend "web" {
        bind "127.0.0.1:0"
        timeout http-request="300ms" client="300ms"
        capture header="X-Mark" max=20
        acl "marked" { header "X-Mark" "1" }
        request { set-header "X-Decided" "marked" if="marked" }
        default-backend "app"
    }
    backend "app" { server "app-1" "@app" }
"#;

/// What has to become of what is sent.
enum Fate {
    /// It is refused with this status and reason, and the connection ends. No server sees anything of it.
    Refused(u16, &'static str),
    /// A server has seen the head by then, but never sees the request whole. The connection ends.
    BrokenOff(u16, &'static str),
    /// These are the requests that it is, each with its target, its `X-Mark` and its content.
    Passed(&'static [(&'static str, &'static str, &'static str)]),
    /// It is this one request; the connection ends with its response, for somebody in front may have taken it for more.
    Last(&'static str, &'static str, &'static str),
    /// It is these requests, and the connection ends with the last of them likewise.
    Ended(&'static [(&'static str, &'static str, &'static str)]),
}

use Fate::{BrokenOff, Ended, Last, Passed, Refused};

#[rustfmt::skip]
const CASES: &[(&str, &str, Fate)] = &[
    // LF in heads stands for CR LF, for everybody.
    ("LF behind the request line", "GET /a HTTP/1.1\nHost: a\r\n\r\n", Passed(&[("/a", "", "")])),
    ("LF behind a field", "GET /a HTTP/1.1\r\nHost: a\nX-Mark: 1\r\n\r\n", Passed(&[("/a", "1", "")])),
    ("LF everywhere", "GET /a HTTP/1.1\nHost: a\nX-Mark: 1\n\n", Passed(&[("/a", "1", "")])),
    ("LF for the empty line", "GET /a HTTP/1.1\r\nHost: a\r\nX-Mark: 1\r\n\n", Passed(&[("/a", "1", "")])),
    ("LF before the empty line", "GET /a HTTP/1.1\r\nHost: a\r\nX-Mark: 1\n\r\n", Passed(&[("/a", "1", "")])),
    ("LF in a value", "GET /a HTTP/1.1\r\nHost: a\r\nX: 1\nX-Mark: 1\r\n\r\n", Passed(&[("/a", "1", "")])),
    ("LF before a length", "POST /a HTTP/1.1\r\nHost: a\r\nX: 1\nContent-Length: 4\r\n\r\nfour", Passed(&[("/a", "", "four")])),
    ("LF before a coding", "POST /a HTTP/1.1\r\nHost: a\r\nX: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Passed(&[("/a", "", "")])),
    ("LF before a second length", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\nContent-Length: 5\r\n\r\nfour5", Refused(400, "bad-length")),
    ("LF before a second host", "GET /a HTTP/1.1\r\nHost: a\nHost: b\r\n\r\n", Refused(400, "several-hosts")),
    ("LF before a fold", "GET /a HTTP/1.1\r\nHost: a\r\nX: 1\n X-Mark: 1\r\n\r\n", Refused(400, "bad-header")),
    ("LF LF ends a head", "GET /a HTTP/1.1\r\nHost: a\r\nX: 1\n\nGET /b HTTP/1.1\r\nHost: a\r\nX-Mark: 1\r\n\r\n", Passed(&[("/a", "", ""), ("/b", "1", "")])),
    ("LF before a request", "\n\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[("/a", "", "")])),
    ("LF in the target", "GET /a\n HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("LF in a name", "GET /a HTTP/1.1\r\nHost: a\r\nX-\nMark: 1\r\n\r\n", Refused(400, "bad-header")),
    // CR alone is nothing anywhere.
    ("CR behind the request line", "GET /a HTTP/1.1\rHost: a\r\n\r\n", Refused(400, "bad-header")),
    ("CR in the target", "GET /a\r HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-target")),
    ("CR before the method", "\rGET /a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-header")),
    ("CR behind a field", "GET /a HTTP/1.1\r\nHost: a\rX-Mark: 1\r\n\r\n", Refused(400, "bad-header")),
    ("CR in a name", "GET /a HTTP/1.1\r\nHost: a\r\nX-\rMark: 1\r\n\r\n", Refused(400, "bad-header")),
    ("CR before the colon", "GET /a HTTP/1.1\r\nHost: a\r\nX-Mark\r: 1\r\n\r\n", Refused(400, "bad-header")),
    ("CR CR LF", "GET /a HTTP/1.1\r\nHost: a\r\r\n\r\n", Refused(400, "bad-header")),
    ("CR for the empty line", "GET /a HTTP/1.1\r\nHost: a\r\n\rGET /b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400, "bad-header")),
    // Chunks end as they have to.
    ("LF behind a size", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("CR behind a size", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\rfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("LF in an extension", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a\nb\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("CR in an extension", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;a\rb\r\nfour\r\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("LF behind a chunk", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\n0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("CR behind a chunk", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r0\r\n\r\n", BrokenOff(400, "bad-body")),
    ("LF behind the last size", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\n\r\n", BrokenOff(400, "bad-body")),
    // Behind the chunks, LF is what it is in heads; what stands behind two of them is read by nobody.
    ("LF for the last line", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Last("/a", "", "")),
    ("LF LF behind trailers", "POST /a HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Last("/a", "", "four")),
    ("LF in a trailer", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\nX-Mark: 1\r\n\r\n", BrokenOff(400, "bad-body")),
    ("CR in a trailer", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\rX-Mark: 1\r\n\r\n", BrokenOff(400, "bad-body")),
    ("CR for the last line", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\rGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", BrokenOff(400, "bad-body")),
    ("trailers as they should be", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[("/a", "", ""), ("/late", "", "")])),
    ("trailers behind a head with LF", "POST /a HTTP/1.1\r\nHost: a\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n", Last("/a", "", "")),
    ("trailers behind content with LF", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\nbc\r\n0\r\nX: y\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[("/a", "", "a\nbc"), ("/late", "", "")])),
    ("trailers behind content that looks like its end", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n\r\n0\r\nX: y\r\n\r\n\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Last("/a", "", "\r\n0\r\nX: y\r\n\r\n")),
    ("trailers of a GET", "GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[("/a", "", "a"), ("/late", "", "")])),
    ("trailers of a DELETE", "DELETE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[("/a", "", ""), ("/late", "", "")])),
    ("LF LF behind trailers of a DELETE", "DELETE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Last("/a", "", "")),
    ("trailers of a method of one's own", "abc /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n", Passed(&[("/a", "", ""), ("/late", "", "")])),
    ("trailers of several requests", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\nDELETE /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX: y\r\n\r\n", Passed(&[("/a", "", "a"), ("/b", "", "b")])),
    ("LF LF behind the trailers of the second", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\nDELETE /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Ended(&[("/a", "", "a")])),
    ("trailers behind another request", "GET /b HTTP/1.1\r\nHost: a\r\n\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Ended(&[("/b", "", ""), ("/a", "", "")])),
    ("trailers as they should be behind another request", "GET /b HTTP/1.1\r\nHost: a\r\n\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", Passed(&[("/b", "", ""), ("/a", "", "")])),
    ("trailers behind content of a known length", "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nbPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Ended(&[("/b", "", "b"), ("/a", "", "")])),
];

#[tokio::test]
async fn lines_end_alike_for_rules_servers_and_logs() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;
    let mut logged = 0;
    let mut wrong = Vec::new();
    for (what, bytes, fate) in CASES {
        let (before, text_before) = (app.requests().len(), app.seen_text().len());
        let mut client = gateway.connect("web").await;
        client.send(bytes).await;
        let (expected, status, reason): (&[(&str, &str, &str)], u16, &str) = match fate {
            Refused(status, reason) | BrokenOff(status, reason) => (&[], *status, reason),
            Passed(requests) | Ended(requests) => (requests, 200, ""),
            Last(target, mark, content) => (&[(*target, *mark, *content)], 200, ""),
        };
        let mut got = Vec::new();
        for _ in 0..expected.len().max(1) {
            got.extend(client.try_response().await.map(|answer| answer.status));
        }
        // A connection that goes on is used once more.
        let goes_on = match fate {
            Passed(_) => {
                client.send(get("/next").bytes()).await;
                client.try_response().await.is_some_and(|answer| answer.status == 200)
            }
            _ => !client.ends().await,
        };
        let whole = app.requests().split_off(before);
        let is_seen = app.seen_text().len() > text_before;
        let lines = gateway
            .access_log(logged + expected.len().max(1))
            .await
            .split_off(logged);
        logged += expected.len().max(1) + usize::from(matches!(fate, Passed(_)));

        let mut fits = got.iter().all(|got| *got == status) && got.len() == expected.len().max(1);
        fits &= goes_on == matches!(fate, Passed(_));
        fits &= !(is_seen && matches!(fate, Refused(..)));
        let is_one_thing = |(n, (target, mark, content)): (usize, &(&str, &str, &str))| {
            let (Some(seen), Some(line)) = (whole.get(n), lines.get(n)) else {
                return false;
            };
            let decided = seen.headers.get("x-decided").unwrap_or_default();
            let raw = String::from_utf8_lossy(&seen.raw).replace("\r\n", "");
            seen.target == *target
                && seen.headers.get("x-mark").unwrap_or_default() == *mark
                && seen.body == content.as_bytes()
                && decided == if *mark == "1" { "marked" } else { "" }
                && line["target"] == *target
                && line["captures"]["x-mark"].as_str().unwrap_or_default() == *mark
                && !raw.contains(['\r', '\n'])
        };
        fits &= whole.len() == expected.len() + usize::from(matches!(fate, Passed(_)));
        fits &= expected.iter().enumerate().all(is_one_thing);
        if expected.is_empty() {
            fits &= lines
                .first()
                .is_some_and(|line| line["reason"] == reason && line["status"] == status);
        }
        if !fits {
            wrong.push(format!(
                "{what}: the client got {got:?} (on: {goes_on}); the server saw {whole:?}; {lines:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(app.requests().iter().all(|request| request.target != "/smuggled"));
}
