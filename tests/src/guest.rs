//! Policy components written by hand, mostly hostile ones: a core module as WAT, made into a component here. No toolchain
//! for WebAssembly is needed.
//!
//! A guest is written as the bodies of the functions that matter to the test; the rest of its exports are filled in.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// The parameters of a hook that is handed facts: the index (three numbers a fact: its need, and where its value begins and
/// ends) and how many numbers are in it, then the values and how many bytes they are.
pub const FACTS: &str = "(param $facts i32) (param $count i32) (param $bytes i32) (param $length i32)";

/// A component that answers predicates (world `access-control`): one predicate, `p`. `evaluate` is the body of
/// `FACTS (result i64)`.
pub fn predicates(evaluate: &str) -> Vec<u8> {
    let exports = format!(
        r#"(data (i32.const 64) "\48\00\00\00\01\00\00\00p")
        (func (export "gateway:policy/predicates@0.1.0#names") (result i32)
            ;; At 48: a list of one, at 64; its only string is one byte long, at 72.
            (i32.store (i32.const 48) (i32.const 64))
            (i32.store (i32.const 52) (i32.const 1))
            (i32.const 48))
        (func (export "gateway:policy/predicates@0.1.0#evaluate")
            {FACTS} (result i64) {evaluate})"#
    );
    component("access-control", &exports)
}

/// A component that filters requests and responses (world `header-rewrite`). `on_request` is the body of
/// `FACTS (result i32)`, where `(call $none)` lets the request go on and `(call $reply (status) (bytes))` is a reply with that
/// many bytes of content; `on_response` is the body of a function without a result, after which the response goes on.
pub fn filter(on_request: &str, on_response: &str) -> Vec<u8> {
    let exports = format!(
        r#"(func (export "gateway:policy/request-filter@0.1.0#on-request")
            {FACTS} (result i32) {on_request})
        (func (export "gateway:policy/response-filter@0.1.0#on-response")
            {FACTS} (result i32) {on_response} (call $none))"#
    );
    component("header-rewrite", &exports)
}

/// A component that limits requests (world `rate-limit`). `check` is the body of
/// `FACTS (result i32)`, where `(call $none)` is "no limit applies".
pub fn limiter(check: &str) -> Vec<u8> {
    let exports = format!(
        r#"(func (export "gateway:policy/limiter@0.1.0#policies") (result i32) (call $none))
        (func (export "gateway:policy/limiter@0.1.0#check")
            {FACTS} (result i32) {check})"#
    );
    component("rate-limit", &exports)
}

/// A component that decides on connections (world `connection`). `on_connect` is the body of
/// `FACTS (result i32)`, where `(call $none)` is "accept".
pub fn connection(on_connect: &str) -> Vec<u8> {
    let exports = format!(
        r#"(func (export "gateway:policy/connection-filter@0.1.0#on-connect")
            {FACTS} (result i32) {on_connect})"#
    );
    component("connection", &exports)
}

/// A component of this world: `exports` is WAT that defines the hooks' functions; `lifecycle`, memory and allocator are
/// there. `$loop` is a function that never returns, `$deep` one that calls itself.
pub fn component(world: &str, exports: &str) -> Vec<u8> {
    component_with_configure(world, "(i32.const 256)", exports)
}

/// The same with the body of `configure`: `(param $config i32) (param $length i32) (result i32)`; 256 is the address of an
/// empty success.
pub fn component_with_configure(world: &str, configure: &str, exports: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let (package, _) = resolve.push_path(&wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    encoded(module_with_configure(configure, exports), &resolve, world)
}

/// A component that exports `lifecycle` and these interfaces of the contract, and may import every one that the host has.
pub fn exporting(interfaces: &[&str], configure: &str, exports: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let (contract, _) = resolve.push_path(&wit).unwrap();
    let all = resolve.packages[contract].worlds["policy"];
    let mut text = String::from("package test:guest; world guest {\n");
    for item in resolve.worlds[all].imports.keys() {
        if let wit_parser::WorldKey::Interface(interface) = item
            && let Some(name) = &resolve.interfaces[*interface].name
        {
            text += &format!("import gateway:policy/{name}@0.1.0;\n");
        }
    }
    for name in ["lifecycle"].iter().chain(interfaces) {
        text += &format!("export gateway:policy/{name}@0.1.0;\n");
    }
    let package = resolve.push_str("guest.wit", &(text + "}")).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    encoded(module_with_configure(configure, exports), &resolve, world)
}

fn encoded(mut module: Vec<u8>, resolve: &Resolve, world: wit_parser::WorldId) -> Vec<u8> {
    wit_component::embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .validate(true)
        .encode()
        .unwrap()
}

/// The module of such a component, before anybody has told it its types.
pub fn module(exports: &str) -> Vec<u8> {
    module_with_configure("(i32.const 256)", exports)
}

fn module_with_configure(configure: &str, exports: &str) -> Vec<u8> {
    // The module's imports have to stand before everything else.
    let (imports, exports) = match exports.split_once(";; end of imports") {
        Some((imports, exports)) => (imports, exports),
        None => ("", exports),
    };
    let wat = format!(
        r#"(module
        {imports}
        (memory (export "memory") 2)
        (global $heap (mut i32) (i32.const 4096))
        ;; A bump allocator that grows the memory as it needs.
        (func $realloc (export "cabi_realloc")
            (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.set $heap (i32.add (local.get $at) (local.get $size)))
            (block $enough (loop $grow
                (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
                (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
                (br $grow)))
            (local.get $at))
        (func $loop (loop $again (br $again)))
        (func $deep (call $deep) (global.set $heap (global.get $heap)))
        ;; Zeroes: none, accept, or an empty success.
        (func $none (result i32) (i32.const 256))
        (func $reply (param $status i32) (param $bytes i32) (result i32)
            (local $body i32)
            (local.set $body (call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (local.get $bytes)))
            (i32.store8 (i32.const 512) (i32.const 1))                      ;; some
            (i32.store16 (i32.const 516) (local.get $status))
            (i32.store (i32.const 520) (i32.const 0))                       ;; no headers
            (i32.store (i32.const 524) (i32.const 0))
            (i32.store (i32.const 528) (local.get $body))
            (i32.store (i32.const 532) (local.get $bytes))
            (i32.const 512))
        (data (i32.const 1024) "guest1.0.0A guest of the tests")
        (func (export "gateway:policy/lifecycle@0.1.0#describe") (result i32)
            (i32.store (i32.const 1280) (i32.const 1024)) (i32.store (i32.const 1284) (i32.const 5))
            (i32.store (i32.const 1288) (i32.const 1029)) (i32.store (i32.const 1292) (i32.const 5))
            (i32.store (i32.const 1296) (i32.const 1034)) (i32.store (i32.const 1300) (i32.const 20))
            (i32.const 1280))
        (func (export "gateway:policy/lifecycle@0.1.0#configure")
            (param $config i32) (param $length i32) (result i32) {configure})
        {exports}
        )"#
    );
    wat::parse_str(&wat).unwrap_or_else(|e| panic!("{e}\n{wat}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn guests_of_every_world_are_components() {
        super::predicates("(i64.const 1)");
        super::filter("(call $none)", "");
        super::filter("(call $reply (i32.const 200) (i32.const 5))", "(call $loop)");
        super::limiter("(call $none)");
        super::connection("(call $none)");
    }
}
