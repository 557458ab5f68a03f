//! Files of tenants that are at fault: nobody but their tenant feels it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use gateway_tests::bomb::Bomb;
use gateway_tests::guest::FACTS;
use gateway_tests::{Builder, Gateway, command, eventually, get, guest};

/// Answers every request with this status.
fn answering(status: u16) -> Vec<u8> {
    guest::filter(&format!("(call $reply (i32.const {status}) (i32.const 0))"), "")
}

const CONFIG: &str = r#"
    process { workers 1; log "stdout" format="json"; @admin policy compile-cpu="2s" compile-memory="256MiB" }
    tenant "acme" { hosts "acme.example"; grant "log"; include "tenants/acme/*.kdl" @acme }
    tenant "rival" { hosts "rival.example"; grant "log"; include "tenants/rival/*.kdl" }
    frontend "web" { bind "127.0.0.1:0"; tenants "acme" "rival"; default-backend "app" }
    backend "app" { server "s" "echo" }
"#;

const AUTH: &str = r#"
    plugin "auth" "auth.wasm" { grant "log"; on-failure "deny"; config-file "list" "list.txt" }
    use-plugin "auth"
"#;

/// Two tenants; acme's files can be said to refuse all.
fn two(on_error: &str) -> Builder {
    with_admin("", on_error)
}

fn with_admin(admin: &str, on_error: &str) -> Builder {
    Gateway::kdl(CONFIG)
        .with("@admin", admin)
        .with("@acme", on_error)
        .file("tenants/acme/auth.kdl", AUTH)
        .file("tenants/acme/auth.wasm", answering(451))
        .file("tenants/acme/list.txt", "one")
        .file("tenants/rival/auth.kdl", AUTH)
        .file("tenants/rival/auth.wasm", answering(551))
        .file("tenants/rival/list.txt", "one")
}

async fn statuses(gateway: &Gateway) -> (u16, u16) {
    let of = async |host| gateway.ask("web", get("/").host(host)).await.status;
    (of("acme.example").await, of("rival.example").await)
}

/// Whether acme's files are stale, and whether its hosts are closed.
async fn stale(gateway: &Gateway) -> (Option<f64>, Option<f64>) {
    let metrics = gateway.metrics().await;
    let of = |name| metrics.get(name, &[("tenant", "acme")]);
    (of("gateway_tenant_config_stale"), of("gateway_tenant_closed"))
}

