//! Numbers, and how HAProxy compares them: `gt 1023`, `le 5`.

use super::outline::Node;

/// How numbers are compared.
pub(super) const OPERATORS: [&str; 5] = ["eq", "ge", "gt", "le", "lt"];

/// The ports that are `gt 1023`.
pub(super) fn ports_beside(operator: &str, number: &str) -> Result<String, String> {
    let none = || format!("no port is `{operator} {number}`");
    let number: u16 = number.parse().map_err(|_| none())?;
    let (first, last) = match operator {
        "ge" => (Some(number.max(1)), Some(u16::MAX)),
        "gt" => (number.checked_add(1), Some(u16::MAX)),
        "le" => (Some(1), Some(number)),
        "lt" => (Some(1), number.checked_sub(1)),
        _ => (Some(number), Some(number)),
    };
    match first.zip(last).filter(|(first, last)| first <= last) {
        Some((first, last)) if first == last => Ok(first.to_string()),
        Some((first, last)) => Ok(format!("{first}-{last}")),
        None => Err(none()),
    }
}

/// A node that compares a number of something: `lt 2`, `ge 1`; without an operator it is `eq`. Fails with the reason.
pub(super) fn compared(node: Node, fetch: &str, values: &[&str]) -> Result<Node, String> {
    let (operator, number) = match values {
        [number] => ("eq", *number),
        [operator, number] => (*operator, *number),
        _ => ("", ""),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{fetch}` is compared with one number, as in `{fetch} lt 1`"))?;
    Ok(match (operator, number) {
        ("lt", 1..) => node.number_prop("max", number - 1),
        ("le", _) => node.number_prop("max", number),
        ("gt", _) => node.number_prop("min", number.saturating_add(1)),
        ("ge", 1..) => node.number_prop("min", number),
        ("eq", 0) => node.number_prop("max", 0),
        ("eq", _) => node.number_prop("min", number).number_prop("max", number),
        _ => return Err(format!("`{fetch} {operator} {number}` says nothing")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_out() {
        for (operator, number, ours) in [
            ("gt", "1023", Some("1024-65535")),
            ("ge", "0", Some("1-65535")),
            ("lt", "1024", Some("1-1023")),
            ("le", "1", Some("1")),
            ("eq", "80", Some("80")),
            ("gt", "65535", None),
            ("lt", "1", None),
            ("lt", "x", None),
        ] {
            assert_eq!(
                ports_beside(operator, number).ok().as_deref(),
                ours,
                "{operator} {number}"
            );
        }
    }
}
