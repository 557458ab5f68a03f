//! `send "PING\r\n"` and `expect prefix="+PONG"`: the steps of a check of kind "tcp".

use super::elsewhere;
use super::regexes;
use crate::config::diagnostics::{Code, ConfigError};
use crate::config::model::{CheckStep, Expect, Pattern};
use crate::config::reader::{Block, Node, Value};

/// Reads the steps, in order. Faults are reported and the steps that have them left out.
pub(super) fn steps(mut block: Block<'_>) -> Vec<CheckStep> {
    let mut steps = Vec::new();
    for (i, node) in block.any(&["send", "expect"]).into_iter().enumerate() {
        if i == MAX_STEPS {
            let error = ConfigError::new(Code::Value, format!("a check has at most {MAX_STEPS} steps"));
            node.fail(error.label(node.span(), "one too many").help("ask the server for less"));
        }
        let step = match node.name() {
            "send" => send(node),
            _ => expect(node),
        };
        steps.extend(step);
    }
    block.finish(elsewhere);
    steps
}

/// `send "text"` or `send hex="00 00"`.
fn send(mut node: Node<'_>) -> Option<CheckStep> {
    let text = node.next_argument("what is sent");
    let hex = node.property("hex");
    let bytes = match (text, hex) {
        (Some(_), Some(hex)) => {
            let error = ConfigError::new(Code::Conflict, "one `send` has a text or `hex=`, not both");
            node.fail(
                error
                    .label(hex.span(), "beside a text")
                    .help("write two: send \"…\"; send hex=\"…\""),
            );
            None
        }
        (Some(text), None) => text_bytes(&text),
        (None, Some(hex)) => hex_bytes(&hex),
        (None, None) => {
            let error = ConfigError::new(Code::Missing, "`send` needs what is sent");
            let error = error.label(node.span(), "a text or `hex=` has to follow");
            node.fail(error.help(r#"write send "PING\r\n", or send hex="0000000804d2162f""#));
            None
        }
    };
    if text.is_some() {
        refuse_http(&mut node, &["host"]);
    }
    node.finish();
    bytes.map(CheckStep::Send)
}

/// `expect prefix="…"`, or one of its siblings.
fn expect(mut node: Node<'_>) -> Option<CheckStep> {
    let has_http = refuse_http(&mut node, &["status", "header", "body-contains", "body-regex"]);
    let mut found: Vec<(&str, Value<'_>)> = Vec::new();
    for key in ["prefix", "prefix-hex", "contains", "contains-hex", "regex"] {
        found.extend(node.property(key).map(|value| (key, value)));
    }
    if let [_, (_, second), ..] = found[..] {
        let error = ConfigError::new(Code::Conflict, "one `expect` says one thing");
        let error = error.label(second.span(), "beside another");
        node.fail(error.help("write two: expect prefix=\"…\"; expect contains=\"…\""));
    }
    if found.is_empty() && !has_http {
        let error = ConfigError::new(Code::Missing, "`expect` needs what is expected");
        let error = error.label(node.span(), "`prefix=`, `contains=` or `regex=` has to follow");
        node.fail(error.help(r#"write expect prefix="+PONG", expect prefix-hex="300c", or expect regex="^220[ -]""#));
    }
    node.finish();
    let (key, value) = found.into_iter().next()?;
    Some(CheckStep::Expect(match key {
        "prefix" => Expect::Prefix(text_bytes(&value)?),
        "prefix-hex" => Expect::Prefix(hex_bytes(&value)?),
        "contains" => Expect::Contains(text_bytes(&value)?),
        "contains-hex" => Expect::Contains(hex_bytes(&value)?),
        _ => Expect::Regex(Pattern(regexes::regex(&value)?)),
    }))
}

/// Reports what belongs to checks of kind "http".
fn refuse_http(node: &mut Node<'_>, keys: &[&'static str]) -> bool {
    let mut found = false;
    for key in keys {
        if let Some(value) = node.hidden_property(key) {
            found = true;
            let error = ConfigError::new(Code::Inert, format!("`{key}=` does nothing in a check of kind \"tcp\""));
            let error = error.label(value.span(), "this check knows bytes only");
            node.fail(error.help("leave it out, or write check \"http\" for servers that speak HTTP"));
        }
    }
    found
}

fn text_bytes(value: &Value<'_>) -> Option<Vec<u8>> {
    let text = value.text()?;
    bounded(value, text.as_bytes().to_vec())
}

/// Pairs of hexadecimal digits, with spaces where one likes them.
fn hex_bytes(value: &Value<'_>) -> Option<Vec<u8>> {
    let text = value.text()?;
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| *c != ' ')
        .map(|c| Some(u8::try_from(c.to_digit(16)?).unwrap_or(0)))
        .collect();
    match digits {
        Some(digits) if !digits.is_empty() && digits.len().is_multiple_of(2) => {
            let bytes = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            bounded(value, bytes)
        }
        Some(_) => value.fail(
            format!("{} has half a byte", value.title()),
            "an odd number of digits, or none",
            "two hexadecimal digits make a byte: hex=\"00 00 00 08\"",
        ),
        None => value.fail(
            format!("{} is not hexadecimal", value.title()),
            "has more than digits, a to f and spaces",
            "two hexadecimal digits make a byte: hex=\"00 00 00 08\"",
        ),
    }
}

fn bounded(value: &Value<'_>, bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.len() > MAX_BYTES {
        let message = format!("{} has at most {MAX_BYTES} bytes", value.title());
        return value.fail(message, "longer than that", "a check sends and looks for little");
    }
    Some(bytes)
}

/// More than any protocol's greeting, login and farewell take.
const MAX_STEPS: usize = 64;
/// Well below the 16 KiB of an answer that are looked at.
const MAX_BYTES: usize = 4_096;
