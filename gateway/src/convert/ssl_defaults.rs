//! What `global` says of TLS for all lines that are about it: `ssl-default-bind-…`, `ssl-default-server-…`, `crt-base` and
//! `ca-base`, `ssl-server-verify`. It is written into those lines before they are converted, as if each had said it.

use super::haproxy::{Line, Section};

/// The sections, with what holds for their lines in them.
pub(super) fn settle(sections: &[Section]) -> Vec<Section> {
    let mut settled = sections.to_vec();
    let global: Vec<&Line> = sections
        .iter()
        .filter(|section| section.kind == "global")
        .flat_map(|section| &section.lines)
        .collect();
    let said = |keyword: &str| {
        global
            .iter()
            .rev()
            .find(|line| line.keyword() == keyword)
            .map(|line| line.rest(1))
    };
    let base = |keyword: &str| said(keyword)?.first().map(String::as_str);
    let (certificates, authorities) = (base("crt-base"), base("ca-base"));
    let mut all = sections.iter().flat_map(|section| &section.lines);
    let is_said = all.any(|line| line.keyword() == "default-server" && says(line, "verify"));
    let verifies_nobody = base("ssl-server-verify") == Some("none") && !is_said;
    for section in settled.iter_mut().filter(|section| section.kind != "global") {
        for line in &mut section.lines {
            let whose = match line.keyword() {
                "bind" => "bind",
                "server" | "default-server" | "server-template" => "server",
                _ => continue,
            };
            if line.words.iter().any(|word| word == "ssl") {
                for key in ["ciphers", "ciphersuites", "curves"] {
                    let value = said(&format!("ssl-default-{whose}-{key}")).and_then(<[String]>::first);
                    if let (Some(value), false) = (value, says(line, key)) {
                        line.words.extend([key.to_owned(), value.clone()]);
                    }
                }
                add_options(line, said(&format!("ssl-default-{whose}-options")).unwrap_or_default());
            }
            let has_tls = says(line, "ssl") || says(line, "check-ssl");
            if whose == "server" && has_tls && verifies_nobody && !says(line, "verify") {
                line.words.extend(["verify".to_owned(), "none".to_owned()]);
            }
            for (key, base) in [
                ("crt", certificates),
                ("ca-file", authorities),
                ("crl-file", authorities),
            ] {
                if let Some(base) = base {
                    put_below(line, key, base);
                }
            }
        }
    }
    settled
}

/// Whether `global` says this for other lines.
pub(super) fn is_for_others(keyword: &str) -> bool {
    matches!(keyword, "crt-base" | "ca-base" | "ssl-server-verify")
        || ["bind", "server"].iter().any(|whose| {
            let key = keyword
                .strip_prefix("ssl-default-")
                .and_then(|rest| rest.strip_prefix(whose));
            matches!(key, Some("-ciphers" | "-ciphersuites" | "-curves" | "-options"))
        })
}

fn says(line: &Line, key: &str) -> bool {
    line.words.iter().any(|word| word == key)
}

/// Adds the options that a line does not say itself, with their values.
fn add_options(line: &mut Line, options: &[String]) {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = matches!(option.as_str(), "ssl-min-ver" | "ssl-max-ver")
            .then(|| options.next())
            .flatten();
        if !says(line, option) {
            line.words.push(option.clone());
            line.words.extend(value.cloned());
        }
    }
}

/// Puts relative paths behind a word below a folder.
fn put_below(line: &mut Line, key: &str, base: &str) {
    let mut is_path = false;
    for word in &mut line.words {
        if is_path && !word.starts_with(['/', '@']) {
            *word = format!("{}/{word}", base.trim_end_matches('/'));
        }
        is_path = word == key;
    }
}
