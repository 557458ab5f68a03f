//! Configurations of plugins.

use std::time::Duration;

use serde_json::json;

use super::*;

#[test]
fn a_plugin_gets_its_block_as_json() {
    let text = web_text("use-plugin \"p\"")
        + r##"
        plugin "p" "p.wasm" {
            sha256 "00000000000000000000000000000000000000000000000000000000000000ff"
            grant "log" "buckets"
            limit cpu="5ms" memory="1MiB"
            on-failure "deny"
            config {
                enabled
                deny-country "KP" "IR"
                one "x"
                list { - "x" }
                numbers 1 -2 2.5 0xff
                nothing #null
                header name="x-a" required=#true { values "a" "b" }
                rule path="/a"
                rule path="/b"
                pair 1 2
                pair 3 4
                empty {}
            }
        }"##;
    let config = config(&text);
    let plugin = &config.plugins[0];
    assert_eq!(plugin.sha256.unwrap().value[31], 0xff);
    assert_eq!(plugin.grants, [Grant::Log, Grant::Buckets]);
    assert_eq!(
        plugin.limits,
        PluginLimits {
            cpu: Duration::from_millis(5),
            memory: 1 << 20
        }
    );
    assert_eq!(plugin.on_failure, Some(OnFailure::Deny(503)));
    let json: serde_json::Value = serde_json::from_str(&plugin.config).unwrap();
    assert_eq!(
        json,
        json!({
            "enabled": true,
            "deny-country": ["KP", "IR"],
            "one": "x",
            "list": ["x"],
            "numbers": [1, -2, 2.5, 255],
            "nothing": null,
            "header": {"name": "x-a", "required": true, "values": ["a", "b"]},
            "rule": [{"path": "/a"}, {"path": "/b"}],
            "pair": [[1, 2], [3, 4]],
            "empty": {},
        })
    );
}

#[test]
fn a_pointer_into_a_plugins_configuration_finds_its_place_in_the_text() {
    let block = r##"
        enabled
        deny-country "KP" "IR"
        one "x"
        list { - "y"; - { - 1; - 2 } }
        header name="x-a" required=#true { values "a" #"b"#; "in ner" { deep level=3 } }
        rule path="/a"
        rule path="/b" { then "go" }
        pair 1 2
        pair 3 4
        "a/b~c" "odd"
    "##;
    for (pointer, place) in [
        ("", "config"),
        ("/enabled", "enabled"),
        ("/one", "\"x\""),
        ("/deny-country", "\"KP\" \"IR\""),
        ("/deny-country/1", "\"IR\""),
        ("/list", "list"),
        ("/list/0", "\"y\""),
        ("/list/1", "-"),
        ("/list/1/1", "2"),
        ("/header", "header"),
        ("/header/name", "\"x-a\""),
        ("/header/required", "#true"),
        ("/header/values", "\"a\" #\"b\"#"),
        ("/header/values/1", "#\"b\"#"),
        ("/header/in ner/deep/level", "3"),
        ("/rule", "rule"),
        ("/rule/1", "rule"),
        ("/rule/0/path", "\"/a\""),
        ("/rule/1/path", "\"/b\""),
        ("/rule/1/then", "\"go\""),
        ("/pair/1", "3 4"),
        ("/pair/1/0", "3"),
        ("/a~1b~0c", "\"odd\""),
        // One value is what is read as a list of one.
        ("/one/0", "\"x\""),
        ("/header/0/name", "\"x-a\""),
        ("/one/1", "[\"x\"]"),
        // What is missing is missing from something.
        ("/rule/1/method", "[rule]"),
        ("/rule/2", "[rule]"),
        ("/rule/01", "[rule]"),
        ("/rule/+1", "[rule]"),
        ("/header/name/x", "[\"x-a\"]"),
        ("/nowhere/else", "[config]"),
        // Not pointers.
        ("enabled", "[config]"),
        ("$.one", "[config]"),
    ] {
        assert_eq!(pointed_at(block, pointer), place, "{pointer}");
    }
}

#[test]
fn a_pointer_into_a_configuration_that_is_not_there_finds_the_plugin() {
    let text = web_text("use-plugin \"p\"") + "\nplugin \"p\" \"p.wasm\" { on-failure \"skip\" }";
    let (span, exact) = config(&text).plugins[0].config_places.find("/one");
    assert_eq!(
        (text.get(span.offset()..span.offset() + span.len()), exact),
        (Some("plugin"), false)
    );
}

/// What a pointer into a plugin's configuration finds in the text; in brackets when it is not there and this is the
/// innermost place that is.
fn pointed_at(block: &str, pointer: &str) -> String {
    let text = web_text("use-plugin \"p\"")
        + &format!("\nplugin \"p\" \"p.wasm\" {{ on-failure \"skip\"; config {{\n{block}\n}} }}");
    let (span, exact) = config(&text).plugins[0].config_places.find(pointer);
    let found = &text[span.offset()..span.offset() + span.len()];
    if exact { found.to_owned() } else { format!("[{found}]") }
}
