//! Components that are small to send and long to compile: they are compiled beside the traffic, and no longer than compiling may
//! take.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::bomb::Bomb;
use gateway_tests::{Builder, Client, Gateway, get, guest};

fn kdl(limits: &str) -> Builder {
    Gateway::kdl(
        r#"
        process { workers 2; @cache policy @limits }
        plugin "bomb" "bomb.wasm" { on-failure "deny" status=503 }
        frontend "web" { bind "127.0.0.1:0"; access-log "off"; use-plugin "bomb"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .with("@limits", limits)
}

const LIMITS: &str = r#"compile-cpu="2s" compile-memory="256MiB""#;

const TIME: &str = "compiling it takes more than 2s of CPU time";
const MEMORY: &str = "compiling it takes more than 256 MiB of memory";
/// Two seconds of CPU time at a low priority, on a machine that is busy with other tests.
const MOST: Duration = Duration::from_secs(120);

/// It was compiled, and is no policy.
const COMPILED: &str = "exports no `lifecycle`";
/// The engine has a limit of its own.
const REFUSED: &str = "not a usable WebAssembly component";

#[test]
fn no_bomb_takes_longer_or_more_memory_than_it_may() {
    let bombs: [(Bomb, &[&str]); 16] = [
        (Bomb::Functions(10_000), &[COMPILED, TIME]),
        (Bomb::Functions(1_000_000), &[TIME, MEMORY]),
        (Bomb::Locals(1_000, 50_000), &[COMPILED, TIME]),
        (Bomb::Locals(100_000, 50_000), &[TIME, MEMORY]),
        (Bomb::Loops(1_000, 1_000), &[TIME, MEMORY]),
        (Bomb::Results(100_000), &[TIME, MEMORY]),
        (Bomb::Nested(10_000), &[COMPILED]),
        (Bomb::Nested(100_000), &[TIME]),
        (Bomb::Jumps(10_000, 1_000), &[COMPILED]),
        (Bomb::Jumps(1_000_000, 1_000), &[REFUSED]),
        (Bomb::Branches(50_000, 10_000), &[TIME, MEMORY]),
        (Bomb::Calls(10_000, 1_000), &[TIME, MEMORY]),
        (Bomb::Line(400_000), &[TIME, MEMORY]),
        (Bomb::Doubled(40), &[TIME, MEMORY]),
        (Bomb::Data(60 << 20), &[REFUSED, MEMORY]),
        (Bomb::Elements(50_000_000), &[COMPILED, TIME, MEMORY]),
    ];
    let builder = kdl(LIMITS).with("@cache", "");
    for (bomb, says) in bombs {
        let builder = builder.beside("bomb.wasm", bomb.component());
        let begun = Instant::now();
        let checked = builder.check(&[]);
        let took = begun.elapsed();
        println!("{bomb:?}: {took:?}");
        assert_eq!(checked.code, Some(1), "{bomb:?}: {checked:?}");
        assert!(
            says.iter().any(|says| checked.stdout.contains(says)),
            "{bomb:?}: {checked:?}"
        );
        assert!(took < MOST, "{bomb:?}: {took:?}");
    }
}

#[tokio::test]
async fn traffic_goes_on_while_a_bomb_is_compiled_and_what_ran_before_stays() {
    let good = guest::filter("(call $reply (i32.const 200) (i32.const 7))", "");
    let gateway = kdl(LIMITS).with("@cache", "").file("bomb.wasm", good).start().await;
    let text = gateway.config();
    let address = gateway.address("web");
    let over = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let over = over.clone();
        async move {
            let mut client = Client::connect(address).await;
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = client.ask(get("/")).await;
                assert_eq!((answer.status, answer.body.len()), (200, 7));
                asked += 1;
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (asked, longest)
        }
    });
    let before = gateway.resident();
    for (bomb, says) in [
        (Bomb::Loops(1_000, 1_000), MEMORY),
        (Bomb::Nested(100_000), TIME),
        (Bomb::Results(100_000), MEMORY),
    ] {
        gateway.write("bomb.wasm", bomb.component());
        let refused = || gateway.output().matches("reload refused").count();
        let (before, begun) = (refused(), Instant::now());
        gateway.begin_reload(&Gateway::verbatim(&text));
        // It stands behind everything else that this machine does.
        while refused() == before {
            assert!(begun.elapsed() < MOST, "{bomb:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gateway.says(says).await;
        assert_eq!(gateway.ask("web", get("/")).await.body.len(), 7, "{bomb:?}");
    }
    let grown = gateway.resident().saturating_sub(before);
    over.store(true, Ordering::Relaxed);
    let (asked, longest) = asking.await.unwrap();
    println!("{asked} requests, the slowest {longest:?}; {} KiB more", grown >> 10);
    assert!(asked > 100, "{asked}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn what_was_compiled_apart_serves_and_lies_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = format!("compile-cache \"{}\";", folder.path().join("cache").display());
    for round in 0..2 {
        let component = guest::filter("(call $reply (i32.const 200) (i32.const 9))", "");
        let gateway = kdl("instances=70 memory=\"8MiB\"")
            .with("@cache", &cache)
            .file("bomb.wasm", component)
            .start()
            .await;
        assert_eq!(gateway.ask("web", get("/")).await.body.len(), 9, "{round}");
        assert!(!gateway.output().contains("compiled again"), "{}", gateway.output());
    }
    let files = std::fs::read_dir(folder.path().join("cache")).unwrap();
    let code = files.filter(|file| {
        file.as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|end| end == "code")
    });
    assert_eq!(code.count(), 1);
}

const TENANTS: &str = r#"
    process { workers 2; log "stdout" format="json"; policy compile-cpu="2s" compile-memory="256MiB" }
    tenant "acme" { hosts "acme.example"; @quota include "tenants/acme/*.kdl" }
    tenant "rival" { hosts "rival.example"; include "tenants/rival/*.kdl" }
    frontend "web" { bind "127.0.0.1:0"; tenants "acme" "rival"; default-backend "app" }
    backend "app" { server "s" "echo" }
"#;

/// Plugins with these names, and the components of these names.
fn plugins(named: impl Iterator<Item = (String, String)>) -> String {
    let line =
        |(name, file)| format!("plugin \"{name}\" \"{file}\" {{ on-failure \"deny\" }}\nuse-plugin \"{name}\"\n");
    named.map(line).collect()
}

fn answering(status: u16) -> Vec<u8> {
    guest::filter(&format!("(call $reply (i32.const {status}) (i32.const 0))"), "")
}

/// Two tenants; one of them has so many bombs, each another one.
fn with_bombs(count: usize) -> Builder {
    let bombs = plugins((0..count).map(|n| (format!("b{n}"), format!("{n}.wasm"))));
    let builder = Gateway::kdl(TENANTS)
        .with("@quota", "")
        .file("tenants/acme/a.kdl", bombs);
    let builder = (0..count).fold(builder, |builder, n| {
        builder.file(&format!("tenants/acme/{n}.wasm"), Bomb::Nested(100_000 + n).component())
    });
    let own = plugins([("own".to_owned(), "own.wasm".to_owned())].into_iter());
    builder
        .file("tenants/rival/a.kdl", own)
        .file("tenants/rival/own.wasm", answering(551))
}

#[tokio::test]
async fn many_bombs_of_one_tenant_hold_a_load_no_longer_than_one() {
    let checked = with_bombs(50).check(&[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let said = |words| checked.stdout.matches(words).count();
    assert_eq!(
        (
            said(TIME),
            said("that the tenant's files may take to compile are used up")
        ),
        (1, 49),
        "{checked:?}"
    );
    let gateway = with_bombs(50).start().await;
    for (host, status) in [("acme.example", 503), ("rival.example", 551)] {
        assert_eq!(gateway.ask("web", get("/").host(host)).await.status, status, "{host}");
    }
    gateway.write("tenants/rival/own.wasm", answering(552));
    assert!(gateway.reload(&with_bombs(0)).await);
    assert_eq!(gateway.ask("web", get("/").host("rival.example")).await.status, 552);
}

#[test]
fn a_tenants_quota_bounds_what_its_files_take_to_compile() {
    let bomb = plugins([("b".to_owned(), "b.wasm".to_owned())].into_iter());
    let checked = Gateway::kdl(TENANTS)
        .with("@quota", "quota compile-cpu=\"1s\";")
        .file("tenants/acme/a.kdl", bomb)
        .file("tenants/acme/b.wasm", Bomb::Nested(100_000).component())
        .file("tenants/rival/a.kdl", "")
        .check(&[]);
    let says = "the 1s of CPU time that the tenant's files may take to compile are used up";
    assert!(checked.stdout.contains(says), "{checked:?}");
}

/// It costs nothing to compile, and stays in memory.
#[tokio::test]
async fn a_tenants_quota_bounds_what_the_components_of_its_files_come_to() {
    // A mebibyte of data that nothing takes, which differs from component to component.
    let with_data = |n: u8| {
        let facts = guest::FACTS;
        let data = format!("\\{n:02x}").repeat(1 << 20);
        let exports = format!(
            r#"(data "{data}")
            (func (export "gateway:policy/request-filter@0.1.0#on-request") {facts} (result i32)
                (call $reply (i32.const 552) (i32.const 0)))
            (func (export "gateway:policy/response-filter@0.1.0#on-response") {facts} (result i32) (call $none))"#
        );
        guest::component("header-rewrite", &exports)
    };
    let named = |count: u8| {
        let names = (0..count).map(|n| (format!("d{n}"), format!("{n}.wasm")));
        let again = [("again".to_owned(), "0.wasm".to_owned())];
        let own = plugins([("own".to_owned(), "own.wasm".to_owned())].into_iter());
        let builder = Gateway::kdl(TENANTS)
            .with("@quota", "quota machine-code=\"3MiB\";")
            .file("tenants/acme/a.kdl", plugins(names.chain(again)))
            .file("tenants/rival/a.kdl", own)
            .file("tenants/rival/own.wasm", answering(551));
        (0..count).fold(builder, |builder, n| {
            builder.file(&format!("tenants/acme/{n}.wasm"), with_data(n))
        })
    };
    // One that is used twice counts once.
    let gateway = named(2).start().await;
    for (host, status) in [("acme.example", 552), ("rival.example", 551)] {
        assert_eq!(gateway.ask("web", get("/").host(host)).await.status, status, "{host}");
    }
    let checked = named(3).check(&[]);
    let says = "with it, the components of its tenant's files come to more than 3145728 bytes of machine code";
    assert!(checked.stdout.contains(says), "{checked:?}");
}

/// A start and a reload wait for that, too.
#[tokio::test]
async fn a_tenants_quota_bounds_what_its_plugins_take_to_set_up() {
    // Some half a second each.
    let works = "(local $i i32) (local.set $i (i32.const 600000000))
        (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) (i32.const 256)";
    let facts = guest::FACTS;
    let exports = format!(
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request") {facts} (result i32) (call $none))
        (func (export "gateway:policy/response-filter@0.1.0#on-response") {facts} (result i32) (call $none))"#
    );
    let slow = guest::component_with_configure("header-rewrite", works, &exports);
    let names = (0..20).map(|n| (format!("s{n}"), "slow.wasm".to_owned()));
    let limits = "{ limit cpu=\"10s\"; on-failure \"deny\" }";
    let builder = Gateway::kdl(TENANTS)
        .with("@quota", "limit cpu=\"10s\"; quota compile-cpu=\"2s\";")
        .file(
            "tenants/acme/a.kdl",
            plugins(names).replace("{ on-failure \"deny\" }", limits),
        )
        .file("tenants/acme/slow.wasm", slow)
        .file(
            "tenants/rival/a.kdl",
            plugins([("own".to_owned(), "own.wasm".to_owned())].into_iter()),
        )
        .file("tenants/rival/own.wasm", answering(551));
    let checked = builder.check(&[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let says = "the 2s of CPU time that the tenant's files may take to compile and to set up are used up";
    let used_up = checked.stdout.matches(says).count();
    // The first has been set up, the last not even been tried.
    assert!((1..20).contains(&used_up), "{checked:?}");
    let gateway = builder.start().await;
    for (host, status) in [("acme.example", 503), ("rival.example", 551)] {
        assert_eq!(gateway.ask("web", get("/").host(host)).await.status, status, "{host}");
    }
}

/// Were it tried again, the second would find nothing left to take.
#[test]
fn what_has_been_tried_under_one_name_is_not_tried_under_another() {
    let names = (0..3).map(|n| (format!("b{n}"), "b.wasm".to_owned()));
    let checked = Gateway::kdl(TENANTS)
        .with("@quota", "")
        .file("tenants/acme/a.kdl", plugins(names))
        .file("tenants/acme/b.wasm", Bomb::Nested(100_000).component())
        .file("tenants/rival/a.kdl", "")
        .check(&[]);
    assert_eq!(checked.stdout.matches(TIME).count(), 3, "{checked:?}");
    assert!(!checked.stdout.contains("used up"), "{checked:?}");
}
