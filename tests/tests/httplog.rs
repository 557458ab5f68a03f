//! Access lines as whoever reads HAProxy's expects them: captures, formats of one's own, and which lines are written.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::time::Duration;

use gateway_tests::http2::Http2Client;
use gateway_tests::tls::{Authority, TlsServer};
use gateway_tests::{Answer, Gateway, HttpServer, PATIENCE, Server, blackhole, eventually, get, within};
use http::Request;
use regex::Regex;

/// A gateway whose frontend says this; `log` is where to and how.
async fn gateway(log: &str, says: &str, app: &HttpServer) -> Gateway {
    Gateway::kdl(
        r#"
        process { workers 1; @log }
        frontend "web" {
            bind "127.0.0.1:0"
            @says
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@log", log)
    .with("@says", says)
    .with("@app", app.address())
    .start()
    .await
}

const TEXT: &str = r#"log "stdout" format="text""#;
const JSON: &str = r#"log "stdout" format="json""#;

/// HAProxy's manual, "HTTP log format", field by field; what the gateway adds stands behind the request.
const HTTPLOG: &str = concat!(
    r"(?m)^(?P<client>\S+):(?P<port>\d+) \[(?P<date>\d{2}/\w{3}/\d{4}:\d{2}:\d{2}:\d{2}\.\d{3})\] (?P<frontend>\S+) ",
    r"(?P<backend>[^ /]+)/(?P<server>\S+) (?P<tr>-?\d+)/(?P<tw>-?\d+)/(?P<tc>-?\d+)/(?P<rt>-?\d+)/(?P<ta>\+?\d+) ",
    r"(?P<status>-?\d+) (?P<bytes>\+?\d+) (?P<cc>\S+) (?P<cs>\S+) (?P<state>[A-Za-z-]{4}) ",
    r"(?P<act>\d+)/(?P<fe>\d+)/(?P<be>\d+)/(?P<srv>\d+)/(?P<retries>\+?\d+) (?P<sq>\d+)/(?P<bq>\d+)",
    r"(?: \{(?P<req>[^}]*)\} \{(?P<res>[^}]*)\})? ",
    r#""(?P<method>\S+) (?P<uri>\S+) (?P<version>HTTP/\d\.\d)"$"#,
);

#[tokio::test]
async fn a_line_reads_as_haproxys_with_what_was_captured() {
    let app = HttpServer::start(|_| {
        Answer::ok("hello")
            .header("Content-Type", "text/plain")
            .header("Set-Cookie", "SID=new; Path=/")
    })
    .await;
    let captures = r#"
            capture header="Host" max=64
            capture header="User-Agent" max=6
            capture path max=5
            capture response-header="Content-Type" max=4
            capture cookie="SID" max=7"#;
    let gateway = gateway(TEXT, captures, &app).await;
    let request = get("/index.html?a=1")
        .host("shop.example")
        .header("User-Agent", "a{b}|\"#\tc")
        .header("Cookie", "other=1; SID=0123456789");
    gateway.ask("web", request).await;
    gateway.ask("web", get("/")).await;
    gateway.says("\"GET / HTTP/1.1\"").await;

    let regex = Regex::new(HTTPLOG).unwrap();
    let output = gateway.output();
    let lines: Vec<_> = regex.captures_iter(&output).collect();
    assert_eq!(lines.len(), 2, "{output}");
    let line = &lines[0];
    assert_eq!(
        (&line["frontend"], &line["backend"], &line["server"]),
        ("web", "app", "app-1")
    );
    assert_eq!((&line["status"], &line["bytes"], &line["state"]), ("200", "5", "----"));
    assert_eq!((&line["method"], &line["uri"]), ("GET", "/index.html?a=1"));
    // Nothing of it can pass for another field: HAProxy's way with braces and bars.
    assert_eq!(&line["req"], "shop.example|a#7Bb#7D#7C#22|/inde");
    assert_eq!(&line["res"], "text");
    assert_eq!((&line["cc"], &line["cs"]), ("SID=012", "SID=new"));
    let line = &lines[1];
    assert_eq!((&line["req"], &line["res"]), ("test.example||/", "text"));
    assert_eq!((&line["cc"], &line["cs"]), ("-", "SID=new"));
}

/// Each case makes somebody wait at another point; the timer of that point has it, and together they are within the whole.
#[tokio::test]
async fn timers_tell_where_the_time_went() {
    const WAIT: Duration = Duration::from_millis(250);
    let app = HttpServer::start(|request| match &*request.target {
        "/head" => Answer::nothing()
            .then_pause(WAIT)
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        // Longer than what it takes to see it come and to queue up behind it.
        "/ahead" => Answer::nothing()
            .then_pause(WAIT * 8)
            .then_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        "/content" => Answer::head_only(2).then_send("o").then_pause(WAIT).then_send("k"),
        _ => Answer::ok("ok"),
    })
    .await;
    let (nobody, _held) = blackhole().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            acl "away" { path "/connect" }
            use-backend "away" if="away"
            default-backend "app"
        }
        backend "app" { server "app-1" "@app" max-connections=1 }
        backend "away" {
            balance "first"
            retries 1 redispatch="each"
            timeout connect="250ms"
            server "nobody" "@nobody" max-connections=5
            server "app-1" "@app"
        }
    "#,
    )
    .with("@app", app.address())
    .with("@nobody", nobody)
    .start()
    .await;
    let timers = ["request_ms", "queue_ms", "connect_ms", "response_ms"];
    let mut lines = 0;
    for (what, timer) in [
        ("a head in two parts", Some("request_ms")),
        ("/connect", Some("connect_ms")),
        ("/head", Some("response_ms")),
        ("/content", None),
        ("/waits", Some("queue_ms")),
    ] {
        let mut client = gateway.connect("web").await;
        match what {
            "a head in two parts" => {
                client.send("GET / HTTP/1.1\r\nHo").await;
                tokio::time::sleep(WAIT).await;
                client.send("st: a\r\n\r\n").await;
                client.response().await;
            }
            "/waits" => {
                let seen = app.requests().len();
                let mut before = gateway.connect("web").await;
                before.send(get("/ahead").bytes()).await;
                app.has_seen(seen + 1).await;
                client.ask(get(what)).await;
                before.response().await;
                lines += 1;
            }
            _ => {
                client.ask(get(what)).await;
            }
        }
        lines += 1;
        let all = gateway.access_log(lines).await;
        let line = match what {
            "a head in two parts" => &all[0],
            _ => all.iter().find(|line| line["target"] == what).unwrap(),
        };
        // The server's pause begins when it has the request, which is a little before the gateway has written all of it; and a queue
        // is joined a little after the one ahead was sent on.
        let least = WAIT.as_secs_f64() * 1000.0 * 0.6;
        let of = |timer: &str| line[timer].as_f64().unwrap_or(0.0);
        let (known, total) = (timers.map(of).iter().sum::<f64>(), of("total_ms"));
        assert!(known <= total + 0.01, "{what}: {line}");
        match timer {
            Some(timer) => assert!(of(timer) >= least, "{what}: {line}"),
            None => assert!(total - known >= least, "{what}: {line}"),
        }
    }
}

