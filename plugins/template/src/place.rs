//! Where a fact is written, and what it must not become there.

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A header's value.
    Header,
    /// A URI, or a part of one.
    Uri,
    /// A path.
    Path,
    /// A query.
    Query,
    /// A name or value of a query's parameter.
    Parameter,
    /// A text that nothing reads but people.
    Text,
    /// HTML or XML: text between tags, or within the quotes of an attribute.
    Markup,
    /// A string of JSON or JavaScript, within its quotes.
    Quoted,
}

impl Place {
    /// Writes what came from outside, so that it stays in its place.
    pub fn write(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            // Nothing that could end the field, or that a receiver has to refuse (RFC 9110, section 5.5).
            Self::Header => out.extend(value.iter().map(|byte| match byte {
                byte if *byte != b'\t' && byte.is_ascii_control() => b'_',
                byte => *byte,
            })),
            Self::Text => out.extend_from_slice(value),
            Self::Uri | Self::Path | Self::Query | Self::Parameter => {
                for &byte in value {
                    // Unreserved characters (RFC 3986, section 2.3) alone mean themselves wherever they stand.
                    match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                        true => out.push(byte),
                        false => encode(byte, out),
                    }
                }
            }
            Self::Markup => {
                for &byte in value {
                    match byte {
                        b'&' => out.extend_from_slice(b"&amp;"),
                        b'<' => out.extend_from_slice(b"&lt;"),
                        b'>' => out.extend_from_slice(b"&gt;"),
                        b'"' => out.extend_from_slice(b"&quot;"),
                        b'\'' => out.extend_from_slice(b"&#39;"),
                        byte => out.push(byte),
                    }
                }
            }
            Self::Quoted => write_quoted(value, out),
        }
    }

    /// Writes a part of a URI, which is encoded already. What would end a path or query is encoded all the same.
    pub fn write_uri(self, value: &[u8], out: &mut Vec<u8>) {
        let ends: &[u8] = match self {
            Self::Uri => b"",
            Self::Path => b"?#",
            Self::Query => b"#",
            _ => return self.write(value, out),
        };
        for &byte in value {
            match byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) && !ends.contains(&byte) {
                true => out.push(byte),
                false => encode(byte, out),
            }
        }
    }
}

/// Within quotes of any kind, of JSON (RFC 8259, section 7) as of JavaScript, also where a script stands in HTML: what could
/// end a string, a line or the script is a number. What is no UTF-8 becomes the character for that: JSON has to be UTF-8.
fn write_quoted(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '<' | '>' | '&' | '\'' | '`' | '$' | '\u{2028}' | '\u{2029}' => number(character, out),
                character if character.is_control() => number(character, out),
                character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            number(char::REPLACEMENT_CHARACTER, out);
        }
    }
}

/// `\u0027`. All that is written so is below U+10000.
fn number(character: char, out: &mut Vec<u8>) {
    let code = u32::from(character);
    let digit = |shift: u32| b"0123456789abcdef"[(code >> shift & 15) as usize];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

fn encode(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}
