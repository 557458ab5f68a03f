//! The failure matrix: whatever can go wrong with a component, in each of its hooks, under each verdict, called by a worker and
//! beside the workers. A cell says what the client got, what the server saw, what the log and the metrics say.
//! docs/security-model.md has it as a table.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_tests::guest::{self, FACTS};
use gateway_tests::{Builder, Client, Gateway, HttpServer, Server, Wire, get, post};
use serde_json::Value;
use tokio::sync::Semaphore;

/// A hook, as a component that has no other.
struct Hook {
    /// Its place in names of plugins and frontends.
    name: &'static str,
    /// The interfaces that it is exported by.
    interfaces: &'static [&'static str],
    /// What the log calls it.
    called: &'static str,
    /// What it calls the first that is called of this component.
    first: &'static str,
    /// The functions; `@facts` are its parameters and `@crime` is what it does before it answers.
    functions: &'static str,
    /// How much the server has seen when it has failed.
    server_saw: ServerSaw,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ServerSaw {
    Nothing,
    TheRequest,
    /// Everything is over: it costs nobody anything.
    TheEnd,
}

const HOOKS: [Hook; 11] = [
    Hook {
        name: "acl",
        interfaces: &["predicates"],
        called: "evaluate",
        first: "evaluate",
        // If it came to an answer, that would be 418.
        functions: r#"(data (i32.const 64) "\48\00\00\00\01\00\00\00p")
            (func (export "gateway:policy/predicates@0.1.0#names") (result i32)
                (i32.store (i32.const 48) (i32.const 64)) (i32.store (i32.const 52) (i32.const 1)) (i32.const 48))
            (func (export "gateway:policy/predicates@0.1.0#evaluate") @facts (result i64) @crime (i64.const 1))"#,
        server_saw: ServerSaw::Nothing,
    },
    Hook {
        name: "limit",
        interfaces: &["limiter"],
        called: "check",
        first: "check",
        functions: r#"(func (export "gateway:policy/limiter@0.1.0#policies") (result i32) (call $none))
            (func (export "gateway:policy/limiter@0.1.0#check") @facts (result i32) @crime (call $none))"#,
        server_saw: ServerSaw::Nothing,
    },
    Hook {
        name: "request",
        interfaces: &["request-filter"],
        called: "on-request",
        first: "on-request",
        functions: r#"(func (export "gateway:policy/request-filter@0.1.0#on-request") @facts (result i32)
            @crime (call $none))"#,
        server_saw: ServerSaw::Nothing,
    },
    Hook {
        name: ANSWER,
        interfaces: &["request-filter", "call-answered"],
        called: "on-answer",
        first: "on-request",
        // It calls `auth`, which answers.
        functions: r#"(data (i32.const 2048) "authGET/")
            (func (export "gateway:policy/request-filter@0.1.0#on-request") @facts (result i32)
                (i32.store8 (i32.const 3000) (i32.const 3))
                (i32.store (i32.const 3004) (i32.const 2048)) (i32.store (i32.const 3008) (i32.const 4))
                (i32.store (i32.const 3012) (i32.const 2052)) (i32.store (i32.const 3016) (i32.const 3))
                (i32.store (i32.const 3020) (i32.const 2055)) (i32.store (i32.const 3024) (i32.const 1))
                (i32.const 3000))
            (func (export "gateway:policy/call-answered@0.1.0#on-answer")
                @facts (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) @crime (call $none))"#,
        server_saw: ServerSaw::Nothing,
    },
    Hook {
        name: "request-body",
        interfaces: &["request-body-filter"],
        called: "on-request-body",
        first: "on-request-body",
        functions: r#"(func (export "gateway:policy/request-body-filter@0.1.0#on-request-body") @facts (result i32)
                @crime (call $none))
            (func (export "gateway:policy/request-body-filter@0.1.0#on-request-piece")
                (param i32 i32 i32 i32 i32) (result i32) (i32.const 3100))"#,
        server_saw: ServerSaw::Nothing,
    },
    Hook {
        name: "request-piece",
        interfaces: &["request-body-filter"],
        called: "on-request-piece",
        first: "on-request-body",
        functions: r#"(func (export "gateway:policy/request-body-filter@0.1.0#on-request-body") @facts (result i32) @buffered)
            (func (export "gateway:policy/request-body-filter@0.1.0#on-request-piece")
                (param i32 i32 i32 i32 i32) (result i32) @crime (i32.const 3100))"#,
        server_saw: ServerSaw::Nothing,
    },
    Hook {
        name: "response",
        interfaces: &["response-filter"],
        called: "on-response",
        first: "on-response",
        functions: r#"(func (export "gateway:policy/response-filter@0.1.0#on-response") @facts (result i32)
            @crime (call $none))"#,
        server_saw: ServerSaw::TheRequest,
    },
    Hook {
        name: "response-body",
        interfaces: &["response-body-filter"],
        called: "on-response-body",
        first: "on-response-body",
        functions: r#"(func (export "gateway:policy/response-body-filter@0.1.0#on-response-body") @facts (result i32)
                @crime (call $none))
            (func (export "gateway:policy/response-body-filter@0.1.0#on-response-piece")
                (param i32 i32 i32 i32 i32) (result i32) (i32.const 3100))"#,
        server_saw: ServerSaw::TheRequest,
    },
    Hook {
        name: "response-piece",
        interfaces: &["response-body-filter"],
        called: "on-response-piece",
        first: "on-response-body",
        functions: r#"(func (export "gateway:policy/response-body-filter@0.1.0#on-response-body") @facts (result i32) @buffered)
            (func (export "gateway:policy/response-body-filter@0.1.0#on-response-piece")
                (param i32 i32 i32 i32 i32) (result i32) @crime (i32.const 3100))"#,
        server_saw: ServerSaw::TheRequest,
    },
    Hook {
        name: "log",
        interfaces: &["access-log"],
        called: "on-log",
        first: "on-log",
        functions: r#"(func (export "gateway:policy/access-log@0.1.0#on-log") @facts @crime)"#,
        server_saw: ServerSaw::TheEnd,
    },
    Hook {
        name: "connect",
        interfaces: &["connection-filter"],
        called: "on-connect",
        first: "on-connect",
        functions: r#"(func (export "gateway:policy/connection-filter@0.1.0#on-connect") @facts (result i32)
            @crime (call $none))"#,
        server_saw: ServerSaw::Nothing,
    },
];