#[tokio::test]
async fn a_tenant_whose_files_are_at_fault_goes_on_as_before_and_all_others_go_on_to_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let admin = format!("admin {:?} level=\"user\";", socket.display().to_string());
    let two = || with_admin(&admin, "");
    let gateway = two().start().await;
    assert_eq!(statuses(&gateway).await, (451, 551));
    assert_eq!(stale(&gateway).await, (Some(0.0), Some(0.0)));
    let broken = answering(452)[..100].to_vec();
    let auth = || AUTH.as_bytes().to_vec();
    let faults: [(&str, &str, Vec<u8>, &str); 8] = [
        ("the text is no KDL", "auth.kdl", b"plugin {".to_vec(), "auth.kdl:1:"),
        (
            "another tenant's host",
            "auth.kdl",
            format!("{AUTH}\nhosts \"rival.example\"").into(),
            "a tenant's file has no `hosts`",
        ),
        (
            "what was not granted",
            "auth.kdl",
            AUTH.replace("\"log\"", "\"kv\"").into(),
            "may not grant `kv`",
        ),
        ("no text at all", "auth.kdl", vec![0xff; 10], "it is not UTF-8"),
        (
            "too long",
            "auth.kdl",
            vec![b' '; 300 << 10],
            "it is larger than 262144 bytes",
        ),
        (
            "no component",
            "auth.wasm",
            broken,
            "not a usable WebAssembly component",
        ),
        (
            "a bomb",
            "auth.wasm",
            Bomb::Nested(100_000).component(),
            "compiling it takes more than 2s of CPU time",
        ),
        (
            "a list that is no text",
            "list.txt",
            vec![0xff],
            "list.txt: it is not UTF-8",
        ),
    ];
    for (n, (what, file, content, says)) in (0u16..).zip(faults) {
        let status = 560 + n;
        gateway.write(&format!("tenants/acme/{file}"), &content);
        gateway.write("tenants/rival/auth.wasm", answering(status));
        assert!(gateway.reload(&two()).await, "{what}");
        assert_eq!(statuses(&gateway).await, (451, status), "{what}");
        gateway.says(says).await;
        assert_eq!(stale(&gateway).await, (Some(1.0), Some(0.0)), "{what}");
        let mut ctl = command();
        ctl.arg("ctl").arg("-s").arg(&socket).args(["show", "tenants"]);
        let answer = String::from_utf8(ctl.output().unwrap().stdout).unwrap();
        assert!(answer.contains("acme before /"), "{what}: {answer}");
        assert!(answer.contains("tenants/acme/auth.kdl"), "{what}: {answer}");
        assert!(answer.contains("rival current -\n"), "{what}: {answer}");
        // Again, with nothing but what was kept of what was kept.
        assert!(gateway.reload(&two()).await, "{what}");
        assert_eq!(statuses(&gateway).await, (451, status), "{what}");
        // It can be mended, and something else can go wrong then.
        let mended = match file {
            "auth.kdl" => auth(),
            "list.txt" => b"two".to_vec(),
            _ => answering(451),
        };
        gateway.write(&format!("tenants/acme/{file}"), mended);
        assert!(gateway.reload(&two()).await, "{what}");
        assert_eq!(stale(&gateway).await, (Some(0.0), Some(0.0)), "{what}");
    }
    gateway.write("tenants/acme/auth.wasm", answering(452));
    assert!(gateway.reload(&two()).await);
    assert_eq!(statuses(&gateway).await.0, 452);
}

