//! The gateway's own components in the host, with what no request brings in that has come through the proxy.

use super::super::first_party;
use super::*;

/// Patterns are about bytes, so a group may be half of a character; and the host takes no path or query that is not text.
#[test]
fn a_path_or_query_that_would_come_out_as_none_stays_as_it_was() {
    let host = host_of(1);
    let own = &first_party::HEADER_REWRITE_REGEX;
    let component = host.compile(own.name, own.wasm, own.grants).unwrap();
    for (edit, uri, expected) in [
        (
            r#"{"rewrite-path": {"regex": "^/(.).*$", "to": "/half-$1"}}"#,
            "/\u{e9}?q",
            "/\u{e9}?q",
        ),
        (
            r#"{"rewrite-path": {"regex": "^/(.).*$", "to": "/half-$1"}}"#,
            "/ab?q",
            "/half-a?q",
        ),
        (
            r#"{"rewrite-query": {"regex": "^(.).*$", "to": "half=$1"}}"#,
            "/a?\u{e9}",
            "/a?\u{e9}",
        ),
        (
            r#"{"rewrite-query": {"regex": "^(.).*$", "to": "half=$1"}}"#,
            "/a?bc",
            "/a?half=b",
        ),
    ] {
        let spec = AttachmentSpec {
            config: format!(r#"{{"request": [{edit}, {{"set-header": {{"name": "x-edited", "value": "yes"}}}}]}}"#),
            limits: PluginLimits {
                cpu: Duration::from_secs(5),
                memory: 16 << 20,
            },
            ..spec(own.name)
        };
        let attachment = host.attach(&component, spec).unwrap();
        let mut exchange = exchange(uri);
        Instances::new(&host).on_request(&attachment, &mut exchange).unwrap();
        // The call has not failed: its other edits are made.
        assert_eq!(exchange.request.headers.get("x-edited").unwrap(), "yes", "{uri}");
        assert_eq!(exchange.request.uri, expected, "{edit}");
    }
}
