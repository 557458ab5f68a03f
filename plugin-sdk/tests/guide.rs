//! The guide quotes a plugin that compiles and is tested.

#[test]
fn the_guide_quotes_the_example() {
    let guide = include_str!("../../docs/plugin-guide.md");
    let example = include_str!("../examples/api_key.rs");
    assert!(
        guide.contains(example),
        "docs/plugin-guide.md and examples/api_key.rs differ"
    );
}