/// The hook that gets the answers to calls, which another one makes.
const ANSWER: &str = "answer";

/// Sees up to 1,000 bytes of a body whole: the mode at 3,000.
const BUFFERED: &str =
    "(i32.store8 (i32.const 3000) (i32.const 3)) (i64.store (i32.const 3008) (i64.const 1000)) (i32.const 3000)";

/// What the tenants have that have one. It sees requests and responses.
const HOG: &str = r#"plugin "hog" "hog.wasm" { isolation "per-request" ready=0; on-failure "deny" }
acl "is-hog" { path "/hog" }; use-plugin "hog" if="is-hog";"#;

/// Verdicts: how they are named here, how they are written, and the status that a client gets.
const VERDICTS: [(&str, &str, Option<u16>); 3] = [
    ("denied", r#""deny" status=507"#, Some(507)),
    ("default", r#""deny""#, Some(503)),
    ("skipped", r#""skip""#, None),
];

/// What is the same of all plugins of a matrix.
#[derive(Clone, Copy)]
struct Plugins {
    /// Where they are called.
    heavy: &'static str,
    /// More of their blocks, and CPU time in their `limit`.
    block: &'static str,
    limit: &'static str,
    /// Each is of a tenant with this quota.
    quota: Option<&'static str>,
    /// Beside one that holds an instance for as long as a request to `/hog` is answered, which the others do not see.
    with_hog: bool,
}

const BY_WORKERS: Plugins = Plugins {
    heavy: "",
    block: "",
    limit: r#"cpu="20ms""#,
    quota: None,
    with_hog: false,
};

const BESIDE_WORKERS: Plugins = Plugins {
    heavy: r#"heavy queue=64 wait="60s";"#,
    ..BY_WORKERS
};

/// Who makes calls.
const CALLERS: [Plugins; 2] = [BY_WORKERS, BESIDE_WORKERS];

/// One of the failures of a cell, in their order: its kind, and what the log calls what failed.
type Told = (&'static str, fn(&Hook) -> &'static str);

/// How a component fails: everything that its text says beside its hooks.
#[derive(Clone, Copy, Default)]
struct Crime<'a> {
    imports: &'a str,
    items: &'a str,
    configure: Option<&'a str>,
    in_hook: &'a str,
}

impl Hook {
    fn component(&self, crime: Crime<'_>) -> Vec<u8> {
        let functions = self.functions.replace("@facts", FACTS).replace("@crime", crime.in_hook);
        let functions = functions.replace("@buffered", BUFFERED);
        let Crime { imports, items, .. } = crime;
        let text = format!("{imports} ;; end of imports\n{items} {functions}");
        guest::exporting(self.interfaces, crime.configure.unwrap_or("(i32.const 256)"), &text)
    }

    fn is_tcp(&self) -> bool {
        self.interfaces == ["connection-filter"]
    }

    fn itself(&self) -> &'static str {
        self.called
    }

    fn first(&self) -> &'static str {
        self.first
    }
}

