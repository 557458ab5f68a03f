//! Tests of the whole conversion, by what is carried over.

mod acls;
mod checks;
mod logs;
mod pages;
mod proxies;
mod rules;
mod servers;
mod stats;
mod tables;
mod tls;
mod trusted;
mod users;

use super::*;

fn converted(text: &str) -> Converted {
    let mut converted = haproxy(text, |_| None);
    assert!(converted.is_valid, "{}\n{:?}", converted.text, converted.findings);
    // What few of these texts say, and `proxies` has tests of.
    let is_said_of_all = |finding: &Finding| {
        let message = &finding.message;
        message.starts_with("no `timeout ") || message.starts_with("no `default_backend`")
    };
    converted.findings.retain(|finding| !is_said_of_all(finding));
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
