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

/// Whether there is a field at all that servers may take for another one whose name has no `_`.
pub fn may_be_in(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| has_underscore(name.as_str().as_bytes()))
}

/// Eight bytes at once: names are too short for searching that has to begin first.
fn has_underscore(name: &[u8]) -> bool {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const UNDERSCORES: u64 = u64::from_ne_bytes([b'_'; 8]);
    let (words, rest) = name.as_chunks::<8>();
    let has_one = |word: &[u8; 8]| {
        let zero_where_one_is = u64::from_ne_bytes(*word) ^ UNDERSCORES;
        zero_where_one_is.wrapping_sub(LOW) & !zero_where_one_is & HIGH != 0
    };
    words.iter().any(has_one) || rest.contains(&b'_')
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

    #[test]
    fn an_underscore_is_seen_wherever_it_stands() {
        for length in 1..40 {
            let plain = "x".repeat(length);
            assert!(!has_underscore(plain.as_bytes()));
            for place in 0..length {
                let mut name = plain.clone().into_bytes();
                // What differs from it in one bit beside it: borrowing runs from low bytes to high ones.
                name[(place + 1) % length] = b'^';
                name[place] = b'_';
                assert!(has_underscore(&name), "{name:?}");
                name[place] = b'^';
                assert!(!has_underscore(&name), "{name:?}");
            }
        }
    }
}