/// A gateway with a frontend for each hook and verdict, named as their plugins: `request-denied`.
struct Matrix {
    app: HttpServer,
    stalled: HttpServer,
    auth: HttpServer,
    tcp: HashMap<&'static str, Server>,
    _cache: tempfile::TempDir,
    plugins: Plugins,
    text: String,
}

impl Matrix {
    async fn new(plugins: Plugins) -> Self {
        let auth = HttpServer::answering("yes").await;
        let address = auth.address();
        Self::asking(plugins, auth, address).await
    }

    /// One whose calls are answered elsewhere than by `auth`.
    async fn asking(plugins: Plugins, auth: HttpServer, answers: std::net::SocketAddr) -> Self {
        let app = HttpServer::answering("app").await;
        let stalled = HttpServer::start(|_| gateway_tests::Answer::nothing().then_stall()).await;
        let cache = tempfile::tempdir().unwrap();
        // Each worker has an instance of what asks for a tenant's conditions, for as long as it lives.
        let (workers, instances) = if plugins.with_hog { (1, 200) } else { (2, 8) };
        let mut text = format!(
            r#"
process {{ workers {workers}; log "stdout" format="json"; policy instances={instances} slow-call="10s"; compile-cache "{}" }}
backend "app" {{ server "s" "{}" }}
backend "stalled" {{ server "s" "{}" }}
backend "auth" {{ server "s" "{answers}" }}
plugin "hog" "hog.wasm" {{ limit instances=8; isolation "per-request" ready=0; on-failure "deny" }}
frontend "hog" {{ bind "127.0.0.1:0"; use-plugin "hog"; default-backend "stalled" }}
"#,
            cache.path().join("cache").display(),
            app.address(),
            stalled.address()
        );
        let mut tcp = HashMap::new();
        for (verdict, written, _) in VERDICTS {
            if plugins.quota.is_none() {
                let server = Server::greeting("hi").await;
                writeln!(
                    text,
                    r#"backend "tcp-{verdict}" {{ mode "tcp"; server "s" "{}" }}"#,
                    server.address()
                )
                .unwrap();
                tcp.insert(verdict, server);
            }
            for hook in &HOOKS {
                let name = hook.name;
                let cell = format!("{name}-{verdict}");
                let plugin = if plugins.quota.is_some() { "own" } else { &*cell };
                let used = match (name, plugins.with_hog) {
                    ("acl", false) => format!(r#"acl "holds" {{ plugin "{plugin}" }}; deny status=418 if="holds""#),
                    ("acl", true) => {
                        format!(r#"acl "holds" {{ plugin "{plugin}" }}; deny status=418 if="holds and not is-hog""#)
                    }
                    (_, false) => format!(r#"use-plugin "{plugin}""#),
                    (_, true) => format!(r#"use-plugin "{plugin}" unless="is-hog""#),
                };
                let call = if name == ANSWER {
                    r#"call "auth" timeout="60s";"#
                } else {
                    ""
                };
                let to = match hook.is_tcp() {
                    true => format!(r#"mode "tcp"; default-backend "tcp-{verdict}""#),
                    false => r#"default-backend "app""#.to_owned(),
                };
                let Plugins {
                    heavy, block, limit, ..
                } = plugins;
                let block = format!(
                    r#"{{ limit memory="1MiB" {limit}; grant "buckets" "clock"; isolation "per-request" ready=0; {call} {heavy} {block} on-failure {written} }}"#
                );
                let (hog, is_hog) = match plugins.with_hog {
                    true => (HOG, r#"use-backend "stalled" { path "/hog" };"#),
                    false => ("", ""),
                };
                let written = match plugins.quota {
                    None => writeln!(
                        text,
                        r#"plugin "{cell}" "{name}.wasm" {block}
frontend "{cell}" {{ bind "127.0.0.1:0"; {used}; {to} }}"#
                    ),
                    // Connections are no tenant's.
                    Some(_) if hook.is_tcp() => Ok(()),
                    Some(quota) => writeln!(
                        text,
                        r#"tenant "{cell}" {{ hosts "{cell}.example"; quota {quota}; {hog} {used}
plugin "own" "{name}.wasm" {block}
}}
frontend "{cell}" {{ bind "127.0.0.1:0"; tenants "{cell}"; {is_hog} {to} }}"#
                    ),
                };
                written.unwrap();
            }
        }
        Self {
            app,
            stalled,
            auth,
            tcp,
            _cache: cache,
            plugins,
            text,
        }
    }

    /// The gateway's configuration, with components that fail in this way.
    fn builder(&self, crime: Crime<'_>) -> Builder {
        let builder = Gateway::kdl(&self.text).file("hog.wasm", guest::filter("(call $none)", ""));
        HOOKS.iter().fold(builder, |builder, hook| {
            builder.file(&format!("{}.wasm", hook.name), hook.component(crime))
        })
    }

    /// Eight requests whose answers never come hold all instances that there may be: until `stalled` has seen so many in all.
    async fn fill(&self, gateway: &Gateway, seen: usize) -> Vec<Client> {
        let mut waiting = Vec::new();
        for n in 0..8 {
            let mut client: Client = gateway.connect("hog").await;
            client.send(format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            waiting.push(client);
        }
        self.stalled.has_seen(seen).await;
        waiting
    }

    /// A request whose answer never comes holds the instance that is left of a tenant's.
    async fn hog(&self, gateway: &Gateway, cell: &str) -> Client {
        let seen = self.stalled.requests().len();
        loop {
            let mut client = gateway.connect(cell).await;
            client
                .send(format!("GET /hog HTTP/1.1\r\nhost: {cell}.example\r\n\r\n"))
                .await;
            tokio::select! {
                () = self.stalled.has_seen(seen + 1) => return client,
                // What answered an acl beside the worker is gone a moment after that.
                answer = client.response() => assert_eq!(answer.status, 503, "{cell}"),
            }
        }
    }

    /// The hooks that it has.
    fn hooks(&self) -> impl Iterator<Item = &'static Hook> {
        let of_tenants = self.plugins.quota.is_some();
        HOOKS.iter().filter(move |hook| !(of_tenants && hook.is_tcp()))
    }

    /// What log and metrics call the plugin of a cell.
    fn plugin(&self, cell: &str) -> String {
        match self.plugins.quota {
            Some(_) => format!("{cell}/own"),
            None => cell.to_owned(),
        }
    }

    /// Asks for each hook and verdict as often as it is to fail, and looks at everything.
    async fn every_cell(&self, gateway: &Gateway, told: &[Told]) {
        for hook in self.hooks() {
            self.cells(hook, gateway, told).await;
        }
        // Where the hook itself fails, each of its cells has come to the answer once. What is not called then asks nobody.
        let is_called = told[0].1(answer()) == answer().called;
        let answered = if is_called { VERDICTS.len() } else { 0 };
        assert_eq!(self.auth.requests().len(), answered);
    }

    /// The row of one hook.
    async fn cells(&self, hook: &Hook, gateway: &Gateway, told: &[Told]) {
        for (verdict, ..) in VERDICTS {
            self.cell(hook, gateway, verdict, told).await;
        }
    }

    async fn cell(&self, hook: &Hook, gateway: &Gateway, verdict: &str, told: &[Told]) {
        let (verdict, _, status) = VERDICTS.into_iter().find(|(name, ..)| *name == verdict).unwrap();
        let cell = format!("{}-{verdict}", hook.name);
        for n in 1..=told.len() {
            match hook.is_tcp() {
                true => self.connection(gateway, &cell, verdict, (n, status)).await,
                false => self.exchange(gateway, hook, &cell, (n, status)).await,
            }
            self.is_told(gateway, hook, &cell, &told[..n]).await;
        }
    }

    async fn exchange(&self, gateway: &Gateway, hook: &Hook, cell: &str, (n, denied): (usize, Option<u16>)) {
        let path = format!("/{cell}/{n}");
        let mut request = post(&path, "hello");
        if self.plugins.quota.is_some() {
            request = request.host(&format!("{cell}.example"));
        }
        let answer = gateway.ask(cell, request).await;
        let denied = denied.filter(|_| hook.server_saw != ServerSaw::TheEnd);
        assert_eq!(answer.status, denied.unwrap_or(200), "{path}");
        assert_eq!(answer.text() == "app", denied.is_none(), "{path}: {}", answer.text());
        let seen: Vec<_> = self
            .app
            .requests()
            .into_iter()
            .filter(|seen| seen.target == path)
            .collect();
        match denied.is_some() && hook.server_saw == ServerSaw::Nothing {
            true => assert!(seen.is_empty(), "{path}"),
            false => {
                assert_eq!(seen.len(), 1, "{path}");
                assert_eq!(seen[0].body, b"hello", "{path}");
            }
        }
        let line = || {
            let lines = gateway.access_lines();
            lines.into_iter().find(|line| line["target"] == path)
        };
        gateway_tests::eventually(&format!("an access line of {path}"), async || line().is_some()).await;
        let line = line().unwrap();
        let reason = denied.map_or(Value::Null, |_| "policy-failure".into());
        assert_eq!(line["reason"], reason, "{path}: {line}");
    }

    async fn connection(&self, gateway: &Gateway, cell: &str, verdict: &str, (n, denied): (usize, Option<u16>)) {
        let mut client = gateway.connect(cell).await;
        match denied {
            Some(_) => client.closed().await,
            None => assert_eq!(client.exactly(2).await, b"hi", "{cell}"),
        }
        let connections = if denied.is_none() { n } else { 0 };
        assert_eq!(self.tcp[verdict].connections(), connections, "{cell}");
    }

    /// Whether log and metrics tell of these failures, and of no others.
    async fn is_told(&self, gateway: &Gateway, hook: &Hook, cell: &str, told: &[Told]) {
        let plugin = self.plugin(cell);
        let name = "gateway_policy_failures_total";
        let mut all = 0.0;
        for (kind, _) in told {
            gateway
                .metric_is(name, &[("policy", &*plugin), ("kind", *kind)], 1.0)
                .await;
            all += 1.0;
        }
        assert_eq!(
            gateway.metrics().await.get(name, &[("policy", &*plugin)]),
            Some(all),
            "{cell}"
        );
        // Of each call that is not made in quarantine nothing is said but that it has begun.
        let told: Vec<_> = told.iter().filter(|(kind, _)| *kind != "quarantined").collect();
        let lines = || -> Vec<Value> {
            let output = gateway.output();
            let lines = output.lines().filter_map(|line| serde_json::from_str(line).ok());
            let lines = lines.filter(|line: &Value| line["plugin"] == plugin);
            // That it ran long, or is left alone now, is said as well, and is no failure.
            let is_aside = |line: &Value| {
                let said = line["message"].as_str().unwrap_or_default();
                said.starts_with("slow: ") || said.starts_with("in quarantine for ")
            };
            lines.filter(|line| !is_aside(line)).collect()
        };
        gateway_tests::eventually(&format!("a line about {cell}"), async || lines().len() >= told.len()).await;
        let lines = lines();
        assert_eq!(lines.len(), told.len(), "{cell}: {lines:?}");
        let at = format!("config.kdl:{}", self.line_of(gateway, cell));
        for (line, (kind, called)) in lines.iter().zip(told) {
            assert!(
                line["level"] == "warn" && line["kind"] == *kind && line["hook"] == called(hook),
                "{cell}: {line}"
            );
            assert!(
                line["message"].as_str().is_some_and(|message| !message.is_empty()),
                "{line}"
            );
            assert!(
                line["at"].as_str().is_some_and(|said| said.ends_with(&at)),
                "{at}: {line}"
            );
        }
    }

    /// The line of the configuration that a plugin stands in.
    fn line_of(&self, gateway: &Gateway, cell: &str) -> usize {
        let text = gateway.config();
        let after = |from: usize, begins: &str| {
            let mut lines = text.lines().skip(from);
            from + lines.position(|line| line.starts_with(begins)).unwrap() + 1
        };
        match self.plugins.quota {
            Some(_) => after(after(0, &format!("tenant \"{cell}\"")), "plugin \"own\""),
            None => after(0, &format!("plugin \"{cell}\"")),
        }
    }
}

const TAKE: &str = r#"(import "gateway:policy/buckets@0.1.0" "take"
    (func $take (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))"#;

#[tokio::test]
async fn traps() {
    let crime = Crime {
        in_hook: "(unreachable)",
        ..Crime::default()
    };
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(crime).start().await;
        matrix.every_cell(&gateway, &[("trap", Hook::itself)]).await;
    }
}

#[tokio::test]
async fn deadlines() {
    let crime = Crime {
        in_hook: "(call $loop)",
        ..Crime::default()
    };
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(crime).start().await;
        matrix.every_cell(&gateway, &[("deadline", Hook::itself)]).await;
    }
}

#[tokio::test]
async fn memory() {
    let crime = Crime {
        in_hook: "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then (unreachable)))",
        ..Crime::default()
    };
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(crime).start().await;
        matrix.every_cell(&gateway, &[("memory", Hook::itself)]).await;
    }
}

#[tokio::test]
async fn host_calls() {
    let crime = Crime {
        imports: TAKE,
        // A rate of nothing.
        in_hook: "(call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i64.const 0) (i64.const 0) (i64.const 0) (i32.const 1) (i32.const 3504))",
        ..Crime::default()
    };
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(crime).start().await;
        matrix.every_cell(&gateway, &[("host-call", Hook::itself)]).await;
    }
}

