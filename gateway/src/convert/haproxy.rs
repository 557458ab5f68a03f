//! Reading an HAProxy configuration: sections of lines of words (HAProxy's configuration manual, 2.2 "Quoting and
//! escaping"). What the words mean is not known here.

use super::Finding;

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

/// Reads a text.
pub(super) fn read(text: &str, findings: &mut Vec<Finding>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (i, text) in text.lines().enumerate() {
        let number = i + 1;
        let words = match words(text) {
            Ok(words) => words,
            Err(message) => {
                let message = message.to_owned();
                findings.push(Finding { line: number, message });
                continue;
            }
        };
        let Some(first) = words.first() else { continue };
        if SECTIONS.contains(&first.as_str()) {
            sections.push(Section {
                kind: first.clone(),
                name: words.get(1).filter(|word| *word != "from").cloned(),
                from: words.iter().skip_while(|word| *word != "from").nth(1).cloned(),
                line: number,
                lines: Vec::new(),
            });
            continue;
        }
        let line = Line {
            number,
            words,
            text: text.trim().to_owned(),
        };
        match sections.last_mut() {
            Some(section) => section.lines.push(line),
            None => findings.push(Finding {
                line: number,
                message: "left out: it stands in no section".to_owned(),
            }),
        }
    }
    sections
}

/// The words of a line. Blanks separate, `#` begins a comment, `\` escapes, quotes keep blanks.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = chars.next().ok_or("left out: a backslash at the end of the line")?;
                let word = word.get_or_insert_default();
                match next {
                    'n' => word.push('\n'),
                    'r' => word.push('\r'),
                    't' => word.push('\t'),
                    ' ' | '#' | '\\' | '\'' | '"' | '$' => word.push(next),
                    // No escape: a capture in a replacement, as `\1`.
                    other => word.extend(['\\', other]),
                }
            }
            (c, Some(open)) if c == open => quote = None,
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
        return Err("left out: a quote is not closed");
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
const SECTIONS: [&str; 14] = [
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
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::words;

    #[test]
    fn quotes_and_escapes_are_as_haproxys() {
        let cases: [(&str, &[&str]); 7] = [
            ("  bind *:80 # the port", &["bind", "*:80"]),
            (r"a\ b c", &["a b", "c"]),
            (r#"log-format "%ci \"x\" #""#, &["log-format", "%ci \"x\" #"]),
            (r"send 'PING\r\n'", &["send", r"PING\r\n"]),
            (r#"send "PING\r\n""#, &["send", "PING\r\n"]),
            (r#"x"y z"w"#, &["xy zw"]),
            (r#"empty """#, &["empty", ""]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("open \"quote").is_err());
        assert!(words("end \\").is_err());
    }
}
