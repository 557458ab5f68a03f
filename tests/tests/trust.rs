//! Who has signed a component decides whether it is loaded: `gateway plugin sign` and `verify`, `trust` in a configuration and in a
//! tenant, and `gateway plugin lock`.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use gateway_tests::{Builder, Gateway, get, guest};
use serde_json::Value;
use tempfile::TempDir;

/// Answers every request with this status.
fn answering(status: u16) -> Vec<u8> {
    guest::filter(&format!("(call $reply (i32.const {status}) (i32.const 0))"), "")
}

/// A folder with keys and components.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn plugin(&self, arguments: &[&str]) -> Output {
        let mut command = gateway_tests::command();
        command.arg("plugin").args(arguments).current_dir(self.0.path());
        command.output().unwrap()
    }

    /// What the command says when it goes well.
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.plugin(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the command says when it does not.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.plugin(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A new key: the line that stands for it in a configuration.
    fn key(&self, name: &str) -> String {
        let said = self.does(&["sign", "--new-key", name]);
        said.split('"').nth(3).unwrap().to_owned()
    }

    /// Signs bytes; the text beside them.
    fn signature(&self, keys: &[&str], component: &[u8]) -> String {
        let name = "signed.wasm";
        self.write(name, component);
        let _ = std::fs::remove_file(self.path("signed.wasm.sig"));
        let mut arguments = vec!["sign", name];
        arguments.extend(keys.iter().flat_map(|key| ["--key", key]));
        self.does(&arguments);
        self.read("signed.wasm.sig")
    }
}

/// What a key is called in signatures.
fn id(said: &str) -> &str {
    let word = said.split(|c: char| !c.is_ascii_alphanumeric());
    word.into_iter()
        .find(|word| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .unwrap_or_else(|| panic!("no key in {said}"))
}

// ── sign and verify ───────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn what_one_key_has_signed_is_verified_with_its_public_half_and_no_other() {
    let desk = Desk::new();
    let said = desk.does(&["sign", "--new-key", "ci.pem"]);
    let ci = id(&said).to_owned();
    assert!(said.contains("ci.pem.pub: its public key"), "{said}");
    let mode = std::fs::metadata(desk.path("ci.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    desk.key("other.pem");
    desk.write("geo.wasm", answering(451));

    assert!(
        desk.refuses(&["verify", "--key", "ci.pem.pub", "geo.wasm"])
            .contains("there is no geo.wasm.sig")
    );
    let said = desk.does(&["sign", "--key", "ci.pem", "geo.wasm"]);
    assert_eq!(said, format!("geo.wasm.sig: signed by {ci}\n"));
    let said = desk.does(&["verify", "--key", "other.pem.pub", "--key", "ci.pem.pub", "geo.wasm"]);
    assert_eq!(said, format!("geo.wasm: signed by ci.pem.pub ({ci})\n"));
    let said = desk.refuses(&["verify", "--key", "other.pem.pub", "geo.wasm"]);
    assert!(said.contains("geo.wasm is not signed by other.pem.pub"), "{said}");
    assert!(said.contains(&format!("has none of these keys, but {ci}")), "{said}");

    desk.write("geo.wasm", answering(452));
    let said = desk.refuses(&["verify", "--key", "ci.pem.pub", "geo.wasm"]);
    assert!(said.contains("geo.wasm.sig is of another file"), "{said}");
}

#[test]
fn several_sign_one_component_and_inspect_says_who() {
    let desk = Desk::new();
    let ids = ["a.pem", "b.pem"].map(|name| id(&desk.does(&["sign", "--new-key", name])).to_owned());
    desk.write("geo.wasm", answering(451));
    desk.does(&["sign", "--key", "a.pem", "geo.wasm"]);
    desk.does(&["sign", "--key", "b.pem", "geo.wasm"]);
    for public in ["a.pem.pub", "b.pem.pub"] {
        desk.does(&["verify", "--key", public, "geo.wasm"]);
    }
    let said: Value = serde_json::from_str(&desk.does(&["inspect", "--json", "geo.wasm"])).unwrap();
    let expected: Vec<Value> = ids
        .iter()
        .map(|id| serde_json::json!({"key": id, "is_of_this_file": true}))
        .collect();
    assert_eq!(said["signatures"], Value::from(expected));
    assert_eq!(said["signatures_fault"], Value::Null);

    // Another component under the same name: what was signed is of no use for it, and goes when it is signed.
    desk.write("geo.wasm", answering(452));
    let said = desk.does(&["inspect", "geo.wasm"]);
    assert!(
        said.contains(&format!("signed:   by {}, but that is of another file", ids[0])),
        "{said}"
    );
    let said = desk.does(&["sign", "--key", "a.pem", "geo.wasm"]);
    assert!(said.contains("signatures of what was there before are gone"), "{said}");
    desk.refuses(&["verify", "--key", "b.pem.pub", "geo.wasm"]);

    desk.write("geo.wasm.sig", "hello\n");
    let said = desk.does(&["inspect", "geo.wasm"]);
    assert!(said.contains("signed:   geo.wasm.sig: line 1"), "{said}");
    let said = desk.refuses(&["sign", "--key", "a.pem", "geo.wasm"]);
    assert!(
        said.contains("take it away to sign anew: geo.wasm.sig: line 1"),
        "{said}"
    );
    assert_eq!(desk.read("geo.wasm.sig"), "hello\n");
}

#[test]
fn keys_are_not_overwritten_nor_used_when_others_may_read_them() {
    let desk = Desk::new();
    desk.key("ci.pem");
    let before = desk.read("ci.pem");
    let said = desk.refuses(&["sign", "--new-key", "ci.pem"]);
    assert!(said.contains("ci.pem: File exists"), "{said}");
    assert_eq!(said.matches("File exists").count(), 1, "{said}");
    assert_eq!(desk.read("ci.pem"), before);
    desk.write("geo.wasm", answering(451));
    std::fs::set_permissions(desk.path("ci.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = desk.refuses(&["sign", "--key", "ci.pem", "geo.wasm"]);
    assert!(
        said.contains("others than its owner and group may use it (mode 644)"),
        "{said}"
    );
    assert!(!desk.path("geo.wasm.sig").exists());
    // A key that was named where a component should be is not signed.
    std::fs::set_permissions(desk.path("ci.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        desk.refuses(&["sign", "--key", "ci.pem", "ci.pem.pub"])
            .contains("is not WebAssembly")
    );
    // Without a component there is nothing that the key could do.
    assert_eq!(desk.plugin(&["sign", "--key", "ci.pem"]).status.code(), Some(2));
    assert_eq!(desk.plugin(&["sign", "geo.wasm"]).status.code(), Some(2));
}

// ── trust ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn one_plugin(trust: &str) -> Builder {
    Gateway::kdl(
        r#"
        process { workers 1 }
        @trust
        plugin "geo" "geo.wasm" { on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; use-plugin "geo"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .with("@trust", trust)
}

/// What `gateway check` says, without the folder that the files are in.
fn said(builder: &Builder) -> String {
    let checked = builder.check(&[]);
    assert_eq!(checked.code, Some(1), "{}{}", checked.stdout, checked.stderr);
    // A key in Base64 may have slashes, too.
    let temporary = std::env::temp_dir();
    let folder = format!(r#"{}/[^\s"/]+/"#, regex::escape(&temporary.to_string_lossy()));
    let folder = regex::Regex::new(&folder).unwrap();
    folder.replace_all(&checked.stdout, "").into_owned()
}

#[tokio::test]
async fn a_component_that_a_trusted_key_has_signed_serves() {
    let desk = Desk::new();
    let (ops, ci) = (desk.key("ops.pem"), desk.key("ci.pem"));
    for trust in [
        format!("trust \"ci\" key=\"{ci}\""),
        format!("trust \"ops\" key=\"{ops}\"\ntrust \"ci\" file=\"ci.pub\""),
    ] {
        let gateway = one_plugin(&trust)
            .file("ci.pub", desk.read("ci.pem.pub"))
            .file("geo.wasm", answering(451))
            .file("geo.wasm.sig", desk.signature(&["ci.pem"], &answering(451)))
            .start()
            .await;
        assert_eq!(gateway.ask("web", get("/")).await.status, 451, "{trust}");
    }
}

#[tokio::test]
async fn a_component_that_was_changed_is_refused_at_its_place() {
    let desk = Desk::new();
    let made = desk.does(&["sign", "--new-key", "ci.pem"]);
    let (ci, key) = (made.split('"').nth(3).unwrap(), id(&made));
    let mut tampered = answering(451);
    // A custom section that does nothing: the least that somebody can change.
    tampered.extend_from_slice(&[0, 2, 1, b'x']);
    let builder = one_plugin(&format!("trust \"ci\" key=\"{ci}\""))
        .file("geo.wasm", &tampered)
        .file("geo.wasm.sig", desk.signature(&["ci.pem"], &answering(451)));
    let signed = desk.read("signed.wasm.sig");
    let digest = signed.lines().nth(1).unwrap().strip_prefix("sha256 ").unwrap();
    let expected = format!(
        r#"config::policy

  × plugin "geo": geo.wasm is not signed by a trusted key: geo.wasm.sig is of another file, with the digest {digest}
    ╭─[config.kdl:LINE:22]
  N │         trust "ci" key="{ci}"
  N │         plugin "geo" "geo.wasm" {{ on-failure "deny" status=503 }}
    ·         ───┬──       ─────┬────
    ·            │              ╰── not signed by a trusted key
    ·            ╰── of this plugin
  N │         frontend "web" {{ bind "127.0.0.1:0"; use-plugin "geo"; default-backend "app" }}
    ╰────
  help: trusted here: ci ({key}). Whoever has one of these keys signs it: gateway plugin sign --key KEY geo.wasm

config.kdl: 1 error
"#
    );
    // Where the lines are is the harness's business.
    let numbers = regex::Regex::new(r"(?m)^ *\d+ │|kdl:\d+").unwrap();
    let said = said(&builder);
    let found = numbers.replace_all(&said, |found: &regex::Captures<'_>| {
        if found[0].starts_with("kdl") {
            "kdl:LINE"
        } else {
            "  N │"
        }
        .to_owned()
    });
    assert_eq!(found, expected);
    let stopped = builder.refused().await;
    assert_eq!(stopped.code, Some(1));
    assert!(
        stopped.output.contains("is not signed by a trusted key"),
        "{}",
        stopped.output
    );
}

#[test]
fn nothing_else_than_a_signature_of_this_file_by_a_trusted_key_is_taken() {
    let desk = Desk::new();
    let (ci, other) = (desk.key("ci.pem"), desk.key("other.pem"));
    let component = answering(451);
    let of = |keys: &[&str]| desk.signature(keys, &component);
    // The line of one key under the name of the other.
    let (by_ci, by_other) = (of(&["ci.pem"]), of(&["other.pem"]));
    let line = |text: &str| text.lines().nth(2).unwrap().to_owned();
    let (ci_line, other_line) = (line(&by_ci), line(&by_other));
    let swapped = by_ci.replace(
        ci_line.rsplit(' ').next().unwrap(),
        other_line.rsplit(' ').next().unwrap(),
    );
    // A signature of another file that says it is of this one.
    let head = |text: &str| text.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    let of_another = desk.signature(&["ci.pem"], &answering(452));
    let moved = format!("{}{}\n", head(&by_ci), line(&of_another));
    let trust = format!("trust \"ci\" key=\"{ci}\"");
    for (signature, why) in [
        (by_other.clone(), "has none of these keys, but"),
        (swapped, "is not valid"),
        (of_another, "is of another file"),
        (moved, "is not valid"),
        (String::new(), "does not end with a line"),
        ("x".repeat(5000), "larger than 4096 bytes"),
    ] {
        let builder = one_plugin(&trust)
            .file("geo.wasm", &component)
            .file("geo.wasm.sig", &signature);
        let said = said(&builder);
        assert!(said.contains(why), "{why}: {said}");
        assert!(said.contains("not signed by a trusted key"), "{said}");
    }
    assert!(said(&one_plugin(&trust).file("geo.wasm", &component)).contains("there is no geo.wasm.sig"));
    // The same signature, and a list that has its key.
    let trust = format!("{trust}\ntrust \"other\" key=\"{other}\"");
    let builder = one_plugin(&trust)
        .file("geo.wasm", &component)
        .file("geo.wasm.sig", &by_other);
    assert_eq!(builder.check(&[]).code, Some(0));
}

#[test]
fn a_trusted_key_that_cannot_be_read_is_the_fault_and_the_component_is_not() {
    let builder = one_plugin("trust \"ci\" file=\"ci.pub\"").file("geo.wasm", answering(451));
    let missing = said(&builder);
    assert!(
        missing.contains("config::io") && missing.contains("this key"),
        "{missing}"
    );
    let builder = builder.file("ci.pub", "hello");
    let wrong = said(&builder);
    assert!(
        wrong.contains("config::value") && wrong.contains("holds no public key"),
        "{wrong}"
    );
    for said in [missing, wrong] {
        assert!(said.contains("1 error") && !said.contains("not signed"), "{said}");
    }
}

#[tokio::test]
async fn a_reload_with_a_bad_signature_leaves_the_old_component_serving() {
    let desk = Desk::new();
    let (ci, other) = (desk.key("ci.pem"), desk.key("other.pem"));
    let trust = format!("trust \"ci\" key=\"{ci}\"");
    let gateway = one_plugin(&trust)
        .file("geo.wasm", answering(451))
        .file("geo.wasm.sig", desk.signature(&["ci.pem"], &answering(451)))
        .start()
        .await;
    let next = Gateway::verbatim(&gateway.config());
    let status = async || gateway.ask("web", get("/")).await.status;

    gateway.write("geo.wasm", answering(452));
    assert!(!gateway.reload(&next).await, "signed is what was there before");
    gateway.write("geo.wasm.sig", desk.signature(&["other.pem"], &answering(452)));
    assert!(!gateway.reload(&next).await, "signed by another");
    assert_eq!(status().await, 451);
    gateway.says("is not signed by a trusted key").await;
    gateway.write("geo.wasm.sig", desk.signature(&["ci.pem"], &answering(452)));
    assert!(gateway.reload(&next).await);
    assert_eq!(status().await, 452);

    // The key is another one: what runs already, and is compiled, is not signed by it.
    let swapped = Gateway::verbatim(&gateway.config()).with(&ci, &other);
    assert!(!gateway.reload(&swapped).await);
    assert_eq!(status().await, 452);
    gateway.write("geo.wasm.sig", desk.signature(&["other.pem"], &answering(452)));
    assert!(gateway.reload(&swapped).await);
    assert_eq!(status().await, 452);
}

#[test]
fn a_tenants_own_keys_hold_in_place_of_those_at_the_top() {
    let desk = Desk::new();
    let (top, acme) = (desk.key("top.pem"), desk.key("acme.pem"));
    let component = answering(451);
    let builder = |trust: &str, keys: &[&str]| {
        Gateway::kdl(
            r#"
            process { workers 1 }
            trust "top" key="@top"
            plugin "own" builtin="maintenance" { on-failure "deny"; config { status 503 } }
            tenant "acme" {
                hosts "acme.example"
                @trust
                plugin "geo" "geo.wasm" { on-failure "deny" }
                use-plugin "geo"
            }
            tenant "rival" {
                hosts "rival.example"
                plugin "geo" "rival.wasm" { on-failure "deny" }
                use-plugin "geo"
            }
            frontend "web" { bind "127.0.0.1:0"; use-plugin "own"; tenants "acme" "rival"; default-backend "app" }
            backend "app" { server "s" "echo" }
        "#,
        )
        .with("@top", &top)
        .with("@trust", trust)
        .file("geo.wasm", &component)
        .file("geo.wasm.sig", desk.signature(keys, &component))
        .file("rival.wasm", &component)
        .file("rival.wasm.sig", desk.signature(&["top.pem"], &component))
    };
    let own = format!("trust \"acme\" key=\"{acme}\"");
    for (trust, keys, is_taken) in [
        ("", &["top.pem"][..], true),
        ("", &["acme.pem"], false),
        (&own, &["acme.pem"], true),
        // Who signs for everybody else does not sign for a tenant that has a list of its own.
        (&own, &["top.pem"], false),
        (&own, &["top.pem", "acme.pem"], true),
    ] {
        let checked = builder(trust, keys).check(&[]);
        assert_eq!(
            checked.code == Some(0),
            is_taken,
            "{trust} {keys:?}: {}",
            checked.stdout
        );
        if !is_taken {
            assert!(checked.stdout.contains("\"acme/geo\""), "{}", checked.stdout);
            assert!(checked.stdout.contains("1 error"), "{}", checked.stdout);
        }
    }
}

/// What a tenant was served by before its files were at fault is held to who is trusted now, by the signatures that it had then.
#[tokio::test]
async fn what_goes_on_as_before_is_signed_by_whom_is_trusted_now() {
    let desk = Desk::new();
    let (old, new) = (desk.key("old.pem"), desk.key("new.pem"));
    let component = answering(451);
    let builder = |trusted: &str| {
        Gateway::kdl(
            r#"
            process { workers 1 }
            tenant "acme" { hosts "acme.example"; trust "ci" key="@trusted"; include "acme/*.kdl" }
            frontend "web" { bind "127.0.0.1:0"; tenants "acme"; default-backend "app" }
            backend "app" { server "s" "echo" }
        "#,
        )
        .with("@trusted", trusted)
        .file(
            "acme/geo.kdl",
            "plugin \"geo\" \"geo.wasm\" { on-failure \"deny\" }\nuse-plugin \"geo\"",
        )
        .file("acme/geo.wasm", &component)
        .file("acme/geo.wasm.sig", desk.signature(&["old.pem"], &component))
    };
    let gateway = builder(&old).start().await;
    let status = async || gateway.ask("web", get("/").host("acme.example")).await.status;
    assert_eq!(status().await, 451);
    // Neither the component nor its signature can be read again.
    gateway.write("acme/geo.wasm", answering(452));
    gateway.write("acme/geo.wasm.sig", "nothing");
    assert!(gateway.reload(&builder(&old)).await);
    gateway.says("is not signed by a trusted key").await;
    assert_eq!(status().await, 451);
    assert!(gateway.reload(&builder(&new)).await);
    assert_eq!(status().await, 503, "its key is withdrawn");
    gateway.write("acme/geo.wasm", &component);
    gateway.write("acme/geo.wasm.sig", desk.signature(&["new.pem"], &component));
    assert!(gateway.reload(&builder(&new)).await);
    assert_eq!(status().await, 451);
}

// ── lock ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn config_of(desk: &Desk) -> PathBuf {
    desk.write(
        "gateway.kdl",
        r#"// What is served.
frontend "web" { bind "127.0.0.1:0"; use-plugin "geo"; use-plugin "own"; tenants "acme"; default-backend "app" }
backend "app" { server "s" "echo" }
plugin "geo" "plugins/geo.wasm" {
    // Whoever decides access says so.
    on-failure "deny" /* { */
}
plugin "own" builtin="maintenance" { on-failure "deny"; config { status 503 } }
tenant "acme" { hosts "acme.example"; plugin "geo" "acme.wasm" { on-failure "deny" }; use-plugin "geo" }
"#,
    )
}

fn digest(path: &Path) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(std::fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_configuration_is_locked_to_the_components_that_it_names() {
    let desk = Desk::new();
    let config = config_of(&desk);
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::create_dir(desk.path("plugins")).unwrap();
    let geo = desk.write("plugins/geo.wasm", answering(451));
    let acme = desk.write("acme.wasm", answering(452));
    let before = desk.read("gateway.kdl");

    let unlocked = desk.plugin(&["lock", "--check", "gateway.kdl"]);
    assert_eq!(unlocked.status.code(), Some(1), "{unlocked:?}");
    let said = String::from_utf8(unlocked.stdout).unwrap();
    assert!(said.contains(&format!("geo: sha256 {}\n", digest(&geo))), "{said}");
    assert!(
        said.contains(&format!("acme/geo: sha256 {}\n", digest(&acme))),
        "{said}"
    );
    assert!(said.contains("would write 2"), "{said}");
    assert_eq!(desk.read("gateway.kdl"), before);

    // From another folder: paths start at the configuration's.
    let mut command = gateway_tests::command();
    let output = command.args(["plugin", "lock"]).arg(&config).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let after = before
        .replace(
            "geo.wasm\" {\n",
            &format!("geo.wasm\" {{\n    sha256 \"{}\"\n", digest(&geo)),
        )
        .replace(
            "acme.wasm\" { ",
            &format!("acme.wasm\" {{ sha256 \"{}\"; ", digest(&acme)),
        );
    assert_eq!(desk.read("gateway.kdl"), after);
    let mode = std::fs::metadata(&config).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    assert!(
        desk.does(&["lock", "--check", "gateway.kdl"])
            .contains("is locked: 2 as it says")
    );
    let check = |code| {
        let mut command = gateway_tests::command();
        let output = command.arg("check").arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    };
    check(0);

    // Another component is refused until it is locked to.
    let before = digest(&geo);
    desk.write("plugins/geo.wasm", answering(403));
    check(1);
    let said = desk.does(&["lock", "gateway.kdl"]);
    assert!(
        said.contains(&format!("geo: sha256 {}, was {before}\n", digest(&geo))),
        "{said}"
    );
    assert!(said.contains("1 written, 1 as it said"), "{said}");
    assert_eq!(desk.read("gateway.kdl"), after.replace(&before, &digest(&geo)));
    check(0);
}

#[test]
fn what_cannot_be_locked_is_left_as_it_is() {
    let desk = Desk::new();
    config_of(&desk);
    let before = desk.read("gateway.kdl");
    let said = desk.refuses(&["lock", "gateway.kdl"]);
    for (name, file) in [("geo", "plugins/geo.wasm"), ("acme/geo", "acme.wasm")] {
        assert!(
            said.contains(&format!("plugin {name:?}: {file}: No such file")),
            "{said}"
        );
    }
    assert_eq!(desk.read("gateway.kdl"), before);
    desk.write("gateway.kdl", "frontend {");
    assert!(desk.refuses(&["lock", "gateway.kdl"]).contains("config::syntax"));
    assert_eq!(desk.read("gateway.kdl"), "frontend {");
}
