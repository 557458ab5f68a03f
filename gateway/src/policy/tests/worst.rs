//! The worst that a guest can say: to the host, in the arguments of every function that it may import, and to whoever calls it,
//! in its answers.

use std::fmt::Write as _;

use wit_parser::Resolve;
use wit_parser::abi::{AbiVariant, WasmType};

use super::*;

/// A function of a host interface.
struct Import {
    interface: String,
    name: String,
    params: Vec<WasmType>,
    results: Vec<WasmType>,
}

/// Every function that a guest may import.
fn every_import() -> Vec<Import> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", CONTRACT).unwrap();
    let world = resolve.packages[package].worlds["policy"];
    let keys = resolve.worlds[world].imports.keys();
    let interfaces = keys.filter_map(|key| match key {
        wit_parser::WorldKey::Interface(id) => Some(&resolve.interfaces[*id]),
        wit_parser::WorldKey::Name(_) => None,
    });
    interfaces
        .flat_map(|interface| interface.functions.values().map(move |function| (interface, function)))
        .map(|(interface, function)| {
            let signature = resolve.wasm_signature(AbiVariant::GuestImport, function);
            Import {
                interface: interface.name.clone().unwrap(),
                name: function.name.clone(),
                params: signature.params,
                results: signature.results,
            }
        })
        .collect()
}

/// Numbers that stand for addresses, lengths, counts and enum cases: nothing, all there is, the last byte of memory and the next,
/// and a place where there is no UTF-8.
const WORST: [u32; 7] = [0, u32::MAX, 0x8000_0000, 65_535, 65_536, 300, 4_096];

const fn core_type(ty: WasmType) -> &'static str {
    match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

/// Calls the import whose number the first byte of the fact is, less 32, with arguments of which the second says which.
fn caller(imports: &[Import]) -> (String, String) {
    let mut declared = String::new();
    let mut cases = String::new();
    for (n, import) in imports.iter().enumerate() {
        let types = |types: &[WasmType]| types.iter().map(|ty| core_type(*ty)).collect::<Vec<_>>().join(" ");
        write!(
            declared,
            r#"(import "gateway:policy/{}@0.1.0" "{}" (func $import{n} (param {}) (result {})))"#,
            import.interface,
            import.name,
            types(&import.params),
            types(&import.results)
        )
        .unwrap();
        let mut arguments = String::new();
        for (position, ty) in import.params.iter().enumerate() {
            // Addresses and lengths alternate, mostly: by two digits of the same number.
            let digit = match position % 2 {
                0 => format!("(i32.rem_u (local.get $worst) (i32.const {}))", WORST.len()),
                _ => format!("(i32.div_u (local.get $worst) (i32.const {}))", WORST.len()),
            };
            let value = format!("(i32.load (i32.add (i32.const 4224) (i32.mul {digit} (i32.const 4))))");
            arguments += &match core_type(*ty) {
                "i64" => format!("(i64.extend_i32_s {value})"),
                "f32" => format!("(f32.reinterpret_i32 {value})"),
                "f64" => format!("(f64.reinterpret_i64 (i64.mul (i64.extend_i32_u {value}) (i64.const 0x100000001)))"),
                _ => value,
            };
        }
        let drops = "(drop)".repeat(import.results.len());
        write!(
            cases,
            "(if (i32.eq (local.get $import) (i32.const {n})) (then (call $import{n} {arguments}) {drops}))"
        )
        .unwrap();
    }
    let words: String = WORST
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let items = format!(
        r#"(data (i32.const 4224) "{words}") (data (i32.const 4300) "\ff\fe\80\c0")
        (func $worst (param $facts i32) (param $bytes i32)
            (local $import i32) (local $worst i32) (local $at i32)
            (local.set $at (i32.add (local.get $bytes) (i32.load offset=4 (local.get $facts))))
            (local.set $import (i32.sub (i32.load8_u (local.get $at)) (i32.const 32)))
            (local.set $worst (i32.sub (i32.load8_u offset=1 (local.get $at)) (i32.const 32)))
            (memory.fill (i32.const 300) (i32.const 0xff) (i32.const 8))
            {cases})"#
    );
    (declared, items)
}

