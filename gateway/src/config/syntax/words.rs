//! Characters and bare words of KDL v2.

/// What a bare word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A text.
    Name,
    /// A number.
    Number,
    /// A keyword without its `#`, as KDL v1 wrote it.
    OldKeyword,
    /// Neither, and why.
    Neither(&'static str),
}

/// How many bytes of a text belong to its first word.
pub(super) fn length(text: &str) -> usize {
    text.find(|c: char| !is_word_char(c)).unwrap_or(text.len())
}

/// What a word of which all characters may be in one is.
pub(super) fn classify(word: &str) -> Word {
    if OLD_KEYWORDS.contains(&word) {
        return Word::OldKeyword;
    }
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let mut chars = unsigned.chars();
    match (chars.next(), chars.next()) {
        (Some(first), _) if first.is_ascii_digit() => number(unsigned),
        (Some('.'), Some(second)) if second.is_ascii_digit() => Word::Neither("a number begins with a digit"),
        _ => Word::Name,
    }
}

/// The keyword that a word was likely meant to be.
pub(super) fn near_keyword(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let near = |keyword: &&&str| **keyword == lower || strsim::damerau_levenshtein(keyword, &lower) == 1;
    KEYWORDS
        .iter()
        .find(near)
        .copied()
        .filter(|_| word.len() < 10 && !word.is_empty())
}

pub(super) fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

pub(super) fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

/// Characters that a KDL text cannot have anywhere.
pub(super) fn is_disallowed(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn is_word_char(c: char) -> bool {
    let special = matches!(
        c,
        '\\' | '/' | '(' | ')' | '{' | '}' | '[' | ']' | ';' | '"' | '#' | '='
    );
    !special && !is_space(c) && !is_newline(c) && !is_disallowed(c)
}

/// A number without its sign that begins with a digit.
fn number(word: &str) -> Word {
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        let Some(digits) = word.strip_prefix(prefix) else {
            continue;
        };
        let begins = digits.starts_with(|c: char| c.is_digit(radix));
        return match begins && digits.chars().all(|c| c.is_digit(radix) || c == '_') {
            true => fits(digits, radix),
            false => Word::Neither("begins like a number of another base"),
        };
    }
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (word, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    for part in [Some(whole), fraction, exponent].into_iter().flatten() {
        let begins = part.starts_with(|c: char| c.is_ascii_digit());
        if !begins || !part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
            return Word::Neither("begins like a number");
        }
        if fits(part, 10) != Word::Number {
            return fits(part, 10);
        }
    }
    Word::Number
}

fn fits(digits: &str, radix: u32) -> Word {
    let digits: String = digits.chars().filter(|c| *c != '_').take(200).collect();
    match i128::from_str_radix(&digits, radix) {
        Ok(_) => Word::Number,
        Err(_) => Word::Neither("too large for a number"),
    }
}

pub(super) const KEYWORDS: &[&str] = &["true", "false", "null", "inf", "-inf", "nan"];
const OLD_KEYWORDS: &[&str] = &["true", "false", "null", "inf", "-inf", "nan"];
