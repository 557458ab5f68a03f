use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::telemetry::clock::Dates;

fn http() -> HttpRecord<'static> {
    HttpRecord {
        client: Some(([10, 0, 1, 2], 33317).into()),
        destination: Some(([10, 0, 0, 1], 443).into()),
        started: UNIX_EPOCH + Duration::from_millis(1_233_922_454_655),
        frontend: "web",
        tls: false,
        connection: &(),
        backend: Some("app"),
        server: Some("app-1"),
        timers: HttpTimers {
            request: Some(Duration::from_millis(10)),
            queue: Some(Duration::ZERO),
            connect: Some(Duration::from_millis(30)),
            response: Some(Duration::from_micros(69_999)),
            total: Duration::from_millis(109),
        },
        status: Some(200),
        grpc: None,
        bytes_sent: 2750,
        bytes_received: 300,
        termination: Termination::default(),
        cookies: None,
        counts: Counts {
            process: 5,
            frontend: 4,
            backend: 3,
            server: 2,
            retries: 1,
            redispatched: false,
            queue: 2,
        },
        request: Some(RequestLine {
            method: "GET",
            host: Some(b"example.net"),
            target: b"/index.html?a=1",
            version: http::Version::HTTP_11,
        }),
        tenant: None,
        reason: None,
        rule: None,
        rule_file: None,
        request_id: None,
        captures: None,
        tags: &[],
        format: None,
        to: None,
        severity: Severity::default(),
        trace: None,
    }
}

fn tcp() -> TcpRecord<'static> {
    TcpRecord {
        client: Some("[2001:db8::1]:5432".parse().unwrap()),
        destination: Some("[2001:db8::2]:636".parse().unwrap()),
        started: UNIX_EPOCH + Duration::from_millis(1_233_922_454_655),
        frontend: "raw",
        tls: true,
        connection: &(),
        backend: Some("raw"),
        server: Some("raw-1"),
        timers: TcpTimers {
            queue: Some(Duration::ZERO),
            connect: None,
            total: Duration::from_millis(5007),
        },
        bytes_sent: 212,
        bytes_received: 17,
        termination: Termination::new(Cause::ServerTimeout, Phase::Connect),
        counts: Counts::default(),
        tenant: None,
        reason: None,
        rule: None,
        rule_file: None,
        format: None,
        to: None,
        severity: Severity::default(),
    }
}

