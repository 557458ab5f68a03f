use clap::ValueEnum;

use super::*;
use crate::config;
use crate::config::schema::Schema;
use crate::plugin_tools::World;
use crate::plugin_tools::world::CONTRACT;

fn wanted(name: &str, folder: &Path) -> New {
    New {
        name: name.to_owned(),
        language: Language::Rust,
        hook: Hook::RequestFilter,
        folder: Some(folder.to_owned()),
        sdk: Some(sdk()),
    }
}

/// Every project that can be written.
fn all(folder: &Path) -> impl Iterator<Item = New> {
    let languages = Language::value_variants().iter();
    let projects = languages.flat_map(|language| Hook::value_variants().iter().map(|hook| (*language, *hook)));
    projects.enumerate().map(|(number, (language, hook))| New {
        language,
        hook,
        sdk: (language == Language::Rust).then(sdk),
        ..wanted("geo-fence", &folder.join(number.to_string()))
    })
}

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk")
}

/// The files of a folder and those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_project_has_its_name_in_the_place_of_the_templates() {
    let folder = tempfile::tempdir().unwrap();
    for project in all(folder.path()) {
        new(&project).unwrap();
        let written = files(project.folder.as_deref().unwrap());
        assert!(written.len() > 4, "{written:?}");
        for file in written {
            let text = fs::read_to_string(&file).unwrap();
            for left in ["my-plugin", "my_plugin", SDK] {
                assert!(!text.contains(left), "{left} in {}", file.display());
            }
        }
    }
}

#[test]
fn every_project_has_a_configuration_and_fixtures_that_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    for project in all(folder.path()) {
        let next = new(&project).unwrap();
        let folder = project.folder.as_deref().unwrap();
        let text = fs::read_to_string(folder.join("gateway.kdl")).unwrap();
        let parsed = config::parse("gateway.kdl", &text, folder);
        parsed.unwrap_or_else(|errors| panic!("{project:?}: {errors:?}"));
        let fixtures = fs::read_to_string(folder.join("fixtures/cases.kdl")).unwrap();
        let parsed = config::fixture::parse("cases.kdl", &fixtures, folder, Path::new("geo_fence.wasm"));
        parsed.unwrap_or_else(|errors| panic!("{project:?}: {errors:?}"));
        let (_, tried) = next
            .split_once("\n    gateway plugin test geo_fence.wasm\n    gateway run gateway.kdl ")
            .unwrap();
        // What follows a command is none: lines can be pasted into a shell.
        for line in tried.lines().skip(1) {
            assert!(line.starts_with("    curl ") && line.contains("  # "), "{next}");
        }
    }
}

#[test]
fn a_world_has_the_plugins_name_and_is_one_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let mut worlds = 0;
    for project in all(folder.path()).filter(|project| project.language != Language::Rust) {
        new(&project).unwrap();
        let wit = project.folder.unwrap().join("wit");
        let world = World {
            name: "geo-fence".to_owned(),
            wit: Some(wit.join("world.wit")),
        };
        world.embed(&mut wat::parse_str("(module)").unwrap()).unwrap();
        let contract = fs::read_to_string(wit.join("deps/policy/policy.wit")).unwrap();
        assert_eq!(contract, CONTRACT);
        worlds += 1;
    }
    assert_eq!(worlds, 27);
}

#[test]
fn a_package_for_npm_is_json_with_the_plugins_name() {
    let folder = tempfile::tempdir().unwrap();
    let project = New {
        language: Language::JavaScript,
        sdk: None,
        ..wanted("geo-fence", folder.path())
    };
    new(&project).unwrap();
    let text = fs::read_to_string(folder.path().join("package.json")).unwrap();
    let package: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(package["name"], "geo-fence");
}

#[test]
fn the_sdk_is_for_rust() {
    let folder = tempfile::tempdir().unwrap();
    let in_c = New {
        language: Language::C,
        ..wanted("geo", &folder.path().join("geo"))
    };
    let error = new(&in_c).unwrap_err().to_string();
    assert!(error.contains("leave `--sdk` out"), "{error}");
    assert!(!folder.path().join("geo").exists());
}

#[test]
fn what_brings_an_interpreter_is_given_room() {
    for hook in Hook::value_variants() {
        for language in [Language::JavaScript, Language::Python] {
            let files = template::files(language, *hook);
            let text = |wanted| &files.iter().find(|(path, _)| *path == wanted).unwrap().1;
            let config = config::parse("gateway.kdl", text("gateway.kdl"), Path::new(".")).unwrap();
            let limit = config.plugins[0].limits.memory;
            assert_eq!(limit, 64 << 20, "{language:?} {hook:?}");
            assert!(text("fixtures/cases.kdl").contains("limit memory=\"64MiB\" cpu=\"1s\""));
        }
    }
}

#[test]
fn a_project_in_rust_has_a_schema_that_its_configuration_fits() {
    for hook in Hook::value_variants() {
        let folder = tempfile::tempdir().unwrap();
        let project = New {
            hook: *hook,
            ..wanted("geo-fence", &folder.path().join("project"))
        };
        new(&project).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join("project").join(file)).unwrap();
        let schema = Schema::parse("config.schema.kdl", &read("config.schema.kdl")).unwrap();
        let config = config::parse("gateway.kdl", &read("gateway.kdl"), folder.path()).unwrap();
        let plugin = &config.plugins[0];
        let block = serde_json::from_str(&plugin.config).unwrap();
        assert!(schema.check(&block, &plugin.config_places).is_empty(), "{hook:?}");
        // It asks for something.
        let nothing = serde_json::json!({});
        assert!(!schema.check(&nothing, &plugin.config_places).is_empty(), "{hook:?}");
    }
}

#[test]
fn every_hook_is_called_as_it_is_asked_for() {
    for hook in Hook::value_variants() {
        let value = hook.to_possible_value().unwrap();
        assert_eq!(value.get_name(), hook.name());
    }
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    new(&wanted("geo", folder.path())).expect("an empty folder will do");
    let manifest = folder.path().join("Cargo.toml");
    fs::write(&manifest, "mine").unwrap();
    let error = new(&wanted("geo", folder.path())).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    assert_eq!(fs::read_to_string(&manifest).unwrap(), "mine");

    let error = new(&wanted("geo", &manifest)).unwrap_err().to_string();
    assert!(error.contains("cannot write into"), "{error}");
    let error = write(&manifest, "theirs").unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
    assert_eq!(fs::read_to_string(&manifest).unwrap(), "mine");
}

#[test]
fn where_something_is_wrong_no_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("geo");
    new(&wanted("Geo", &project)).unwrap_err();
    let mut without_sdk = wanted("geo", &project);
    without_sdk.sdk = Some(folder.path().to_owned());
    new(&without_sdk).unwrap_err();
    assert!(!project.exists());
}

#[test]
fn the_way_into_the_folder_is_one_for_a_shell() {
    for (path, expected) in [
        ("geo", "geo"),
        ("../a-b/c_d.e", "../a-b/c_d.e"),
        ("my plugins/geo", "'my plugins/geo'"),
        ("it's;rm", r"'it'\''s;rm'"),
        ("-", "./-"),
        ("--help me", "'./--help me'"),
    ] {
        assert_eq!(quoted(Path::new(path)), expected);
    }
}
