//! The engine agrees with the `regex` crate, with which the gateway checks a configuration.

#![cfg(feature = "engine")]

use gateway_plugin_pattern::{Groups, Pattern};
use proptest::prelude::*;
use regex::bytes::RegexBuilder;

fn reference(pattern: &str) -> regex::bytes::Regex {
    RegexBuilder::new(pattern).unicode(false).build().expect("a pattern")
}

#[test]
fn what_is_wrong_is_said() {
    let refused = |pattern: &str| Pattern::new(pattern).expect_err("not a pattern");
    assert!(refused("a(b").contains("unclosed group"), "{}", refused("a(b"));
    assert!(
        refused("(a{999}){999}").contains("size"),
        "{}",
        refused("(a{999}){999}")
    );
    assert!(refused(&("(".repeat(40) + "a" + &")".repeat(40))).contains("nest"));
}

#[test]
fn groups_are_found_by_number_and_name() {
    let pattern = Pattern::new(r"^/(?<user>\w+)(/x)?").expect("a pattern");
    assert_eq!(
        (pattern.groups(), pattern.group("user"), pattern.group("other")),
        (3, Some(1), None)
    );
    let mut groups = Groups::default();
    assert!(pattern.find(b"/ada/y", &mut groups));
    assert_eq!(
        (groups.range(0), groups.range(1), groups.range(2)),
        (Some(0..4), Some(1..4), None)
    );
    assert!(!pattern.find(b"ada", &mut groups));
}

#[test]
fn a_text_too_long_for_the_backtracker_is_still_searched() {
    let pattern = Pattern::new("(a|b|ab)*c[0-9]$").expect("a pattern");
    let mut text = b"ab".repeat(100_000);
    assert!(!pattern.is_match(&text));
    text.extend_from_slice(b"c7");
    assert!(pattern.is_match(&text));
    assert!(pattern.is_match(b"abc1"), "and short ones after it");
}

/// Patterns that nest, repeat, choose and capture.
fn patterns() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[abc]",
        Just(".".to_owned()),
        Just("[^a]".to_owned()),
        Just("\\w".to_owned()),
        Just("\\b".to_owned()),
        Just("(?i:A)".to_owned()),
    ];
    let tree = leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| parts.concat()),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(?:{a}|{b})")),
            inner.clone().prop_map(|a| format!("({a})")),
            (inner, prop_oneof![Just("*"), Just("+?"), Just("?"), Just("{2}")])
                .prop_map(|(a, op)| format!("(?:{a}){op}")),
        ]
    });
    (any::<bool>(), tree, any::<bool>()).prop_map(|(start, pattern, end)| {
        format!(
            "{}{pattern}{}",
            if start { "^" } else { "" },
            if end { "$" } else { "" }
        )
    })
}

proptest! {
    #[test]
    fn matches_and_groups_are_those_of_the_regex_crate(
        pattern in patterns(),
        text in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'A'), Just(b'\n'), any::<u8>()], 0..20),
    ) {
        let ours = Pattern::new(&pattern).expect("a pattern");
        let theirs = reference(&pattern);
        prop_assert_eq!(ours.is_match(&text), theirs.is_match(&text));
        let mut groups = Groups::default();
        let found = ours.find(&text, &mut groups);
        let expected = theirs.captures(&text);
        prop_assert_eq!(found, expected.is_some());
        if let Some(expected) = expected {
            for group in 0..ours.groups() {
                prop_assert_eq!(groups.range(group), expected.get(group).map(|m| m.range()), "group {}", group);
            }
        }
    }
}
