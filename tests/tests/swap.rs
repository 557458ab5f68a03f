//! Components change while requests come: the new one is compiled, configured and warm before the first request meets it, the
//! last good one stays when anything fails, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::{Builder, Gateway, get, guest};

/// A component that answers each request with this many bytes: no two sizes are the same component.
fn answering(bytes: usize) -> Vec<u8> {
    guest::filter(&format!("(call $reply (i32.const 200) (i32.const {bytes}))"), "")
}

fn kdl(more: &str) -> Builder {
    Gateway::kdl(
        r#"
        process { workers 2; @cache }
        plugin "swapped" "swapped.wasm" { on-failure "deny" status=503; @more }
        frontend "web" { bind "127.0.0.1:0"; access-log "off"; use-plugin "swapped"; default-backend "app" }
        backend "app" { server "s" "echo" }
    "#,
    )
    .with("@more", more)
}

/// Many more with this in the environment: `GATEWAY_SWAPS=10000`. Compiled code comes from the cache, so that a swap takes some
/// hundredths of a second.
fn swaps() -> usize {
    let swaps = std::env::var("GATEWAY_SWAPS").ok();
    swaps.and_then(|swaps| swaps.parse().ok()).unwrap_or(300)
}

#[tokio::test]
async fn many_swaps_drop_no_exchange_and_leave_memory_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let cache = format!("compile-cache \"{}\"", folder.path().join("cache").display());
    let builder = kdl("").with("@cache", format!("policy instances=64; {cache}"));
    let gateway = Arc::new(builder.file("swapped.wasm", answering(1)).start().await);
    let text = gateway.config();
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let address = gateway.address("web");
    let client = tokio::spawn({
        let (over, asked) = (over.clone(), asked.clone());
        async move {
            let mut client = gateway_tests::Client::connect(address).await;
            while !over.load(Ordering::Relaxed) {
                let answer = client.ask(get("/")).await;
                assert_eq!(answer.status, 200);
                asked.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") == Some("close") {
                    client = gateway_tests::Client::connect(address).await;
                }
            }
        }
    });
    let next = Gateway::verbatim(&text);
    let (rounds, mut settled) = (swaps(), 0);
    let components: Vec<_> = (1..=50).map(answering).collect();
    for round in 1..=rounds {
        gateway.write("swapped.wasm", &components[round % 50]);
        assert!(gateway.reload(&next).await, "{round}");
        let answer = gateway.ask("web", get("/")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 1 + round % 50), "{round}");
        if round == rounds / 3 {
            settled = gateway.resident();
        }
        if round % (rounds / 10).max(1) == 0 {
            println!("{round} swaps: {} KiB", gateway.resident() >> 10);
        }
    }
    over.store(true, Ordering::Relaxed);
    client.await.unwrap();
    assert!(asked.load(Ordering::Relaxed) > rounds, "requests came all the time");
    // The names of metrics, an allocator's pages: some room, but not for what a swap leaves behind.
    let grown = gateway.resident().saturating_sub(settled);
    println!("{rounds} swaps: {settled} bytes after a third of them, {grown} more at the end");
    assert!(grown < 8 << 20, "{grown} bytes more after {rounds} swaps");
}

#[tokio::test]
async fn the_last_good_component_stays_when_the_next_one_fails() {
    let gateway = kdl("")
        .with("@cache", "")
        .file("swapped.wasm", answering(7))
        .start()
        .await;
    let next = Gateway::verbatim(&gateway.config());
    let mut demanding = answering(9);
    gateway::policy::section::add_config_schema(&mut demanding, "setting \"a\" \"text\" required");
    let bad = [
        ("wants another configuration", demanding),
        ("no component", b"\0asm\x0d\0\x01\0".to_vec()),
        ("cut off", answering(9)[..200].to_vec()),
        ("another world", guest::connection("(call $none)")),
        (
            "refuses to start",
            guest::component_with_configure("header-rewrite", "(unreachable)", &filter_exports()),
        ),
        (
            "never gets ready",
            guest::component_with_configure("header-rewrite", "(call $loop) (i32.const 256)", &filter_exports()),
        ),
    ];
    for (what, component) in bad {
        gateway.write("swapped.wasm", component);
        assert!(!gateway.reload(&next).await, "{what}");
        assert_eq!(gateway.ask("web", get("/")).await.body.len(), 7, "{what}");
    }
    gateway.write("swapped.wasm", answering(8));
    assert!(gateway.reload(&next).await);
    assert_eq!(gateway.ask("web", get("/")).await.body.len(), 8);
}

fn filter_exports() -> String {
    let facts = guest::FACTS;
    format!(
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request") {facts} (result i32) (call $none))
           (func (export "gateway:policy/response-filter@0.1.0#on-response") {facts} (result i32) (call $none))"#
    )
}

fn code_in(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "code"))
        .collect()
}

#[tokio::test]
async fn a_start_takes_compiled_code_from_the_cache_and_only_what_the_gateway_wrote_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let said = format!("compile-cache \"{}\"", cache.display());
    let run = async || {
        let gateway = kdl("")
            .with("@cache", &said)
            .file("swapped.wasm", answering(3))
            .start()
            .await;
        assert_eq!(gateway.ask("web", get("/")).await.body.len(), 3);
        gateway
    };
    drop(run().await);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&cache), mode(&cache.join("key"))), (0o700, 0o600));
    let [file] = &code_in(&cache)[..] else {
        panic!("one component")
    };
    assert_eq!(mode(file), 0o600);
    let written = std::fs::metadata(file).unwrap().len();
    let good = std::fs::read(file).unwrap();

    // The second start reads it, and says nothing of it.
    let gateway = run().await;
    assert!(!gateway.output().contains("compiled again"), "{}", gateway.output());
    drop(gateway);

    // What somebody has changed is made anew.
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(file, bad).unwrap();
    let gateway = run().await;
    gateway.says("is not what was written there: compiled again").await;
    assert_eq!(std::fs::metadata(file).unwrap().len(), written);

    // A folder that others may write to is not used at all.
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = kdl("")
        .with("@cache", &said)
        .file("swapped.wasm", answering(3))
        .refused()
        .await;
    assert!(
        refused.output.contains("others than its owner may use it (mode 777)"),
        "{}",
        refused.output
    );
}

#[tokio::test]
async fn a_hundred_plugins_start_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = format!("compile-cache \"{}\"", folder.path().join("cache").display());
    let mut text = format!("process {{ workers 2; {cache} }}\nbackend \"app\" {{ server \"s\" \"echo\" }}\n");
    for n in 0..100 {
        writeln!(
            text,
            "plugin \"p{n}\" \"p{n}.wasm\" {{ on-failure \"deny\" }}
             frontend \"f{n}\" {{ bind \"127.0.0.1:0\"; use-plugin \"p{n}\"; default-backend \"app\" }}"
        )
        .unwrap();
    }
    let mut took = Vec::new();
    for _ in 0..2 {
        let mut builder = Gateway::kdl(&text);
        for n in 0..100 {
            builder = builder.file(&format!("p{n}.wasm"), answering(100 + n));
        }
        let begun = Instant::now();
        let gateway = builder.start().await;
        took.push(begun.elapsed());
        for n in [0, 99] {
            assert_eq!(gateway.ask(&format!("f{n}"), get("/")).await.body.len(), 100 + n);
        }
    }
    println!(
        "a hundred plugins and two workers: {:?} without the cache, {:?} with it",
        took[0], took[1]
    );
    assert!(took[1] < took[0], "{took:?}");
    assert!(took[1] <= Duration::from_secs(2), "{took:?}");
}