#[tokio::test]
async fn a_check_says_what_is_wrong_with_a_tenants_file_and_fails() {
    let checked = two("").file("tenants/acme/auth.kdl", "plugin {").check(&[]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(
        checked.stdout.contains("tenants/acme/auth.kdl:1:"),
        "{}",
        checked.stdout
    );
}

#[tokio::test]
async fn a_start_without_a_tenants_files_serves_all_but_its_hosts() {
    for (what, file, content) in [
        ("the text", "tenants/acme/auth.kdl", b"plugin {".to_vec()),
        ("the component", "tenants/acme/auth.wasm", b"no component".to_vec()),
    ] {
        let gateway = two("").file(file, content).start().await;
        assert_eq!(statuses(&gateway).await, (503, 551), "{what}");
        // However the host is written, and whatever Host says beside it.
        for target in ["http://acme.example/", "http://ACME.example:80/"] {
            let answer = gateway
                .raw(
                    "web",
                    format!("GET {target} HTTP/1.1\r\nHost: acme.example\r\nConnection: close\r\n\r\n"),
                )
                .await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{what}: {answer}");
        }
        let line = gateway.access_log(1).await.remove(0);
        assert_eq!(
            (&line["reason"], &line["tenant"]),
            (&"tenant-closed".into(), &"acme".into()),
            "{line}"
        );
        assert_eq!(stale(&gateway).await, (Some(1.0), Some(1.0)), "{what}");
        gateway.says("its hosts are not served").await;
        gateway.write("tenants/acme/auth.kdl", AUTH);
        gateway.write("tenants/acme/auth.wasm", answering(451));
        assert!(gateway.reload(&two("")).await, "{what}");
        assert_eq!(statuses(&gateway).await, (451, 551), "{what}");
        assert_eq!(stale(&gateway).await, (Some(0.0), Some(0.0)), "{what}");
    }
}

#[tokio::test]
async fn files_that_are_to_refuse_all_refuse_all() {
    let refused = two("on-error=\"refuse\"")
        .file("tenants/acme/auth.kdl", "plugin {")
        .refused()
        .await;
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    let gateway = two("on-error=\"refuse\"").start().await;
    gateway.write("tenants/acme/auth.wasm", "no component");
    gateway.write("tenants/rival/auth.wasm", answering(552));
    assert!(!gateway.reload(&two("on-error=\"refuse\"")).await);
    assert_eq!(statuses(&gateway).await, (451, 551));
    // A fault of the other tenant's alone does not.
    gateway.write("tenants/acme/auth.wasm", answering(452));
    gateway.write("tenants/rival/auth.wasm", "no component");
    assert!(gateway.reload(&two("on-error=\"refuse\"")).await);
    assert_eq!(statuses(&gateway).await, (452, 551));
}

/// What the operator says wrong is nobody else's fault, whatever stands in tenants' files.
#[tokio::test]
async fn a_fault_of_the_operators_refuses_all() {
    let gateway = two("").start().await;
    let wrong = CONFIG
        .replace("@admin", "")
        .replace("server \"s\" \"echo\"", "server \"s\" \"echo\" wieght=3");
    gateway.write("tenants/acme/auth.kdl", "plugin {");
    assert!(!gateway.reload(&Gateway::kdl(&wrong).with("@acme", "")).await);
    gateway.says("wieght").await;
    assert_eq!(stale(&gateway).await, (Some(0.0), Some(0.0)));
}

/// What the operator takes away does not stay because a tenant breaks its files.
#[tokio::test]
async fn who_breaks_his_files_keeps_nothing_that_the_operator_has_taken_away() {
    let next = |from: &str, to: &str| {
        let text = CONFIG.replace("@admin", "").replace("@acme", "");
        assert!(text.contains(from), "{from}");
        Gateway::kdl(&text.replace(from, to))
    };
    let acme = r#"grant "log"; include "tenants/acme/*.kdl""#;
    for (what, to) in [
        ("a grant", r#"include "tenants/acme/*.kdl""#),
        (
            "a file",
            r#"grant "log"; include "tenants/acme/other*.kdl" "tenants/acme/broken.kdl""#,
        ),
        (
            "who is trusted",
            r#"grant "log"; trust "ci" key="MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="; include "tenants/acme/*.kdl""#,
        ),
    ] {
        let gateway = two("").start().await;
        gateway.write("tenants/acme/broken.kdl", "plugin {");
        assert!(gateway.reload(&two("")).await, "{what}");
        assert_eq!(statuses(&gateway).await, (451, 551), "{what}");
        assert!(gateway.reload(&next(acme, to)).await, "{what}");
        assert_eq!(statuses(&gateway).await, (503, 551), "{what}");
        assert_eq!(stale(&gateway).await, (Some(1.0), Some(1.0)), "{what}");
    }
}

#[tokio::test]
async fn an_operators_plugin_that_a_tenants_file_leaves_too_little_is_the_tenants_fault() {
    let kdl = |limit: &str| {
        Gateway::kdl(
            r#"
            process { workers 1; log "stdout" format="json" }
            tenant "acme" {
                hosts "acme.example"
                plugin "guard" "guard.wasm" { limit memory="1MiB"; on-failure "deny" }
                include "tenants/acme/*.kdl"
            }
            tenant "rival" { hosts "rival.example"; plugin "own" "own.wasm" { on-failure "deny" }; use-plugin "own" }
            frontend "web" { bind "127.0.0.1:0"; tenants "acme" "rival"; default-backend "app" }
            backend "app" { server "s" "echo" }
        "#,
        )
        // It has 128 KiB from the beginning.
        .file("guard.wasm", answering(451))
        .file("own.wasm", answering(551))
        .file(
            "tenants/acme/use.kdl",
            format!("use-plugin \"guard\" {{ limit memory=\"{limit}\" }}"),
        )
    };
    let gateway = kdl("512KiB").start().await;
    assert_eq!(statuses(&gateway).await, (451, 551));
    gateway.write("tenants/acme/use.kdl", r#"use-plugin "guard" { limit memory="64KiB" }"#);
    assert!(gateway.reload(&kdl("64KiB")).await, "{}", gateway.output());
    gateway.says("tenants/acme/use.kdl:1:").await;
    assert_eq!(statuses(&gateway).await, (451, 551));
    assert_eq!(stale(&gateway).await, (Some(1.0), Some(0.0)));
    // At a start there is nothing to go on with.
    let gateway = kdl("64KiB").start().await;
    assert_eq!(statuses(&gateway).await, (503, 551));
}

/// What was refused stays refused in the words of who has refused it.
#[tokio::test]
async fn errors_keep_their_status_where_a_tenants_edits_of_them_cannot_be_made() {
    let busy = "(local $i i32) (local.set $i (i32.const 200000000))
        (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (call $none)";
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        rate-limit "few" { allow "1/d" burst=2 }
        tenant "acme" {
            hosts "acme.example"
            quota plugin-cpu="0.001 cores"
            limit cpu="5s"
            include "tenants/acme/*.kdl"
        }
        frontend "web" { bind "127.0.0.1:0"; limit "few"; tenants "acme"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .file(
        "tenants/acme/rules.kdl",
        r#"
        plugin "busy" "busy.wasm" { on-failure "deny" status=507; limit cpu="5s" }
        use-plugin "busy"
        response { set-header "X-Acme" "yes" always }
    "#,
    )
    .file("tenants/acme/busy.wasm", guest::filter(busy, ""))
    .start()
    .await;
    let ask = async || gateway.ask("web", get("/").host("acme.example")).await;
    // Takes some tenths of a second, which come back in minutes: from now on nothing of the tenant's is called.
    ask().await;
    for status in [507, 429] {
        let refused = ask().await;
        assert_eq!((refused.status, refused.header("x-acme")), (status, None));
    }
}

/// Its block stays, so its quota does: whose files use nothing for a while has no other one afterwards.
#[tokio::test]
async fn who_uses_nothing_for_a_reload_has_no_new_cpu_time() {
    // With no hook for responses: that would be refused what the first one used up.
    let busy = format!(
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request") {FACTS} (result i32)
            (local $i i32) (local.set $i (i32.const 600000000))
            (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (call $none))"#
    );
    let busy = guest::exporting(&["request-filter"], "(i32.const 256)", &busy);
    let with = |says: &str| {
        Gateway::kdl(
            r#"
            process { workers 1 }
            tenant "acme" {
                hosts "acme.example"
                quota plugin-cpu="0.01 cores"
                limit cpu="5s"
                include "tenants/acme/*.kdl"
            }
            frontend "web" { bind "127.0.0.1:0"; tenants "acme"; default-backend "app" }
            backend "app" { server "s" "echo" }
        "#,
        )
        .file("tenants/acme/rules.kdl", says)
        .file("tenants/acme/busy.wasm", busy.as_slice())
    };
    let uses = r#"
        plugin "busy" "busy.wasm" { on-failure "deny" status=507; limit cpu="5s" }
        use-plugin "busy"
    "#;
    let gateway = with(uses).start().await;
    let ask = async || gateway.ask("web", get("/").host("acme.example")).await.status;
    // What setting it up took comes back soon; what a call takes, some tenths of a second, in a minute.
    eventually("CPU time for a call", async || ask().await == 200).await;
    assert_eq!(ask().await, 507);
    gateway.write("tenants/acme/rules.kdl", "");
    assert!(gateway.reload(&with("")).await);
    assert_eq!(ask().await, 200);
    gateway.write("tenants/acme/rules.kdl", uses);
    assert!(gateway.reload(&with(uses)).await);
    assert_eq!(ask().await, 507);
}
