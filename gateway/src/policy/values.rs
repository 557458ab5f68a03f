//! Texts with variables that the host puts together itself: where a redirect leads, what a response that is made here says.
//!
//! What a client sent goes into these texts, so each purpose says what may not come in: control characters into a header,
//! the marks of another part of a URI into a URI, markup into HTML.

use std::io::Write;
use std::net::IpAddr;

use super::exchange::Exchange;
use super::needs::{Attribute, Facts, NeedPhase};
use crate::config::{Template, TemplatePart};

/// A text with variables, ready to be put together.
#[derive(Debug, Clone)]
pub struct Values {
    parts: Vec<Part>,
    /// Looked up together.
    needs: Vec<Attribute>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<[u8]>),
    Fact(u32, Kind),
}

/// How a fact is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An address in bytes.
    Address,
    /// A time with the day of the week before it.
    Time,
    /// A part of a URI as it came: in a URI it stands as it is.
    Uri,
    /// All its values, as one list (RFC 9110, section 5.3).
    List,
    /// The first of its values.
    First,
}

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A header's value.
    Header,
    /// A URI, or a part of one.
    Uri,
    /// A text that nothing reads but people.
    Text,
    /// HTML or XML.
    Markup,
    /// JSON: within the quotes of a string.
    Json,
}

impl Purpose {
    /// What content of this media type is.
    #[must_use]
    pub fn of_content(media_type: &str) -> Self {
        let kind = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if kind.ends_with("html") || kind.ends_with("xml") {
            Self::Markup
        } else if kind.ends_with("json") {
            Self::Json
        } else {
            Self::Text
        }
    }
}

impl Values {
    /// Of a template in which the names of frontend and backend have been put. The error is an attribute that there is not.
    pub fn new(template: &Template) -> Result<Self, String> {
        let mut needs: Vec<Attribute> = Vec::new();
        let mut parts = Vec::with_capacity(template.0.len());
        for part in &template.0 {
            parts.push(match part {
                TemplatePart::Text(text) => Part::Text(text.as_bytes().into()),
                TemplatePart::Fact(name) => {
                    let attribute =
                        Attribute::parse(name, NeedPhase::Request).map_err(|why| format!("`{name}` {why}"))?;
                    let kind = Kind::of(name);
                    let need = needs.iter().position(|known| *known == attribute).unwrap_or_else(|| {
                        needs.push(attribute);
                        needs.len() - 1
                    });
                    Part::Fact(u32::try_from(need).unwrap_or(u32::MAX), kind)
                }
                TemplatePart::Frontend | TemplatePart::Backend => Part::Text(Box::default()),
            });
        }
        Ok(Self { parts, needs })
    }

    /// The text, where it is the same for every exchange.
    #[must_use]
    pub fn as_plain(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [] => Some(&[]),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Puts the text together for an exchange, behind what is in `out`.
    pub fn write(&self, exchange: &Exchange, purpose: Purpose, out: &mut Vec<u8>) {
        let mut facts = Facts::default();
        if !self.needs.is_empty() {
            facts.of_exchange(&self.needs, exchange);
        }
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Fact(need, kind) => {
                    let mut values = facts.iter().filter(|(of, _)| of == need).map(|(_, value)| value);
                    let Some(first) = values.next() else { continue };
                    kind.write(first, purpose, out);
                    if *kind == Kind::List {
                        for value in values {
                            purpose.write(b", ", out);
                            purpose.write(value, out);
                        }
                    }
                }
            }
        }
    }
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "client-ip" | "local-ip" => Self::Address,
            "path" | "query" | "uri" | "host" | "authority" | "scheme" => Self::Uri,
            name if name.starts_with("local-time:") => Self::Time,
            name if name.starts_with("header:") || name.starts_with("response-header:") => Self::List,
            _ => Self::First,
        }
    }

    fn write(self, value: &[u8], purpose: Purpose, out: &mut Vec<u8>) {
        match self {
            Self::Address => {
                let address = match value.len() {
                    4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
                };
                if let Some(address) = address {
                    let mut text = Vec::with_capacity(ADDRESS_LENGTH);
                    // Writing into memory does not fail.
                    let _ = write!(text, "{address}");
                    purpose.write(&text, out);
                }
            }
            Self::Time => purpose.write(value.get(2..).unwrap_or_default(), out),
            Self::Uri if purpose == Purpose::Uri => {
                for byte in value {
                    match byte {
                        b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => encode(*byte, out),
                        byte if byte.is_ascii_graphic() => out.push(*byte),
                        byte => encode(*byte, out),
                    }
                }
            }
            Self::Uri | Self::List | Self::First => purpose.write(value, out),
        }
    }
}

