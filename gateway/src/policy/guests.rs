//! Small and hostile guests for tests and benches: core WebAssembly text, made into a component by the contract.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A guest. Every field is WebAssembly text; a hook is exported when it has a body. Memory from 4,096 to 16,384 and
/// everything below 256 is the guest's own; `cabi_realloc` hands out from 16,384 on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest<'a> {
    /// `(import …)` items.
    pub(crate) imports: &'a str,
    /// Further items: data, globals, functions, a start function.
    pub(crate) items: &'a str,
    /// Needs of the request phase, as `describe` answers them.
    pub(crate) request_needs: &'a [&'a str],
    /// Needs of the response phase.
    pub(crate) response_needs: &'a [&'a str],
    /// Needs of the log phase.
    pub(crate) log_needs: &'a [&'a str],
    /// Needs of the connection phase.
    pub(crate) connection_needs: &'a [&'a str],
    /// What `names` answers.
    pub(crate) predicates: &'a [&'a str],
    /// Of `cabi_realloc`: `(param i32 i32 i32 i32) (result i32)`.
    pub(crate) realloc: &'a str,
    /// Of `describe`: `(result i32)`.
    pub(crate) describe: &'a str,
    /// Of `configure`: `(param i32 i32) (result i32)`.
    pub(crate) configure: &'a str,
    /// Of `names`: `(result i32)`.
    pub(crate) names: &'a str,
    /// Of `policies`: `(result i32)`.
    pub(crate) policies: &'a str,
    /// Of `evaluate`: `$facts (result i64)`, where `$facts` is `(param i32 i32 i32 i32)`: the index and how many numbers are
    /// in it, then the bytes and how many. So are the ones below.
    pub(crate) evaluate: Option<&'a str>,
    /// Of `check`: `$facts (result i32)`.
    pub(crate) check: Option<&'a str>,
    /// Of `on-request`: `$facts (result i32)`.
    pub(crate) on_request: Option<&'a str>,
    /// Of `on-answer`: `$facts`, whether there is an error, status, headers, body and state: twelve `i32`, and a result.
    pub(crate) on_answer: Option<&'a str>,
    /// Of `on-request-body` and `on-request-piece`: `$facts (result i32)`, and state, bytes and whether it is the last:
    /// `(param i32 i32 i32 i32 i32) (result i32)`.
    pub(crate) request_body: Option<(&'a str, &'a str)>,
    /// Of `on-response`: `$facts (result i32)`.
    pub(crate) on_response: Option<&'a str>,
    /// Of `on-response-body` and `on-response-piece`: as of a request.
    pub(crate) response_body: Option<(&'a str, &'a str)>,
    /// Of `on-log`: `$facts`.
    pub(crate) on_log: Option<&'a str>,
    /// Of `on-connect`: `$facts (result i32)`.
    pub(crate) on_connect: Option<&'a str>,
}

/// Does nothing and answers nothing.
pub(crate) const GUEST: Guest<'static> = Guest {
    imports: "",
    items: "",
    request_needs: &[],
    response_needs: &[],
    log_needs: &[],
    connection_needs: &[],
    predicates: &[],
    realloc: "(call $bump (local.get 2) (local.get 3))",
    describe: "(i32.const 256)",
    configure: "(i32.const 512)",
    names: "(i32.const 320)",
    policies: "(i32.const 328)",
    evaluate: None,
    check: None,
    on_request: None,
    on_answer: None,
    request_body: None,
    on_response: None,
    response_body: None,
    on_log: None,
    on_connect: None,
};

/// Where nothing but zeroes is: `none`, `accept` or an empty list, whatever is read there.
pub(crate) const ZEROES: &str = "(i32.const 512)";

