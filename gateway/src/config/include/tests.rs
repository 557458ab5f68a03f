//! Files of tenants, through `load`: what they may say, how many they may be, and where they may stand.

use std::fs;

use super::super::{Loaded, load};
use super::*;

const MAIN: &str = r#"
        tenant "acme" {
            hosts "acme.example"
            limit cpu="5ms"
            quota kv="8MiB"
            grant "log" "kv"
            backends "acme"
            include "tenants/acme/*.kdl"
        }
        tenant "rival" { hosts "rival.example"; include "tenants/rival/auth.kdl" }
        frontend "web" { bind "127.0.0.1:80"; tenants "acme" "rival"; acl "mine" { path-prefix "/acme/" }; use-backend "acme" if="mine"; default-backend "app" }
        backend "app" { server "s" "127.0.0.1:81" }
        backend "acme" { server "s" "127.0.0.1:82" }
    "#;
const AUTH: &str = r#"plugin "auth" "auth.wasm" { on-failure "deny" }
use-plugin "auth"
"#;

/// A configuration with its files, and what is wrong with it.
fn tried(files: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let all = [
        ("config.kdl", MAIN),
        ("tenants/rival/auth.kdl", AUTH),
        ("tenants/acme/.a.kdl", "{"),
    ];
    for (name, text) in all.iter().chain(files) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    std::os::unix::fs::symlink("../rival/auth.kdl", folder.path().join("tenants/acme/z")).unwrap();
    load(&folder.path().join("config.kdl")).map_err(|errors| {
        let text = format!("{errors:?}");
        text.replace(&format!("{}/", folder.path().display()), "")
    })
}

#[test]
fn a_fault_at_one_place_of_two_files_is_told_of_both() {
    let text = "acl \"old\" { path \"x\" }\ndeny if=\"old\"\n";
    let said = tried(&[("tenants/acme/auth.kdl", text), ("tenants/rival/auth.kdl", text)]).unwrap_err();
    for tenant in ["acme", "rival"] {
        let fault = format!("tenants/{tenant}/auth.kdl:1:18: a path begins with `/`");
        assert!(said.contains(&fault), "{fault}: {said}");
    }
}

#[test]
fn two_tenants_may_have_plugins_of_one_name_in_files_of_their_own() {
    let loaded = tried(&[("tenants/acme/auth.kdl", AUTH)]).unwrap();
    let plugins = &loaded.config.plugins;
    let names: Vec<_> = plugins.iter().map(|plugin| &*plugin.name).collect();
    assert_eq!(names, ["acme/auth", "rival/auth"]);
    for (plugin, folder) in plugins.iter().zip(["acme", "rival"]) {
        let origin = &plugin.origin;
        assert!(
            origin.file.ends_with(&format!("tenants/{folder}/auth.kdl")),
            "{origin:?}"
        );
        assert_eq!(origin.line, 1);
        assert!(plugin.folder.as_ref().unwrap().ends_with(format!("tenants/{folder}")));
    }
    assert_eq!(loaded.config.frontends[0].plugins.len(), 2);
}