/// The instance that the load makes gets the only token; later ones trap.
const ONLY_ONCE: Crime<'_> = Crime {
    imports: TAKE,
    items: "",
    configure: Some(
        "(call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i64.const 1) (i64.const 86400000) (i64.const 1) (i32.const 1) (i32.const 3504))
        (if (i32.eqz (i32.load8_u (i32.const 3504))) (then (unreachable)))
        (i32.const 256)",
    ),
    in_hook: "",
};

#[tokio::test]
async fn configuring_again() {
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(ONLY_ONCE).start().await;
        matrix.every_cell(&gateway, &[("configure", |_| "configure")]).await;
    }
}

/// Loads components whose instances trap in their start function when they begin after some moment, and does something before
/// that. Answers when it is.
async fn before_a_moment<T>(gateway: &Gateway, hooks: &[&Hook], then: impl AsyncFn() -> T) -> (SystemTime, T) {
    let next = Gateway::verbatim(&gateway.config());
    let mut margin = Duration::from_secs(4);
    loop {
        let moment = SystemTime::now() + margin;
        let moment_ms = moment.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let items = format!(
            "(func $start (if (i64.gt_u (call $now) (i64.const {moment_ms})) (then (unreachable)))) (start $start)"
        );
        let crime = Crime {
            imports: r#"(import "gateway:policy/clock@0.1.0" "now-ms" (func $now (result i64)))"#,
            items: &items,
            ..Crime::default()
        };
        for hook in hooks {
            gateway.write(&format!("{}.wasm", hook.name), hook.component(crime));
        }
        // It has to come after the load, with time for the rest.
        if gateway.reload(&next).await && SystemTime::now() + Duration::from_secs(2) < moment {
            return (moment, then().await);
        }
        margin *= 2;
        assert!(margin < Duration::from_secs(100), "it is never loaded");
    }
}

