//! The names that a certificate is for.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// The DNS names among the subject's alternative names, lower-case; the common name where there is none, as HAProxy and
/// browsers of old have it. Patterns are those of one leading star (RFC 9525, section 6.3); others are passed over.
pub(super) fn of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => usable(name),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = certificate
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        names.extend(common.filter_map(usable));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn usable(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let well = !plain.is_empty() && plain.len() <= LONGEST && plain.bytes().all(valid);
    well.then(|| name.to_ascii_lowercase())
}

/// RFC 1035, section 2.3.4.
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use super::usable;

    #[test]
    fn names_are_hosts_and_patterns_of_one_star() {
        for (name, expected) in [
            ("WWW.Example.net.", Some("www.example.net")),
            ("*.example.net", Some("*.example.net")),
            ("f*.example.net", None),
            ("*", None),
            ("*.*.net", None),
            ("", None),
            ("a b", None),
            ("b\u{fc}cher.example", None),
        ] {
            assert_eq!(usable(name).as_deref(), expected, "{name}");
        }
    }
}
