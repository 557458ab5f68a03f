//! What calls of policy components cost, as the proxy makes them: through `Instances`, with facts found in the request,
//! the exchange moved in and out, the epoch watched and the answer counted.
//!
//! `cargo bench --bench component_calls`. Targets: a warm call without host calls 300 ns, with three header reads 1 µs, a
//! fresh instance per call 6 µs.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::config::{
    BudgetLimits, Grant, Heavy, Isolation, Millicores, OnFailure, PluginLimits, QuarantineSettings, StateLimits,
};
use gateway::policy::first_party::{ACL, FirstParty, HEADER_REWRITE, RATE_LIMIT};
use gateway::policy::{
    AttachedAs, Attachment, AttachmentSpec, Budget, Callers, ConnectionFacts, Ends, Exchange, Host, HostSettings,
    Instances, Scope, TlsFacts,
};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../src/policy/guests.rs"]
#[allow(dead_code)]
mod guests;

use guests::{GUEST, Guest, ZEROES};

const HEADER: &str = r#"(import "gateway:policy/request@0.1.0" "header" (func $header (param i32 i32 i32)))"#;
const GET_MANY: &str = r#"(import "gateway:policy/request@0.1.0" "get-many" (func $get_many (param i32 i32 i32)))"#;
const SET_HEADER: &str = r#"(import "gateway:policy/request-edits@0.1.0" "set-header"
    (func $set_header (param i32 i32 i32 i32 i32)))"#;

/// The three names, and at 4,200 the list of them.
const NAMES: &str = r#"(data (i32.const 4096) "user-agentaccept-languagex-client")
    (data (i32.const 4200) "\00\10\00\00\0a\00\00\00\0a\10\00\00\0f\00\00\00\19\10\00\00\08\00\00\00")"#;

/// A host that remembers no answers: what is measured is calls.
fn host() -> Arc<Host> {
    host_with(0)
}

fn host_with(answers: usize) -> Arc<Host> {
    Host::new(HostSettings {
        instances: 64,
        memory: 16 << 20,
        total_memory: u64::MAX,
        host_memory: u64::MAX,
        max_buckets: 100_000,
        answers,
    })
}

fn attach(host: &Arc<Host>, wasm: &[u8], config: &str) -> Arc<Attachment> {
    attach_as(host, wasm, config, Isolation::FOREVER, BudgetLimits::default())
}

fn attach_as(
    host: &Arc<Host>,
    wasm: &[u8],
    config: &str,
    isolation: Isolation,
    budget: BudgetLimits,
) -> Arc<Attachment> {
    let grants = [Grant::Buckets, Grant::Log, Grant::Clock];
    let component = host.compile("bench", wasm, &grants).expect("a component");
    let spec = AttachmentSpec {
        callers: Callers::Either {
            slow: Duration::from_micros(250),
            heavy: Heavy::DEFAULT,
        },
        maps: Some(Arc::default()),
        label: "bench".into(),
        namespace: "bench".to_owned(),
        counted: Arc::default(),
        config: config.to_owned(),
        limits: PluginLimits {
            cpu: Duration::from_millis(10),
            memory: 16 << 20,
        },
        on_failure: OnFailure::Deny(503),
        vouched: Arc::default(),
        isolation,
        is_forgetful: true,
        budget: Budget::new("bench", budget, None),
        quarantine: Some(QuarantineSettings {
            failures: 20,
            from: Duration::from_secs(1),
            to: Duration::from_secs(60),
        }),
        place: AttachedAs::Filter,
        scope: Scope::default(),
        state: StateLimits::DEFAULT,
        granted: Arc::default(),
        origin: None,
    };
    host.attach(&component, spec).expect("an attachment")
}

