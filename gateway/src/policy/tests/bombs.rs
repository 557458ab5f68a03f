//! Files that are not what they seem, and components that are more than they seem.

use super::*;

fn whole() -> Vec<u8> {
    Guest {
        predicates: &["a"],
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    }
    .component()
}

/// Where each section of a component and of the modules and components in it begins and ends, and where the last of them ends that is
/// more than a remark.
fn boundaries(wasm: &[u8]) -> (Vec<usize>, usize) {
    let payloads = wasmparser::Parser::new(0).parse_all(wasm).map(Result::unwrap);
    let sections: Vec<_> = payloads.filter_map(|payload| payload.as_section()).collect();
    let mut all: Vec<_> = sections
        .iter()
        .flat_map(|(_, range)| [range.start, range.end])
        .collect();
    all.sort_unstable();
    all.dedup();
    let needed = sections
        .iter()
        .filter(|(id, _)| *id != CUSTOM)
        .map(|(_, range)| range.end);
    (all, needed.max().unwrap())
}

/// The number of sections that mean nothing to an engine.
const CUSTOM: u8 = 0;

#[test]
fn a_component_that_is_cut_at_a_section_is_refused() {
    let host = host_of(1);
    let wasm = whole();
    let (boundaries, needed) = boundaries(&wasm);
    assert!(boundaries.len() > 20, "{}", boundaries.len());
    for at in boundaries {
        // In front of it, behind it, and within what says how long it is.
        for cut in [at.saturating_sub(2), at.saturating_sub(1), at, at + 1] {
            if cut >= wasm.len() {
                continue;
            }
            match host.compile("guest", &wasm[..cut], &[]) {
                Ok(_) if cut >= needed => {}
                // What is left may be a component, but none that a policy is made of.
                Err(PolicyError::Invalid { .. } | PolicyError::MissingExport { .. }) => {}
                other => panic!("cut at {cut} of {}: {other:?}", wasm.len()),
            }
        }
    }
}

#[test]
fn a_component_of_as_many_bytes_as_there_may_be_is_taken_and_one_more_is_not() {
    let host = host_of(2);
    let mut wasm = whole();
    // A custom section of zeroes behind it: its number, its length in five bytes, and a name without letters.
    let content = MAX_COMPONENT_BYTES - wasm.len() - 6;
    wasm.push(0);
    for shift in [0, 7, 14, 21, 28] {
        let more = if shift < 28 { 0x80 } else { 0 };
        wasm.push(u8::try_from(content >> shift & 0x7f).unwrap() | more);
    }
    wasm.resize(MAX_COMPONENT_BYTES, 0);
    let component = host.compile("guest", &wasm, &[]).unwrap();
    let attachment = host.attach(&component, spec("guest")).unwrap();
    assert_eq!(Instances::new(&host).evaluate(&attachment, &mut exchange("/")), Ok(0));
    wasm.push(0);
    match host.compile("guest", &wasm, &[]) {
        Err(PolicyError::TooLarge { size, limit, .. }) => assert_eq!((size, limit), (wasm.len(), wasm.len() - 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn instances_within_instances_are_not_as_many_as_a_component_says() {
    // Each of these components has two instances of the one before: 65,536 in all, of some hundred bytes.
    let mut text = String::from("(component (component $c0)");
    for n in 1..=16 {
        text += &format!(
            "(component $c{n} (alias outer 1 $c{} (component $x)) (instance (instantiate $x)) (instance (instantiate $x)))",
            n - 1
        );
    }
    text += "(instance (instantiate $c16)))";
    let error = host_of(1)
        .compile("guest", &wat::parse_str(text).unwrap(), &[])
        .unwrap_err();
    assert!(matches!(error, PolicyError::Invalid { .. }), "{error}");
}

#[test]
fn a_type_that_doubles_with_each_line_is_refused() {
    let mut text = String::from("(component (type $t0 (tuple string string))");
    for n in 1..60 {
        text += &format!("(type $t{n} (tuple $t{} $t{}))", n - 1, n - 1);
    }
    let error = host_of(1)
        .compile("guest", &wat::parse_str(text + ")").unwrap(), &[])
        .unwrap_err();
    assert!(error.to_string().contains("type size"), "{error}");
}

#[test]
fn more_memory_tables_or_core_instances_than_an_instance_may_have_are_refused() {
    let instances = "(core instance (instantiate $m))";
    for (module, times) in [
        // More than `policy memory=` is, from the start; a table, and tables, beyond theirs; a memory for each of two.
        ("(memory 1000)", 1),
        ("(table 20001 funcref)", 1),
        (
            "(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)",
            1,
        ),
        ("(memory 1)", 2),
        ("", 65),
    ] {
        let text = format!("(component (core module $m {module}) {})", instances.repeat(times));
        let error = host_of(1)
            .compile("guest", &wat::parse_str(text).unwrap(), &[])
            .unwrap_err();
        assert!(
            matches!(error, PolicyError::Invalid { .. }),
            "{module} {times}: {error}"
        );
    }
}
