//! Tests of the language as a whole; the folder of invalid configurations is read in `cli::check`.

mod acls;
mod backends;
mod defaults;
mod edits;
mod examples;
mod limits;
mod plugins;
mod ranges;
mod texts;
mod tls;

use std::path::Path;

use super::*;

/// A configuration in the folder /etc/gateway.
fn config(text: &str) -> Config {
    parse("test.kdl", text, Path::new("/etc/gateway")).unwrap()
}

/// A frontend with these lines and a backend.
fn web(lines: &str) -> Config {
    config(&web_text(lines))
}

fn web_text(lines: &str) -> String {
    format!(
        "frontend \"web\" {{\n bind \"127.0.0.1:0\"\n default-backend \"app\"\n {lines}\n}}\nbackend \"app\" {{ server \"a\" \"echo\" }}"
    )
}

/// What is said of a faulty configuration.
fn faults(text: &str) -> String {
    format!("{:?}", parse("test.kdl", text, Path::new("")).unwrap_err())
}

/// The fenced KDL blocks of the reference.
fn reference_blocks() -> Vec<String> {
    blocks(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/config.md"))
}

/// The fenced KDL blocks of a document.
fn blocks(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text
        .split("```kdl\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.collect()
}
