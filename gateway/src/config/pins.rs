//! Writing the digests of components into the text that names them. All else in the text stays as it was written.

use std::ops::Range;

use kdl::{KdlDocument, KdlNode, KdlValue};
use miette::SourceSpan;

use super::diagnostics::{ConfigError, LineIndex};
use super::reader::value_span;
use super::syntax;

/// A digest, and the `plugin` node that it belongs into.
#[derive(Debug, Clone)]
pub struct Pin {
    /// The line, from 1, that the node begins in.
    pub line: usize,
    /// The name that it gives the plugin.
    pub name: String,
    /// The digest of its component.
    pub sha256: [u8; 32],
}

/// Why a text cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It is not KDL. Whoever has read a configuration from it has not met this.
    #[error("the text is not KDL: {0}")]
    Syntax(ConfigError),
    /// A node is not there, or is written in a way that leaves no place for a digest.
    #[error("the `plugin` in line {0} has no place for `sha256`: write it there by hand")]
    NoPlace(usize),
}

/// The text with `sha256 "…"` in each of these nodes: in the place of what stood there, else first in its block.
///
/// # Errors
/// When it is no configuration's text, or would say something else than it should.
pub fn write_digests(text: &str, pins: &[Pin]) -> Result<String, PinError> {
    let document = document(text)?;
    let plugins = plugins(&document);
    let lines = LineIndex::new(text);
    // By plugin: the digest that is to be read of it afterwards.
    let mut expected: Vec<Option<String>> = plugins.iter().map(|plugin| digest_of(plugin)).collect();
    let mut edits = Vec::new();
    for pin in pins {
        let is_meant = |plugin: &KdlNode| {
            let name = plugin.get(0).and_then(KdlValue::as_string);
            lines.line(plugin.name().span().offset()) == pin.line && name == Some(pin.name.as_str())
        };
        let mut meant = plugins.iter().enumerate().filter(|(_, plugin)| is_meant(plugin));
        // Of two in one line that are called the same, nobody knows which.
        let (Some((position, plugin)), None) = (meant.next(), meant.next()) else {
            return Err(PinError::NoPlace(pin.line));
        };
        let digest: String = pin.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        edits.push((edit(text, plugin, &digest), pin.line));
        expected[position] = Some(digest);
    }
    edits.sort_by_key(|((at, _), _)| at.start);
    let mut changed = String::with_capacity(text.len() + edits.len() * 80);
    let mut done = 0;
    for ((at, new), line) in edits {
        changed.push_str(text.get(done..at.start).ok_or(PinError::NoPlace(line))?);
        changed.push_str(&new);
        done = at.end;
    }
    changed.push_str(text.get(done..).unwrap_or_default());
    // Read again, it has to say what was asked for, and as many plugins as before.
    let again = self::document(&changed)?;
    let found: Vec<Option<String>> = self::plugins(&again).into_iter().map(digest_of).collect();
    match found == expected {
        true => Ok(changed),
        false => Err(PinError::NoPlace(pins.first().map_or(1, |pin| pin.line))),
    }
}

/// What a plugin's digest takes the place of, and what is written there.
fn edit(text: &str, plugin: &KdlNode, digest: &str) -> (Range<usize>, String) {
    let nothing = |at: usize| at..at;
    let end = plugin
        .entries()
        .last()
        .map_or_else(|| span_end(plugin.name().span()), |entry| span_end(value_span(entry)));
    let Some(block) = plugin.children() else {
        return (nothing(end), format!(" {{ sha256 \"{digest}\" }}"));
    };
    if let Some(value) = pinned(block) {
        return (value.offset()..span_end(value), format!("{digest:?}"));
    }
    // Behind the brace, where that ends its line: what is written above the first node is about that.
    let brace = end + plugin.format().map_or(0, |format| format.before_children.len());
    let first = block.nodes().first().map(|node| node.name().span().offset());
    let first = first.unwrap_or(brace + 1);
    let line = text
        .get(..first)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1);
    let indent = text.get(line..first).unwrap_or_default();
    let ends_its_line = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        rest.starts_with("{\n") || rest.starts_with("{\r\n")
    };
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    match indent.chars().all(char::is_whitespace) {
        true if ends_its_line(brace) => (nothing(brace + 1), format!("{end}{indent}sha256 \"{digest}\"")),
        true => (nothing(first), format!("sha256 \"{digest}\"{end}{indent}")),
        false => (nothing(first), format!("sha256 \"{digest}\"; ")),
    }
}

/// Plugins stand at the top of a text, or in a tenant's block.
fn plugins(document: &KdlDocument) -> Vec<&KdlNode> {
    let mut found = Vec::new();
    for node in document.nodes() {
        match node.name().value() {
            "plugin" => found.push(node),
            "tenant" => found.extend(node.children().into_iter().flat_map(plugins)),
            _ => {}
        }
    }
    found
}

/// The digest that a plugin's block says.
fn digest_of(plugin: &KdlNode) -> Option<String> {
    let value = plugin.children()?.get("sha256")?.get(0)?;
    value.as_string().map(str::to_ascii_lowercase)
}

/// Where the digest stands that a plugin's block says already.
fn pinned(block: &KdlDocument) -> Option<SourceSpan> {
    block.get("sha256")?.entries().first().map(value_span)
}

