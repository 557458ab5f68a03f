//! The guide quotes plugins that compile and are tested.

#[test]
fn the_guide_quotes_the_example() {
    let guide = include_str!("../../docs/plugin-guide.md");
    let example = include_str!("../examples/api_key.rs");
    assert!(
        guide.contains(example),
        "docs/plugin-guide.md and examples/api_key.rs differ"
    );
}

#[test]
fn the_guide_quotes_what_a_new_project_begins_with() {
    let guide = include_str!("../../docs/plugin-guide.md");
    let template = include_str!("../../gateway/src/plugin_tools/new/rust/request_filter.rs");
    let (code, _) = template.split_once("#[cfg(test)]").expect("a template has tests");
    let code = code.trim_end().replace("my-plugin", "api-key");
    assert!(
        guide.contains(&code),
        "docs/plugin-guide.md and plugin_tools/new/rust/request_filter.rs differ"
    );
}
