//! HTML and XML: whether a place is text, or within the quotes of an attribute.

use super::{Reading, Refused};

/// Markup as it is read.
pub(super) struct Markup {
    is_html: bool,
    state: State,
    /// The name of the tag that is being read, or was last.
    tag: String,
    /// The name of its attribute.
    attribute: String,
    /// What has been read of a declaration, a comment or a script.
    inner: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between tags.
    Text,
    /// Behind `<`.
    Name,
    /// In a tag, behind its name or an attribute.
    Tag,
    /// In an attribute's name.
    Attribute,
    /// Behind an attribute's name and white space.
    Named,
    /// Behind an attribute's `=`.
    Equals,
    /// Within these quotes; whether something stands before it in them.
    Quoted(u8, bool),
    /// In a value without quotes.
    Bare,
    /// In a comment, a declaration, CDATA or an instruction.
    Declaration,
    /// In an element whose content is no markup.
    Raw,
}

impl Markup {
    pub(super) fn html() -> Self {
        Self {
            is_html: true,
            ..Self::xml()
        }
    }

    pub(super) fn xml() -> Self {
        Self {
            is_html: false,
            state: State::Text,
            tag: String::new(),
            attribute: String::new(),
            inner: Vec::new(),
        }
    }

    /// Behind a tag.
    fn close(&mut self) -> State {
        self.inner.clear();
        match self.is_html && RAW.contains(&self.tag.as_str()) {
            true => State::Raw,
            false => State::Text,
        }
    }

    /// Whether the `>` that has just come ends the declaration.
    fn ends(&self) -> bool {
        let inner = &self.inner[..];
        if inner.starts_with(b"!--") {
            return inner.len() >= 5 && inner.ends_with(b"--");
        }
        !inner.starts_with(b"![CDATA[") || inner.ends_with(b"]]")
    }
}

impl Reading for Markup {
    fn step(&mut self, byte: u8) {
        let lower = char::from(byte.to_ascii_lowercase());
        self.state = match (self.state, byte) {
            (State::Text, b'<') => {
                self.tag.clear();
                State::Name
            }
            (State::Text, _) => State::Text,
            (State::Name, b'!' | b'?') if self.tag.is_empty() => {
                self.inner = vec![byte];
                State::Declaration
            }
            (State::Declaration, b'>') if self.ends() => State::Text,
            (State::Declaration, _) => {
                self.inner.push(byte);
                State::Declaration
            }
            (State::Raw, _) => {
                self.inner.push(byte.to_ascii_lowercase());
                match self.inner.strip_suffix(self.tag.as_bytes()) {
                    Some(before) if before.ends_with(b"</") => {
                        self.tag.insert(0, '/');
                        State::Tag
                    }
                    _ => State::Raw,
                }
            }
            (State::Name | State::Tag | State::Attribute | State::Named | State::Equals | State::Bare, b'>') => {
                self.close()
            }
            (State::Name, byte) if byte.is_ascii_whitespace() => State::Tag,
            (State::Name, _) => {
                self.tag.push(lower);
                State::Name
            }
            (State::Tag | State::Named, b'/') => State::Tag,
            (State::Attribute | State::Named, b'=') => State::Equals,
            (State::Attribute, byte) if byte.is_ascii_whitespace() => State::Named,
            (State::Attribute, _) => {
                self.attribute.push(lower);
                State::Attribute
            }
            (state @ (State::Tag | State::Named | State::Equals), byte) if byte.is_ascii_whitespace() => state,
            (State::Tag | State::Named, _) => {
                self.attribute = String::from(lower);
                State::Attribute
            }
            (State::Equals, b'"' | b'\'') => State::Quoted(byte, false),
            (State::Equals, _) => State::Bare,
            (State::Quoted(quote, _), byte) if byte == quote => State::Tag,
            (State::Quoted(quote, _), _) => State::Quoted(quote, true),
            (State::Bare, byte) if byte.is_ascii_whitespace() => State::Tag,
            (State::Bare, _) => State::Bare,
        };
    }

    fn variable(&mut self) {
        match &mut self.state {
            State::Quoted(_, begun) => *begun = true,
            // Whatever it brings, what follows is not at the beginning of a value.
            state @ State::Equals => *state = State::Bare,
            _ => {}
        }
    }

    fn refuses(&self) -> Option<Refused> {
        let attribute = self.attribute.as_str();
        let (label, help) = match self.state {
            State::Text => return None,
            State::Quoted(..) if !self.is_html => return None,
            State::Quoted(..) if attribute.starts_with("on") || CODE.contains(&attribute) => (
                "what is in this attribute is run, or read as a document",
                "put it into an attribute like `data-value`, and read it from there",
            ),
            State::Quoted(_, false) if ADDRESSES.contains(&attribute) => (
                "the client would choose the scheme of this address",
                "write the beginning of the address before it: href=\"https://www.example.net/%{query-param:page}\"",
            ),
            State::Quoted(..) => return None,
            State::Bare | State::Equals => (
                "without quotes, a space would end this value",
                "put the attribute's value into quotes",
            ),
            State::Raw => (
                "here it would be part of a script, a style or a text that ends with its tag",
                "put it between tags, or into an attribute with quotes",
            ),
            State::Declaration => (
                "in a comment or a declaration nothing can be escaped",
                "put it between tags, or into an attribute with quotes",
            ),
            State::Name | State::Tag | State::Attribute | State::Named => (
                "here it would be a name",
                "put it between tags, or into an attribute with quotes",
            ),
        };
        Some(Refused { label, help })
    }
}

/// Elements of HTML whose content is no markup.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "script",
    "style",
    "textarea",
    "xmp",
];

/// Attributes of HTML that are more than a value.
const CODE: &[&str] = &["srcdoc", "style"];

/// Attributes of HTML that lead somewhere.
const ADDRESSES: &[&str] = &[
    "action",
    "background",
    "cite",
    "data",
    "formaction",
    "href",
    "ping",
    "poster",
    "src",
    "srcset",
    "xlink:href",
];