/// Guests count in whole milliseconds.
async fn wait_for(moment: SystemTime) {
    while SystemTime::now() <= moment + Duration::from_millis(2) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn instantiating_again() {
    let hooks: Vec<&Hook> = HOOKS.iter().collect();
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(Crime::default()).start().await;
        let (moment, ()) = before_a_moment(&gateway, &hooks, async || ()).await;
        wait_for(moment).await;
        matrix.every_cell(&gateway, &[("instantiate", |_| "instantiate")]).await;
    }
}

/// Who makes a call and who gets its answer are two instances where nothing else keeps the first: the second may be the one
/// that cannot be had.
fn answer() -> &'static Hook {
    HOOKS.iter().find(|hook| hook.name == ANSWER).unwrap()
}

#[tokio::test]
async fn configuring_again_for_an_answer() {
    let crime = Crime {
        imports: TAKE,
        // The instance that the load makes and the one that makes the call get a token each; later ones trap.
        configure: Some(
            "(call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i64.const 1) (i64.const 86400000) (i64.const 2) (i32.const 1) (i32.const 3504))
            (if (i32.eqz (i32.load8_u (i32.const 3504))) (then (unreachable)))
            (i32.const 256)",
        ),
        ..Crime::default()
    };
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(crime).start().await;
        let told: Told = ("configure", |_| "configure");
        matrix.cells(answer(), &gateway, &[told]).await;
        assert_eq!(matrix.auth.requests().len(), VERDICTS.len());
    }
}

