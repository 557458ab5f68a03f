//! The schemas that the shelf's components ship with: what they say is what the components take, and what docs/shelf.md says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gateway::config::BuiltIn;
use gateway::config::schema::Schema;
use gateway::policy::{first_party, section};
use gateway_tests::Gateway;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn names(schema: &Schema) -> BTreeSet<String> {
    schema.names().map(str::to_owned).collect()
}

#[test]
fn each_component_has_the_schema_that_lies_beside_its_source() {
    for (name, built_in) in BuiltIn::ALL {
        let text = read(&format!("plugins/{name}/config.schema.kdl"));
        assert_eq!(
            section::config_schema(first_party::shelf(*built_in)),
            Ok(Some(&*text)),
            "{name}"
        );
        let schema = Schema::parse(name, &text).unwrap();
        assert!(!names(&schema).is_empty(), "{name}");
    }
}

/// The first column of each section's table has the settings, in backticks, each with its values behind it.
#[test]
fn the_shelfs_tables_have_the_settings_that_the_schemas_have() {
    let text = read("docs/shelf.md");
    for (name, _) in BuiltIn::ALL {
        let schema = Schema::parse(name, &read(&format!("plugins/{name}/config.schema.kdl"))).unwrap();
        let section = text.split(&format!("\n## `{name}`\n")).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let shown: BTreeSet<String> = rows
            .flat_map(|row| row.split("`, `"))
            .map(|setting| setting.split([' ', '`']).next().unwrap().to_owned())
            .collect();
        assert_eq!(shown, names(&schema), "{name}");
    }
}

/// A component without its schema says by itself what it knows. `deny_unknown_fields` lists that.
#[test]
fn the_components_take_the_settings_that_their_schemas_have_and_no_others() {
    for (name, built_in) in BuiltIn::ALL {
        let wasm = first_party::shelf(*built_in);
        let text = section::config_schema(wasm).unwrap().unwrap();
        let schema = Schema::parse(name, text).unwrap();
        let mut section = Vec::new();
        section::add_config_schema(&mut section, text);
        let bare = wasm.strip_suffix(&*section).unwrap();
        assert_eq!(section::config_schema(bare), Ok(None));

        let grants = granted(bare);
        let checked = Gateway::verbatim(&format!(
            "process {{ workers 1 }}\n\
             plugin \"p\" \"p.wasm\" {{ {grants} on-failure \"deny\"; limit cpu=\"1s\"; config {{ nonsense }} }}\n\
             frontend \"web\" {{ bind \"127.0.0.1:0\"; use-plugin \"p\"; default-backend \"app\" }}\n\
             backend \"app\" {{ server \"s\" \"echo\" }}\n\
             defaults {{ timeout connect=\"5s\" client=\"5s\" server=\"5s\" }}\n"
        ))
        .file("p.wasm", bare)
        .check(&["--format", "json"]);
        let said: Value = serde_json::from_str(&checked.stdout).unwrap();
        let message = said["errors"][0]["message"].as_str().unwrap();
        let known = message
            .split_once("expected ")
            .unwrap_or_else(|| panic!("{name}: {message}"))
            .1;
        let known: BTreeSet<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(known, names(&schema), "{name}: {message}");
    }
}

/// The node that grants a component what it imports.
fn granted(wasm: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.wasm");
    std::fs::write(&file, wasm).unwrap();
    let output = gateway_tests::command()
        .args(["plugin", "inspect", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["config"], Value::Null);
    let grants: Vec<String> = said["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    match grants.as_slice() {
        [] => String::new(),
        grants => format!("grant {};", grants.join(" ")),
    }
}