#[test]
fn no_import_does_harm_whatever_it_is_given() {
    let imports = every_import();
    assert!(imports.len() > 30 && imports.len() < 90, "{}", imports.len());
    let (declared, items) = caller(&imports);
    let call = "(call $worst (local.get 0) (local.get 2))";
    let (bits, answer) = (format!("{call} (i64.const 0)"), format!("{call} {ZEROES}"));
    let guest = Guest {
        imports: &declared,
        items: &items,
        request_needs: &["header:worst"],
        response_needs: &["header:worst"],
        log_needs: &["header:worst"],
        evaluate: Some(&bits),
        check: Some(&answer),
        on_request: Some(&answer),
        on_response: Some(&answer),
        on_log: Some(call),
        ..GUEST
    };
    let host = host_of(4);
    let attachment = attach_as(&host, "guest", &guest).unwrap();
    let mut instances = Instances::new(&host);
    let (mut went_well, mut failed) = (0, 0);
    for (import, Import { interface, name, .. }) in imports.iter().enumerate() {
        for worst in 0..WORST.len() * WORST.len() {
            for hook in 0..5 {
                let mut exchange = answered("/kept?as=it-was");
                let number = |n: usize| u8::try_from(n + 32).unwrap();
                let header = http::HeaderValue::from_bytes(&[number(import), number(worst)]).unwrap();
                exchange.request.headers.insert("worst", header);
                let before = (exchange.request.clone(), exchange.response.clone());
                let result = match hook {
                    0 => instances.evaluate(&attachment, &mut exchange).map(|_| ()),
                    1 => instances.check(&attachment, &mut exchange).map(|_| ()),
                    2 => instances.on_request(&attachment, &mut exchange).map(|_| ()),
                    3 => instances.on_response(&attachment, &mut exchange).map(|_| ()),
                    _ => instances.on_log(&attachment, &mut exchange),
                };
                let what = format!("{interface} {name}, {worst}, hook {hook}");
                match result {
                    Ok(()) => went_well += 1,
                    Err(Failure {
                        kind: FailureKind::Trap | FailureKind::HostCall | FailureKind::Memory,
                        ..
                    }) => {
                        failed += 1;
                        let (request, response) = before;
                        assert_eq!(exchange.request.uri, request.uri, "{what}");
                        assert_eq!(exchange.request.headers, request.headers, "{what}");
                        let kept = exchange.response.as_ref().unwrap();
                        assert_eq!(kept.headers, response.unwrap().headers, "{what}");
                    }
                    Err(failure) => panic!("{what}: {failure}"),
                }
            }
        }
    }
    // Both happen, or it was not what it is meant to be.
    assert!(went_well > 500 && failed > 500, "{went_well} {failed}");
}

