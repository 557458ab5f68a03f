//! Texts with facts in them. What a client sent goes in, so each place says how: as a header's value, a path, a query.

use std::net::IpAddr;

use gateway_plugin_sdk::needs::{List, Need};

use crate::config::{Part, Template};

/// A text, ready to be put together.
#[derive(Debug)]
pub(crate) struct Value<Need> {
    pieces: Vec<Piece<Need>>,
}

#[derive(Debug)]
pub(crate) enum Piece<Need> {
    Text(String),
    Fact(Need, Kind),
}

/// How a fact is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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
pub(crate) enum Place {
    Header,
    Path,
    Query,
    /// A name or value of a parameter.
    Parameter,
}

/// Where facts come from.
pub(crate) trait Facts<Need> {
    /// The first value.
    fn get(&self, need: Need) -> Option<&[u8]>;
    /// Each value, in order.
    fn all(&self, need: Need) -> Vec<&[u8]>;
}

/// There are none: what is then written is what a call has room for in any case.
pub(crate) struct NoFacts;

impl<Need> Facts<Need> for NoFacts {
    fn get(&self, _: Need) -> Option<&[u8]> {
        None
    }

    fn all(&self, _: Need) -> Vec<&[u8]> {
        Vec::new()
    }
}

impl<Phase> Value<Need<Phase>> {
    pub(crate) fn new(template: Template, needs: &mut List<Phase>) -> Self {
        let pieces = template.0.into_iter().map(|part| Piece::new(part, needs));
        Self {
            pieces: pieces.collect(),
        }
    }
}

impl<Phase> Piece<Need<Phase>> {
    pub(crate) fn new(part: Part, needs: &mut List<Phase>) -> Self {
        match part {
            Part::Text(text) => Self::Text(text),
            Part::Fact(name) => Self::Fact(needs.attribute(&name), Kind::of(&name)),
        }
    }
}

impl<Need: Copy> Value<Need> {
    /// The text, if no fact is in it.
    pub(crate) fn as_plain(&self) -> Option<&str> {
        match &self.pieces[..] {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The texts between the facts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Fact(..) => None,
        })
    }

    /// Bytes of what is written in any case.
    pub(crate) fn fixed_length(&self) -> usize {
        self.texts().map(str::len).sum()
    }

    pub(crate) fn write(&self, facts: &impl Facts<Need>, place: Place, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            piece.write(facts, place, out);
        }
    }
}

impl<Need: Copy> Piece<Need> {
    pub(crate) fn write(&self, facts: &impl Facts<Need>, place: Place, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) if place == Place::Parameter => place.write(text.as_bytes(), out),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Fact(need, Kind::List) => {
                for (index, value) in facts.all(*need).into_iter().enumerate() {
                    if index > 0 {
                        place.write(b", ", out);
                    }
                    place.write(value, out);
                }
            }
            Self::Fact(need, kind) => {
                if let Some(value) = facts.get(*need) {
                    kind.write(value, place, out);
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

    fn write(self, value: &[u8], place: Place, out: &mut Vec<u8>) {
        match self {
            Self::Address => {
                let address = match value.len() {
                    4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
                };
                if let Some(address) = address {
                    place.write(address.to_string().as_bytes(), out);
                }
            }
            Self::Time => place.write(value.get(2..).unwrap_or_default(), out),
            Self::Uri => place.write_uri(value, out),
            Self::List | Self::First => place.write(value, out),
        }
    }
}

impl Place {
    /// Writes what came from outside, so that it stays in its place.
    pub(crate) fn write(self, value: &[u8], out: &mut Vec<u8>) {
        for &byte in value {
            match self {
                Self::Header if byte != b'\t' && byte.is_ascii_control() => out.push(b'_'),
                Self::Header => out.push(byte),
                // Unreserved characters (RFC 3986, section 2.3) alone mean themselves wherever they stand.
                _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(byte),
                _ => encode(byte, out),
            }
        }
    }

    /// Writes a part of a URI, which is encoded already. What would end a path or query is encoded all the same.
    fn write_uri(self, value: &[u8], out: &mut Vec<u8>) {
        for &byte in value {
            match self {
                Self::Header | Self::Parameter => return self.write(value, out),
                Self::Path if matches!(byte, b'?' | b'#') => encode(byte, out),
                Self::Query if byte == b'#' => encode(byte, out),
                _ if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) => out.push(byte),
                _ => encode(byte, out),
            }
        }
    }
}

fn encode(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}
