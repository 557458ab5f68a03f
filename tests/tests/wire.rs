//! Requests on the edge of HTTP/1.1, byte by byte: what the client gets, and what the server gets to see. What the two ends
//! could read differently is refused (RFC 9112, sections 2.2, 5, 6.3 and 11.2).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::{Gateway, HttpServer, get};

const PLAIN: &str = r#"
    frontend "web" { bind "127.0.0.1:0"; timeout http-request="1s" client="1s"; default-backend "app" }
    backend "app" { server "app-1" "@app" }
"#;

/// What has to become of a request.
enum Fate {
    /// It is refused with this status, the connection is closed, and no server sees any of it.
    Refused(u16),
    /// It is forwarded as one request with this content.
    Forwarded(&'static str),
    /// It is forwarded as chunks with this content, and without a length. What follows the last chunk is the next request,
    /// and passes by the same rules as any (RFC 9112, section 6.3, 3).
    Rechunked(&'static str),
    /// Either will do: the RFC leaves it open. Two requests it must never become.
    Either(&'static str),
}

use Fate::{Either, Forwarded, Rechunked, Refused};

const CASES: &[(&str, &str, Fate)] = &[
    (
        "content-length and transfer-encoding",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Rechunked(""),
    ),
    (
        "transfer-encoding and content-length",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
        Rechunked(""),
    ),
    (
        "two lengths that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "two lengths that agree",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfour",
        Either("four"),
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nfour5",
        Refused(400),
    ),
    (
        "a signed length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nfour",
        Refused(400),
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        Refused(400),
    ),
    (
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nfour",
        Refused(400),
    ),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx",
        Refused(400),
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "a coding that is none",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunked is not the last coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Either(""),
    ),
    (
        "a coding with a vertical tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunked from a client of 1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "space before the colon",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nfour",
        Refused(400),
    ),
    (
        "space before the colon of the coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a folded field",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Fold: one\r\n two\r\n\r\n",
        Refused(400),
    ),
    (
        "a folded coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a field before the first",
        "GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "no colon",
        "GET / HTTP/1.1\r\nHost: a\r\nNonsense\r\n\r\n",
        Refused(400),
    ),
    ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: value\r\n\r\n", Refused(400)),
    (
        "a bare CR in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        Refused(400),
    ),
    (
        "a NUL in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        Refused(400),
    ),
    (
        "a NUL in the target",
        "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "a space in the target",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        Refused(400),
    ),
    (
        "a control character in a name",
        "GET / HTTP/1.1\r\nHost: a\r\nX\x01Y: 1\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk size that is none",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk size with a sign",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk size with a prefix",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk size beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk longer than its size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk line that ends in LF",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "a chunk extension with a bare LF",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "an empty line before the request",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Forwarded(""),
    ),
    (
        "chunks",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Forwarded("abc"),
    ),
    (
        "a GET with content",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfour",
        Forwarded("four"),
    ),
    (
        "content that looks like a request",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n",
        Forwarded("GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"),
    ),
];

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    for (what, bytes, fate) in CASES {
        let before = app.requests().len();
        let mut client = gateway.connect("web").await;
        client.send(bytes).await;
        let answer = client.try_response().await;
        let status = answer.as_ref().map(|answer| answer.status);
        let seen = &app.requests()[before..];
        match (fate, status) {
            (Refused(expected), status) => {
                assert_eq!(status, Some(*expected), "{what}");
                client.closed().await;
                assert!(seen.is_empty(), "{what}: the server saw {seen:?}");
            }
            (Forwarded(body), _) | (Either(body), Some(200)) => {
                assert_eq!(status, Some(200), "{what}");
                assert_eq!(seen.len(), 1, "{what}: the server saw {seen:?}");
                assert_eq!(seen[0].body, body.as_bytes(), "{what}");
            }
            (Rechunked(body), status) => {
                assert_eq!(status, Some(200), "{what}");
                assert_eq!(seen[0].body, body.as_bytes(), "{what}");
                assert!(!seen[0].headers.has("content-length"), "{what}: {:?}", seen[0].headers);
            }
            (Either(_), status) => {
                assert_eq!(status, Some(400), "{what}");
                assert!(seen.is_empty(), "{what}: the server saw {seen:?}");
            }
        }
        assert!(
            app.requests().iter().all(|request| request.target != "/smuggled"),
            "{what}"
        );
    }
    assert_eq!(gateway.ask("web", get("/")).await.status, 200);
}

/// RFC 9112, section 2.2, lets a recipient take a bare LF for a line's end. Whoever does must then not forward it as
/// something else: all that counts is that the server sees one request, with proper lines, or none.
#[tokio::test]
async fn bare_line_feeds_never_reach_the_server() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    for bytes in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = gateway.connect("web").await;
        client.send(bytes).await;
        let status = client.try_response().await.map(|answer| answer.status);
        assert!(matches!(status, Some(200 | 400 | 408) | None), "{bytes:?}: {status:?}");
    }
    for request in app.requests() {
        let raw = String::from_utf8(request.raw).unwrap();
        assert!(!raw.replace("\r\n", "").contains(['\r', '\n']), "{raw:?}");
    }
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(PLAIN).with("@app", app.address()).start().await;

    let mut client = gateway.connect("web").await;
    for byte in post_chunked() {
        client.send([byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    assert_eq!(client.response().await.status, 200);
    assert_eq!(app.last().body, b"abcdef");
}

fn post_chunked() -> Vec<u8> {
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n".to_vec()
}