/// A guest that answers one of its functions with what lies at 4,096.
fn answering(data: &str, change: impl FnOnce(&mut Guest<'_>)) -> Failure {
    let items = format!(r#"(data (i32.const 4096) "{data}") (data (i32.const 5000) "\ff\fe")"#);
    let mut guest = Guest {
        items: &items,
        evaluate: Some("(i64.const 0)"),
        check: Some("(i32.const 4096)"),
        on_request: Some("(i32.const 4096)"),
        on_response: Some("(i32.const 4096)"),
        on_connect: Some("(i32.const 4096)"),
        ..GUEST
    };
    change(&mut guest);
    let host = host_of(2);
    let attachment = match attach_as(&host, "guest", &guest) {
        Ok(attachment) => attachment,
        Err(PolicyError::Failed { failure, .. }) => return failure,
        Err(other) => panic!("{other}"),
    };
    let mut instances = Instances::new(&host);
    let mut exchange = answered("/kept");
    let failure = instances.on_request(&attachment, &mut exchange).unwrap_err();
    assert_eq!(exchange.request.uri, "/kept");
    let other = instances.on_response(&attachment, &mut exchange).unwrap_err();
    assert_eq!(other.hook, "on-response");
    // A route.
    if data.starts_with(r"\02") {
        let other = instances.on_connect(&attachment, &connection()).unwrap_err();
        assert_eq!(other.hook, "on-connect");
    }
    failure
}

#[test]
fn text_that_is_none_and_lists_without_end_fail_the_call_wherever_they_come_from() {
    // Two bytes that are no UTF-8; more bytes than there are; the longest that there could be, from the last byte on.
    let texts = [
        r"\88\13\00\00\02\00\00\00",
        r"\00\00\00\00\00\00\02\00",
        r"\ff\ff\00\00\ff\ff\ff\ff",
    ];
    for text in texts {
        // What it is called; its first need, its only metric; the message of a refusal; a predicate's and a limit's name; a backend that
        // is routed to; a field of a reply.
        type Change = fn(&mut Guest<'_>);
        let cases: [(&str, String, Change); 6] = [
            ("describe", format!("{text}{}", r"\00".repeat(80)), |guest| {
                guest.describe = "(i32.const 4096)";
            }),
            (
                "describe",
                format!(
                    r"{}\78\10\00\00\01\00\00\00{}{text}",
                    r"\00".repeat(24),
                    r"\00".repeat(88)
                ),
                |guest| guest.describe = "(i32.const 4096)",
            ),
            ("configure", format!(r"\01\00\00\00{text}\00\00\00\00"), |guest| {
                guest.configure = "(i32.const 4096)";
            }),
            ("names", format!(r"\08\10\00\00\01\00\00\00{text}"), |guest| {
                guest.names = "(i32.const 4096)";
            }),
            (
                "policies",
                format!(r"\08\10\00\00\01\00\00\00{text}{}", r"\00".repeat(16)),
                |guest| {
                    guest.policies = "(i32.const 4096)";
                },
            ),
            ("on-request", format!(r"\02\00\00\00{text}"), |_| {}),
        ];
        for (hook, data, change) in cases {
            let failure = answering(&data, change);
            assert_eq!(failure.hook, hook, "{text}: {failure}");
            let kinds = match hook {
                "configure" => [FailureKind::Configure, FailureKind::HostCall],
                _ => [FailureKind::Trap, FailureKind::HostCall],
            };
            assert!(kinds.contains(&failure.kind), "{hook} {text}: {failure}");
        }
        // The name of a field of a reply, how many fields there are, and a body.
        let fields = r"\01\00\00\00\c8\00\00\00\18\10\00\00\01\00\00\00\00\00\00\00";
        for reply in [
            format!(r"{fields}{text}\00\00\00\00\00\00\00\00"),
            format!(r"\01\00\00\00\c8\00\00\00{text}\00\00\00\00\00\00\00\00"),
            format!(
                r"\01\00\00\00\c8\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00{}",
                r"\ff\ff\ff\ff"
            ),
        ] {
            let failure = answering(&reply, |_| {});
            assert_eq!(failure.hook, "on-request", "{text}: {failure}");
        }
    }
}

#[test]
fn a_table_grows_to_its_bound_and_a_guest_that_cannot_cope_fails_for_memory() {
    let table = "(table $t 1 funcref)";
    let grow = "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))";
    let failure = evaluate_failure(table, &format!("{grow} (unreachable)"));
    assert_eq!(failure.kind, FailureKind::Memory);
    let copes = format!("{grow} (i64.extend_i32_u (i32.eq (table.size $t) (i32.const 20000)))");
    let guest = Guest {
        items: table,
        predicates: &["full"],
        evaluate: Some(&copes),
        ..GUEST
    };
    let host = host_of(2);
    let attachment = attach(&host, &guest);
    assert_eq!(Instances::new(&host).evaluate(&attachment, &mut exchange("/")), Ok(1));
}

#[test]
fn a_guest_that_asks_for_more_for_ever_ends() {
    // Neither takes no for an answer.
    let asks = "(loop (drop (memory.grow (i32.const 1))) (br 0)) (unreachable)";
    assert_eq!(evaluate_failure("", asks).kind, FailureKind::Deadline);
    let asks = "(loop (drop (table.grow $t (ref.null func) (i32.const 1))) (br 0)) (unreachable)";
    assert_eq!(
        evaluate_failure("(table $t 1 funcref)", asks).kind,
        FailureKind::Deadline
    );
}

#[test]
fn work_in_bulk_ends_without_a_loop_or_a_call_around_it() {
    let host = host_of(2);
    let attach_filling = |instruction: &str| {
        let body = format!(
            "(drop (memory.grow (i32.const 254))) {} (i64.const 0)",
            instruction.repeat(2_000)
        );
        let guest = Guest {
            items: "(table $t 20000 funcref)",
            evaluate: Some(&body),
            ..GUEST
        };
        let component = host.compile("guest", &guest.component(), &[]).unwrap();
        let mut spec = spec("guest");
        spec.limits.memory = 16 << 20;
        host.attach(&component, spec).unwrap()
    };
    for instruction in [
        "(memory.fill (i32.const 0) (i32.const 7) (i32.const 16000000))",
        "(memory.copy (i32.const 0) (i32.const 65536) (i32.const 16000000))",
    ] {
        let attachment = attach_filling(instruction);
        let mut instances = Instances::new(&host);
        instances.warm(&attachment).unwrap();
        let begun = Instant::now();
        let failure = instances.evaluate(&attachment, &mut exchange("/")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Deadline, "{instruction}");
        // All of it would take seconds.
        assert!(
            begun.elapsed() < Duration::from_millis(900),
            "{instruction}: {:?}",
            begun.elapsed()
        );
    }
}
