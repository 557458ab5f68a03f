//! Text from the network in log lines: no byte of it can end a line, close a quote or pass for something else.

/// Appends `text` as HAProxy writes it: printable ASCII as it is, but for quotes and `#`; everything else as `#` and two
/// hexadecimal digits.
pub(super) fn hash(out: &mut Vec<u8>, text: &[u8]) {
    push_with(
        out,
        text,
        |byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'#'),
        |out, byte| {
            out.extend_from_slice(&[b'#', hex(byte >> 4), hex(byte & 15)]);
        },
    );
}

/// As [`hash`], for a field that ends at a space.
pub(super) fn hash_word(out: &mut Vec<u8>, text: &[u8]) {
    push_with(
        out,
        text,
        |byte| !matches!(byte, b'!'..=b'~') || matches!(byte, b'"' | b'#'),
        |out, byte| {
            out.extend_from_slice(&[b'#', hex(byte >> 4), hex(byte & 15)]);
        },
    );
}

/// As [`hash`], for what stands between braces and bars.
pub(super) fn hash_capture(out: &mut Vec<u8>, text: &[u8]) {
    push_with(
        out,
        text,
        |byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'#' | b'{' | b'}' | b'|'),
        |out, byte| {
            out.extend_from_slice(&[b'#', hex(byte >> 4), hex(byte & 15)]);
        },
    );
}

/// Appends `text` as a JSON string with its quotes. What is no UTF-8 becomes U+FFFD.
pub(super) fn json(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    json_inner(out, text);
    out.push(b'"');
}

/// As [`json`], without the quotes.
pub(super) fn json_inner(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let is_special = |byte| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f);
        push_with(out, chunk.valid().as_bytes(), is_special, |out, byte| match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
        });
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends runs of plain bytes whole, and the others one by one as `escape` writes them.
fn push_with(out: &mut Vec<u8>, text: &[u8], is_special: impl Fn(u8) -> bool, escape: impl Fn(&mut Vec<u8>, u8)) {
    let mut rest = text;
    while let Some(plain) = rest.iter().position(|&byte| is_special(byte)) {
        out.extend_from_slice(&rest[..plain]);
        escape(out, rest[plain]);
        rest = &rest[plain + 1..];
    }
    out.extend_from_slice(rest);
}

fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit & 15)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_escaped_as_haproxy_does() {
        let mut out = Vec::new();
        hash(&mut out, b"GET /a b?\"x\"#\r\n\x00\xc3\xa9~");
        assert_eq!(out, b"GET /a b?#22x#22#23#0D#0A#00#C3#A9~");
        out.clear();
        hash_word(&mut out, b"a b");
        assert_eq!(out, b"a#20b");
    }

    proptest! {
        #[test]
        fn escaped_text_is_printable_and_can_be_read_back(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            hash(&mut out, &text);
            prop_assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"'));
            let mut back = Vec::new();
            let mut bytes = out.iter();
            while let Some(&byte) = bytes.next() {
                if byte == b'#' {
                    let digits = [*bytes.next().unwrap(), *bytes.next().unwrap()];
                    back.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                } else {
                    back.push(byte);
                }
            }
            prop_assert_eq!(back, text);
        }

        #[test]
        fn json_is_valid_and_means_the_text(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            json(&mut out, &text);
            prop_assert!(!out.contains(&b'\n'));
            let back: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
        }
    }
}
