//! Components that were built against published versions of the contract are taken for ever: `tests/corpus/VERSION/*.wasm`.
//!
//! A component is added with each new part of the contract, with its digest here, and never changed. Those named below are made of text when they are
//! not there yet and `GATEWAY_BLESS=1` is in the environment; the others were built by `plugins/build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::*;

/// Text that does what its name says, for each hook.
const MADE: [(&str, Guest<'_>); 6] = [
    (
        "predicates",
        Guest {
            request_needs: &["path", "tag:seen"],
            predicates: &["always"],
            evaluate: Some("(i64.const 1)"),
            ..GUEST
        },
    ),
    (
        "limiter",
        Guest {
            check: Some(ZEROES),
            ..GUEST
        },
    ),
    (
        "authorization",
        Guest {
            on_request: Some(ZEROES),
            on_answer: Some(ZEROES),
            ..GUEST
        },
    ),
    (
        "body-filter",
        Guest {
            request_body: Some((ZEROES, ZEROES)),
            response_body: Some((ZEROES, ZEROES)),
            ..GUEST
        },
    ),
    (
        "access-log",
        Guest {
            imports: EVERY_IMPORT,
            log_needs: &["status", "backend", "duration-us", "bytes-sent", "reason"],
            on_log: Some(""),
            ..GUEST
        },
    ),
    (
        "connection",
        Guest {
            connection_needs: &["client-ip"],
            on_connect: Some(ZEROES),
            ..GUEST
        },
    ),
];

/// A function of each interface: their types are held to, though nothing is called.
const EVERY_IMPORT: &str = r#"
    (import "gateway:policy/request@0.1.0" "method" (func (param i32)))
    (import "gateway:policy/request@0.1.0" "header" (func (param i32 i32 i32)))
    (import "gateway:policy/request-edits@0.1.0" "set-header" (func (param i32 i32 i32 i32 i32)))
    (import "gateway:policy/response@0.1.0" "status" (func (result i32)))
    (import "gateway:policy/response-edits@0.1.0" "set-status" (func (param i32 i32)))
    (import "gateway:policy/connection-info@0.1.0" "client" (func (param i32)))
    (import "gateway:policy/tags@0.1.0" "set" (func (param i32 i32 i32 i32 i32)))
    (import "gateway:policy/tags@0.1.0" "get" (func (param i32 i32 i32)))
    (import "gateway:policy/buckets@0.1.0" "take" (func (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))
    (import "gateway:policy/counters@0.1.0" "add" (func (param i32 i32 i64 i32)))
    (import "gateway:policy/counters@0.1.0" "get" (func (param i32 i32) (result i64)))
    (import "gateway:policy/kv@0.1.0" "get" (func (param i32 i32 i32)))
    (import "gateway:policy/kv@0.1.0" "set" (func (param i32 i32 i32 i32 i64 i32)))
    (import "gateway:policy/kv@0.1.0" "remove" (func (param i32 i32) (result i32)))
    (import "gateway:policy/kv@0.1.0" "compare-and-set" (func (param i32 i32 i32 i32 i32 i32 i32 i64 i32)))
    (import "gateway:policy/kv@0.1.0" "increment" (func (param i32 i32 i64 i64 i32)))
    (import "gateway:policy/metrics@0.1.0" "add" (func (param i32 i32 i64)))
    (import "gateway:policy/metrics@0.1.0" "set" (func (param i32 i32 f64)))
    (import "gateway:policy/metrics@0.1.0" "observe" (func (param i32 i32 f64)))
    (import "gateway:policy/log@0.1.0" "write" (func (param i32 i32 i32)))
    (import "gateway:policy/clock@0.1.0" "now-ms" (func (result i64)))
    (import "gateway:policy/clock@0.1.0" "monotonic-ns" (func (result i64)))
    (import "gateway:policy/random@0.1.0" "get-u64" (func (result i64)))
    (import "gateway:policy/random@0.1.0" "get-bytes" (func (param i32 i32)))
"#;

/// What lies there, by its SHA-256: a component that was made anew from today's source would prove nothing of yesterday's contract.
const DIGESTS: [(&str, &str); 9] = [
    (
        "0.1.0/access-log.wasm",
        "af707d1454fc9bde82fe3f443b483b37e61b069132a3d6f461f08ba96d003b22",
    ),
    (
        "0.1.0/acl.wasm",
        "815a98968f724a81267c135d82bd30e9fa9ced464c3ccce65a073a980a225745",
    ),
    (
        "0.1.0/authorization.wasm",
        "c9de3f61ee33db8413f3705c3f0187e10001d9744ab6a9e71e0979e9c86a633a",
    ),
    (
        "0.1.0/body-filter.wasm",
        "2a71d607566f2cc54d62a8b094c2d3065b92db7d1877b2439db31f7761c42c0a",
    ),
    (
        "0.1.0/connection.wasm",
        "0bb8a462db35d73d52363d9ddf4b88dd9c7f02eb03e5fb106dc7a5447116d48e",
    ),
    (
        "0.1.0/header-rewrite.wasm",
        "d3fdaa7b7d0b6eaedbb6ef96a08bf799ee3f53f2c69243a95291f7294b090495",
    ),
    (
        "0.1.0/limiter.wasm",
        "190774341225ff6276d1c18a835f4c0b542877bfa9eec2278f5b3a2fc966026a",
    ),
    (
        "0.1.0/predicates.wasm",
        "76fe4fc04e2a0af3c49e692d7114020adad1b11524ff76d043c33d69aa19e092",
    ),
    (
        "0.1.0/rate-limit.wasm",
        "065693d455fabc523ec74112954a06ba3426c0770542868aca16b72b721b6102",
    ),
];

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

#[test]
fn components_of_every_published_version_are_taken() {
    if std::env::var_os("GATEWAY_BLESS").is_some() {
        for (name, guest) in MADE {
            let file = corpus().join(format!("0.1.0/{name}.wasm"));
            if !file.exists() {
                std::fs::write(file, guest.component()).unwrap();
            }
        }
    }
    for (name, _) in MADE {
        assert!(corpus().join(format!("0.1.0/{name}.wasm")).exists(), "{name}");
    }
    let mut taken = BTreeMap::new();
    for version in std::fs::read_dir(corpus()).unwrap() {
        for file in std::fs::read_dir(version.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            call_every_hook(&file);
            let digest = Sha256::digest(std::fs::read(&file).unwrap());
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = file.strip_prefix(corpus()).unwrap();
            taken.insert(name.to_str().unwrap().to_owned(), digest);
        }
    }
    let published: BTreeMap<_, _> = DIGESTS
        .map(|(name, digest)| (name.to_owned(), digest.to_owned()))
        .into();
    assert_eq!(
        taken, published,
        "none is ever changed; a new one's digest is added to DIGESTS"
    );
}

/// Loads a component and calls what it exports.
fn call_every_hook(file: &Path) {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let host = host_of(4);
    let wasm = std::fs::read(file).unwrap();
    let component = host.compile(name, &wasm, &ALL_GRANTS).unwrap();
    let mut spec = spec(name);
    spec.config = match name {
        "acl" => r#"{"predicates": []}"#,
        "header-rewrite" => r#"{"request": [], "response": []}"#,
        "rate-limit" => r#"{"limits": []}"#,
        _ => "{}",
    }
    .to_owned();
    spec.limits.cpu = Duration::from_millis(500);
    let attachment = host.attach(&component, spec).unwrap();
    let mut instances = Instances::new(&host);
    let (mut request, mut response) = (exchange("/"), answered("/"));
    let hooks = attachment.hooks();
    if hooks.predicates {
        instances.evaluate(&attachment, &mut request).unwrap();
    }
    if hooks.limiter {
        instances.check(&attachment, &mut request).unwrap();
    }
    if hooks.request_filter {
        instances.on_request(&attachment, &mut request).unwrap();
    }
    if hooks.call_answered {
        let answered = Err(CallError::Busy);
        instances
            .on_answer(&attachment, &mut request, &answered, b"state", 1)
            .unwrap();
    }
    if hooks.response_filter {
        instances.on_response(&attachment, &mut response).unwrap();
    }
    for (has, of) in [
        (hooks.request_body_filter, BodyOf::Request),
        (hooks.response_body_filter, BodyOf::Response),
    ] {
        if has {
            instances.on_body(&attachment, of, &mut response).unwrap();
            let piece = Piece {
                state: b"state",
                bytes: b"bytes",
                last: true,
                may_reply: true,
            };
            instances
                .on_piece(&attachment, of, &mut KeptByBody::default(), piece)
                .unwrap();
        }
    }
    if hooks.access_log {
        instances.on_log(&attachment, &mut response).unwrap();
    }
    if hooks.connection_filter {
        instances.on_connect(&attachment, &connection()).unwrap();
    }
}
