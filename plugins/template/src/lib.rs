//! Texts with facts in them: `https://%{host}/`, taken apart. The gateway puts together where redirects lead and what its own
//! responses say, the header-rewrite component what it edits; both write a fact in the same way, which is settled here.
//!
//! What a client sent goes into these texts. So each [`Place`] says what may not come in: control characters into a header, the
//! marks of another part of a URI into a URI, markup into HTML, the end of a string into JSON.

mod place;

use std::io::Write;
use std::net::IpAddr;

pub use place::Place;

/// A text, ready to be put together. `N` is what a fact is known by.
#[derive(Debug, Clone)]
pub struct Text<N> {
    pieces: Vec<Piece<N>>,
}

/// A part of a text.
#[derive(Debug, Clone)]
pub enum Piece<N> {
    /// As it is.
    Text(String),
    /// What the fact is, written so.
    Fact(N, Kind),
}

/// How a fact is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An address in bytes.
    Address,
    /// A time with the day of the week before it.
    Time,
    /// A part of a URI as it came, or as a map has it: in a URI it stands as it is.
    Uri,
    /// All its values, as one list (RFC 9110, section 5.3).
    List,
    /// The first of its values.
    First,
}

/// Where facts come from.
pub trait Facts<N> {
    /// The first value.
    fn get(&self, need: N) -> Option<&[u8]>;
    /// Each value, in order.
    fn all(&self, need: N) -> impl Iterator<Item = &[u8]>;
}

/// There are none: what is then written is written in any case.
#[derive(Debug, Clone, Copy)]
pub struct NoFacts;

impl<N> Facts<N> for NoFacts {
    fn get(&self, _: N) -> Option<&[u8]> {
        None
    }

    fn all(&self, _: N) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }
}

impl<N> FromIterator<Piece<N>> for Text<N> {
    fn from_iter<I: IntoIterator<Item = Piece<N>>>(pieces: I) -> Self {
        Self {
            pieces: pieces.into_iter().collect(),
        }
    }
}

impl<N: Copy> Text<N> {
    /// The text, if no fact is in it.
    pub fn as_plain(&self) -> Option<&str> {
        match &self.pieces[..] {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The texts between the facts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Fact(..) => None,
        })
    }

    /// Bytes of what is written in any case.
    pub fn fixed_length(&self) -> usize {
        self.texts().map(str::len).sum()
    }

    /// Puts the text together, behind what is in `out`.
    pub fn write(&self, facts: &impl Facts<N>, place: Place, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            piece.write(facts, place, out);
        }
    }
}

impl<N: Copy> Piece<N> {
    /// Writes it behind what is in `out`.
    pub fn write(&self, facts: &impl Facts<N>, place: Place, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) if place == Place::Parameter => place.write(text.as_bytes(), out),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Fact(need, Kind::List) => {
                for (position, value) in facts.all(*need).enumerate() {
                    if position > 0 {
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
    /// How the attribute of this name is written; the names are those of `types.needs` in the contract.
    pub fn of(name: &str) -> Self {
        match name {
            "client-ip" | "local-ip" => Self::Address,
            "path" | "query" | "uri" | "host" | "authority" | "scheme" => Self::Uri,
            // What a map has is the operator's own text.
            name if name.starts_with("map:") => Self::Uri,
            name if name.starts_with("local-time:") => Self::Time,
            name if name.starts_with("header:") || name.starts_with("response-header:") => Self::List,
            _ => Self::First,
        }
    }

    /// Writes a value of it.
    pub fn write(self, value: &[u8], place: Place, out: &mut Vec<u8>) {
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
                    place.write(&text, out);
                }
            }
            Self::Time => place.write(value.get(2..).unwrap_or_default(), out),
            Self::Uri => place.write_uri(value, out),
            Self::List | Self::First => place.write(value, out),
        }
    }
}

/// The longest address as a text: eight groups of four digits.
const ADDRESS_LENGTH: usize = 39;
