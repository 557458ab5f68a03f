//! Texts with variables that the host puts together itself: where a redirect leads, what a response that is made here says.

use gateway_plugin_template as template;
use gateway_plugin_template::{Kind, Piece, Place, Text};

use super::attribute::{Attribute, URL_ENCODE};
use super::exchange::Exchange;
use super::facts::Facts;
use super::maps::Maps;
use super::needs::NeedPhase;
use crate::config::{Template, TemplatePart};

/// A text with variables, ready to be put together.
#[derive(Debug, Clone)]
pub struct Values {
    /// Its facts by position in `needs`.
    text: Text<u32>,
    /// Looked up together.
    needs: Vec<Attribute>,
}

impl Values {
    /// Of a template in which the names of frontend and backend have been put. The error is an attribute that there is not.
    pub fn new(template: &Template, maps: &Maps) -> Result<Self, String> {
        let mut needs: Vec<Attribute> = Vec::new();
        let mut pieces = Vec::with_capacity(template.0.len());
        for part in &template.0 {
            pieces.push(match part {
                TemplatePart::Text(text) => Piece::Text(text.clone()),
                TemplatePart::Fact(name) => {
                    let attribute = Attribute::parse_with(name, NeedPhase::Request, maps)
                        .map_err(|why| format!("`{name}` {why}"))?;
                    let need = needs.iter().position(|known| *known == attribute).unwrap_or_else(|| {
                        needs.push(attribute);
                        needs.len() - 1
                    });
                    Piece::Fact(u32::try_from(need).unwrap_or(u32::MAX), kind(name))
                }
                TemplatePart::Frontend | TemplatePart::Backend => continue,
            });
        }
        let text = pieces.into_iter().collect();
        Ok(Self { text, needs })
    }

    /// The text, where it is the same for every exchange.
    #[must_use]
    pub fn as_plain(&self) -> Option<&[u8]> {
        self.text.as_plain().map(str::as_bytes)
    }

    /// Whether it has something that is read of a ClientHello where TLS passes through.
    #[must_use]
    pub fn reads_client_hello(&self) -> bool {
        self.needs.iter().any(Attribute::is_of_hello)
    }

    /// Puts the text together for an exchange, behind what is in `out`.
    pub fn write(&self, exchange: &Exchange, place: Place, out: &mut Vec<u8>) {
        let mut facts = Facts::default();
        if !self.needs.is_empty() {
            facts.of_exchange(&self.needs, exchange);
        }
        self.text.write(&Found(&facts), place, out);
    }
}

/// How the attribute of this name is written. What is percent-encoded already stands as it is, wherever that be.
fn kind(name: &str) -> Kind {
    match name.starts_with(URL_ENCODE) {
        true => Kind::Uri,
        false => Kind::of(name),
    }
}

/// What was found for the needs of a text.
struct Found<'a>(&'a Facts);

impl template::Facts<u32> for Found<'_> {
    fn get(&self, need: u32) -> Option<&[u8]> {
        self.all(need).next()
    }

    fn all(&self, need: u32) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(of, _)| *of == need).map(|(_, value)| value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::exchange;
    use super::*;

    fn written(name: &str, uri: &str, place: Place) -> String {
        let mut out = Vec::new();
        Values::new(&Template(vec![TemplatePart::Fact(name.to_owned())]), &Maps::new())
            .unwrap()
            .write(&exchange(uri), place, &mut out);
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
    fn addresses_lists_and_uris_are_written_as_such() {
        assert_eq!(written("client-ip", "/", Place::Header), "192.0.2.7");
        assert_eq!(written("header:a", "/", Place::Header), "1, 2");
        assert_eq!(written("uri", "/a%20b?c=d&e", Place::Uri), "/a%20b?c=d&e");
        assert_eq!(written("query-param:q", "/p?q=%0d%0ax%3C", Place::Markup), "\r\nx&lt;");
        assert_eq!(written("header:none", "/", Place::Header), "");
    }

    #[test]
    fn what_is_percent_encoded_is_so_once_and_in_every_place() {
        for place in [Place::Uri, Place::Header, Place::Text, Place::Markup, Place::Quoted] {
            let encoded = "%2Fa%2520b%3Fc%3Dd%26e";
            assert_eq!(written("url-encode:uri", "/a%20b?c=d&e", place), encoded, "{place:?}");
            assert_eq!(written("url-encode:header:a", "/", place), "1%2C%202", "{place:?}");
            assert_eq!(written("url-encode:client-ip", "/", place), "192.0.2.7", "{place:?}");
            assert_eq!(
                written("url-encode:query-param:q", "/?q=%26", place),
                "%26",
                "{place:?}"
            );
            assert_eq!(written("url-encode:header:none", "/", place), "", "{place:?}");
        }
    }
}