#[test]
fn a_tenants_files_put_off_no_limit_and_take_nothing_from_the_operators_plugins() {
    let main = MAIN.replace(
        "include \"tenants/acme/*.kdl\"",
        "plugin \"guard\" \"guard.wasm\" { on-failure \"deny\" }; use-plugin \"guard\"; include \"tenants/acme/*.kdl\"",
    );
    let said = tried(&[
        ("config.kdl", main.as_str()),
        (
            "tenants/acme/a.kdl",
            r#"plugin "a" "a.wasm" {
    heavy queue=65 wait="2s"
    quarantine failures=21
    call "acme" timeout="2s" in-flight=65 max-body="65KiB"
    on-failure "skip"
}
use-plugin "a" canary="99%" instead-of="guard"
plugin "b/c" "b.wasm" { on-failure "skip" }
plugin "d" "d\n.wasm" { on-failure "skip" }
"#,
        ),
    ])
    .unwrap_err();
    for words in [
        "a.kdl:2:17: `queue` has to be from 1 to 64",
        "a.kdl:2:25: `wait` has to be from 1ms to 1s",
        "a.kdl:3:25: `failures` has to be from 1 to 20",
        "a.kdl:4:25: `timeout` has to be from 1ms to 1s",
        "a.kdl:4:40: `in-flight` has to be from 1 to 64",
        "a.kdl:4:52: `max-body` has to be from 1KiB to 64KiB",
        "a.kdl:7:40: a tenant's file takes no requests from its operator's plugins",
        "a.kdl:8:8: the plugin's name has a slash in it",
        "a.kdl:9:12: this path has a control character in it",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_file_whose_name_cannot_be_printed_is_not_passed_over() {
    for (name, shown) in [
        ("a\nERROR.kdl", r"a\nERROR.kdl"),
        ("a\u{202e}ldk.kdl", r"a\u{202e}ldk.kdl"),
    ] {
        let said = tried(&[(format!("tenants/acme/{name}").as_str(), AUTH)]).unwrap_err();
        let fault = format!("the name \"{shown}\" cannot be printed");
        assert!(said.contains(&fault), "{fault}: {said}");
    }
}

#[test]
fn a_tenants_files_say_what_a_tenant_may_say_and_all_faults_are_said_at_once() {
    let said = tried(&[
        (
            "tenants/acme/a.kdl",
            r#"
plugin "a" "../../etc/a.wasm" {
    grant "log" "random"
    limit cpu="6ms" memory="32MiB" kv="9MiB" log="20/s"
    call "app"
    route-to "acme" "app"
    config-file "list" "/etc/shadow"
    on-failure "deny"
}
use-plugin "a"
use-plugin "rival/auth"
hosts "rival.example"
quota plugin-cpu="9 cores"
frontend "mine" { bind "127.0.0.1:99" }
include "more.kdl"
"#,
        ),
        ("tenants/acme/b.kdl", "plugin \"b\" {\n"),
    ])
    .unwrap_err();
    for words in [
        "tenants/acme/a.kdl:2:12: a tenant's file names files in its own folder and below",
        "tenants/acme/a.kdl:3:17: tenant \"acme\" may not grant `random`",
        "tenants/acme/a.kdl:4:15: a plugin of tenant \"acme\" has at most 5ms",
        "tenants/acme/a.kdl:4:28: a plugin of tenant \"acme\" has at most 16MiB",
        "tenants/acme/a.kdl:4:39: a plugin of tenant \"acme\" has at most 8MiB",
        "tenants/acme/a.kdl:4:50: a plugin of tenant \"acme\" has at most 10/s",
        "tenants/acme/a.kdl:5:10: tenant \"acme\" has no backend \"app\"",
        "tenants/acme/a.kdl:6:21: tenant \"acme\" has no backend \"app\"",
        "tenants/acme/a.kdl:7:24: a tenant's file names files in its own folder and below",
        "tenants/acme/a.kdl:12:1: a tenant's file has no `hosts`",
        "tenants/acme/a.kdl:13:1: a tenant's file has no `quota`",
        "tenants/acme/a.kdl:14:1: a tenant's file has no `frontend`",
        "tenants/acme/a.kdl:15:1: a tenant's file has no `include`",
        "tenants/acme/b.kdl:1:12: this block is never closed",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
    let said = tried(&[(
        "tenants/acme/a.kdl",
        r#"
acl "mine" { path "/" }
deny if="mine and theirs"
return { file "page.html" }
redirect location="/%{host|map:hosts}" if="mine"
use-backend "app" if="mine"
limit "per-ip"
request { set-path "/"; set-header "X-Pool" "%{backend}" }
"#,
    )])
    .unwrap_err();
    for words in [
        "tenants/acme/a.kdl:3:19: there is no acl \"theirs\"",
        "tenants/acme/a.kdl:4:10: a tenant's file sends no other file",
        "tenants/acme/a.kdl:5:28: a tenant's file looks nothing up in maps",
        "tenants/acme/a.kdl:6:13: tenant \"acme\" has no backend \"app\"",
        "tenants/acme/a.kdl:7:1: a tenant's file has no `limit`",
        "tenants/acme/a.kdl:8:11: `request` has no `set-path`",
        "tenants/acme/a.kdl:8:48: a tenant's edits are the same whichever backend a request goes to",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
    let said = tried(&[("tenants/acme/a.kdl", "use-plugin \"rival/auth\"")]).unwrap_err();
    assert!(said.contains("there is no plugin \"acme/rival/auth\""), "{said}");
}

#[test]
fn what_leads_out_of_its_folder_is_not_included() {
    let with = |include: &str| MAIN.replace("tenants/acme/*.kdl", include);
    for (include, words) in [
        ("tenants/acme/z", "it leads out of the folder of its tenant"),
        ("acme.kdl", "a tenant's files stand in a folder of their own"),
        ("../*.kdl", "a tenant's files stand in a folder of their own"),
        ("tenants/rival/*.kdl", "two tenants have the same folder"),
        ("tenants/*.kdl", "two tenants have the same folder"),
        ("tenants/*/a.kdl", "an `include` names files of one folder"),
        ("tenants/nobody/*.kdl", "cannot read"),
        ("tenants/acme/none.kdl", "cannot read"),
    ] {
        let said = tried(&[("config.kdl", &with(include)), ("tenants/acme/a.kdl", AUTH)]).unwrap_err();
        assert!(said.contains(words), "{include}: {words}:\n{said}");
    }
}

#[test]
fn files_are_bounded_in_number_and_length() {
    let long = format!("// {}", "x".repeat(MAX_FILE_BYTES));
    let said = tried(&[("tenants/acme/a.kdl", &long)]).unwrap_err();
    assert!(said.contains("it is larger than 262144 bytes"), "{said}");
    let names: Vec<_> = (0..=MAX_FILES).map(|n| format!("tenants/acme/{n}.kdl")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let said = tried(&files).unwrap_err();
    assert!(said.contains("a tenant has at most 64 files"), "{said}");
    assert!(tried(&files[..MAX_FILES]).is_ok());
    let large = format!("// {}", "x".repeat(MAX_FILE_BYTES - 3));
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), &*large)).collect();
    assert!(tried(&files[..4]).is_ok());
    let said = tried(&files[..5]).unwrap_err();
    assert!(
        said.contains("a tenant's files have at most 1024 KiB together"),
        "{said}"
    );
}
