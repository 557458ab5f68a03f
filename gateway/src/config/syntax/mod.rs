//! From text to KDL nodes, and what is wrong with the text.
//!
//! The KDL parser recurses: once for every block in a block, but also for every character of a comment that is a star or a
//! slash, and for every place where a text goes wrong. So it only ever sees what `scan` let through: a text of the same
//! length, with comments blanked out and with what is wrong reported and replaced by something harmless.

mod haproxy;
mod scan;
mod strings;
mod structure;
mod words;

use kdl::{KdlDocument, KdlError};
use miette::SourceSpan;

use super::diagnostics::{Code, ConfigError};

/// The nodes of a text.
pub(super) fn document(text: &str) -> Result<KdlDocument, Vec<ConfigError>> {
    let scan::Scanned { clean, mut errors } = scan::scan(text);
    if !errors.is_empty()
        && let Some(section) = haproxy::section(text)
    {
        // What else is wrong with it as KDL is nothing that anybody would mend.
        let error = ConfigError::new(Code::Syntax, "this is a configuration of HAProxy's");
        let error = error.label(SourceSpan::from(section), "a section of it");
        return Err(vec![
            error.help("make the gateway's of it: gateway convert haproxy.cfg -o config.kdl"),
        ]);
    }
    let Some(clean) = clean else { return Err(errors) };
    match parse(&clean) {
        // What the parser says of a text that was mended is about something that nobody wrote.
        _ if !errors.is_empty() => Err(errors),
        Ok(document) => Ok(document),
        Err(Some(error)) => {
            errors.extend(error.diagnostics.into_iter().map(|fault| {
                let message = fault.message.unwrap_or_else(|| "this is not KDL".to_owned());
                let label = fault.label.unwrap_or_default();
                ConfigError::new(Code::Syntax, message)
                    .label(within(text, fault.span), label)
                    .maybe_help(fault.help)
            }));
            Err(errors)
        }
        Err(None) => {
            errors.push(
                ConfigError::new(Code::Syntax, "this text cannot be read as KDL")
                    .help("leave out what is unusual in it"),
            );
            Err(errors)
        }
    }
}

/// Parses on a thread of its own, whose stack is large enough for the depth that `scan` allows many times over, and whose
/// end, if it should come early, is not ours. None when it does.
fn parse(clean: &str) -> Result<KdlDocument, Option<KdlError>> {
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().name("kdl".to_owned()).stack_size(STACK);
        let parsed = parser
            .spawn_scoped(scope, || KdlDocument::parse_v2(clean))
            .map_err(|_| None)?;
        parsed.join().map_err(|_| None)?.map_err(Some)
    })
}

/// A span that is certain to lie in the text and to begin and end between characters.
fn within(text: &str, span: SourceSpan) -> SourceSpan {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(span.offset()), floor(span.offset().saturating_add(span.len())));
    SourceSpan::new(start.into(), end.saturating_sub(start))
}

