//! Regular expressions, as far as they have to be looked at to be carried over.

/// What can be told of an expression by its looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// It is one of several, as in `a|b`: what stands at its beginning or its end is of one of them alone.
    pub(super) has_choices: bool,
    /// It begins with `^`, whatever matches.
    pub(super) begins_anchored: bool,
    /// It ends with `$`, whatever matches.
    pub(super) ends_anchored: bool,
    /// It ends with `.*` or `(.*)`, which take whatever there is.
    pub(super) takes_the_rest: bool,
    /// A `^` or `$` stands in it that is about a part of it alone.
    pub(super) is_anchored_within: bool,
}

impl Shape {
    pub(super) fn of(expression: &str) -> Self {
        let (mut depth, mut is_in_class, mut is_escaped) = (0_usize, false, false);
        let (mut has_choices, mut is_anchored_within) = (false, false);
        // Behind the last sign that stands for itself.
        let mut literal_until = 0;
        for (at, sign) in expression.char_indices() {
            match sign {
                _ if is_escaped => {
                    is_escaped = false;
                    literal_until = at + sign.len_utf8();
                }
                '\\' => is_escaped = true,
                ']' => is_in_class = false,
                _ if is_in_class => {}
                '[' => is_in_class = true,
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                '|' if depth == 0 => has_choices = true,
                '^' => is_anchored_within |= at > 0,
                '$' => is_anchored_within |= at + 1 < expression.len(),
                _ => {}
            }
        }
        let is_behind = |before: &str| before.len() >= literal_until;
        let is_last = |end: &str| expression.strip_suffix(end).is_some_and(is_behind);
        let ends_with = |end: &str| is_last(end) && !has_choices;
        Self {
            has_choices,
            begins_anchored: expression.starts_with('^') && !has_choices,
            ends_anchored: ends_with("$"),
            takes_the_rest: ends_with(".*") || ends_with("(.*)"),
            is_anchored_within: is_anchored_within || (has_choices && (expression.starts_with('^') || is_last("$"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_known_by_their_ends_and_choices() {
        for (expression, expected) in [
            ("", (false, false, false, false)),
            ("^/old/(.*)", (false, true, false, true)),
            ("^/old/(.*)$", (false, true, true, false)),
            ("/old/.*", (false, false, false, true)),
            (r"/price\$", (false, false, false, false)),
            (r"/price\\$", (false, false, true, false)),
            (r"/a\.*", (false, false, false, false)),
            ("^a|b$", (true, false, false, false)),
            ("^(a|b)$", (false, true, true, false)),
            ("^[|]$", (false, true, true, false)),
            (r"^a\|b(.*)", (false, true, false, true)),
        ] {
            let shape = Shape::of(expression);
            let got = (
                shape.has_choices,
                shape.begins_anchored,
                shape.ends_anchored,
                shape.takes_the_rest,
            );
            assert_eq!(got, expected, "{expression}");
        }
    }

    #[test]
    fn an_anchor_that_is_about_a_part_alone_is_known() {
        for within in ["^a|b", "a|b$", "(^a|b)", "(a|b$)c*", "(?i)^a"] {
            assert!(Shape::of(within).is_anchored_within, "{within}");
        }
        for without in ["", "a|b", "^a$", "^(a|b)$", r"a\^b\$|c", "[^a]|[$]", r"a|b\$"] {
            assert!(!Shape::of(without).is_anchored_within, "{without}");
        }
    }
}
