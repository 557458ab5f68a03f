//! The folder of invalid configurations with what is to be said of them, and the promises of the JSON form.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::Code;
use crate::config::schema::Schema;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/invalid")
}

fn faults_of(path: &Path) -> ConfigErrors {
    let name = path.file_name().unwrap().to_str().unwrap();
    let source = fs::read_to_string(path).unwrap();
    match config::parse(name, &source, Path::new("/etc/gateway")) {
        Ok(_) => panic!("{name} is valid"),
        Err(errors) => errors,
    }
}

fn invalid_configurations() -> Vec<PathBuf> {
    texts_in("../tests/invalid")
}

fn texts_in(folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "kdl"));
    paths.sort();
    paths
}

#[test]
fn every_invalid_configuration_gets_its_diagnostics() {
    each_gets_its_diagnostics(invalid_configurations(), faults_of);
}

/// A configuration that a plugin's schema does not allow: that of the plugin on the shelf that it names.
#[test]
fn every_configuration_that_a_schema_does_not_allow_gets_its_diagnostics() {
    let faults = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let config = config::parse(&name_of(path), &text, Path::new("/etc/gateway")).unwrap();
        let plugin = &config.plugins[0];
        let config::ComponentSource::BuiltIn(built_in) = plugin.component.value else {
            panic!("{} has no plugin of the shelf's", path.display());
        };
        let file = format!("../plugins/{}/config.schema.kdl", built_in.name());
        let schema = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let schema = Schema::parse("schema", &schema).unwrap();
        let mut block: serde_json::Value = serde_json::from_str(&plugin.config).unwrap();
        for file in &plugin.config_files {
            block[&file.key.value] = "".into();
        }
        let faults = schema.check(&block, &plugin.config_places);
        config::Source::new(&name_of(path), &text).errors(faults)
    };
    let paths = texts_in("../tests/invalid-plugins");
    assert!(paths.len() >= 5);
    each_gets_its_diagnostics(paths, faults);
}

#[test]
fn every_schema_that_is_none_gets_its_diagnostics() {
    let paths = texts_in("../tests/invalid-schemas");
    assert!(paths.len() >= 3);
    each_gets_its_diagnostics(paths, |path| {
        Schema::parse(&name_of(path), &fs::read_to_string(path).unwrap()).unwrap_err()
    });
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// `NAME.kdl` gets exactly `NAME.stderr`. Run with `GATEWAY_BLESS=1` in the environment to write what is said now, and look
/// at the difference before committing it.
fn each_gets_its_diagnostics(paths: Vec<PathBuf>, faults: impl Fn(&Path) -> ConfigErrors) {
    let bless = std::env::var_os("GATEWAY_BLESS").is_some();
    let mut different = Vec::new();
    for path in paths {
        let said = text(&faults(&path), Style::Plain);
        let expected = path.with_extension("stderr");
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            different.push(format!("── {} says now:\n{said}", path.display()));
        }
    }
    assert!(
        different.is_empty(),
        "{}\nwrite them with GATEWAY_BLESS=1",
        different.join("\n")
    );
}

#[test]
fn the_folder_has_pairs_and_every_kind_of_fault() {
    let mut kinds = BTreeSet::new();
    for path in invalid_configurations() {
        assert!(
            path.with_extension("stderr").exists(),
            "{} has no .stderr",
            path.display()
        );
        kinds.extend(faults_of(&path).iter().map(|error| error.kind().as_str()));
    }
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let other = path.with_extension(if path.extension().unwrap() == "kdl" {
            "stderr"
        } else {
            "kdl"
        });
        assert!(other.exists(), "{} has no {}", path.display(), other.display());
    }
    // Files, certificates and components have tests of their own.
    let all = Code::ALL
        .into_iter()
        .filter(|code| !matches!(code, Code::Io | Code::Tls | Code::Policy | Code::System))
        .map(Code::as_str)
        .collect();
    assert_eq!(kinds, all);
}