fn text(write: impl Fn(&mut Vec<u8>, &mut Dates)) -> String {
    let mut out = Vec::new();
    write(&mut out, &mut Dates::default());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_is_logged_in_haproxys_order() {
    let expected = "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] web app/app-1 10/0/30/69/109 200 2750 - - ---- \
                    5/4/3/2/1 0/2 \"GET /index.html?a=1 HTTP/1.1\"";
    assert_eq!(text(|out, dates| http().write_text(out, dates)), expected);
}

#[test]
fn attempts_at_another_server_have_haproxys_sign() {
    let counts = Counts {
        redispatched: true,
        ..http().counts
    };
    let record = HttpRecord { counts, ..http() };
    assert!(text(|out, dates| record.write_text(out, dates)).contains(" 5/4/3/2/+1 0/2 "));
    assert!(text(|out, dates| record.write_json(out, dates)).contains(r#""retries":1,"#));
}

#[test]
fn the_status_of_a_grpc_call_stands_behind_that_of_http() {
    let json = |grpc| {
        let record = HttpRecord { grpc, ..http() };
        text(|out, dates| record.write_json(out, dates))
    };
    assert!(json(Some(GrpcStatus::Said(14))).contains(r#","status":200,"grpc_status":14,"#));
    assert!(json(Some(GrpcStatus::Unsaid)).contains(r#","grpc_status":null,"#));
    assert!(!json(None).contains("grpc"));
}

#[test]
fn whose_host_it_was_stands_behind_the_rest() {
    let record = HttpRecord {
        tenant: Some("acme"),
        reason: Some("denied"),
        ..http()
    };
    assert!(text(|out, dates| record.write_text(out, dates)).ends_with(" reason=denied tenant=acme"));
    assert!(text(|out, dates| record.write_json(out, dates)).contains(r#","tenant":"acme""#));
}

#[test]
fn what_became_of_cookies_stands_beside_the_termination() {
    let record = HttpRecord {
        cookies: Some(CookieFlags {
            request: b'D',
            response: SetCookie::Inserted,
        }),
        ..http()
    };
    assert!(text(|out, dates| record.write_text(out, dates)).contains(" - - --DI 5/4/"));
    assert!(text(|out, dates| record.write_json(out, dates)).contains(r#","cookie_flags":"DI""#));
}

#[test]
fn a_request_that_came_to_nothing_is_logged_with_what_there_is() {
    let record = HttpRecord {
        tls: true,
        connection: &(),
        backend: None,
        server: None,
        timers: HttpTimers {
            total: Duration::from_millis(3),
            ..HttpTimers::default()
        },
        status: None,
        request: None,
        termination: Termination::new(Cause::Proxy, Phase::Request),
        counts: Counts::default(),
        reason: Some("denied:a b\n"),
        rule: Some(12),
        request_id: None,
        captures: None,
        tags: &[],
        format: None,
        to: None,
        severity: Severity::default(),
        trace: None,
        ..http()
    };
    let expected = "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] web~ web/<NOSRV> -1/-1/-1/-1/3 -1 2750 - - PR-- \
                    0/0/0/0/0 0/0 \"<BADREQ>\" reason=denied:a#20b#0A rule=12";
    assert_eq!(text(|out, dates| record.write_text(out, dates)), expected);
}

#[test]
fn a_connection_is_logged_in_haproxys_order() {
    let expected = "2001:db8::1:5432 [06/Feb/2009:12:14:14.655] raw~ raw/raw-1 0/-1/5007 212 sC 0/0/0/0/0 0/0";
    assert_eq!(text(|out, dates| tcp().write_text(out, dates)), expected);
}

#[test]
fn json_has_the_same_in_names() {
    let line = text(|out, dates| http().write_json(out, dates));
    let expected = json!({
        "time": "2009-02-06T12:14:14.655Z", "client": "10.0.1.2:33317", "destination": "10.0.0.1:443",
        "frontend": "web", "tls": false, "backend": "app", "server": "app-1",
        "request_ms": 10.0, "queue_ms": 0.0, "connect_ms": 30.0, "response_ms": 69.999, "total_ms": 109.0,
        "status": 200, "bytes_received": 300, "bytes_sent": 2750, "termination": "--", "reason": null, "rule": null,
        "process_connections": 5, "frontend_connections": 4, "backend_in_flight": 3, "server_in_flight": 2,
        "retries": 1, "queue": 2, "method": "GET", "host": "example.net", "target": "/index.html?a=1", "version": "HTTP/1.1",
    });
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);

    let line = text(|out, dates| tcp().write_json(out, dates));
    let value = serde_json::from_str::<Value>(&line).unwrap();
    assert_eq!(value["connect_ms"], Value::Null);
    assert_eq!(value["termination"], "sC");
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_forges_a_line(
        target in proptest::collection::vec(any::<u8>(), 0..60),
        host in proptest::collection::vec(any::<u8>(), 0..20),
        method in "[!-~]{1,10}",
        reason in any::<String>(),
    ) {
        let request = RequestLine { method: &method, host: Some(&host), target: &target, version: http::Version::HTTP_10 };
        let record = HttpRecord { request: Some(request), reason: Some(&reason), ..http() };
        let line = text(|out, dates| record.write_text(out, dates));
        prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert_eq!(line.matches('"').count(), 2);
        // The fields before the request, the three of the request, and the reason.
        prop_assert_eq!(line.split(' ').count(), 16);

        let line = text(|out, dates| record.write_json(out, dates));
        prop_assert!(!line.contains('\n'));
        let value = serde_json::from_str::<Value>(&line).unwrap();
        prop_assert_eq!(value["target"].as_str().unwrap(), String::from_utf8_lossy(&target));
        prop_assert_eq!(value["reason"].as_str().unwrap(), reason);
    }
}
