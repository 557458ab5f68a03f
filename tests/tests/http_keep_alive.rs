//! `http-keep-alive`: how much and how long a client's connection is used, and that it ends in order.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;

use gateway_tests::http2::{Http2Client, Http2Frame, Http2Frames, Http2Server, frame, http2_get};
use gateway_tests::{Gateway, HttpServer, PATIENCE, eventually, get, within};
use tokio::sync::Notify;

async fn gateway(limits: &str, server: &str) -> Gateway {
    Gateway::kdl(
        r#"
        process { workers 1; log "stdout" format="json" }
        frontend "web" { bind "127.0.0.1:0"; http-keep-alive @limits; default-backend "app" }
        backend "app" { server "app-1" @server }
    "#,
    )
    .with("@limits", limits)
    .with("@server", server)
    .start()
    .await
}

fn plain(app: &HttpServer) -> String {
    format!("\"{}\"", app.address())
}

#[tokio::test]
async fn the_last_answer_of_http_1_says_that_it_is() {
    let app = HttpServer::answering("hello").await;
    let gateway = gateway("max-requests=3", &plain(&app)).await;
    let mut client = gateway.connect("web").await;
    for _ in 0..2 {
        let answer = client.ask(get("/")).await;
        assert_eq!((answer.text(), answer.header("connection")), ("hello", None));
    }
    let last = client.ask(get("/")).await;
    assert_eq!((last.text(), last.header("connection")), ("hello", Some("close")));
    assert!(client.ends().await);
    // Each connection counts for itself, and what comes behind the last request is not served.
    let mut client = gateway.connect("web").await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5)).await;
    let answers = String::from_utf8(client.until_end().await).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 3, "{answers}");
    assert_eq!(app.requests().len(), 6);
}

#[tokio::test]
async fn a_connection_of_http_1_ends_with_its_age() {
    let app = HttpServer::answering("hello").await;
    let gateway = gateway("max-age=\"1s\"", &plain(&app)).await;
    let mut client = gateway.connect("web").await;
    let ending = async {
        while client.ask(get("/")).await.header("connection") != Some("close") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    within(PATIENCE, "the last answer", ending).await;
    assert!(client.ends().await);
}

/// A server that answers `/held` when it is told to, and all else at once.
async fn holding() -> (Http2Server, Arc<Notify>) {
    let told = Arc::new(Notify::new());
    let waits = told.clone();
    let server = Http2Server::start(move |exchange: gateway_tests::http2::Http2Exchange| {
        let waits = waits.clone();
        async move {
            if exchange.request.uri().path() == "/held" {
                waits.notified().await;
            }
            exchange.answer("hello")
        }
    })
    .await;
    (server, told)
}

const HEAD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "app.example"),
    (":path", "/held"),
];

/// The client is told to go elsewhere; what it has under way is answered when `told` is, and then the connection ends.
async fn goes_in_order(mut client: Http2Frames, told: &Notify) {
    let (mut farewell, mut ping) = (None, None);
    while farewell.is_none() || ping.is_none() {
        let next = client.next().await;
        match next.kind {
            GOAWAY => farewell = next.code(),
            PING if next.flags == 0 => ping = Some(next.payload),
            _ => {}
        }
    }
    assert_eq!(farewell, Some(0));
    // Only when it has heard of it, a client is told which of its streams were the last.
    client.send(frame(PING, 1, 0, &ping.unwrap())).await;
    told.notify_one();
    client.find(|frame| frame.kind == DATA && frame.stream == 1).await;
    assert!(client.ends().await);
}

#[tokio::test]
async fn a_connection_of_http_2_is_told_to_go_and_what_is_under_way_is_answered() {
    let (app, told) = holding().await;
    let gateway = gateway("max-requests=3", &format!("\"{}\" h2", app.address())).await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.request(1, &HEAD).await;
    let mut other = HEAD;
    other[3].1 = "/";
    client.request(3, &other).await;
    client.find(|frame| frame.kind == DATA && frame.stream == 3).await;
    client.request(5, &other).await;
    goes_in_order(client, &told).await;
    assert_eq!(app.requests().len(), 3);
    // A client of everyday's notices nothing: it takes another connection.
    let client = Http2Client::connect(gateway.address("web")).await;
    for _ in 0..3 {
        assert_eq!(client.ask(http2_get("/")).await.text(), "hello");
    }
    client.ended().await.unwrap();
    assert!(gateway.access_log(6).await.iter().all(|line| line["status"] == 200));
}

#[tokio::test]
async fn a_connection_of_http_2_goes_with_its_age_whatever_is_under_way() {
    let (app, told) = holding().await;
    let gateway = gateway("max-age=\"2s\"", &format!("\"{}\" h2", app.address())).await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.request(1, &HEAD).await;
    eventually("the request is under way", async || app.requests().len() == 1).await;
    goes_in_order(client, &told).await;
}