#[test]
fn every_fault_but_of_the_file_points_somewhere() {
    for path in invalid_configurations() {
        let errors = faults_of(&path);
        let source = fs::read_to_string(&path).unwrap();
        for error in errors.iter().filter(|error| error.message() != "there is no frontend") {
            assert!(!error.places().is_empty(), "{}: {error} has no place", path.display());
            assert!(error.advice().is_some(), "{}: {error} has no help", path.display());
            for place in error.places() {
                let end = place.span.offset() + place.span.len();
                assert!(
                    source.get(place.span.offset()..end).is_some(),
                    "{}: {error}: {place:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn json_says_where_from_one() {
    let source = "frontend \"wéb\" {\n    bind \"127.0.0.1:8080\"\n    default-backend \"ap\"\n}\nbackend \"app\" { server \"a\" \"echo\" }\n";
    let errors = config::parse("gateway.kdl", source, Path::new("")).unwrap_err();
    let report: serde_json::Value = serde_json::from_str(&json("gateway.kdl", Some(&errors), None, None)).unwrap();
    assert_eq!(report["ok"], false);
    let fault = &report["errors"][0];
    assert_eq!(fault["code"], "config::reference");
    assert_eq!(fault["file"], "gateway.kdl");
    assert_eq!((&fault["line"], &fault["column"]), (&3.into(), &21.into()));
    assert_eq!((&fault["end_line"], &fault["end_column"]), (&3.into(), &25.into()));
    assert_eq!(fault["labels"][0]["line"], 3);
    assert_eq!(fault["help"], "did you mean `app`?");
}

#[test]
fn json_of_a_valid_configuration_is_short() {
    let report: serde_json::Value = serde_json::from_str(&json("gateway.kdl", None, None, None)).unwrap();
    assert_eq!(report, serde_json::json!({"ok": true, "errors": []}));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_without_a_place() {
    let errors = config::load(Path::new("/nowhere/gateway.kdl")).unwrap_err();
    let report: serde_json::Value =
        serde_json::from_str(&json("/nowhere/gateway.kdl", Some(&errors), None, None)).unwrap();
    assert_eq!(report["errors"][0]["code"], "config::io");
    assert_eq!(report["errors"][0]["line"], serde_json::Value::Null);
    assert!(text(&errors, Style::Plain).contains("cannot read /nowhere/gateway.kdl"));
}

#[test]
fn a_file_that_is_not_utf8_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.kdl");
    fs::write(&path, b"process\n// caf\xe9\n").unwrap();
    let errors = config::load(&path).unwrap_err();
    assert!(text(&errors, Style::Plain).contains("in line 2"), "{errors:?}");
    assert_eq!(run(&path, Format::Json, false), ExitCode::FAILURE);
}

#[test]
fn plain_text_has_no_escape_sequences() {
    for path in invalid_configurations() {
        assert!(!text(&faults_of(&path), Style::Plain).contains('\x1b'));
        assert!(text(&faults_of(&path), Style::Coloured).contains('\x1b'));
    }
}

/// Of each limit the smallest holds, and it is shown whose it is.
#[test]
fn the_limits_of_each_use_are_shown_with_who_has_set_them() {
    let text = r#"
        process { policy instances=100 memory="32MiB" cpu="20ms" }
        tenant "acme" {
            hosts "acme.example"
            limit cpu="8ms" memory="8MiB" body="32KiB"
            quota plugin-cpu="1.5 cores" plugin-instances=20 host-memory="64MiB"
            plugin "geo" "geo.wasm" { grant "log" "kv"; limit cpu="6ms" kv="1MiB" host-memory="32MiB"; on-failure "deny" }
            plugin "auth" "auth.wasm" { on-failure "deny" }
            use-plugin "geo" { limit cpu="2ms" instances=4 log="1/s" cpu-share="0.5 cores" }
            use-plugin "auth" unless="api or ours and not old"
            acl "api" { path-prefix "/api/" }
            acl "ours" { plugin "auth" predicate="p"; plugin "geo" canary="2.5%" { limit cpu="1ms" } }
            acl "old" { path "/old" }; acl "down" { servers-up "app" max=0 }
            deny status=404 if="(api or old) and ours"; deny status=503 if="down"
            use-backend "app" if="api"
            request { set-header "X-A" "1" if="api"; delete-header "X-B" }
            response { set-status 201 if="old" if-status="404,500-502"; set-header "X-C" "1" always }
        }
        plugin "jwt" builtin="jwt-auth" { on-failure "deny"; config { issuer "a" } }
        frontend "web" {
            bind "127.0.0.1:80"
            acl "known" { plugin "jwt" }
            deny unless="known"
            tenants "acme"
            default-backend "app"
        }
        backend "app" { server "s" "127.0.0.1:81" }
    "#;
    let config = config::parse("config.kdl", text, Path::new("/etc/gateway")).unwrap();
    let source = config::Source::new("config.kdl", text);
    let aside = Vec::new();
    let explained = Explained::of(&Loaded { config, source, aside });
    let expected = r#"
frontend "web", acl "jwt" (config.kdl:22)
  cpu           20ms         process
  memory        16MiB        default
  total-memory  1GiB         process
  host-memory   256MiB       process
  instances     50           process
  body          64KiB        default

frontend "web", acl "acme/auth", 97.5% (config.kdl:12)
  cpu           8ms          tenant
  cpu-share     1.5 cores    tenant
  memory        8MiB         tenant
  total-memory  1GiB         process
  host-memory   64MiB        tenant
  instances     20           tenant
  body          32KiB        tenant

frontend "web", acl "acme/geo", 2.5% (config.kdl:12)
  cpu           1ms          acl
  cpu-share     1.5 cores    tenant
  memory        8MiB         tenant
  total-memory  1GiB         process
  host-memory   32MiB        plugin
  instances     20           tenant
  body          32KiB        tenant
  log           10/s         default
  kv            1MiB         plugin
  kv-entries    10000        default

frontend "web", use-plugin "acme/geo" (config.kdl:9)
  cpu           2ms          use-plugin
  cpu-share     0.5 cores    use-plugin
  memory        8MiB         tenant
  total-memory  1GiB         process
  host-memory   32MiB        plugin
  instances     4            use-plugin
  body          32KiB        tenant
  log           1/s          use-plugin
  kv            1MiB         plugin
  kv-entries    10000        default

frontend "web", use-plugin "acme/auth" (config.kdl:10)
  cpu           8ms          tenant
  cpu-share     1.5 cores    tenant
  memory        8MiB         tenant
  total-memory  1GiB         process
  host-memory   64MiB        tenant
  instances     20           tenant
  body          32KiB        tenant

frontend "web", acl "acl web of acme"
  cpu           10ms         default
  memory        32MiB        process
  cpu-share     1.5 cores    tenant
  total-memory  1GiB         process
  host-memory   64MiB        tenant
  instances     20           tenant

frontend "web", edits "header-rewrite web of acme"
  cpu           10ms         default
  memory        32MiB        process
  cpu-share     1.5 cores    tenant
  total-memory  1GiB         process
  host-memory   64MiB        tenant
  instances     20           tenant

tenant "acme", acme.example, in frontend "web"
  limit cpu        8ms       tenant
  limit memory     8MiB      tenant
  limit body       32KiB     tenant
  plugin-cpu       1.5 cores tenant
  plugin-memory    1GiB      process
  host-memory      64MiB     tenant
  plugin-instances 20        tenant
  acls             64        default
  rules            100       default
  patterns         1000      default
  acl "api" (config.kdl:11)
  acl "ours" plugin "acme/auth" predicate="p" 97.5% plugin "acme/geo" 2.5% (config.kdl:12)
  acl "old" (config.kdl:13)
  acl "down" servers-up "app" max=0 (config.kdl:13)
  deny status=404 if="(api or old) and ours" (config.kdl:14)
  deny status=503 if="down" (config.kdl:14)
  use-backend "app" if="api" (config.kdl:15)
  use-plugin "acme/geo" (config.kdl:9)
  use-plugin "acme/auth" if="not (api or ours and not old)" (config.kdl:10)
  request set-header "x-a" if="api"
  request delete-header "x-b"
  response set-status if-status="404,500-502" if="old"
  response set-header "x-c" always
"#;
    assert_eq!(explained.text(), expected);
    let report: serde_json::Value = serde_json::from_str(&json("config.kdl", None, None, Some(explained))).unwrap();
    assert_eq!(
        report["plugins"][3]["limits"][0],
        serde_json::json!({ "limit": "cpu", "value": "2ms", "set_by": "use-plugin" })
    );
    assert_eq!(report["plugins"][3]["tenant"], "acme");
    let acme = &report["tenants"][0];
    assert_eq!(acme["hosts"], serde_json::json!(["acme.example"]));
    assert_eq!(acme["frontends"], serde_json::json!(["web"]));
    assert_eq!(
        acme["quotas"][3],
        serde_json::json!({ "limit": "plugin-cpu", "value": "1.5 cores", "set_by": "tenant" })
    );
    assert_eq!(
        acme["rules"][0],
        serde_json::json!({ "says": "deny status=404", "if": "(api or old) and ours", "file": "config.kdl", "line": 14 })
    );
}
