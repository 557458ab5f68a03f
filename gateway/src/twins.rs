//! Fields whose names servers may take for one another: CGI and what came after it have no way to tell `_` and `-` apart.

use http::header::{HeaderMap, HeaderName};

/// Whether servers may take one name for the other.
pub fn reads_as(name: &HeaderName, other: &HeaderName) -> bool {
    same(name.as_str(), other.as_str())
}

/// Whether two names, or beginnings of names, are the same for such servers.
pub fn same(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

/// Removes what servers may take for the field of this name, which itself stays.
pub fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    let is_twin = |other: &&HeaderName| *other != name && reads_as(other, name);
    // No memory is taken for none.
    let twins: Vec<HeaderName> = headers.keys().filter(is_twin).cloned().collect();
    for twin in twins {
        headers.remove(twin);
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    #[test]
    fn what_reads_as_a_field_goes_and_the_field_stays() {
        let mut headers = HeaderMap::new();
        let names = ["x-real-ip", "x_real_ip", "x-real_ip", "x-real-ips", "xareal-ip"];
        for name in names {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        remove(&mut headers, &HeaderName::from_static("x-real-ip"));
        let left = names.map(|name| headers.contains_key(name));
        assert_eq!(left, [true, false, false, true, true]);
    }
}