#[tokio::test]
async fn json_has_captures_by_name() {
    let app = HttpServer::answering("hello").await;
    let captures = r#"
            capture header="Host" max=4
            capture header="X-None"
            capture path max=128
            capture response-header="Content-Length" max=4
            capture cookie="SID""#;
    let gateway = gateway(JSON, captures, &app).await;
    gateway.ask("web", get("/a?b").header("Cookie", "SID=1")).await;
    let lines = gateway.access_log(1).await;
    let line = &lines[0];
    assert_eq!(line["captures"]["host"], "test");
    assert_eq!(line["captures"]["x-none"], serde_json::Value::Null);
    assert_eq!(line["captures"]["path"], "/a");
    assert_eq!(line["response_captures"]["content-length"], "5");
    assert_eq!(
        (&line["request_cookie"], &line["response_cookie"]),
        (&"SID=1".into(), &().into())
    );
}

#[tokio::test]
async fn a_line_has_the_format_that_it_was_given() {
    let app = HttpServer::start(|_| Answer::ok("hello").header("X-Cache", "HIT")).await;
    let format = r##"log-format #"L %{client-ip} %{frontend}/%{backend}/%{server} %{status} %{bytes-sent} "%{request-line}" "%{header:user-agent}" %{header:user-agent} %{response-header:x-cache} %{cookie:sid} %{query} %{path} %{termination} %{total-ms} 100% %%{x} %{reason}"#"##;
    let gateway = gateway(TEXT, format, &app).await;
    let request = get("/p?q=1")
        .header("User-Agent", "curl \"8\"")
        .header("Cookie", "sid=a b");
    gateway.ask("web", request).await;
    gateway.raw("web", "nonsense\r\n\r\n").await;
    gateway.says("<BADREQ>").await;
    let output = gateway.output();
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with("L ")).collect();
    let regex = Regex::new(r#"^(L 127\.0\.0\.1 .* --) \d+ (100% .*)$"#).unwrap();
    let first = regex.captures(lines[0]).unwrap();
    assert_eq!(
        &first[1],
        "L 127.0.0.1 web/app/app-1 200 5 \"GET /p?q=1 HTTP/1.1\" \"curl #228#22\" curl#20#228#22 HIT a#20b q=1 /p --"
    );
    assert_eq!(&first[2], "100% %{x} -");
    assert!(
        lines[1].starts_with("L 127.0.0.1 web/-/- 400 16 \"<BADREQ>\" \"-\" - - - - - PR "),
        "{}",
        lines[1]
    );
    assert!(lines[1].ends_with(" bad-request"), "{}", lines[1]);
}