/// A browser's request.
fn exchange() -> Box<Exchange> {
    let request = http::Request::builder()
        .uri("/api/v1/items/4711?expand=all&v=2")
        .header("host", "www.example.net")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        )
        .header(
            "accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        )
        .header("accept-language", "en-GB,en;q=0.8")
        .header("accept-encoding", "gzip, deflate, br, zstd")
        .header("referer", "https://www.example.net/items")
        .header("cookie", "session=6f1c2e9a; beta=1; theme=dark")
        .header("x-client", "web/2.1")
        .header("x-debug", "1")
        .header("connection", "keep-alive")
        .header("sec-fetch-mode", "navigate");
    Exchange::new(
        request.body(()).expect("a request").into_parts().0,
        Arc::new(ConnectionFacts {
            accepted: tokio::time::Instant::now(),
            ends: Ends::new(
                "203.0.113.9:40112".parse().expect("an address"),
                "192.0.2.1:443".parse().expect("an address"),
            ),
            tls: Some(Box::new(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS_AES_256_GCM_SHA384",
                sni: Some("www.example.net".to_owned()),
                alpn: Some(b"http/1.1".to_vec()),
                client_certificate: None,
            })),
            preamble: None,
        }),
    )
}

fn warm(c: &mut Criterion) {
    let host = host();
    let mut instances = Instances::new(&host);
    let mut exchange = exchange();
    let three = ["header:user-agent", "header:accept-language", "header:x-client"];
    let getters = "
        (call $header (i32.const 4096) (i32.const 10) (i32.const 5000))
        (call $header (i32.const 4106) (i32.const 15) (i32.const 5000))
        (call $header (i32.const 4121) (i32.const 8) (i32.const 5000))
        (i64.const 1)";
    for (name, guest) in [
        (
            "nothing",
            Guest {
                evaluate: Some("(i64.const 1)"),
                ..GUEST
            },
        ),
        (
            "three headers as facts",
            Guest {
                request_needs: &three,
                evaluate: Some("(i64.load8_u (local.get 2))"),
                ..GUEST
            },
        ),
        (
            "three headers by getter",
            Guest {
                imports: HEADER,
                items: NAMES,
                evaluate: Some(getters),
                ..GUEST
            },
        ),
        (
            "three headers by get-many",
            Guest {
                imports: GET_MANY,
                items: NAMES,
                evaluate: Some("(call $get_many (i32.const 4200) (i32.const 3) (i32.const 5000)) (i64.const 1)"),
                ..GUEST
            },
        ),
    ] {
        let attachment = attach(&host, &guest.component(), "{}");
        instances.warm(&attachment).expect("an instance");
        c.bench_function(&format!("warm/{name}"), |b| {
            b.iter(|| {
                instances
                    .evaluate(black_box(&attachment), black_box(&mut exchange))
                    .expect("an answer")
            });
        });
    }
    let edit = format!(
        "(call $set_header (i32.const 4121) (i32.const 8) (i32.const 4096) (i32.const 10) (i32.const 5000)) {ZEROES}"
    );
    let guest = Guest {
        imports: SET_HEADER,
        items: NAMES,
        on_request: Some(&edit),
        ..GUEST
    };
    let attachment = attach(&host, &guest.component(), "{}");
    c.bench_function("warm/one edit", |b| {
        b.iter(|| {
            instances
                .on_request(black_box(&attachment), black_box(&mut exchange))
                .expect("no reply")
        });
    });
}

fn fresh(c: &mut Criterion) {
    let host = host();
    let mut instances = Instances::new(&host);
    let mut exchange = exchange();
    let guest = Guest {
        request_needs: &["path"],
        evaluate: Some("(i64.load8_u (local.get 2))"),
        ..GUEST
    };
    let wat = attach(&host, &guest.component(), "{}");
    c.bench_function("fresh/WAT guest", |b| {
        b.iter(|| {
            instances.discard(&wat);
            instances.evaluate(&wat, &mut exchange).expect("an answer")
        });
    });
    for (name, first_party, config) in FIRST_PARTY {
        let attachment = attach(&host, first_party.wasm, config);
        c.bench_function(&format!("fresh/{name}"), |b| {
            b.iter(|| {
                instances.discard(&attachment);
                call(name, &mut instances, &attachment, &mut exchange);
            });
        });
    }
}

