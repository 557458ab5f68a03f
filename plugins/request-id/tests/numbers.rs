//! What numbers look like, and who sees them.

use std::collections::HashSet;
use std::time::Duration;

use gateway_plugin_request_id::RequestId;
use gateway_plugin_sdk::test::{Host, Request, Response, Tested};
use serde_json::{Value, json};

fn plugin(host: &Host, config: &Value) -> Tested<RequestId> {
    host.configure(&config.to_string()).expect("a good configuration")
}

fn id(plugin: &Tested<RequestId>, request: &Request, header: &str) -> String {
    let filtered = plugin.on_request(request).expect("no failure");
    let id = filtered.request.header(header);
    assert_eq!(id.len(), 1, "{id:?}");
    assert_eq!(filtered.request.tag("request-id"), Some(id[0].clone()));
    id[0].clone()
}

#[test]
fn numbers_are_uuids_in_the_order_of_time() {
    let host = Host::new();
    host.advance(Duration::from_millis(0x0200_8877_6655).saturating_sub(host.now()));
    let plugin = plugin(&host, &json!({}));
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(id(&plugin, &Request::get("/"), "x-request-id"));
        host.advance(Duration::from_millis(1));
    }
    assert!(ids[0].starts_with("02008877-6655-7"), "{}", ids[0]);
    assert!(ids.is_sorted());
    for id in &ids {
        let bytes = id.as_bytes();
        assert_eq!(
            (bytes.len(), bytes[14], b"89ab".contains(&bytes[19])),
            (36, b'7', true),
            "{id}"
        );
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 100);
}

#[test]
fn other_forms_can_be_chosen() {
    let host = Host::new();
    let v4 = id(
        &plugin(&host, &json!({"format": "uuid-v4", "header": "x-trace"})),
        &Request::get("/"),
        "x-trace",
    );
    assert_eq!((v4.len(), v4.as_bytes()[14]), (36, b'4'), "{v4}");
    let hex = id(
        &plugin(&host, &json!({"format": "hex", "prefix": "eu1-"})),
        &Request::get("/"),
        "x-request-id",
    );
    let digits = hex.strip_prefix("eu1-").expect("the prefix");
    assert!(
        digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{hex}"
    );
}

#[test]
fn a_clients_own_number_is_kept_only_where_that_is_wanted_and_it_is_one() {
    let (keeping, not) = (
        plugin(&Host::new(), &json!({"keep": true})),
        plugin(&Host::new(), &json!({})),
    );
    let with = |id: &[u8]| Request::get("/").with_header("x-request-id", id);
    assert_eq!(id(&keeping, &with(b"abc-123"), "x-request-id"), "abc-123");
    assert_ne!(id(&not, &with(b"abc-123"), "x-request-id"), "abc-123");
    for bad in [&b""[..], b"a b", b"<script>", b"\xff", b"${x}", &[b'a'; 129]] {
        assert_eq!(id(&keeping, &with(bad), "x-request-id").len(), 36, "{bad:?}");
    }
    assert_eq!(
        id(&keeping, &with(b"a").with_header("x-request-id", "b"), "x-request-id").len(),
        36
    );
}

#[test]
fn the_client_is_told_unless_it_is_not_to_be() {
    for (respond, told) in [(true, true), (false, false)] {
        let plugin = plugin(&Host::new(), &json!({"respond": respond}));
        let filtered = plugin.on_request(&Request::get("/")).expect("no failure");
        let servers = Response::new(200).with_header("x-request-id", "the server's");
        let answer = plugin.on_response(&filtered.request, &servers).expect("no failure");
        let expected = if told {
            filtered.request.header("x-request-id")
        } else {
            vec!["the server's".to_owned()]
        };
        assert_eq!(answer.header("x-request-id"), expected);
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({"header": "a b"}), "/header"),
        (
            json!({"header": "Content-Length"}),
            "/header: `Content-Length` belongs to the connection",
        ),
        (json!({"prefix": "a b"}), "/prefix"),
        (json!({"format": "ulid"}), "ulid"),
        (json!({"kept": true}), "kept"),
    ] {
        let error = Host::new()
            .configure::<RequestId>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}