/// Reserved, not used: only the pages that are touched become memory.
const STACK: usize = 64 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages(text: &str) -> Vec<String> {
        match document(text) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|error| error.message().to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_kdl_passes() {
        for text in [
            "",
            "a",
            "a;b",
            "a 1 -2.5e3 0xff #true #null #-inf key=\"v\" { b; c { d } }",
            "a /* b /* c */ d */ e // f\ng",
            "/- a { b }\nc /- 1 2 /-{ d }\n",
            "a \\\n  b \\ // comment\n  c",
            "a \"\"\"\n    text\n      more \"quoted\"\n    \"\"\"",
            "a #\"raw \\ \"text\"# ##\"a \"# b\"##",
            "a \"tab\\t \\u{1F600} \\\n   joined\"",
            "\u{feff}a b",
            "a\u{a0}b\u{2028}c",
            "a { b } ; c { }\nd {\n}\n",
            "a b = c",
            "a -b +c .d - + . ..",
            "a { b; }",
            "'a' <b> ~c |d| e,f",
        ] {
            assert_eq!(messages(text), Vec::<String>::new(), "{text:?}");
        }
    }

    #[test]
    fn the_parser_sees_no_depth_that_would_overflow_its_stack() {
        let deep = 1 << 17;
        for text in [
            "a {".repeat(deep),
            "a { ".repeat(deep) + &"}".repeat(deep),
            "}".repeat(deep),
            "/*".repeat(deep),
            format!("/{}/", "*".repeat(deep)),
            "/* */".repeat(deep),
            "a )\n".repeat(deep),
            "a {} b ".repeat(deep),
            "a = ".repeat(deep),
            "/-{".repeat(deep),
            "a /-{ ".repeat(deep),
            "/-".repeat(deep),
            "a /-1 /-{} ".repeat(deep),
            "(".repeat(deep),
            "\\".repeat(deep),
            "a \"\"\"\n".repeat(deep),
            "a #\"\"\"\n".repeat(deep),
            "a\\\n".repeat(deep),
        ] {
            let _ = document(&text);
        }
    }

    #[test]
    fn a_line_end_of_two_bytes_is_hidden_whole() {
        for text in ["a {}/-\r\nb", "a {} /-\u{2028}b", "u{41} /-\r\na"] {
            let clean = scan::scan(text).clean.unwrap();
            assert!(parse(&clean).is_ok(), "{text:?} is mended to {clean:?}");
        }
    }

    /// The specification ends every node with a line end, `;`, `}` or the end of the text, a dropped one, too. The parser
    /// reads on behind a dropped node without, and so it reads more than is KDL.
    #[test]
    fn a_dropped_node_ends_as_any_other() {
        for (text, said) in [
            ("/-, #true,", "`#true,` is no keyword"),
            ("/-a #null\"c\"", "a space is missing before this"),
            ("/-a {}b", "a space is missing before this"),
            ("/-a {} b", "a node ends with its block"),
        ] {
            assert!(KdlDocument::parse_v2(text).is_ok(), "{text:?} is no exception any more");
            assert!(KdlDocument::parse_v2(&text.replace("/-", "")).is_err(), "{text:?}");
            assert_eq!(messages(text), [said], "{text:?}");
        }
    }

    /// Whether the parser reads a text only because of what it lets follow a dropped node.
    fn follows_a_dropped_node(text: &str, message: &str) -> bool {
        let joined = ["a space is missing before this", "a node ends with its block"].contains(&message);
        (joined || message.ends_with("is no keyword"))
            && text.contains("/-")
            && KdlDocument::parse_v2(&text.replace("/-", "  ")).is_err()
    }

    proptest! {
        // As many as the environment says where it does: the default of that configuration reads it.
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

        #[test]
        fn what_the_scanner_passes_the_parser_reads(
            parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24),
        ) {
            let text = parts.concat();
            let scanned = scan::scan(&text);
            if scanned.errors.is_empty() {
                let clean = scanned.clean.unwrap();
                prop_assert!(parse(&clean).is_ok(), "{text:?} passes and cannot be parsed: {:?}", parse(&clean));
            }
        }

        #[test]
        fn what_is_wrong_keeps_its_place_and_is_said_in_our_words(
            parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24),
        ) {
            let text = parts.concat();
            let scanned = scan::scan(&text);
            if let Some(clean) = &scanned.clean {
                prop_assert_eq!(clean.len(), text.len());
            }
            let said: Vec<_> = scanned.errors.iter().map(|error| error.message().to_owned()).collect();
            if !said.is_empty() {
                prop_assert_eq!(messages(&text), said);
            }
        }

        #[test]
        fn what_the_parser_reads_the_scanner_passes(
            parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..16),
        ) {
            let text = parts.concat();
            // Types are refused on purpose.
            if !text.contains('(') && KdlDocument::parse_v2(&text).is_ok() {
                // It reads `#"""a"#` as a raw string that begins with quotes, where the specification has a faulty long one.
                let raw = |message: &str| message.starts_with("`\"\"\"` is followed by a new line");
                let mut refused = messages(&text);
                refused.retain(|message| !raw(message) && !follows_a_dropped_node(&text, message));
                prop_assert_eq!(refused, Vec::<String>::new(), "{:?}", text);
            }
        }
    }

    const PARTS: &[&str] = &[
        "a",
        "b",
        "\"c\"",
        "\"\\q\"",
        "\"",
        "\"\"",
        "\"\"\"",
        "#\"r\"#",
        "#\"",
        "#",
        "#true",
        "#tru",
        "true",
        "1",
        "1.5",
        "1x",
        "-",
        ".",
        ".5",
        "-1",
        "+",
        "0x",
        "0xg",
        "1e",
        "1e5",
        "1_0",
        "=",
        " = ",
        " ",
        "  ",
        "\n",
        "\r\n",
        ";",
        "{",
        "}",
        " {",
        "} ",
        "(",
        ")",
        "(u8)",
        "[",
        "]",
        "/",
        "//",
        "/*",
        "*/",
        "/-",
        " /-",
        "\\",
        "\\\n",
        ",",
        "é",
        "\u{0}",
        "\u{feff}",
        "\u{a0}",
        "\u{2028}",
        "r\"x\"",
        "r#\"x\"#",
        "null",
        "\\n",
        "u{41}",
        "\\u{41}",
        "\\u{110000}",
    ];
}