/// As third parties' plugins are called by default: one request, one instance. What the request waits for, when an instance
/// lies ready, and all that it costs, with making the next one and dropping the used one.
fn per_request(c: &mut Criterion) {
    let host = host();
    let mut exchange = exchange();
    let guest = Guest {
        request_needs: &["path"],
        evaluate: Some("(i64.load8_u (i32.load offset=4 (local.get 0)))"),
        ..GUEST
    };
    let isolation = Isolation::PerRequest { ready: 8 };
    let attachment = attach_as(&host, &guest.component(), "{}", isolation, BudgetLimits::default());
    let mut instances = Instances::new(&host);
    instances.warm(&attachment).expect("an instance");
    c.bench_function("per-request/critical path", |b| {
        b.iter_custom(|rounds| {
            let mut waited = Duration::ZERO;
            for _ in 0..rounds {
                while instances.tend() {}
                let start = Instant::now();
                instances.evaluate(&attachment, &mut exchange).expect("an answer");
                waited += start.elapsed();
            }
            waited
        });
    });
    c.bench_function("per-request/all of it", |b| {
        b.iter(|| {
            instances.evaluate(&attachment, &mut exchange).expect("an answer");
            while instances.tend() {}
        });
    });
}

/// What measuring a plugin's CPU time adds to a warm call.
fn metered(c: &mut Criterion) {
    let host = host();
    let mut instances = Instances::new(&host);
    let mut exchange = exchange();
    let guest = Guest {
        evaluate: Some("(i64.const 1)"),
        ..GUEST
    };
    let budget = BudgetLimits {
        cpu: Some(Millicores(64_000)),
        ..BudgetLimits::default()
    };
    let attachment = attach_as(&host, &guest.component(), "{}", Isolation::FOREVER, budget);
    instances.warm(&attachment).expect("an instance");
    c.bench_function("warm/nothing, CPU measured", |b| {
        b.iter(|| {
            instances
                .evaluate(black_box(&attachment), black_box(&mut exchange))
                .expect("an answer")
        });
    });
}

fn first_party(c: &mut Criterion) {
    first_party_on(c, &host(), "");
    // What is asked about has come twice before.
    first_party_on(c, &host_with(64), ", known");
}

fn first_party_on(c: &mut Criterion, host: &Arc<Host>, suffix: &str) {
    let mut instances = Instances::new(host);
    let original = exchange();
    for (name, first_party, config) in FIRST_PARTY {
        let attachment = attach(host, first_party.wasm, config);
        instances.warm(&attachment).expect("an instance");
        let mut exchange = exchange();
        c.bench_function(&format!("first-party/{name}{suffix}"), |b| {
            b.iter(|| {
                if name == "header-rewrite" {
                    // What it edited, so that it does the same again.
                    exchange.request.uri.clone_from(&original.request.uri);
                }
                call(name, &mut instances, &attachment, &mut exchange);
            });
        });
    }
}

fn call(name: &str, instances: &mut Instances, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) {
    match name {
        "acl" => {
            black_box(instances.evaluate(attachment, exchange).expect("an answer"));
        }
        "header-rewrite" => {
            black_box(instances.on_request(attachment, exchange).expect("no reply"));
        }
        _ => {
            black_box(instances.check(attachment, exchange).expect("a verdict"));
        }
    }
}

/// The policy of the side-by-side bench, or close to it.
const FIRST_PARTY: [(&str, FirstParty, &str); 3] = [
    (
        "acl",
        ACL,
        r#"{"predicates":[
            {"name":"is-api","when":{"path":{"prefix":["/api/"]}}},
            {"name":"is-static","when":{"path":{"prefix":["/static/","/assets/"]}}},
            {"name":"write","when":{"method":["POST","PUT","PATCH","DELETE"]}},
            {"name":"beta","when":{"all":[{"cookie":{"name":"beta","value":{"exact":["1"]}}},{"host":["*.example.net"]}]}},
            {"name":"inside","when":{"source":["10.0.0.0/8","192.168.0.0/16"]}}]}"#,
    ),
    (
        "header-rewrite",
        HEADER_REWRITE,
        r#"{"request":[
            {"set-header":{"name":"x-pool","value":"api"}},
            {"delete-header":{"name":"x-debug"}},
            {"rewrite-path":{"prefix":"/api/","to":"/"}}],"response":[]}"#,
    ),
    (
        "rate-limit",
        RATE_LIMIT,
        r#"{"limits":[{"name":"per-ip","key":[{"client-ip":{"ipv4-prefix":32,"ipv6-prefix":64}}],
            "tokens":1000000,"period-ms":1000,"burst":1000000}]}"#,
    ),
];

criterion_group!(benches, warm, metered, fresh, per_request, first_party);
criterion_main!(benches);