/// A service that answers calls when it is told to, and who tells it.
struct SlowService {
    server: Server,
    asked: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
}

impl SlowService {
    async fn start() -> Self {
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counts, waits) = (asked.clone(), answers.clone());
        let script = move |mut wire: Wire, _| {
            let (asked, answers) = (counts.clone(), waits.clone());
            async move {
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match wire.some().await? {
                            end if end.is_empty() => return Ok(()),
                            more => head.extend_from_slice(&more),
                        }
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                    answers.acquire().await.map_err(std::io::Error::other)?.forget();
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                }
            }
        };
        let server = Server::start(script).await;
        Self { server, asked, answers }
    }

    /// Waits for a call of a request to this cell, and answers who waits for its response.
    async fn called_for(&self, gateway: &Gateway, cell: &str) -> Client {
        let before = self.asked.load(Ordering::SeqCst);
        let mut client = gateway.connect(cell).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        gateway_tests::eventually("the call is made", async || self.asked.load(Ordering::SeqCst) > before).await;
        client
    }
}

#[tokio::test]
async fn instantiating_again_for_an_answer() {
    for plugins in CALLERS {
        let service = SlowService::start().await;
        let matrix = Matrix::asking(plugins, HttpServer::answering("nobody").await, service.server.address()).await;
        let gateway = matrix.builder(Crime::default()).start().await;
        let cells = VERDICTS.map(|(verdict, ..)| format!("{ANSWER}-{verdict}"));
        // Those that made the calls began before the moment.
        let (moment, waiting) = before_a_moment(&gateway, &[answer()], async || {
            let mut waiting = Vec::new();
            for cell in &cells {
                waiting.push(service.called_for(&gateway, cell).await);
            }
            waiting
        })
        .await;
        wait_for(moment).await;
        service.answers.add_permits(VERDICTS.len());
        for ((mut client, cell), (_, _, status)) in waiting.into_iter().zip(&cells).zip(VERDICTS) {
            assert_eq!(client.response().await.status, status.unwrap_or(200), "{cell}");
            let told: Told = ("instantiate", |_| "instantiate");
            matrix.is_told(&gateway, answer(), cell, &[told]).await;
        }
    }
}