impl Purpose {
    /// Writes what came from outside.
    fn write(self, value: &[u8], out: &mut Vec<u8>) {
        for &byte in value {
            match self {
                // Nothing that could end the field, or that a receiver has to refuse (RFC 9110, section 5.5).
                Self::Header if byte != b'\t' && byte.is_ascii_control() => out.push(b'_'),
                Self::Header | Self::Text => out.push(byte),
                // Unreserved characters (RFC 3986, section 2.3) alone mean themselves wherever they stand.
                Self::Uri if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(byte),
                Self::Uri => encode(byte, out),
                Self::Markup => match byte {
                    b'&' => out.extend_from_slice(b"&amp;"),
                    b'<' => out.extend_from_slice(b"&lt;"),
                    b'>' => out.extend_from_slice(b"&gt;"),
                    b'"' => out.extend_from_slice(b"&quot;"),
                    b'\'' => out.extend_from_slice(b"&#39;"),
                    byte => out.push(byte),
                },
                Self::Json => match byte {
                    b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                    // Not within a script of HTML either.
                    byte if byte < b' ' || matches!(byte, b'<' | b'>' | b'&' | 0x7f) => {
                        let _ = write!(out, "\\u{byte:04x}");
                    }
                    byte => out.push(byte),
                },
            }
        }
    }
}

fn encode(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// The longest address as a text: eight groups of four digits.
const ADDRESS_LENGTH: usize = 39;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::exchange;
    use super::*;

    fn fact(name: &str) -> Template {
        Template(vec![TemplatePart::Fact(name.to_owned())])
    }

    fn written(name: &str, uri: &str, purpose: Purpose) -> String {
        let mut out = Vec::new();
        Values::new(&fact(name))
            .unwrap()
            .write(&exchange(uri), purpose, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_host_knows_every_variable_of_the_configuration() {
        for name in crate::config::template_attributes() {
            let phase = match name.as_str() {
                "server" | "status" | "response-header:x" => NeedPhase::Response,
                _ => NeedPhase::Request,
            };
            assert!(Attribute::parse(&name, phase).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_value_cannot_leave_its_place() {
        let uri = "/p?q=%0d%0aSet-Cookie:%20x%3C%22%27%26%2F%3F";
        assert_eq!(written("query-param:q", uri, Purpose::Header), "__Set-Cookie: x<\"'&/?");
        assert_eq!(
            written("query-param:q", uri, Purpose::Uri),
            "%0D%0ASet-Cookie%3A%20x%3C%22%27%26%2F%3F"
        );
        assert_eq!(
            written("query-param:q", uri, Purpose::Markup),
            "\r\nSet-Cookie: x&lt;&quot;&#39;&amp;/?"
        );
        assert_eq!(
            written("query-param:q", uri, Purpose::Json),
            "\\u000d\\u000aSet-Cookie: x\\u003c\\\"'\\u0026/?"
        );
    }

    #[test]
    fn addresses_lists_and_uris_are_written_as_such() {
        assert_eq!(written("client-ip", "/", Purpose::Header), "192.0.2.7");
        assert_eq!(written("header:a", "/", Purpose::Header), "1, 2");
        assert_eq!(written("uri", "/a%20b?c=d&e", Purpose::Uri), "/a%20b?c=d&e");
        assert_eq!(written("header:none", "/", Purpose::Header), "");
    }

    #[test]
    fn content_is_escaped_by_its_type() {
        assert_eq!(Purpose::of_content("text/html; charset=utf-8"), Purpose::Markup);
        assert_eq!(Purpose::of_content("application/problem+json"), Purpose::Json);
        assert_eq!(Purpose::of_content("image/svg+xml"), Purpose::Markup);
        assert_eq!(Purpose::of_content("text/plain"), Purpose::Text);
    }

    proptest! {
        #[test]
        fn what_is_written_for_headers_and_uris_is_one(value: Vec<u8>) {
            let mut header = Vec::new();
            Purpose::Header.write(&value, &mut header);
            prop_assert!(http::HeaderValue::from_bytes(&header).is_ok());
            for kind in [Kind::Uri, Kind::First] {
                let mut uri = b"/".to_vec();
                kind.write(&value, Purpose::Uri, &mut uri);
                prop_assert!(uri.iter().all(u8::is_ascii_graphic));
            }
        }
    }
}
