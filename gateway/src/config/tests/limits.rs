//! Rate limits.

use serde_json::json;

use super::*;

#[test]
fn a_limit_may_count_responses_and_counts_no_connections_then() {
    let text = |uses: &str, counts: &str| {
        format!(
            "{}\nrate-limit \"r\" {{ key \"client-ip\"; allow \"20/m\"; {counts} }}",
            web_text(uses)
        )
    };
    let limit = config(&text("limit \"r\"", "count-status \"404,500-502\""))
        .rate_limits
        .remove(0);
    let counts = limit.count_status.unwrap();
    assert!([404, 500, 502].iter().all(|status| counts.contains(*status)));
    assert!(![200, 403, 503].iter().any(|status| counts.contains(*status)));
    // The component is told nothing of it.
    assert!(serde_json::to_value(&limit).unwrap().get("count-status").is_none());
    for (uses, counts, message) in [
        (
            "limit \"r\" connections",
            "count-status 404",
            "this limit counts requests",
        ),
        ("limit \"r\"", "count-status \"4xx\"", "statuses are from"),
        (
            "limit \"r\"",
            "count-status",
            "`count-status` needs the statuses of responses that count",
        ),
        (
            "limit \"r\"",
            "count-status 404; count-status 500",
            "`count-status` is said twice",
        ),
    ] {
        let said = faults(&text(uses, counts));
        assert!(said.contains(message), "{counts}: {said}");
    }
}

#[test]
fn rate_limits_are_what_the_component_reads() {
    let text = web_text("limit \"r\"")
        + "\nrate-limit \"r\" { key \"client-ip\" ipv6-prefix=56; key \"header\" \"X-Key\"; allow \"5/10s\" burst=9 }";
    assert_eq!(
        serde_json::to_value(&config(&text).rate_limits).unwrap(),
        json!([{
            "name": "r",
            "key": [{"client-ip": {"ipv4-prefix": 32, "ipv6-prefix": 56}}, {"header": "x-key"}],
            "tokens": 5, "period-ms": 10_000, "burst": 9,
        }])
    );
}

#[test]
fn the_table_of_limits_may_be_sized_for_plugins_alone() {
    let text = |grant| {
        format!(
            "process {{ rate-limit-table entries=5000 }}\nplugin \"p\" \"p.wasm\" {{ grant {grant}; on-failure \"skip\" }}\n{}",
            web_text("use-plugin \"p\"")
        )
    };
    config(&text("\"buckets\""));
    assert!(faults(&text("\"log\"")).contains("`rate-limit-table` does nothing"));
}

#[test]
fn limits_of_connections_ask_for_addresses_alone() {
    let text = |mode: &str, uses: &str| {
        format!(
            "frontend \"web\" {{ mode \"{mode}\"; bind \"127.0.0.1:80\"; default-backend \"app\"
                acl \"office\" {{ source \"10.0.0.0/8\" }}
                acl \"named\" {{ sni \"a.example\" }}
                deny if=\"named\"; access-log unless=\"office\"
                {uses} }}
             backend \"app\" {{ mode \"{mode}\"; server \"a\" \"127.0.0.1:81\" }}
             {}",
            match uses.contains("limit") {
                true => "rate-limit \"r\" { key \"client-ip\"; allow \"20/m\" }",
                false => "",
            }
        )
    };
    for uses in ["limit \"r\"", "max-connections-per-source 5"] {
        let config = config(&text("tcp", &format!("{uses} unless=\"office\"")));
        let frontend = &config.frontends[0];
        let limits = frontend
            .connection_limits
            .iter()
            .filter_map(|limit| limit.when.as_ref());
        assert_eq!(limits.chain(&frontend.per_source_when).count(), 1, "{uses}");
        let said = faults(&text("tcp", &format!("{uses} if=\"named and not office\"")));
        assert!(said.contains("asks for what is not known yet"), "{uses}: {said}");
        let said = faults(&text("tcp", &format!("{uses} if=\"nobody\"")));
        assert!(said.contains("there is no acl"), "{uses}: {said}");
    }
    let inherited = "defaults { max-connections-per-source 5 unless=\"office\" }\n";
    let said = faults(&(inherited.to_owned() + &text("tcp", "")));
    assert!(said.contains("`unless`"), "{said}");
}
