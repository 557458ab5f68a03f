//! What the contract's shape costs: the alternatives that docs/decisions/0001-component-abi.md weighs, each as the
//! smallest guest that does it. The guests' allocator is a bump pointer, so that the numbers are the host's and the
//! canonical ABI's own.

#![allow(clippy::unwrap_used, reason = "a call that fails here is a mistake in the bench")]

use criterion::{Criterion, criterion_group, criterion_main};
use wasmtime::component::{Component, ComponentType, Lift, Linker, Lower, Resource, ResourceTable, ResourceType};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store};

const HEADERS: [(&str, &[u8]); 3] = [
    ("user-agent", b"curl/8.5.0 (x86_64-pc-linux-gnu)"),
    ("accept-language", b"en-GB,en;q=0.8"),
    ("x-client", b"legacy/2.1"),
];

struct Data {
    headers: http::HeaderMap,
    table: ResourceTable,
    edits: Vec<(String, Vec<u8>)>,
}

struct Request;

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct Fact<'a> {
    need: u32,
    value: &'a [u8],
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct Span {
    need: u32,
    start: u32,
    len: u32,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct Blob<'a> {
    index: &'a [Span],
    bytes: &'a [u8],
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
struct Words<'a> {
    index: &'a [u32],
    bytes: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
#[allow(dead_code, reason = "lifted, not looked at")]
struct Edit {
    name: String,
    value: Vec<u8>,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(record)]
struct Verdict {
    allowed: bool,
    rule: u32,
    limit: u64,
    remaining: u64,
    #[component(name = "retry-after-ms")]
    retry_after_ms: u64,
}

const MEMORY: &str = r#"
  (core module $mem
    (memory (export "memory") 1)
    (global $p (mut i32) (i32.const 4096))
    (func (export "reset") (global.set $p (i32.const 4096)))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $r i32)
      (local.set $r (i32.and
        (i32.add (global.get $p) (i32.sub (local.get 2) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get 2))))
      (global.set $p (i32.add (local.get $r) (local.get 3)))
      (local.get $r)))
  (core instance $mem (instantiate $mem))
  (alias core export $mem "memory" (core memory $memory))
"#;

const NAMES: &str = r#"
  (data (i32.const 0) "user-agent")
  (data (i32.const 32) "accept-language")
  (data (i32.const 64) "x-client")
  ;; (list string): pointer, length
  (data (i32.const 128) "\00\00\00\00\0a\00\00\00\20\00\00\00\0f\00\00\00\40\00\00\00\08\00\00\00")
  (func $sum3 (result i64) (i64.load (i32.const 1024)))
"#;

fn engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(64)
        .total_core_instances(256)
        .total_memories(64)
        .total_tables(64)
        .max_memory_size(16 << 20)
        .linear_memory_keep_resident(256 << 10);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

struct Guest {
    store: Store<Data>,
    instance: wasmtime::component::Instance,
}

fn guest(engine: &Engine, body: &str) -> Result<Guest> {
    let wat = format!("(component {body})");
    let component = Component::new(
        engine,
        wat::parse_str(&wat).map_err(|e| wasmtime::Error::msg(e.to_string()))?,
    )?;
    let mut linker = Linker::<Data>::new(engine);
    let mut request = linker.instance("request")?;
    let get = |data: &Data, name: &str| -> Vec<Vec<u8>> {
        data.headers
            .get_all(name)
            .iter()
            .map(|v| v.as_bytes().to_vec())
            .collect()
    };
    request.func_wrap("header", move |cx, (name,): (String,)| Ok((get(cx.data(), &name),)))?;
    request.func_wrap(
        "header-wasm-str",
        move |cx, (name,): (wasmtime::component::WasmStr,)| {
            let name = name.to_str(&cx)?;
            Ok((get(cx.data(), &name),))
        },
    )?;
    request.func_wrap("get-many", move |cx, (names,): (Vec<String>,)| {
        Ok((names.iter().map(|n| get(cx.data(), n)).collect::<Vec<_>>(),))
    })?;
    request.func_wrap("set-header", |mut cx, (name, value): (String, Vec<u8>)| {
        cx.data_mut().edits.push((name, value));
        Ok((Ok::<(), String>(()),))
    })?;
    request.resource("req", ResourceType::host::<Request>(), |_, _| Ok(()))?;
    request.func_wrap(
        "[method]req.header",
        move |cx, (this, name): (Resource<Request>, String)| {
            cx.data().table.get(&this)?;
            Ok((get(cx.data(), &name),))
        },
    )?;
    let mut headers = http::HeaderMap::new();
    for (name, value) in HEADERS {
        headers.append(name, http::HeaderValue::from_static(std::str::from_utf8(value)?));
    }
    for i in 0..8 {
        headers.append(
            http::HeaderName::from_bytes(format!("x-other-{i}").as_bytes())?,
            "value".parse()?,
        );
    }
    let mut store = Store::new(
        engine,
        Data {
            headers,
            table: ResourceTable::new(),
            edits: Vec::new(),
        },
    );
    store.set_epoch_deadline(1_000_000);
    let instance = linker.instantiate(&mut store, &component)?;
    Ok(Guest { store, instance })
}

