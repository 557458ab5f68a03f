//! Variables in the content of a `return`: how they are escaped follows from its type, and where that escaping would not hold,
//! what a client sent may not stand.
//!
//! So what the client chooses is allowed in plain text; in HTML and XML between tags and within the quotes of an attribute; in
//! JSON and JavaScript within the quotes of a string. In anything else nobody could say what it would become.

mod markup;
mod strings;

use gateway_plugin_template::Place;

use super::variables::Part;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::reader::Value;

use markup::Markup;
use strings::{Json, Script};

/// How variables are written into content of this type; where a client's could leave their place, that is reported.
pub(super) fn place(value: &Value<'_>, parts: &[Part<'_>], content_type: &str) -> Option<Place> {
    let kind = content_type.split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    let (_, sub) = kind.split_once('/').unwrap_or(("", &kind));
    let (place, mut reading): (Place, Box<dyn Reading>) = match sub {
        _ if kind == "text/plain" => (Place::Text, Box::new(Anywhere)),
        "html" | "xhtml+xml" => (Place::Markup, Box::new(Markup::html())),
        sub if sub == "xml" || sub.ends_with("+xml") => (Place::Markup, Box::new(Markup::xml())),
        sub if sub == "json" || sub.ends_with("+json") => (Place::Quoted, Box::new(Json::default())),
        "javascript" | "x-javascript" | "ecmascript" => (Place::Quoted, Box::new(Script::default())),
        _ => (Place::Text, Box::new(Nowhere)),
    };
    let mut well = true;
    for part in parts {
        match part {
            Part::Text(text) => text.bytes().for_each(|byte| reading.step(byte)),
            Part::Variable(variable) => {
                let refused = reading.refuses().filter(|_| variable.is_clients());
                reading.variable();
                if let Some(refused) = refused {
                    let message = format!(
                        "`{}` is the client's choice, and cannot stand here",
                        variable.known.name
                    );
                    let error = ConfigError::new(Code::Value, message).label(variable.span, refused.label);
                    value.context().report(error.help(refused.help));
                    well = false;
                }
            }
        }
    }
    well.then_some(place)
}

/// Content as it is read byte by byte, to know what a variable stands in.
trait Reading {
    fn step(&mut self, byte: u8);
    /// A variable stands here.
    fn variable(&mut self) {}
    /// Why what a client sent may not stand here.
    fn refuses(&self) -> Option<Refused>;
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    label: &'static str,
    help: &'static str,
}

/// Content that is nothing but text.
struct Anywhere;

impl Reading for Anywhere {
    fn step(&mut self, _: u8) {}

    fn refuses(&self) -> Option<Refused> {
        None
    }
}

/// Content in which nothing could be escaped.
struct Nowhere;

impl Reading for Nowhere {
    fn step(&mut self, _: u8) {}

    fn refuses(&self) -> Option<Refused> {
        Some(Refused {
            label: "content of this type has no way to escape it that is known here",
            help: "leave it out, or answer with text/plain, HTML, XML, JSON or JavaScript, where it is escaped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a client's variable may stand where `@` does.
    fn admits(reading: &mut dyn Reading, text: &str) -> bool {
        let mut admits = true;
        for byte in text.bytes() {
            match byte {
                b'@' => {
                    admits &= reading.refuses().is_none();
                    reading.variable();
                }
                byte => reading.step(byte),
            }
        }
        admits
    }

    #[test]
    fn in_html_a_value_stands_between_tags_or_in_quotes() {
        for (text, expected) in [
            ("<p>@</p>", true),
            ("@", true),
            ("<title>@</title>", true),
            ("<a title=\"@\" title='x@y'>@", true),
            ("<a href=\"https://@/x@\">@</a>", true),
            ("<!-- x > --><p>@", true),
            ("<!doctype html><p>@", true),
            ("<script>f()</script><p>@", true),
            ("<script>\"@\"</script>", false),
            ("<SCRIPT src=x>x = '@'", false),
            ("<style>a { color: @ }</style>", false),
            ("<script>'</scrip>@'", false),
            ("<a title=@>", false),
            ("<a title = @>", false),
            ("<a @>", false),
            ("<@>", false),
            ("</@>", false),
            ("<!-- @ -->", false),
            ("<!-- > @ -->", false),
            ("<a href=\"@\">", false),
            ("<a href='@'>", false),
            ("<img src=\"@\">", false),
            ("<a onclick=\"f('@')\">", false),
            ("<a style=\"color: @\">", false),
            ("<iframe srcdoc=\"@\">", false),
            ("<textarea>@</textarea>", false),
        ] {
            assert_eq!(admits(&mut Markup::html(), text), expected, "{text}");
        }
    }

    #[test]
    fn in_xml_there_are_no_scripts_and_no_addresses() {
        for (text, expected) in [
            ("<?xml version=\"1.0\"?><script>@</script>", true),
            ("<a href=\"@\"/>", true),
            ("<?x @?>", false),
            ("<![CDATA[@]]>", false),
            ("<![CDATA[ > ]]>@", true),
            ("<a b=@>", false),
        ] {
            assert_eq!(admits(&mut Markup::xml(), text), expected, "{text}");
        }
    }

    #[test]
    fn in_json_and_scripts_a_value_stands_within_quotes() {
        for (text, expected) in [
            (r#"{"a": "@", "b": "x@"}"#, true),
            (r#"{"a": "\"@"}"#, true),
            (r#"{"@": 1}"#, true),
            (r#"{"a": @}"#, false),
            (r#"{"a": "\@"}"#, false),
            (r#"{"a": "\\"@}"#, false),
        ] {
            assert_eq!(admits(&mut Json::default(), text), expected, "{text}");
        }
        for (text, expected) in [
            (r#"f("@"); g('@')"#, true),
            ("// it's\nf(\"@\")", true),
            ("/* it's */ f('@')", true),
            ("f(@)", false),
            ("f(`@`)", false),
            ("// @", false),
            ("/* @ */", false),
            (r#"x = /"/; f(@)"#, false),
            (r#"x = /"/; f("@")"#, false),
            (r#"f('\@')"#, false),
            ("f('\n@')", false),
        ] {
            assert_eq!(admits(&mut Script::default(), text), expected, "{text}");
        }
    }
}
