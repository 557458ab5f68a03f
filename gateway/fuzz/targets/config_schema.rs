//! Schemas of plugins' configurations: no schema panics, nor does a configuration that is held against it, and every fault of
//! either can be shown. An input is a schema, a line `---`, and what stands in a `config` block.

#![no_main]

use std::path::Path;

use gateway_fuzz::config;
use gateway_fuzz::config::schema::Schema;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (schema, block) = text.split_once("\n---\n").unwrap_or((text, "a 1"));
    let schema = match Schema::parse("fuzz.schema.kdl", schema) {
        Ok(schema) => schema,
        Err(errors) => return assert!(!format!("{errors:?}").is_empty()),
    };
    let _ = schema.documentation(4);
    let text = format!("{BEFORE}{block}\n}} }}\n");
    let Ok(config) = config::parse("fuzz.kdl", &text, Path::new("/etc/gateway")) else {
        return;
    };
    for plugin in &config.plugins {
        let block = serde_json::from_str(&plugin.config).expect("what the gateway has written");
        let faults = schema.check(&block, &plugin.config_places);
        for fault in &faults {
            assert!(!fault.places().is_empty() && fault.advice().is_some());
        }
        if !faults.is_empty() {
            let errors = config::Source::new("fuzz.kdl", &text).errors(faults);
            assert!(!format!("{errors:?}").is_empty());
        }
    }
});

/// A configuration up to the block of a plugin.
const BEFORE: &str = r#"
defaults { timeout connect="5s" client="30s" server="30s" }
backend "app" { server "a" "echo" }
frontend "web" { bind "127.0.0.1:80"; use-plugin "p"; default-backend "app" }
plugin "p" "p.wasm" { on-failure "deny"; config {
"#;