/// Who never says that it has heard of it might go on for ever.
#[tokio::test]
async fn a_client_of_http_2_that_hears_nothing_is_refused_in_time_and_its_connection_ends() {
    let (app, told) = holding().await;
    let limits = "max-requests=1; timeout http-request=\"500ms\" http-keep-alive=\"1h\"";
    let gateway = gateway(limits, &format!("\"{}\" h2", app.address())).await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.request(1, &HEAD).await;
    client.find(|frame| frame.kind == GOAWAY).await;
    let mut other = HEAD;
    other[3].1 = "/";
    let going_on = async {
        for stream in (3..).step_by(2) {
            client.request(stream, &other).await;
            let ends = |frame: &Http2Frame| frame.stream == stream && (frame.kind == DATA || frame.kind == RST_STREAM);
            let last = client.find(ends).await;
            if last.kind == RST_STREAM {
                return last.code();
            }
        }
        None
    };
    assert_eq!(
        within(PATIENCE, "it is refused", going_on).await,
        Some(h2::Reason::REFUSED_STREAM.into())
    );
    // What is under way is answered yet, and then there is nothing to wait for.
    told.notify_one();
    client.find(|frame| frame.kind == DATA && frame.stream == 1).await;
    client.find(|frame| frame.kind == GOAWAY).await;
    assert!(client.ends().await);
}

/// It may not have read yet that it should go. Far more of them than it may reset cost it nothing of what is under way.
#[tokio::test]
async fn streams_that_come_too_late_may_have_been_on_their_way() {
    let (app, told) = holding().await;
    let limits =
        "max-requests=1; timeout http-request=\"500ms\" http-keep-alive=\"1h\"; http2 max-streams=10 max-resets=2";
    let gateway = gateway(limits, &format!("\"{}\" h2", app.address())).await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    client.request(1, &HEAD).await;
    client.find(|frame| frame.kind == GOAWAY).await;
    // Its time to hear of that is over.
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    let mut other = HEAD;
    other[3].1 = "/";
    let late = || (3..).step_by(2).take(9);
    for stream in late() {
        client.request(stream, &other).await;
    }
    for stream in late() {
        let refused = client
            .find(|frame| frame.kind == RST_STREAM && frame.stream == stream)
            .await;
        assert_eq!(refused.code(), Some(h2::Reason::REFUSED_STREAM.into()));
    }
    told.notify_one();
    client.find(|frame| frame.kind == DATA && frame.stream == 1).await;
    client.find(|frame| frame.kind == GOAWAY).await;
    assert!(client.ends().await);
}

/// Nothing is under way any more when all of an answer has been handed over, though its client may have read none of it.
#[tokio::test]
async fn what_a_slow_client_of_http_2_has_not_read_is_not_thrown_away_when_it_should_be_gone() {
    let told = Arc::new(Notify::new());
    let waits = told.clone();
    let app = Http2Server::start(move |exchange: gateway_tests::http2::Http2Exchange| {
        let waits = waits.clone();
        async move {
            if exchange.request.uri().path() != "/held" {
                return exchange.answer(vec![0_u8; 32 << 20]);
            }
            waits.notified().await;
            exchange.answer(vec![1_u8; 5_000])
        }
    })
    .await;
    let limits = "max-requests=2; timeout http-request=\"500ms\" http-keep-alive=\"1h\"";
    let gateway = gateway(limits, &format!("\"{}\" h2", app.address())).await;
    let mut client = Http2Frames::connect(gateway.address("web")).await;
    // Windows for more than a socket takes: what is not read waits in the gateway.
    client.send(frame(SETTINGS, 0, 0, &[0, 4, 0x40, 0, 0, 0])).await;
    client
        .send(frame(WINDOW_UPDATE, 0, 0, &0x4000_0000u32.to_be_bytes()))
        .await;
    let mut large = HEAD;
    large[3].1 = "/large";
    client.request(1, &HEAD).await;
    client.request(3, &large).await;
    eventually("both are under way", async || app.requests().len() == 2).await;
    // The socket fills, and the short answer comes behind what fills it.
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    told.notify_one();
    client.send(frame(RST_STREAM, 0, 3, &8u32.to_be_bytes())).await;
    gateway.access_log(2).await;
    // For longer than a client is given that is told to end.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let mut length = 0;
    loop {
        let next = client.find(|frame| frame.stream == 1 && frame.kind == DATA).await;
        length += next.payload.len();
        if next.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(length, 5_000);
    assert!(client.ends().await);
}

const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