#[tokio::test]
async fn a_store_that_is_full_when_the_answer_comes() {
    for plugins in CALLERS {
        let service = SlowService::start().await;
        let matrix = Matrix::asking(plugins, HttpServer::answering("nobody").await, service.server.address()).await;
        for (n, (verdict, _, status)) in VERDICTS.into_iter().enumerate() {
            let gateway = matrix.builder(Crime::default()).start().await;
            let cell = format!("{ANSWER}-{verdict}");
            let mut client = service.called_for(&gateway, &cell).await;
            // The instance that has made the call is gone. Others hold all that there may be when the answer comes.
            let _waiting = matrix.fill(&gateway, 8 * (n + 1)).await;
            service.answers.add_permits(1);
            assert_eq!(client.response().await.status, status.unwrap_or(200), "{cell}");
            let told: Told = ("store-full", |_| "instantiate");
            matrix.is_told(&gateway, answer(), &cell, &[told]).await;
        }
        // Only what is skipped comes there.
        assert_eq!(matrix.app.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_full_store() {
    for plugins in CALLERS {
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(Crime::default()).start().await;
        let _waiting = matrix.fill(&gateway, 8).await;
        matrix.every_cell(&gateway, &[("store-full", |_| "instantiate")]).await;
    }
}

/// Works until its deadline. That comes back in six seconds, of which half a one may be used ahead: more than setting up takes.
const OVERWORKS: Crime<'_> = Crime {
    imports: "",
    items: "",
    configure: None,
    in_hook: "(call $loop)",
};

/// The second call is not made. What has begun with an exchange is what is not called.
const USED_UP: [Told; 2] = [("deadline", Hook::itself), ("quota", Hook::first)];

#[tokio::test]
async fn cpu_time_of_a_plugin_that_is_used_up() {
    for plugins in CALLERS {
        let plugins = Plugins {
            limit: r#"cpu="60ms" cpu-share="0.01 cores""#,
            ..plugins
        };
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(OVERWORKS).start().await;
        matrix.every_cell(&gateway, &USED_UP).await;
    }
}

#[tokio::test]
async fn cpu_time_of_a_tenant_that_is_used_up() {
    for plugins in CALLERS {
        let plugins = Plugins {
            limit: r#"cpu="60ms""#,
            quota: Some(r#"plugin-cpu="0.01 cores""#),
            ..plugins
        };
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(OVERWORKS).start().await;
        matrix.every_cell(&gateway, &USED_UP).await;
    }
}

#[tokio::test]
async fn instances_of_a_tenant_that_are_all_in_use() {
    for plugins in CALLERS {
        let plugins = Plugins {
            // One asks for the conditions of its rules.
            quota: Some("plugin-instances=2"),
            with_hog: true,
            ..plugins
        };
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(Crime::default()).start().await;
        let told: Told = ("store-full", |_| "instantiate");
        for hook in matrix.hooks() {
            for (verdict, ..) in VERDICTS {
                let cell = format!("{}-{verdict}", hook.name);
                let _waiting = matrix.hog(&gateway, &cell).await;
                matrix.cell(hook, &gateway, verdict, &[told]).await;
            }
        }
        assert!(matrix.auth.requests().is_empty());
    }
}

const QUARANTINE: &str = r#"quarantine failures=1 from="1h" to="1h";"#;

#[tokio::test]
async fn quarantine() {
    for plugins in CALLERS {
        let plugins = Plugins {
            block: QUARANTINE,
            ..plugins
        };
        let matrix = Matrix::new(plugins).await;
        let crime = Crime {
            in_hook: "(unreachable)",
            ..Crime::default()
        };
        let gateway = matrix.builder(crime).start().await;
        matrix
            .every_cell(&gateway, &[("trap", Hook::itself), ("quarantined", Hook::itself)])
            .await;
    }
}

/// Where no instance can be set up, no hook is called that needs one.
#[tokio::test]
async fn quarantine_of_setting_up() {
    for plugins in CALLERS {
        let plugins = Plugins {
            block: QUARANTINE,
            ..plugins
        };
        let matrix = Matrix::new(plugins).await;
        let gateway = matrix.builder(ONLY_ONCE).start().await;
        let told: [Told; 2] = [("configure", |_| "configure"), ("quarantined", |_| "configure")];
        matrix.every_cell(&gateway, &told).await;
    }
}

#[tokio::test]
async fn loads() {
    let matrix = Matrix::new(BY_WORKERS).await;
    let cut = |hook: &Hook| {
        let whole = hook.component(Crime::default());
        whole[..whole.len() / 2].to_vec()
    };
    // At the start: each is told of, with its line, and nothing runs.
    let mut builder = matrix.builder(Crime::default());
    for hook in &HOOKS {
        builder = builder.file(&format!("{}.wasm", hook.name), cut(hook));
    }
    let stopped = builder.refused().await;
    assert_eq!(stopped.code, Some(1));
    // At a reload: each is told of, and what ran goes on.
    let gateway = matrix.builder(Crime::default()).start().await;
    let next = Gateway::verbatim(&gateway.config());
    for hook in &HOOKS {
        gateway.write(&format!("{}.wasm", hook.name), cut(hook));
    }
    assert!(!gateway.reload(&next).await);
    for hook in &HOOKS {
        for (verdict, ..) in VERDICTS {
            let cell = format!("{}-{verdict}", hook.name);
            let at = format!("config.kdl:{}:", matrix.line_of(&gateway, &cell));
            let named = format!("plugin \"{cell}\":");
            let output = &stopped.output;
            assert!(
                output.contains(&at) && output.contains(&named),
                "{cell} at {at}: {output}"
            );
            gateway.says(&at).await;
            gateway.says(&named).await;
            match hook.is_tcp() {
                true => assert_eq!(gateway.connect(&cell).await.exactly(2).await, b"hi", "{cell}"),
                // An acl that holds.
                false if hook.name == "acl" => assert_eq!(gateway.ask(&cell, get("/")).await.status, 418),
                false => assert_eq!(gateway.ask(&cell, get("/")).await.text(), "app", "{cell}"),
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_goes_on_without_who_says_whose_it_is_says_so_of_nobody() {
    let app = HttpServer::answering("x").await;
    let gateway = Gateway::kdl(
        r#"
        process { workers 1 }
        plugin "auth" "auth.wasm" {
            on-failure "skip"
            quarantine failures=2 from="1h" to="1h"
            identity-header "x-user" "x-roles"
        }
        tenant "acme" {
            hosts "acme.example"
            plugin "own" "auth.wasm" { on-failure "skip"; identity-header "x-own" }
            use-plugin "own"
        }
        frontend "web" { bind "127.0.0.1:0"; tenants "acme"; use-plugin "auth"; default-backend "app" }
        frontend "tried" { bind "127.0.0.1:0"; use-plugin "auth" shadow; default-backend "app" }
        backend "app" { server "s" "@app" }
    "#,
    )
    .with("@app", app.address())
    .file("auth.wasm", guest::filter("(unreachable)", ""))
    .start()
    .await;
    let forged = ["x-user", "x_user", "X-Roles", "x-own", "x-other"];
    let ask = async |frontend: &str, host: &str| {
        let asked = forged
            .iter()
            .fold(get("/").host(host), |asked, name| asked.header(name, "root"));
        assert_eq!(gateway.ask(frontend, asked).await.status, 200);
        forged.map(|name| app.last().headers.has(name))
    };
    // Failed, and from the third on left alone.
    for _ in 0..4 {
        assert_eq!(ask("web", "a.example").await, [false, false, false, true, true]);
    }
    assert_eq!(ask("web", "acme.example").await, [false, false, false, false, true]);
    assert_eq!(ask("tried", "a.example").await, [true; 5]);
}