fn span_end(span: SourceSpan) -> usize {
    span.offset() + span.len()
}

fn document(text: &str) -> Result<KdlDocument, PinError> {
    syntax::document(text).map_err(|mut errors| match errors.is_empty() {
        true => PinError::NoPlace(1),
        false => PinError::Syntax(errors.swap_remove(0)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "0101010101010101010101010101010101010101010101010101010101010101";

    /// A digest for every plugin of a text.
    fn pins(text: &str) -> Vec<Pin> {
        let document = document(text).unwrap();
        let lines = LineIndex::new(text);
        let pin = |plugin: &KdlNode| Pin {
            line: lines.line(plugin.name().span().offset()),
            name: plugin.get(0).unwrap().as_string().unwrap().to_owned(),
            sha256: [1; 32],
        };
        plugins(&document).into_iter().map(pin).collect()
    }

    fn pinned_text(text: &str) -> String {
        write_digests(text, &pins(text)).unwrap()
    }

    #[test]
    fn a_digest_comes_first_in_the_block_and_leaves_the_rest_as_it_is() {
        let line = format!("sha256 \"{DIGEST}\"");
        for (before, after) in [
            (
                "plugin \"a\" \"a.wasm\" { on-failure \"deny\" }",
                format!("plugin \"a\" \"a.wasm\" {{ {line}; on-failure \"deny\" }}"),
            ),
            (
                "// ü\nplugin \"a\" \"a.wasm\" {\n    // why\n    grant \"log\" // {\n    on-failure \"deny\"\n}\n",
                format!(
                    "// ü\nplugin \"a\" \"a.wasm\" {{\n    {line}\n    // why\n    grant \"log\" // {{\n    on-failure \"deny\"\n}}\n"
                ),
            ),
            (
                "plugin \"a\" \"a.wasm\" /* { */ { // here\n\tgrant \"log\"\n}",
                format!("plugin \"a\" \"a.wasm\" /* {{ */ {{ // here\n\t{line}\n\tgrant \"log\"\n}}"),
            ),
            (
                "plugin \"a\" \"a.wasm\" {\r\n  grant \"log\"\r\n}",
                format!("plugin \"a\" \"a.wasm\" {{\r\n  {line}\r\n  grant \"log\"\r\n}}"),
            ),
            (
                "plugin \"a\" \"a.wasm\"",
                format!("plugin \"a\" \"a.wasm\" {{ {line} }}"),
            ),
            (
                "plugin \"a\" \"a.wasm\" { grant \"log\"; sha256   \"00\" // old\n}",
                format!("plugin \"a\" \"a.wasm\" {{ grant \"log\"; sha256   \"{DIGEST}\" // old\n}}"),
            ),
            (
                "tenant \"t\" { plugin \"a\" \"a.wasm\" { x; /-sha256 \"00\"\n }; plugin \"b\" \"b.wasm\" { y } }",
                format!(
                    "tenant \"t\" {{ plugin \"a\" \"a.wasm\" {{ {line}; x; /-sha256 \"00\"\n }}; plugin \"b\" \"b.wasm\" {{ {line}; y }} }}"
                ),
            ),
        ] {
            let said = pinned_text(before);
            assert_eq!(said, after, "{before}");
            assert_eq!(pinned_text(&said), said, "again: nothing changes");
        }
    }

    #[test]
    fn a_node_that_is_not_there_or_could_be_another_is_an_error() {
        let pin = |line, name: &str| Pin {
            line,
            name: name.to_owned(),
            sha256: [1; 32],
        };
        let text = "plugin \"a\" \"a.wasm\" { x }\nplugin \"b\" \"b.wasm\" { x }; tenant \"t\" { plugin \"b\" \"b.wasm\" { x } }";
        for wrong in [pin(2, "a"), pin(1, "b"), pin(3, "a"), pin(2, "b")] {
            let line = wrong.line;
            assert!(matches!(write_digests(text, &[wrong]), Err(PinError::NoPlace(at)) if at == line));
        }
        assert!(write_digests(text, &[pin(1, "a")]).is_ok());
        assert!(matches!(
            write_digests("plugin {", &[pin(1, "a")]),
            Err(PinError::Syntax(_))
        ));
    }

    /// Some of these, one after the other.
    fn some_of(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(pieces), 0..5).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Whatever stands around it: the digest is in, or the text is left alone.
        #[test]
        fn what_is_written_is_what_is_read(
            before in some_of(&["\n", "x;", "// } {\n", "/* \" */", "/-y { z; };"]),
            between in some_of(&[" ", "/* { */", " \\\n"]),
            inside in some_of(&["\n", "x;", "y \"}\";", "// {\n", "/* } */", "/-z { w; };", "n { m; };", "sha256 \"0\";"]),
            after in some_of(&["\n", "; x;\n", "/* } */", " // plugin \"a\"\n"]),
        ) {
            let text = format!("{before}\nplugin \"a\" \"a.wasm\" {between}{{{inside}}}{after}");
            prop_assume!(document(&text).is_ok());
            let pins = pins(&text);
            if let Ok(written) = write_digests(&text, &pins) {
                prop_assert!(document(&written).is_ok(), "{written}");
                prop_assert_eq!(written.matches(DIGEST).count(), pins.len());
            }
        }
    }
}
