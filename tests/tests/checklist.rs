//! docs/checklist.md: every test that it names is there, and every row of what is done names one. And other pages: what they say of
//! the code is so.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rows that are finished: all there are.
const DONE: &[(u32, u32)] = &[(1, 78), (80, 85)];

#[test]
fn every_test_that_the_checklist_names_is_there() {
    let mut faults = Vec::new();
    for (row, cells) in rows() {
        for name in quoted(&cells[3]).filter(|name| name.contains("::")) {
            let (file, test) = name.rsplit_once("::").unwrap();
            let path = source(file);
            let Ok(text) = std::fs::read_to_string(&path) else {
                faults.push(format!("row {row}: {name}: no file {}", path.display()));
                continue;
            };
            if !is_test(&text, test) {
                faults.push(format!("row {row}: no test {test} in {}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_done_has_its_configuration_and_its_test() {
    let rows = rows();
    let done = DONE.iter().flat_map(|&(first, last)| first..=last);
    let faults: Vec<_> = done
        .filter(|row| {
            rows.get(row).is_none_or(|cells| {
                cells[2].is_empty()
                    || cells[2].contains("not yet")
                    || !quoted(&cells[3]).any(|name| name.contains("::"))
            })
        })
        .collect();
    assert!(faults.is_empty(), "rows {faults:?}");
}

/// docs/reference/logs.md: whoever reads a line can look its reason up.
#[test]
fn every_reason_of_a_refusal_is_in_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let reference = std::fs::read_to_string(root.join("docs/reference/logs.md")).unwrap();
    let mut reasons = BTreeSet::new();
    for path in sources(&root.join("gateway/src/proxy")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in ["BadRequest(\"", "InvalidResponse(\"", "Cause::Proxy, \"", "end_early("] {
            for (at, _) in code.match_indices(word) {
                let rest = &code[at..];
                reasons.extend(rest.split('"').nth(1).map(str::to_owned));
            }
        }
        let is_errors = path.ends_with("proxy/error.rs");
        let arms = code.lines().filter(|line| is_errors && line.contains("Self::"));
        reasons.extend(arms.filter_map(|line| Some(line.split_once("=> \"")?.1.split('"').next()?.to_owned())));
    }
    assert!(reasons.len() > 30, "{reasons:?}");
    let is_missing = |reason: &&String| !reference.contains(&format!("`{reason}`"));
    let missing: Vec<_> = reasons.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// docs/haproxy.md: what HAProxy's words are called here is called so in the reference.
#[test]
fn names_that_are_compared_with_haproxys_are_there() {
    let read = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    let reference = ["reference/config.md", "reference/logs.md", "operations.md"]
        .map(read)
        .concat();
    let text = read("haproxy.md").replace("\\|", " ");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_matches('|').split('|').nth(1));
    let mut words = BTreeSet::new();
    for code in cells.flat_map(quoted) {
        // Values in quotes are anybody's.
        let said: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let parts = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        words.extend(
            parts
                .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                .map(str::to_owned),
        );
    }
    assert!(words.len() > 200, "{words:?}");
    let missing: Vec<_> = words.iter().filter(|word| !reference.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// docs/ARCHITECTURE.md: each module is there, and imports only what stands below it.
#[test]
fn modules_stand_on_those_below_them() {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let floors = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let mut depths = BTreeMap::new();
    for (depth, line) in floors.lines().enumerate() {
        let names = line.split("  ").next().unwrap();
        depths.extend(names.split(" | ").map(|name| (name, depth)));
    }
    let src = root().join("gateway/src");
    let mut faults = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" || inside.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        seen.insert(module.to_owned());
        let Some(depth) = depths.get(module) else {
            faults.insert(format!("{module} is not on the page"));
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        // What tests need may be anywhere.
        let code = text.split("\nmod tests {").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let name = used
                    .split(|c: char| !c.is_ascii_lowercase() && c != '_')
                    .next()
                    .unwrap();
                if name != module && depths.get(name).is_none_or(|below| below <= depth) {
                    faults.insert(format!("{} imports {name:?}: {line}", inside.display()));
                }
            }
        }
    }
    faults.extend(
        depths
            .keys()
            .filter(|name| !seen.contains(**name))
            .map(|name| format!("there is no {name}")),
    );
    assert!(faults.is_empty(), "{}", Vec::from_iter(faults).join("\n"));
}

/// docs/systemd/gateway.service: what the gateway and the reference take to be there is there.
#[test]
fn the_unit_makes_the_folders_that_are_written_to() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (unit, reference) = (read("docs/systemd/gateway.service"), read("docs/reference/config.md"));
    for (folder, directory) in [("/run/", "RuntimeDirectory"), ("/var/cache/", "CacheDirectory")] {
        assert!(reference.contains(&format!("\"{folder}gateway")), "{folder}");
        assert!(unit.contains(&format!("\n{directory}=gateway\n")), "{directory}");
    }
    assert!(read("gateway/src/cli/mod.rs").contains("\"/run/gateway/admin.sock\""));
}

/// The files of Rust in a folder and the folders in it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rows by number: number, what, KDL, test.
fn rows() -> BTreeMap<u32, Vec<String>> {
    let text = std::fs::read_to_string(root().join("docs/checklist.md")).unwrap();
    let lines = text.lines().filter_map(|line| {
        let cells: Vec<String> = line
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect();
        Some((cells[0].parse().ok()?, cells))
    });
    let mut rows = BTreeMap::new();
    for (row, cells) in lines {
        assert_eq!(cells.len(), 4, "row {row}: {cells:?}");
        assert!(rows.insert(row, cells).is_none(), "two rows {row}");
    }
    assert!(rows.len() > 80, "{} rows", rows.len());
    rows
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// `file::name` is in tests/tests/; a path with a slash is one from the repository's root.
fn source(file: &str) -> PathBuf {
    let file = file.replace("::", "/");
    match file.strip_suffix(".rs") {
        Some(_) => root().join(&file),
        None => root().join("tests/tests").join(format!("{file}.rs")),
    }
}

fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_declared = |line: &str| {
        let name = format!("fn {name}(");
        line.strip_prefix("async ").unwrap_or(line).starts_with(&name)
    };
    lines.iter().enumerate().any(|(n, line)| {
        // Its attributes stand right above it; proptest's functions have theirs in the macro.
        let above: BTreeSet<&str> = lines[..n]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .copied()
            .collect();
        is_declared(line) && above.iter().any(|attribute| attribute.contains("test"))
    })
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