impl Guest<'_> {
    /// The component.
    pub(crate) fn component(&self) -> Vec<u8> {
        self.component_of(CONTRACT)
    }

    /// The component by another contract.
    pub(crate) fn component_of(&self, contract: &str) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("policy.wit", contract).expect("the contract parses");
        let mut world = String::from("package test:guest; world guest {");
        for interface in resolve.packages[package].interfaces.keys() {
            if IMPORTS.contains(&interface.as_str()) {
                world += &format!("import gateway:policy/{interface}@0.1.0;");
            }
        }
        for interface in self.exports() {
            world += &format!("export gateway:policy/{interface}@0.1.0;");
        }
        world += "}";
        let package = resolve.push_str("guest.wit", &world).expect("the world parses");
        let world = resolve
            .select_world(&[package], Some("guest"))
            .expect("there is one world");
        let mut module = wat::parse_str(self.module()).expect("the guest's text parses");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
        let mut encoder = ComponentEncoder::default()
            .module(&module)
            .expect("the module fits the world");
        encoder.encode().expect("the component encodes")
    }

    fn exports(&self) -> impl Iterator<Item = &'static str> {
        [
            ("lifecycle", true),
            ("predicates", self.evaluate.is_some()),
            ("limiter", self.check.is_some()),
            ("request-filter", self.on_request.is_some()),
            ("call-answered", self.on_answer.is_some()),
            ("request-body-filter", self.request_body.is_some()),
            ("response-filter", self.on_response.is_some()),
            ("response-body-filter", self.response_body.is_some()),
            ("access-log", self.on_log.is_some()),
            ("connection-filter", self.on_connect.is_some()),
        ]
        .into_iter()
        .filter_map(|(interface, exported)| exported.then_some(interface))
    }

    fn module(&self) -> String {
        let mut funcs = String::new();
        let mut func = |name: &str, ty: &str, body: &str| {
            funcs += &format!("(func (export \"gateway:policy/{name}\") {ty} {body})\n");
        };
        func("lifecycle@0.1.0#describe", "(result i32)", self.describe);
        func(
            "lifecycle@0.1.0#configure",
            "(param i32 i32) (result i32)",
            self.configure,
        );
        const FACTS: &str = "(param i32 i32 i32 i32)";
        const PIECE: &str = "(param i32 i32 i32 i32 i32) (result i32)";
        let answers = format!("{FACTS} (result i32)");
        if let Some(body) = self.evaluate {
            func("predicates@0.1.0#names", "(result i32)", self.names);
            func("predicates@0.1.0#evaluate", &format!("{FACTS} (result i64)"), body);
        }
        if let Some(body) = self.check {
            func("limiter@0.1.0#policies", "(result i32)", self.policies);
            func("limiter@0.1.0#check", &answers, body);
        }
        if let Some(body) = self.on_request {
            func("request-filter@0.1.0#on-request", &answers, body);
        }
        if let Some(body) = self.on_answer {
            func(
                "call-answered@0.1.0#on-answer",
                "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)",
                body,
            );
        }
        if let Some((mode, piece)) = self.request_body {
            func("request-body-filter@0.1.0#on-request-body", &answers, mode);
            func("request-body-filter@0.1.0#on-request-piece", PIECE, piece);
        }
        if let Some(body) = self.on_response {
            func("response-filter@0.1.0#on-response", &answers, body);
        }
        if let Some((mode, piece)) = self.response_body {
            func("response-body-filter@0.1.0#on-response-body", &answers, mode);
            func("response-body-filter@0.1.0#on-response-piece", PIECE, piece);
        }
        if let Some(body) = self.on_log {
            func("access-log@0.1.0#on-log", FACTS, body);
        }
        if let Some(body) = self.on_connect {
            func("connection-filter@0.1.0#on-connect", &answers, body);
        }
        let mut data = Data::new(1024);
        // The description: three empty strings, the needs by phase, and no metrics.
        for (at, list) in [
            (280, self.request_needs),
            (288, self.response_needs),
            (296, self.log_needs),
            (304, self.connection_needs),
            (320, self.predicates),
        ] {
            data.list(at, list);
        }
        // One limit, of 3 in a second.
        data.words(328, &[704, 1]);
        data.words(704, &[736, 3, 3, 0, 1000, 0]);
        data.text += "(data (i32.const 736) \"all\")\n";
        format!(
            r#"(module {imports}
              (memory (export "memory") 1)
              (global $heap (mut i32) (i32.const 16384))
              (func $bump (param $align i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and
                  (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                  (i32.sub (i32.const 0) (local.get $align))))
                ;; Start over rather than grow: what a call was given is done with by then.
                (if (i32.gt_u (i32.add (local.get $at) (local.get $size)) (i32.const 65536))
                  (then (local.set $at (i32.const 16384))))
                (global.set $heap (i32.add (local.get $at) (local.get $size)))
                (local.get $at))
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
              {data}
              {items}
              {funcs})"#,
            imports = self.imports,
            realloc = self.realloc,
            data = data.text,
            items = self.items,
        )
    }
}

/// Data segments.
struct Data {
    text: String,
    next: usize,
}

impl Data {
    fn new(next: usize) -> Self {
        Self {
            text: String::new(),
            next,
        }
    }

    /// A `list<string>` whose pointer and length are at `at`.
    fn list(&mut self, at: usize, list: &[&str]) {
        let array = self.next;
        self.next += list.len() * 8;
        self.words(at, &[array, list.len()]);
        for (i, text) in list.iter().enumerate() {
            self.words(array + i * 8, &[self.next, text.len()]);
            let bytes: String = text.bytes().map(|b| format!("\\{b:02x}")).collect();
            self.text += &format!("(data (i32.const {}) \"{bytes}\")\n", self.next);
            self.next += text.len();
        }
        self.next = self.next.next_multiple_of(8);
    }

    fn words(&mut self, at: usize, words: &[usize]) {
        let bytes = words
            .iter()
            .flat_map(|word| u32::try_from(*word).unwrap_or(0).to_le_bytes());
        let bytes: String = bytes.map(|b| format!("\\{b:02x}")).collect();
        self.text += &format!("(data (i32.const {at}) \"{bytes}\")\n");
    }
}

/// The contract's text.
pub(crate) const CONTRACT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/policy.wit"));

/// What a world may import; what a guest does not use is left out of its component.
const IMPORTS: [&str; 14] = [
    "request",
    "request-edits",
    "response",
    "response-edits",
    "connection-info",
    "tags",
    "buckets",
    "counters",
    "kv",
    "metrics",
    "random",
    "log",
    "clock",
    "unheard-of",
];