#[tokio::test]
async fn a_format_of_json_cannot_be_broken_out_of() {
    let app = HttpServer::answering("").await;
    let format =
        r##"log-format #"{"frontend":"%{frontend}","ua":"%{header:user-agent}","ms":%{total-ms}}"# escape="json""##;
    let gateway = gateway(TEXT, format, &app).await;
    gateway
        .ask("web", get("/").header("User-Agent", "a\",\"b\":\"\\"))
        .await;
    let lines = gateway.access_log(1).await;
    assert_eq!(lines[0]["ua"], "a\",\"b\":\"\\");
    assert_eq!(lines[0].as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn connections_have_formats_too() {
    let app = Server::echo().await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="text" }
        frontend "raw" {
            mode "tcp"
            bind "127.0.0.1:0"
            log-format "T %{client-ip} %{server} %{bytes-received} %{bytes-sent} %{termination}"
            default-backend "raw"
        }
        backend "raw" { mode "tcp"; server "raw-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let mut client = gateway.connect("raw").await;
    client.send("12345").await;
    client.exactly(5).await;
    client.half_close().await;
    client.closed().await;
    gateway.says("T 127.0.0.1 raw-1 5 5 --").await;
}

/// Answers 500 where it is asked for it.
async fn moody() -> HttpServer {
    HttpServer::start(|request| match request.target.as_str() {
        "/bad" => Answer::status(500),
        _ => Answer::ok(""),
    })
    .await
}

#[tokio::test]
async fn only_errors_are_logged_when_told_so() {
    let app = moody().await;
    let gateway = gateway(JSON, "access-log only-errors", &app).await;
    for path in ["/", "/bad", "/"] {
        gateway.ask("web", get(path)).await;
    }
    gateway.raw("web", "nonsense\r\n\r\n").await;
    let mut statuses: Vec<_> = gateway
        .access_log(2)
        .await
        .iter()
        .map(|line| line["status"].clone())
        .collect();
    statuses.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(statuses, [400, 500]);
}

#[tokio::test]
async fn of_what_went_well_a_sample_is_logged_and_of_the_rest_all() {
    let app = moody().await;
    let gateway = gateway(JSON, "access-log sample=0.5", &app).await;
    let mut client = gateway.connect("web").await;
    for turn in 0..400 {
        client.ask(get(if turn % 4 == 0 { "/bad" } else { "/" })).await;
    }
    // Errors come last, too: then all before are written.
    client.ask(get("/bad")).await;
    let is_bad = |line: &serde_json::Value| line["status"] == 500;
    eventually("every error", async || {
        gateway.access_lines().iter().filter(|line| is_bad(line)).count() == 101
    })
    .await;
    let well = gateway.access_lines().len() - 101;
    // 300 throws of a coin: eight standard deviations.
    assert!((80..220).contains(&well), "{well}");
}

#[tokio::test]
async fn a_condition_says_which_requests_are_logged() {
    let app = moody().await;
    let says = r#"
            acl "probe" { path "/health" }
            access-log unless="probe""#;
    let gateway = gateway(JSON, says, &app).await;
    for path in ["/health", "/a", "/health", "/b"] {
        gateway.ask("web", get(path)).await;
    }
    let lines = gateway.access_log(2).await;
    let targets: Vec<_> = lines.iter().map(|line| line["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["/a", "/b"]);
}

#[tokio::test]
async fn lines_of_errors_are_grave_when_told_so() {
    let app = moody().await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let log = format!(r#"log "udp://{}""#, socket.local_addr().unwrap());
    let gateway = gateway(&log, "access-log separate-errors", &app).await;
    gateway.ask("web", get("/bad")).await;
    gateway.ask("web", get("/")).await;
    let mut priorities = Vec::new();
    let mut datagram = vec![0; 4096];
    while priorities.len() < 2 {
        let length = within(PATIENCE, "a line", socket.recv(&mut datagram)).await.unwrap();
        let line = String::from_utf8_lossy(&datagram[..length]).into_owned();
        if line.contains("app/app-1") && line.contains("\"GET ") {
            priorities.push(line.split('>').next().unwrap().to_owned());
        }
    }
    // local0, and err or info (RFC 5424, section 6.2.1).
    assert_eq!(priorities, ["<131", "<134"]);
}

#[tokio::test]
async fn a_server_that_is_not_reached_in_time_is_told_from_one_that_refuses() {
    let (silent, _guard) = blackhole().await;
    let authority = Authority::new();
    let strange = TlsServer::start(authority.server(&["elsewhere.internal"])).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" {
            bind "127.0.0.1:0"
            use-backend "strange" { path "/strange" }
            default-backend "silent"
        }
        backend "silent" { timeout connect="200ms"; retries 0; server "a" "@silent" }
        backend "strange" { retries 0; server "a" "@strange" { tls ca="ca.pem" sni="app.internal" } }
    "#,
    )
    .file("ca.pem", authority.pem())
    .with("@silent", silent)
    .with("@strange", strange.address())
    .start()
    .await;
    for path in ["/", "/strange"] {
        assert_eq!(gateway.ask("web", get(path)).await.status, 503, "{path}");
    }
    let lines = gateway.access_log(2).await;
    for (line, (state, reason)) in lines
        .iter()
        .zip([("sC", "connect-timeout"), ("SC", "server-tls-failed")])
    {
        assert_eq!(
            (&line["termination"], &line["reason"]),
            (&state.into(), &reason.into()),
            "{line}"
        );
        assert_eq!(line["connect_ms"], serde_json::Value::Null, "{line}");
        let labels = [("frontend", "web"), ("reason", reason)];
        gateway.metric_is("gateway_frontend_errors_total", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_told_from_one_that_leaves() {
    let app = HttpServer::answering("").await;
    let says = r#"timeout http-request="200ms"; log-format "N %{termination} %{reason} rule=%{rule} %{status}""#;
    let gateway = gateway(TEXT, says, &app).await;
    drop(gateway.connect("web").await);
    gateway.says("N CR no-request rule=- -1").await;
    gateway.connect("web").await.closed().await;
    gateway.says("N cR no-request rule=- -1").await;
}

#[tokio::test]
async fn a_client_that_leaves_in_its_content_is_told_from_one_that_garbles_it() {
    let app = HttpServer::answering("").await;
    let gateway = gateway(JSON, "", &app).await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n";
    let sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nfour";
    let cases = [
        (format!("{chunked}no size\r\n"), "PR", "bad-body"),
        // As HAProxy has it: the head of an answer was awaited meanwhile.
        (chunked.to_owned(), "CD", "body-aborted"),
        (sized.to_owned(), "CD", "body-aborted"),
    ];
    for (n, (bytes, state, reason)) in cases.into_iter().enumerate() {
        let mut client = gateway.connect("web").await;
        client.send(bytes).await;
        // It may still read.
        client.half_close().await;
        assert_eq!(client.response().await.status, 400, "{reason}");
        let line = &gateway.access_log(n + 1).await[n];
        assert_eq!(
            (&line["termination"], &line["reason"]),
            (&state.into(), &reason.into()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn an_upload_that_its_client_resets_ends_alike_in_both_versions() {
    let app = Server::start(|mut wire, _| async move { wire.rest().await.map(drop) }).await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; default-backend "app" }
        backend "app" { server "app-1" "@app" }
    "#,
    )
    .with("@app", app.address())
    .start()
    .await;
    let has = async |text: &str| eventually("it is with the server", async || app.seen_text().contains(text)).await;

    let mut client = gateway.connect("web").await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nfirst")
        .await;
    has("first").await;
    client.reset();

    let client = Http2Client::connect(gateway.address("web")).await;
    let request = Request::post("http://app.example/").header("content-length", "100");
    let (response, mut stream) = client.open(request.body(()).unwrap(), false).await;
    stream.send_data("second".into(), false).unwrap();
    has("second").await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);

    // As HAProxy has it: content was passing.
    for line in gateway.access_log(2).await {
        assert_eq!(line["termination"], "CD", "{line}");
    }
}
