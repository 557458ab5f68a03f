//! Parameters of a query, and what is percent-encoded in it (RFC 3986, section 2.1).

/// Each value of a parameter, as it was sent; the name is given decoded.
pub(crate) fn query_params<'a>(query: &'a str, name: &'a [u8]) -> impl Iterator<Item = &'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let is_it = move |key: &str| percent_decode(key.as_bytes()).eq(name.iter().copied());
    pairs.filter(move |(key, _)| is_it(key)).map(|(_, value)| value)
}

/// Decodes `%XX`; what is no such triplet stays as it is.
pub(crate) fn percent_decode(text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        if let ([high, low, after @ ..], b'%') = (tail, first)
            && let (Some(high), Some(low)) = (digit(*high), digit(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        rest = tail;
        Some(first)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percent_decoding_undoes_encoding(text: Vec<u8>) {
            let encoded: Vec<u8> = text.iter().flat_map(|b| format!("%{b:02x}").into_bytes()).collect();
            prop_assert!(percent_decode(&encoded).eq(text.iter().copied()));
        }

        #[test]
        fn percent_decoding_takes_anything(text: Vec<u8>) {
            prop_assert!(percent_decode(&text).count() <= text.len());
        }
    }
}
