//! Knows HAProxy's language where it meets it.

use std::ops::Range;

/// The first line that begins a section as HAProxy has them: at the beginning of the line, without a brace, and with an indented line
/// behind it. None where there is no such line.
pub(super) fn section(text: &str) -> Option<Range<usize>> {
    let mut at = 0;
    let mut begun: Option<Range<usize>> = None;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.split('#').next().unwrap_or_default();
        let said = line.trim_end();
        if said.is_empty() {
            continue;
        }
        let is_indented = said.starts_with([' ', '\t']);
        match begun.take() {
            Some(section) if is_indented && !said.trim_start().starts_with('{') => return Some(section),
            _ => {
                let first = said.split_whitespace().next().unwrap_or_default();
                let begins = !is_indented && SECTIONS.contains(&first) && !said.contains(['{', '"']);
                begun = begins.then(|| start..start + said.len());
            }
        }
    }
    None
}

const SECTIONS: &[&str] = &["global", "defaults", "frontend", "backend", "listen"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_of_haproxys_is_known() {
        for (text, place) in [
            ("global\n    daemon\n", Some(0..6)),
            ("# main\n\nfrontend web # here\n\n\tbind :80\n", Some(8..20)),
            ("frontend web {\n    bind \"127.0.0.1:80\"\n}\n", None),
            ("frontend \"web\"\n    bind \"127.0.0.1:80\"\n", None),
            ("frontend web\n{\n", None),
            ("frontend web\n  {\n", None),
            ("defaults\nfrontend", None),
            ("", None),
        ] {
            assert_eq!(section(text), place, "{text:?}");
        }
    }
}