fn reading(imports: &str, lowered: &str, params: &str, calls: &str) -> String {
    format!(
        r#"(import "request" (instance $req {imports})) {MEMORY} {lowered}
        (core module $m
          (import "mem" "memory" (memory 1))
          (import "mem" "reset" (func $reset))
          (import "req" "get" (func $get (param {params})))
          {NAMES}
          (func (export "f") (result i64) (call $reset) {calls} (call $sum3))
          (func (export "g") (param i32) (result i64) (call $reset) {calls} (call $sum3)))
        (core instance $m (instantiate $m
          (with "mem" (instance $mem))
          (with "req" (instance (export "get" (func $get))))))"#
    )
}

fn alternatives(c: &mut Criterion) -> Result<()> {
    let engine = engine()?;

    // ── a call that carries nothing ──────────────────────────────────────────────────────────────────────────────────
    let mut g = guest(
        &engine,
        r#"(core module $m (func (export "f") (result i64) (i64.const 1)))
           (core instance $m (instantiate $m))
           (func (export "f") (result u64) (canon lift (core func $m "f")))"#,
    )?;
    let f = g.instance.get_typed_func::<(), (u64,)>(&mut g.store, "f")?;
    c.bench_function("call: scalar", |b| b.iter(|| f.call(&mut g.store, ()).unwrap()));
    c.bench_function("call: scalar, epoch deadline and hostcall fuel set each time", |b| {
        b.iter(|| {
            g.store.set_epoch_deadline(11);
            g.store.set_hostcall_fuel(1 << 20);
            f.call(&mut g.store, ()).unwrap()
        });
    });

    // ── three header reads ───────────────────────────────────────────────────────────────────────────────────────────
    let three = "(call $get (i32.const 0) (i32.const 10) (i32.const 1024))
                 (call $get (i32.const 32) (i32.const 15) (i32.const 1024))
                 (call $get (i32.const 64) (i32.const 8) (i32.const 1024))";
    let lift = r#"(func (export "f") (result u64) (canon lift (core func $m "f")))"#;
    for (title, name) in [("String", "header"), ("WasmStr", "header-wasm-str")] {
        let body = reading(
            &format!(r#"(export "{name}" (func (param "name" string) (result (list (list u8)))))"#),
            &format!(
                r#"(core func $get (canon lower (func $req "{name}") (memory $memory) (realloc (core func $mem "realloc"))))"#
            ),
            "i32 i32 i32",
            three,
        );
        let mut g = guest(&engine, &format!("{body} {lift}"))?;
        let f = g.instance.get_typed_func::<(), (u64,)>(&mut g.store, "f")?;
        c.bench_function(&format!("3 headers: ambient getter, {title}"), |b| {
            b.iter(|| f.call(&mut g.store, ()).unwrap());
        });
    }

    let body = reading(
        r#"(export "req" (type $r (sub resource)))
           (export "[method]req.header" (func (param "self" (borrow $r)) (param "name" string) (result (list (list u8)))))"#,
        r#"(alias export $req "req" (type $r))
           (core func $drop (canon resource.drop $r))
           (core func $get (canon lower (func $req "[method]req.header") (memory $memory) (realloc (core func $mem "realloc"))))"#,
        "i32 i32 i32 i32",
        "",
    );
    let body = body
        .replace(
            r#"(import "req" "get""#,
            r#"(import "req" "drop" (func $drop (param i32))) (import "req" "get""#,
        )
        .replace(
            r#"(instance (export "get""#,
            r#"(instance (export "drop" (func $drop)) (export "get""#,
        )
        .replace(
            r#"(func (export "g") (param i32) (result i64) (call $reset)"#,
            r#"(func (export "g") (param $h i32) (result i64) (call $reset)
               (call $get (local.get $h) (i32.const 0) (i32.const 10) (i32.const 1024))
               (call $get (local.get $h) (i32.const 32) (i32.const 15) (i32.const 1024))
               (call $get (local.get $h) (i32.const 64) (i32.const 8) (i32.const 1024))
               (call $drop (local.get $h))"#,
        );
    let mut g = guest(
        &engine,
        &format!(r#"{body} (func (export "f") (param "r" (borrow $r)) (result u64) (canon lift (core func $m "g")))"#),
    )?;
    let f = g
        .instance
        .get_typed_func::<(Resource<Request>,), (u64,)>(&mut g.store, "f")?;
    c.bench_function("3 headers: borrowed resource, getter", |b| {
        b.iter(|| {
            let own = g.store.data_mut().table.push(Request).unwrap();
            let answer = f.call(&mut g.store, (Resource::new_borrow(own.rep()),)).unwrap();
            g.store.data_mut().table.delete(own).unwrap();
            answer
        });
    });

    let body = reading(
        r#"(export "get-many" (func (param "names" (list string)) (result (list (list (list u8))))))"#,
        r#"(core func $get (canon lower (func $req "get-many") (memory $memory) (realloc (core func $mem "realloc"))))"#,
        "i32 i32 i32",
        "(call $get (i32.const 128) (i32.const 3) (i32.const 1024))",
    );
    let mut g = guest(&engine, &format!("{body} {lift}"))?;
    let f = g.instance.get_typed_func::<(), (u64,)>(&mut g.store, "f")?;
    c.bench_function("3 headers: get-many", |b| b.iter(|| f.call(&mut g.store, ()).unwrap()));

    // ── facts handed over ────────────────────────────────────────────────────────────────────────────────────────────
    for n in [1_usize, 3, 8] {
        let facts: Vec<Fact<'_>> = (0..n)
            .map(|i| Fact {
                need: i as u32,
                value: HEADERS[i % 3].1,
            })
            .collect();
        let mut g = guest(
            &engine,
            &format!(
                r#"{MEMORY} (core module $m (import "mem" "reset" (func $reset)) (import "mem" "memory" (memory 1))
                (func (export "f") (param i32 i32) (result i64) (call $reset) (i64.load (local.get 0))))
                (core instance $m (instantiate $m (with "mem" (instance $mem))))
                (type $fact' (record (field "need" u32) (field "value" (list u8))))
                (export $fact "fact" (type $fact'))
                (func (export "f") (param "facts" (list $fact)) (result u64)
                  (canon lift (core func $m "f") (memory $memory) (realloc (core func $mem "realloc"))))"#
            ),
        )?;
        let f = g.instance.get_typed_func::<(&[Fact<'_>],), (u64,)>(&mut g.store, "f")?;
        c.bench_function(&format!("{n} facts: list<fact>"), |b| {
            b.iter(|| f.call(&mut g.store, (&facts,)).unwrap());
        });

        let mut bytes = Vec::new();
        let mut index = Vec::new();
        for fact in &facts {
            index.push(Span {
                need: fact.need,
                start: bytes.len() as u32,
                len: fact.value.len() as u32,
            });
            bytes.extend_from_slice(fact.value);
        }
        let mut g = guest(
            &engine,
            &format!(
                r#"{MEMORY} (core module $m (import "mem" "reset" (func $reset)) (import "mem" "memory" (memory 1))
                (func (export "f") (param i32 i32 i32 i32) (result i64) (call $reset) (i64.load (local.get 0))))
                (core instance $m (instantiate $m (with "mem" (instance $mem))))
                (type $span' (record (field "need" u32) (field "start" u32) (field "len" u32)))
                (export $span "span" (type $span'))
                (type $blob' (record (field "index" (list $span)) (field "bytes" (list u8))))
                (export $blob "blob" (type $blob'))
                (func (export "f") (param "facts" $blob) (result u64)
                  (canon lift (core func $m "f") (memory $memory) (realloc (core func $mem "realloc"))))"#
            ),
        )?;
        let f = g.instance.get_typed_func::<(Blob<'_>,), (u64,)>(&mut g.store, "f")?;
        let blob = Blob {
            index: &index,
            bytes: &bytes,
        };
        c.bench_function(&format!("{n} facts: index and bytes"), |b| {
            b.iter(|| f.call(&mut g.store, (blob,)).unwrap());
        });

        let words: Vec<u32> = index
            .iter()
            .flat_map(|span| [span.need, span.start, span.len])
            .collect();
        let mut g = guest(
            &engine,
            &format!(
                r#"{MEMORY} (core module $m (import "mem" "reset" (func $reset)) (import "mem" "memory" (memory 1))
                (func (export "f") (param i32 i32 i32 i32) (result i64) (call $reset) (i64.load (local.get 0))))
                (core instance $m (instantiate $m (with "mem" (instance $mem))))
                (type $words' (record (field "index" (list u32)) (field "bytes" (list u8))))
                (export $words "words" (type $words'))
                (func (export "f") (param "facts" $words) (result u64)
                  (canon lift (core func $m "f") (memory $memory) (realloc (core func $mem "realloc"))))"#
            ),
        )?;
        let f = g.instance.get_typed_func::<(Words<'_>,), (u64,)>(&mut g.store, "f")?;
        let packed = Words {
            index: &words,
            bytes: &bytes,
        };
        c.bench_function(&format!("{n} facts: index of plain numbers, and bytes"), |b| {
            b.iter(|| f.call(&mut g.store, (packed,)).unwrap());
        });

        let mut g = guest(
            &engine,
            &format!(
                r#"{MEMORY} (core module $m (import "mem" "reset" (func $reset)) (import "mem" "memory" (memory 1))
                (func (export "f") (param i32 i32) (result i64) (call $reset) (i64.load (local.get 0))))
                (core instance $m (instantiate $m (with "mem" (instance $mem))))
                (func (export "f") (param "facts" (list u8)) (result u64)
                  (canon lift (core func $m "f") (memory $memory) (realloc (core func $mem "realloc"))))"#
            ),
        )?;
        let f = g.instance.get_typed_func::<(&[u8],), (u64,)>(&mut g.store, "f")?;
        c.bench_function(&format!("{n} facts: one packed list<u8>"), |b| {
            let mut packed = Vec::with_capacity(1024);
            b.iter(|| {
                packed.clear();
                for fact in &facts {
                    packed.extend_from_slice(&fact.need.to_le_bytes());
                    packed.extend_from_slice(&(fact.value.len() as u32).to_le_bytes());
                    packed.extend_from_slice(fact.value);
                }
                f.call(&mut g.store, (&packed,)).unwrap()
            });
        });
    }

    // ── edits ────────────────────────────────────────────────────────────────────────────────────────────────────────
    for n in [1_usize, 3] {
        let calls = "(call $get (i32.const 0) (i32.const 10) (i32.const 32) (i32.const 15) (i32.const 1024))".repeat(n);
        let body = reading(
            r#"(export "set-header" (func (param "name" string) (param "value" (list u8)) (result (result (error string)))))"#,
            r#"(core func $get (canon lower (func $req "set-header") (memory $memory) (realloc (core func $mem "realloc"))))"#,
            "i32 i32 i32 i32 i32",
            &calls,
        );
        let mut g = guest(&engine, &format!("{body} {lift}"))?;
        let f = g.instance.get_typed_func::<(), (u64,)>(&mut g.store, "f")?;
        c.bench_function(&format!("{n} edits: host calls"), |b| {
            b.iter(|| {
                g.store.data_mut().edits.clear();
                f.call(&mut g.store, ()).unwrap()
            });
        });

        // list<edit> at 256: name (0, 10), value (32, 15), three times; the result record at 512.
        let entry = r"\00\00\00\00\0a\00\00\00\20\00\00\00\0f\00\00\00".repeat(3);
        for post in [false, true] {
            let post_return = if post {
                r#"(post-return (core func $m "post"))"#
            } else {
                ""
            };
            let mut g = guest(
                &engine,
                &format!(
                    r#"{MEMORY} (core module $m (import "mem" "memory" (memory 1))
                    {NAMES}
                    (data (i32.const 256) "{entry}") (data (i32.const 512) "\00\01\00\00\0{n}\00\00\00")
                    (func (export "f") (result i32) (i32.const 512))
                    (func (export "post") (param i32)))
                    (core instance $m (instantiate $m (with "mem" (instance $mem))))
                    (type $edit' (record (field "name" string) (field "value" (list u8))))
                    (export $edit "edit" (type $edit'))
                    (func (export "f") (result (list $edit))
                      (canon lift (core func $m "f") (memory $memory) {post_return}))"#
                ),
            )?;
            let f = g.instance.get_typed_func::<(), (Vec<Edit>,)>(&mut g.store, "f")?;
            let title = if post {
                "returned list, post-return"
            } else {
                "returned list"
            };
            c.bench_function(&format!("{n} edits: {title}"), |b| {
                b.iter(|| f.call(&mut g.store, ()).unwrap());
            });
        }
    }

    // ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────
    let mut g = guest(
        &engine,
        &format!(
            r#"{MEMORY} (core module $m (import "mem" "memory" (memory 1))
            (func (export "f") (result i32) (i32.store8 (i32.const 512) (i32.const 1)) (i32.const 512)))
            (core instance $m (instantiate $m (with "mem" (instance $mem))))
            (type $verdict' (record (field "allowed" bool) (field "rule" u32) (field "limit" u64)
              (field "remaining" u64) (field "retry-after-ms" u64)))
            (export $verdict "verdict" (type $verdict'))
            (func (export "f") (result (option $verdict)) (canon lift (core func $m "f") (memory $memory)))"#
        ),
    )?;
    let f = g.instance.get_typed_func::<(), (Option<Verdict>,)>(&mut g.store, "f")?;
    c.bench_function("result: option<record>", |b| {
        b.iter(|| f.call(&mut g.store, ()).unwrap())
    });
    Ok(())
}

fn run(c: &mut Criterion) {
    if let Err(error) = alternatives(c) {
        eprintln!("{error:?}");
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
