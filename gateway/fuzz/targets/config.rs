//! Configurations: no text panics, and every fault of one can be shown.

#![no_main]

use std::path::Path;

use gateway_fuzz::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = config::parse("fuzz.kdl", text, Path::new("/etc/gateway")) {
        assert!(!format!("{errors:?}").is_empty());
    }
});
