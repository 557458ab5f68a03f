//! `crt-list FILE`: certificates, one a line, with options and names of their own.

use super::haproxy::Line;
use super::options::Options;
use super::proxies::Proxy;

/// The certificates of the lists that a bind names, as far as they can be read here. What HAProxy would ask clients for under
/// some names alone is reported, as it would be asked of nobody here.
pub(super) fn certificates(proxy: &mut Proxy<'_>, options: &Options<'_>, line: &Line) -> Vec<String> {
    let mut found = Vec::new();
    for list in options.values("crt-list") {
        let text = match std::fs::read_to_string(list) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("`crt-list {list}` cannot be read ({error}): name its certificates with `cert`");
                proxy.conversion.note(line.number, message);
                continue;
            }
        };
        for (number, said) in (1..).zip(text.lines()) {
            let said = said.trim();
            let Some(file) = said.split_whitespace().next().filter(|file| !file.starts_with('#')) else {
                continue;
            };
            let rest = said[file.len()..].trim();
            if rest.starts_with('[') {
                let message = format!(
                    "line {number} of {list} was left out: options of one certificate, {}, have to hold for a whole bind here; give its \
                     names a bind of their own",
                    rest.split_inclusive(']').next().unwrap_or(rest)
                );
                proxy.conversion.note(line.number, message);
                continue;
            }
            if !rest.is_empty() {
                let message = format!(
                    "line {number} of {list}: {file} is shown for the names in it here, and not for those in the list ({rest})"
                );
                proxy.conversion.note(line.number, message);
            }
            found.push(file.to_owned());
        }
    }
    found
}
