//! Characters that do not show what they are: where a stranger's text is printed, they are escaped or refused.

/// Whether a character ends a line, steers a terminal, or has what follows shown in another order than it is written.
pub fn is_hidden(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders || matches!(c, '\u{2028}' | '\u{2029}')
}
