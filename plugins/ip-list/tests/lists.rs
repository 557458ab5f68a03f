//! Who is let in.

use gateway_plugin_ip_list::IpList;
use gateway_plugin_sdk::ConnectionVerdict;
use gateway_plugin_sdk::test::{Connection, Host, Request, Tested};
use serde_json::{Value, json};

fn list(config: &Value) -> Tested<IpList> {
    Host::new()
        .configure(&config.to_string())
        .expect("a good configuration")
}

fn status(plugin: &Tested<IpList>, client: &str) -> Option<u16> {
    let filtered = plugin.on_request(&Request::get("/").from(client)).expect("no failure");
    filtered.reply.map(|reply| reply.status())
}

#[test]
fn those_on_the_list_are_refused_or_let_in() {
    let mut config = json!({"network": ["10.0.0.0/8", "2001:db8::/32"], "except": "10.1.0.0/16"});
    let deny = list(&config);
    config["action"] = json!("allow");
    config["status"] = json!(451);
    let allow = list(&config);
    for (client, listed) in [
        ("10.2.3.4:1", true),
        ("10.1.2.3:1", false),
        ("192.0.2.1:1", false),
        ("[2001:db8::1]:1", true),
        ("[2001:db9::1]:1", false),
    ] {
        assert_eq!(status(&deny, client), listed.then_some(403), "{client}");
        assert_eq!(status(&allow, client), (!listed).then_some(451), "{client}");
        let request = Request::get("/").from(client);
        assert_eq!(deny.evaluate(&request).holds("listed"), listed, "{client}");
        assert_eq!(allow.evaluate(&request).holds("listed"), listed, "{client}");
        let refused = deny.on_connect(&Connection::new().from(client)) == ConnectionVerdict::Refuse;
        assert_eq!(refused, listed, "{client}");
    }
}

#[test]
fn a_list_may_have_a_hundred_thousand_networks() {
    let networks: Vec<String> = (0..100_000_u32)
        .map(|number| format!("{}.{}.{}.0/26", 1 + number / 25_600, number / 100 % 256, number % 100))
        .collect();
    let lines = networks.join("\n");
    for config in [json!({"network": networks}), json!({"network": lines})] {
        let plugin = list(&config);
        for (client, expected) in [
            ("1.0.0.0:1", Some(403)),
            ("4.231.99.63:1", Some(403)),
            ("4.231.99.64:1", None),
            ("4.232.0.0:1", None),
            ("0.255.255.255:1", None),
        ] {
            assert_eq!(status(&plugin, client), expected, "{client}");
        }
    }
}

#[test]
fn a_text_with_lines_is_a_list() {
    let plugin = list(&json!({"network": "# of today\n10.0.0.0/8 # them\r\n\n 192.0.2.1 ; and this\n"}));
    assert_eq!(status(&plugin, "10.9.9.9:1"), Some(403));
    assert_eq!(status(&plugin, "192.0.2.1:1"), Some(403));
    assert_eq!(status(&plugin, "192.0.2.2:1"), None);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (config, part) in [
        (json!({}), "network"),
        (json!({"network": []}), "/network: there is no network"),
        (json!({"network": "# none\n"}), "/network: there is no network"),
        (json!({"network": "10.0.0.0/40"}), "10.0.0.0/40"),
        (
            json!({"network": ["10.0.0.0/8", "here"]}),
            "/network/1: \"here\" is no network",
        ),
        (
            json!({"action": "deny", "network": "# ours\n10.0.0.0/8\n10.0.0.0/8 # x\n10.0.0/8\n", "status": 403}),
            "/network: line 4: \"10.0.0/8\" is no network",
        ),
        (json!({"network": 10}), "networks such as"),
        (json!({"network": "10.0.0.0/8", "status": 200}), "/status"),
        (json!({"network": "10.0.0.0/8", "action": "drop"}), "drop"),
    ] {
        let error = Host::new()
            .configure::<IpList>(&config.to_string())
            .expect_err("a bad configuration")
            .to_string();
        assert!(error.contains(part), "{config}: {error}");
    }
}
