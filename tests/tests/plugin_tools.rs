//! `gateway plugin …` as an author meets it: the real program on built components.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gateway_tests::guest;
use serde_json::Value;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/dist/{name}.wasm"))
}

fn inspect(file: &Path, flags: &[&str]) -> Output {
    let mut command = gateway_tests::command();
    command
        .args(["plugin", "inspect"])
        .arg(file)
        .args(flags)
        .output()
        .unwrap()
}

/// What is said of bytes that are not taken.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    std::fs::write(&file, bytes).unwrap();
    let output = inspect(&file, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// `gateway plugin new` in this folder.
fn new(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = gateway_tests::command();
    command.current_dir(folder).args(["plugin", "new"]).args(arguments);
    // As somebody who has no checkout: cargo, which runs the tests, would say where one is.
    command.env_remove("CARGO_MANIFEST_DIR").output().unwrap()
}

fn sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk")
}

#[test]
fn a_new_project_is_a_crate_that_finds_the_sdk() {
    let folder = tempfile::tempdir().unwrap();
    let output = new(folder.path(), &["geo-fence", "--sdk", sdk().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let next = "    cd geo-fence\n    gateway plugin build\n    gateway plugin test geo_fence.wasm\n    gateway run gateway.kdl ";
    assert!(said.contains(next), "{said}");
    let guide = include_str!("../../docs/plugin-guide.md");
    let as_there = said.replace("geo-fence", "api-key").replace("geo_fence", "api_key");
    assert!(guide.contains(&as_there), "{said}");

    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let project = folder.path().join("geo-fence");
    cargo
        .current_dir(&project)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let metadata = cargo.output().unwrap();
    assert!(metadata.status.success(), "{metadata:?}");
    let crates: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let package = &crates["packages"][0];
    assert_eq!(package["name"], "geo-fence");
    let dependencies = package["dependencies"].as_array().unwrap();
    let found = dependencies
        .iter()
        .find(|one| one["name"] == "gateway-plugin-sdk")
        .unwrap();
    let found = project.join(found["path"].as_str().unwrap());
    assert_eq!(found.canonicalize().unwrap(), sdk().canonicalize().unwrap());
}

#[test]
fn a_new_project_in_a_checkout_needs_no_word_of_the_sdk() {
    let checkout = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(sdk().canonicalize().unwrap(), checkout.path().join("plugin-sdk")).unwrap();
    let output = new(checkout.path(), &["geo"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_new_project_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let readme = folder.path().join("README.md");
    std::fs::write(&readme, "mine").unwrap();
    let output = new(folder.path(), &["geo", ".", "--sdk", sdk().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(". is not empty, and nothing in it is overwritten"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&readme).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_new_project_with_a_name_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, why) in [
        ("list", "a keyword of WIT"),
        ("fn", "a keyword of Rust"),
        ("Geo_Fence", "as \"api-key\""),
        ("../geo", "as \"api-key\""),
    ] {
        let output = new(folder.path(), &[name, "--sdk", sdk().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{name}: {said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_component_is_inspected_for_programs() {
    let file = shipped("rate-limit");
    let output = inspect(&file, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(said["name"], "rate-limit");
    assert_eq!(said["size"], std::fs::metadata(&file).unwrap().len());
    assert_eq!(said["grants"], serde_json::json!(["buckets"]));
    assert_eq!(said["pure"], false, "it counts in the gateway");
    let imports = said["imports"].as_array().unwrap();
    let buckets = imports.iter().find(|import| import["interface"] == "buckets").unwrap();
    assert!(!buckets["functions"].as_array().unwrap().is_empty(), "{said}");
    assert!(said["hooks"].as_array().unwrap().contains(&"limiter".into()), "{said}");
    assert!(said["memories"][0]["minimum"].as_u64().unwrap() > 0, "{said}");
    // The digest is the one that the build wrote down.
    let manifest = std::fs::read_to_string(file.with_file_name("MANIFEST")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("rate-limit ")).unwrap();
    assert_eq!(line.split(' ').nth(1), said["sha256"].as_str());
}

#[test]
fn a_component_is_inspected_for_people() {
    let output = inspect(&shipped("header-rewrite"), &[]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for part in [
        "header-rewrite",
        "request-filter, response-filter",
        "request-edits (",
        "contract: 0.1.",
        "pure:     yes",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("needs:"), "nothing has to be granted: {said}");
}

#[test]
fn what_is_no_plugin_is_not_inspected_but_said() {
    assert!(refusal(b"hello").contains("not WebAssembly"));
    assert!(refusal(b"\0asm\x01\0\0\0").contains("gateway plugin build"));
    // A component with nothing in it.
    assert!(refusal(b"\0asm\x0d\0\x01\0").contains("`plugin!(…)`"));
    let whole = std::fs::read(shipped("acl")).unwrap();
    assert!(refusal(&whole[..whole.len() / 2]).contains("not a usable"));
}

#[test]
fn a_component_for_another_contract_is_told_apart() {
    let mut bytes = std::fs::read(shipped("acl")).unwrap();
    let (old, new) = (b"@0.1.0", b"@0.9.0");
    let places: Vec<usize> = (0..bytes.len() - old.len())
        .filter(|&at| bytes[at..].starts_with(old))
        .collect();
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    let said = refusal(&bytes);
    assert!(
        said.contains("built for the contract 0.9.0; this gateway has 0.1.x"),
        "{said}"
    );
}

#[test]
fn a_component_that_never_begins_is_not_waited_for() {
    let facts = guest::FACTS;
    let endless = guest::component(
        "connection",
        &format!(
            r#"(start $loop)
            (func (export "gateway:policy/connection-filter@0.1.0#on-connect") {facts} (result i32) unreachable)"#
        ),
    );
    let said = refusal(&endless);
    assert!(said.contains("deadline in instantiate"), "{said}");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.wasm");
    std::fs::File::create(&path).unwrap().set_len((64 << 20) + 1).unwrap();
    let output = inspect(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("at most 67108864 bytes")
    );
}

#[test]
fn a_module_that_says_nothing_of_its_types_is_built_with_its_world() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("quiet.wasm");
    let out = folder.path().join("plugin.wasm");
    let facts = guest::FACTS;
    let exports = format!(
        r#"(func (export "gateway:policy/connection-filter@0.1.0#on-connect") {facts} (result i32) (call $none))"#
    );
    std::fs::write(&module, guest::module(&exports)).unwrap();
    let build = |flags: &[&str]| {
        let mut command = gateway_tests::command();
        command.args(["plugin", "build"]).arg(&module).arg("-o").arg(&out);
        command.args(flags).output().unwrap()
    };

    let refused = build(&[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!out.exists());
    let unknown = build(&["--world", "conection"]);
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("no world \"conection\"; it has access-control"), "{said}");

    let built = build(&["--world", "connection"]);
    assert!(built.status.success(), "{built:?}");
    let said = String::from_utf8(built.stdout).unwrap();
    assert!(
        said.contains("hooks:   connection-filter\nimports: nothing\n"),
        "{said}"
    );
    assert!(inspect(&out, &[]).status.success());
}

#[test]
fn what_a_built_component_needs_granted_is_in_the_line_that_attaches_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mine.wasm");
    let mut command = gateway_tests::command();
    let built = command
        .args(["plugin", "build"])
        .arg(shipped("request-id"))
        .arg("-o")
        .arg(&out)
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let said = String::from_utf8(built.stdout).unwrap();
    assert!(said.contains("attach:  plugin \"mine\""), "{said}");
    assert!(
        said.contains(r#"{ grant "clock" "random"; on-failure "deny" status=503 }"#),
        "{said}"
    );
}

#[test]
fn a_folder_without_a_crate_is_not_built() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = gateway_tests::command();
    let output = command.args(["plugin", "build"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("no Cargo.toml"));
}

/// Runs `gateway plugin test` on a shipped component.
fn try_fixtures(name: &str, fixtures: &[&Path], flags: &[&str]) -> Output {
    let mut command = gateway_tests::command();
    command.args(["plugin", "test"]).arg(shipped(name));
    command.args(fixtures).args(flags).output().unwrap()
}

#[test]
fn every_component_of_the_shelf_does_what_its_fixtures_expect() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let manifest = std::fs::read_to_string(plugins.join("dist/MANIFEST")).unwrap();
    let names = manifest.lines().filter_map(|line| line.split(' ').next());
    // The larger of two builds of one source has its fixtures.
    let names: Vec<&str> = names
        .filter(|name| shipped(name).is_file() && plugins.join(name).is_dir())
        .collect();
    assert!(names.len() >= 13, "{names:?}");
    for name in names {
        let folder = plugins.join(name).join("fixtures");
        let output = try_fixtures(name, &[&folder], &[]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{name}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            said.ends_with(" passed\n") && !said.contains("FAILED"),
            "{name}: {said}"
        );
    }
}

#[test]
fn fixtures_that_are_not_met_are_told_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.kdl");
    let fixture = r#"plugin { config { retry-after "10m"; allow "10.0.0.0/8" } }
case "everybody" times=3 { request "GET" "/"; expect { reply 503 { header "retry-after" "60" } } }
case "us" { connection client="10.0.0.1:1"; request "GET" "/"; expect { continue } }"#;
    std::fs::write(&file, fixture).unwrap();
    let output = try_fixtures("maintenance", &[&file], &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["passed"], &said["failed"]), (&1.into(), &1.into()), "{said}");
    let [everybody, us] = said["fixtures"][0]["cases"].as_array().unwrap().as_slice() else {
        panic!("{said}")
    };
    assert_eq!((&everybody["line"], &everybody["times"]), (&2.into(), &1.into()));
    let differs = everybody["differences"][0].as_str().unwrap();
    assert_eq!(differs, r#"the reply has retry-after: "600", and not "60""#);
    assert_eq!(us["passed"], true);
    assert!(
        us["calls"].as_u64().unwrap() >= 1 && us["peak_memory"].as_u64().unwrap() >= 65_536,
        "{us}"
    );
}

#[test]
fn what_is_wrong_with_fixtures_is_said_of_all_of_them_before_any_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "a.kdl",
        "plugin { config { network \"not one\" } }\ncase \"x\" { request \"GET\" \"/\"; expect { continue } }",
    );
    write("b.kdl", "case \"x\" { request \"GET\"; expect { contineu } }");
    let output = try_fixtures("ip-list", &[folder.path()], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["`request` needs its target", "did you mean `continue`?", "b.kdl"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What the component refuses is pointed at as in a configuration.
    std::fs::remove_file(folder.path().join("b.kdl")).unwrap();
    let output = try_fixtures("ip-list", &[folder.path()], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("config::policy") && said.contains("a.kdl:1"), "{said}");
    // And what it was not granted.
    write("a.kdl", "case \"x\" { request \"GET\" \"/\"; expect { continue } }");
    let output = try_fixtures("jwt-auth", &[folder.path()], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("clock") && said.contains("grant"), "{said}");
}

#[test]
fn what_is_no_component_is_said_once_and_is_no_fixtures_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let case = "case \"x\" { request \"GET\" \"/\"; expect { continue } }";
    for name in ["a.kdl", "b.kdl"] {
        std::fs::write(path(name), case).unwrap();
    }
    std::fs::write(path("text.wasm"), "hello").unwrap();
    std::fs::write(path("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    for (component, why) in [
        ("text.wasm", "not WebAssembly"),
        ("module.wasm", "gateway plugin build"),
        ("nothing.wasm", "No such file"),
    ] {
        let mut command = gateway_tests::command();
        let arguments = [path(component), folder.path().to_owned()];
        let output = command.args(["plugin", "test"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.matches(why).count() == 1 && !said.contains(".kdl"),
            "{component}: {said}"
        );
    }
}

#[test]
fn a_case_is_measured_warm_and_fresh() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/rate-limit/fixtures/limits.kdl");
    let bench = |flags: &[&str]| {
        let mut command = gateway_tests::command();
        command
            .args(["plugin", "bench"])
            .arg(shipped("rate-limit"))
            .arg(&fixture);
        command.args(["--calls", "20"]).args(flags).output().unwrap()
    };
    let output = bench(&["--json", "--case", "and not twice"]);
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [case] = said["cases"].as_array().unwrap().as_slice() else {
        panic!("{said}")
    };
    let hooks = |way: &str| -> Vec<(String, u64)> {
        let hooks = case[way].as_array().unwrap().iter();
        hooks
            .map(|hook| {
                (
                    hook["hook"].as_str().unwrap().to_owned(),
                    hook["calls"].as_u64().unwrap(),
                )
            })
            .collect()
    };
    assert_eq!(hooks("warm"), [("check".to_owned(), 20)]);
    assert_eq!(
        hooks("fresh"),
        [("instantiate".to_owned(), 20), ("check".to_owned(), 20)]
    );
    let check = &case["warm"][0];
    assert!(check["min_ns"].as_u64() <= check["median_ns"].as_u64(), "{said}");
    assert!(check["median_ns"].as_u64() <= check["p99_ns"].as_u64(), "{said}");
    assert_eq!(check["host_calls"]["buckets"], 2, "{said}");

    let people = bench(&[]);
    assert!(people.status.success(), "{people:?}");
    let text = String::from_utf8(people.stdout).unwrap();
    assert!(
        text.contains("warm  check") && text.contains("host calls: buckets 2"),
        "{text}"
    );
    let mut command = gateway_tests::command();
    command.args(["plugin", "bench"]).arg(shipped("rate-limit"));
    let of_folder = command.arg(fixture.parent().unwrap()).output().unwrap();
    assert_eq!(of_folder.status.code(), Some(1));
    let said = String::from_utf8(of_folder.stderr).unwrap();
    assert!(said.contains("fixtures is a folder: name one of its files"), "{said}");
    let unknown = bench(&["--case", "no such"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        String::from_utf8(unknown.stderr)
            .unwrap()
            .contains("there is no case \"no such\"")
    );
}

/// Builds a component of a shipped one that has no schema, with one.
fn build_with_schema(folder: &Path, schema: &str) -> Output {
    let file = folder.join("mine.kdl");
    std::fs::write(&file, schema).unwrap();
    let mut command = gateway_tests::command();
    command
        .args(["plugin", "build"])
        .arg(shipped("rate-limit"))
        .arg("--schema")
        .arg(&file);
    command.arg("-o").arg(folder.join("mine.wasm")).output().unwrap()
}

#[test]
fn a_schema_is_built_in_and_shown_by_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let schema = "setting \"mode\" \"text\" required {\n    about \"What it does.\"\n    values \"soft\" \"hard\"\n}\n";
    let built = build_with_schema(folder.path(), schema);
    assert!(built.status.success(), "{built:?}");
    let out = folder.path().join("mine.wasm");
    let said = String::from_utf8(inspect(&out, &[]).stdout).unwrap();
    assert!(
        said.contains("config:\n    mode: `soft` or `hard`; has to be said\n        What it does.\n"),
        "{said}"
    );
    let said: Value = serde_json::from_slice(&inspect(&out, &["--json"]).stdout).unwrap();
    let expected = serde_json::json!([{
        "name": "mode", "about": "What it does.", "required": true, "secret": false,
        "types": [{"type": "text", "values": ["soft", "hard"]}],
    }]);
    assert_eq!(said["config"]["settings"], expected);

    let said: Value = serde_json::from_slice(&inspect(&shipped("rate-limit"), &["--json"]).stdout).unwrap();
    assert_eq!(said["config"], Value::Null);
    let said = String::from_utf8(inspect(&shipped("canary-route"), &[]).stdout).unwrap();
    for line in [
        "    percent: a number from 0 to 100; has to be said\n",
        "        as in: percent 5\n",
        "        One of `cookie`, `header` or `client-ip` has to be said, and no more.\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_schema_that_is_none_is_shown_with_its_places_and_nothing_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let built = build_with_schema(folder.path(), "setting \"mode\" \"txt\"\nseting \"b\" \"text\"\n");
    assert_eq!(built.status.code(), Some(1), "{built:?}");
    let said = String::from_utf8(built.stderr).unwrap();
    assert!(
        said.contains("mine.kdl:1:16") && said.contains("did you mean `text`?"),
        "{said}"
    );
    assert!(
        said.contains("mine.kdl:2:1") && said.contains("did you mean `setting`?"),
        "{said}"
    );
    assert!(!folder.path().join("mine.wasm").exists());
}

#[test]
fn a_component_has_one_schema() {
    let folder = tempfile::tempdir().unwrap();
    let built = build_with_schema(folder.path(), "setting \"mode\" \"text\"\n");
    assert!(built.status.success(), "{built:?}");
    let mut command = gateway_tests::command();
    let again = command
        .args(["plugin", "build"])
        .arg(folder.path().join("mine.wasm"))
        .arg("--schema")
        .arg(folder.path().join("mine.kdl"))
        .arg("-o")
        .arg(folder.path().join("again.wasm"))
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("has a schema already"), "{said}");
}

#[test]
fn a_component_with_a_schema_that_is_none_is_not_taken() {
    let mut bytes = std::fs::read(shipped("acl")).unwrap();
    gateway::policy::section::add_config_schema(&mut bytes, "setting \"a\"");
    let said = refusal(&bytes);
    assert!(
        said.contains("the schema of its configuration cannot be used: 1:1: `setting` needs a type"),
        "{said}"
    );
}

#[test]
fn fixtures_are_held_to_the_schema_as_configurations_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.kdl");
    std::fs::write(
        &file,
        "plugin { grant \"clock\" \"random\"; config { keap; prefix 5 } }\ncase \"a\" { request \"GET\" \"/\"; expect { tag \"request-id\" \"x\" } }\n",
    )
    .unwrap();
    let output = try_fixtures("request-id", &[&file], &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("did you mean `keep`?") && said.contains("`prefix` has to be a text"),
        "{said}"
    );
}

#[test]
fn what_is_on_the_shelf_is_inspected_by_its_name() {
    let inspect = |arguments: &[&str]| {
        let mut command = gateway_tests::command();
        command.args(["plugin", "inspect"]).args(arguments).output().unwrap()
    };
    let said = String::from_utf8(inspect(&["--builtin", "cors"]).stdout).unwrap();
    assert!(said.starts_with("builtin=\"cors\": cors "), "{said}");
    assert!(
        said.contains("\nconfig:\n    origin: a text of at least 1 byte; one or several; has to be said\n"),
        "{said}"
    );
    let file = shipped("cors");
    let of_file: Value = serde_json::from_slice(&inspect(&[file.to_str().unwrap(), "--json"]).stdout).unwrap();
    let of_shelf: Value = serde_json::from_slice(&inspect(&["--builtin", "cors", "--json"]).stdout).unwrap();
    assert_eq!(
        (&of_file["sha256"], &of_file["config"]),
        (&of_shelf["sha256"], &of_shelf["config"])
    );

    let refused = inspect(&["--builtin", "corse"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("did you mean `cors`?")
    );
    assert_eq!(inspect(&[]).status.code(), Some(2));
}
