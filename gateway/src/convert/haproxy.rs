//! Reading an HAProxy configuration: sections of lines of words (HAProxy's configuration manual, 2.2 "Quoting and
//! escaping"). What the words mean is not known here.

use super::Finding;
use super::conditionals::{Are, Conditionals};
use super::environment::Environment;

/// `frontend web` and the lines below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// `global`, `defaults`, `frontend`, `backend`, `listen`, or another word.
    pub(super) kind: String,
    /// Its name, where it has one.
    pub(super) name: Option<String>,
    /// The defaults that it names.
    pub(super) from: Option<String>,
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// What it says.
    pub(super) lines: Vec<Line>,
}

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: usize,
    /// At least one.
    pub(super) words: Vec<String>,
    /// As it was written, without the blanks around it.
    pub(super) text: String,
}

/// Reads a text, with the variables of this environment.
pub(super) fn read(text: &str, outside: &dyn Fn(&str) -> Option<String>, findings: &mut Vec<Finding>) -> Vec<Section> {
    let mut environment = Environment::new(outside);
    let mut conditionals = Conditionals::default();
    let mut sections: Vec<Section> = Vec::new();
    // The condition that decides in which section a line stands, where nobody knows.
    let mut unknown: Option<usize> = None;
    for (i, text) in text.lines().enumerate() {
        let number = i + 1;
        let mut left_out = |reason: &str| {
            findings.push(Finding {
                line: number,
                message: format!("left out: {reason}"),
            });
        };
        let is_directive = text.trim_start().starts_with('.');
        let are = conditionals.lines();
        if are == Are::Gone && !is_directive {
            continue;
        }
        let words = match words(text, &environment, is_directive) {
            Ok(words) => words,
            Err(reason) => {
                left_out(&reason);
                // A block begins and ends, whatever it asks.
                let first = text.split_whitespace().next().unwrap_or_default();
                if !is_directive {
                    continue;
                }
                vec![first.to_owned(), reason]
            }
        };
        if is_directive {
            conditionals.obey(number, &words, &environment, findings);
            continue;
        }
        let Some(first) = words.first() else { continue };
        let is_section = SECTIONS.contains(&first.as_str());
        if let Are::Unknown(line) = are {
            left_out(&format!("it depends on line {line}"));
            if is_section {
                unknown = Some(line);
            }
            continue;
        }
        if is_section {
            unknown = None;
            sections.push(Section {
                kind: first.clone(),
                name: words.get(1).filter(|word| *word != "from").cloned(),
                from: words.iter().skip_while(|word| *word != "from").nth(1).cloned(),
                line: number,
                lines: Vec::new(),
            });
            continue;
        }
        if let Some(line) = unknown {
            left_out(&format!("whose section it is in depends on line {line}"));
            continue;
        }
        let Some(section) = sections.last_mut() else {
            left_out("it stands in no section");
            continue;
        };
        if section.kind == "global" && environment.obey(&words) {
            continue;
        }
        section.lines.push(Line {
            number,
            words,
            text: text.trim().to_owned(),
        });
    }
    conditionals.end(findings);
    sections
}

/// The words of a line. Blanks separate, `#` begins a comment, `\` escapes, quotes keep blanks, and variables stand between double
/// ones; those that are not set are nothing if `or_nothing` says so. Fails with the reason.
fn words(line: &str, environment: &Environment<'_>, or_nothing: bool) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or("a backslash at the end of the line")?;
                let word = word.get_or_insert_default();
                match next {
                    'n' => word.push('\n'),
                    'r' => word.push('\r'),
                    't' => word.push('\t'),
                    'x' => {
                        let digits = chars.as_str().get(..2).unwrap_or_default();
                        let byte = u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii);
                        let byte = byte.ok_or("what stands behind `\\x` is no character of ASCII")?;
                        word.push(char::from(byte));
                        chars = chars.as_str()[2..].chars();
                    }
                    ' ' | '#' | '\\' | '\'' | '"' | '$' => word.push(next),
                    // No escape: a capture in a replacement, as `\1`.
                    other => word.extend(['\\', other]),
                }
            }
            (c, Some(open)) if c == open => quote = None,
            ('$', Some('"')) => {
                let (value, rest) = environment.expand(chars.as_str(), or_nothing)?;
                word.get_or_insert_default().push_str(&value);
                chars = rest.chars();
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

impl Line {
    /// The keyword.
    pub(super) fn keyword(&self) -> &str {
        &self.words[0]
    }

    /// The word at a position, counted from the keyword.
    pub(super) fn word(&self, at: usize) -> Option<&str> {
        self.words.get(at).map(String::as_str)
    }

    /// The words after a position.
    pub(super) fn rest(&self, from: usize) -> &[String] {
        self.words.get(from..).unwrap_or_default()
    }
}

/// Words that begin a section.
const SECTIONS: [&str; 19] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "mailers",
    "resolvers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "fcgi-app",
    "log-forward",
    // Since 3.0.
    "crt-store",
    "traces",
    "log-profile",
    "acme",
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_escapes_are_as_haproxys() {
        let outside = |name: &str| (name == "PORT").then(|| "80 81".to_owned());
        let environment = Environment::new(&outside);
        let cases: [(&str, &[&str]); 11] = [
            ("  bind *:80 # the port", &["bind", "*:80"]),
            (r"a\ b c", &["a b", "c"]),
            (r#"log-format "%ci \"x\" #""#, &["log-format", "%ci \"x\" #"]),
            (r"send 'PING\r\n'", &["send", r"PING\r\n"]),
            (r#"send "PING\r\n""#, &["send", "PING\r\n"]),
            (r#"x"y z"w"#, &["xy zw"]),
            (r#"empty """#, &["empty", ""]),
            (r"\x41\x20b \1", &["A b", r"\1"]),
            // Variables are looked up between double quotes alone.
            (r#""*:${PORT}" x"#, &["*:80 81", "x"]),
            (
                r#""$PORT-" '$PORT' $PORT "\$PORT""#,
                &["80 81-", "$PORT", "$PORT", "$PORT"],
            ),
            (r#""${NONE-9}""#, &["9"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line, &environment, false).unwrap(), expected, "{line}");
        }
        for wrong in [
            "open \"quote",
            "end \\",
            r"\xe4",
            r"\x4",
            r"\xé",
            r#""$NONE""#,
            r#""${PORT""#,
        ] {
            words(wrong, &environment, false).unwrap_err();
        }
    }
}
