//! Tests of the whole conversion, by what is carried over.

mod acls;
mod checks;
mod logs;
mod proxies;
mod rules;
mod servers;
mod stats;
mod tables;
mod tls;

use super::*;

fn converted(text: &str) -> Converted {
    let converted = haproxy(text);
    assert!(converted.is_valid, "{}\n{:?}", converted.text, converted.findings);
    converted
}

fn found(converted: &Converted, line: usize, says: &str) {
    let mut findings = converted.findings.iter();
    assert!(
        findings.any(|finding| finding.line == line && finding.message.contains(says)),
        "{line}: {says}: {:?}",
        converted.findings
    );
}
