//! The contract stays what was published, and its reference says what it says.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// An interface or a world.
struct Block {
    /// `interface` or `world`.
    kind: String,
    name: String,
    docs: Vec<String>,
    items: Vec<Item>,
}

/// What stands in one.
struct Item {
    docs: Vec<String>,
    /// As it is written, with the comments of its parts.
    text: Vec<String>,
}

impl Item {
    /// What `record NAME {`, `NAME: func(…)` or `import NAME;` is called.
    fn name(&self) -> &str {
        let first = self.text[0].trim();
        let word = first.split([' ', ':', '{', ';']).next().unwrap();
        match word {
            "record" | "variant" | "enum" | "flags" | "resource" | "type" | "import" | "export" | "use" => {
                first[word.len()..].trim_start().split([' ', '{', ';']).next().unwrap()
            }
            name => name,
        }
    }

    /// What it means to a component: without comments and white space.
    fn meaning(&self) -> String {
        let lines = self.text.iter().map(|line| line.trim());
        lines.filter(|line| !line.starts_with("//")).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of a contract, and what stands before the first.
fn parse(wit: &str) -> (Vec<String>, Vec<Block>) {
    let (mut package, mut blocks, mut docs) = (Vec::new(), Vec::<Block>::new(), Vec::new());
    let mut open: Option<Item> = None;
    let mut is_inside = false;
    for line in wit.lines() {
        let text = line.trim();
        if let Some(item) = &mut open {
            item.text.push(line.strip_prefix("    ").unwrap_or(line).to_owned());
            if text == "}" && line.starts_with("    }") {
                let block = blocks.last_mut().unwrap();
                block.items.extend(open.take());
            }
        } else if let Some(doc) = text.strip_prefix("///") {
            docs.push(doc.strip_prefix(' ').unwrap_or(doc).to_owned());
        } else if text.starts_with("package ") {
            package = std::mem::take(&mut docs);
        } else if let Some(head) = text.strip_suffix('{').filter(|_| !is_inside) {
            let (kind, name) = head.trim().split_once(' ').unwrap();
            is_inside = true;
            blocks.push(Block {
                kind: kind.to_owned(),
                name: name.trim().to_owned(),
                docs: std::mem::take(&mut docs),
                items: Vec::new(),
            });
        } else if text == "}" {
            is_inside = false;
        } else if is_inside && !text.is_empty() && !text.starts_with("//") {
            let item = Item {
                docs: std::mem::take(&mut docs),
                text: vec![text.to_owned()],
            };
            match text.ends_with('{') {
                true => open = Some(item),
                false => blocks.last_mut().unwrap().items.push(item),
            }
        }
    }
    (package, blocks)
}

/// The contract as it is, and as each version was published.
fn contracts() -> (String, Vec<(String, String)>) {
    let live = fs::read_to_string(root().join("wit/policy.wit")).unwrap();
    let mut published = Vec::new();
    for entry in fs::read_dir(root().join("wit")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let version = path.file_name().unwrap().to_str().unwrap().to_owned();
            published.push((version, fs::read_to_string(path.join("policy.wit")).unwrap()));
        }
    }
    assert!(!published.is_empty());
    (live, published)
}

/// What keeps a component that was built against `old` from being served by `new`.
fn breaks(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (parse(old).1, parse(new).1);
    let exported: Vec<&str> = old
        .iter()
        .flat_map(|block| &block.items)
        .filter(|item| item.text[0].trim().starts_with("export "))
        .map(Item::name)
        .collect();
    let mut broken = Vec::new();
    for block in &old {
        let Some(now) = new
            .iter()
            .find(|now| (&now.kind, &now.name) == (&block.kind, &block.name))
        else {
            broken.push(format!("{} {} is gone", block.kind, block.name));
            continue;
        };
        let meanings: BTreeMap<String, String> = now
            .items
            .iter()
            .map(|item| (item.name().to_owned(), item.meaning()))
            .collect();
        for item in &block.items {
            match meanings.get(item.name()) {
                Some(meaning) if *meaning == item.meaning() => {}
                Some(_) => broken.push(format!("{} {}: {} has changed", block.kind, block.name, item.name())),
                None => broken.push(format!("{} {}: {} is gone", block.kind, block.name, item.name())),
            }
        }
        // A component that was built before does not have what a hook would ask for now.
        if exported.contains(&block.name.as_str()) && now.items.len() != block.items.len() {
            broken.push(format!("interface {} asks for more", block.name));
        }
    }
    broken
}

#[test]
fn the_contract_is_a_compatible_extension_of_what_was_published() {
    let (live, published) = contracts();
    for (version, old) in &published {
        assert!(old.contains(&format!("package gateway:policy@{version};")), "{version}");
        assert_eq!(breaks(old, &live), Vec::<String>::new(), "since {version}");
    }
}

/// What has been published, by its SHA-256: comparing the live contract with a file that can be edited along with it would find
/// nothing.
const PUBLISHED: [(&str, &str); 1] = [(
    "0.1.0",
    "088ba5b3bfb03456e351b79a6a90fd6ad299e3a51273851c8352f0729e34d53b",
)];

#[test]
fn what_was_published_is_as_it_was() {
    let (_, contracts) = contracts();
    let digest = |wit: &str| {
        let digest = Sha256::digest(wit);
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let found: BTreeMap<_, _> = contracts
        .iter()
        .map(|(version, wit)| (&**version, digest(wit)))
        .collect();
    let published = PUBLISHED.map(|(version, digest)| (version, digest.to_owned()));
    assert_eq!(
        found,
        BTreeMap::from(published),
        "a new version's digest is added to PUBLISHED, and none is ever changed"
    );
}

#[test]
fn what_would_break_a_component_is_found() {
    let (_, published) = contracts();
    let (_, old) = &published[0];
    for (from, to, words) in [
        ("now-ms: func() -> u64;", "now-ms: func() -> u32;", "now-ms has changed"),
        ("monotonic-ns: func() -> u64;", "", "monotonic-ns is gone"),
        (
            "        remaining: u64,\n        /// Milliseconds until all",
            "        /// Milliseconds until all",
            "verdict has changed",
        ),
        (
            "    on-log: func(facts: facts);",
            "    on-log: func(facts: facts);\n    more: func();",
            "access-log asks for more",
        ),
        (
            "        abort,",
            "        abort,\n        wait,",
            "piece-verdict has changed",
        ),
        ("    import request-edits;\n", "", "request-edits is gone"),
    ] {
        assert!(old.contains(from), "{from}");
        let broken = breaks(old, &old.replace(from, to));
        assert!(broken.iter().any(|line| line.contains(words)), "{from}: {broken:?}");
    }
    // A further function of the host's breaks nobody, and neither do words.
    let more = old.replace(
        "    now-ms: func",
        "    /// Another word.\n    now-us: func() -> u64;\n    now-ms: func",
    );
    assert_eq!(breaks(old, &more), Vec::<String>::new());
}

/// The reference: every interface and world with its words, in the contract's order.
fn reference(wit: &str) -> String {
    let (package, blocks) = parse(wit);
    let mut text = String::from(
        "# The contract\n\n<!-- Made of wit/policy.wit by the test `contract`; GATEWAY_BLESS=1 writes it anew. -->\n\n",
    );
    paragraphs(&package, 2, &mut text);
    for block in &blocks {
        writeln!(text, "## `{} {}`\n", block.kind, block.name).unwrap();
        paragraphs(&block.docs, 3, &mut text);
        if block.kind == "world" {
            let items = block.items.iter().flat_map(|item| &item.text);
            let items: Vec<&str> = items.map(|line| line.trim().trim_end_matches(';')).collect();
            writeln!(text, "```wit\n{}\n```\n", items.join("\n")).unwrap();
            continue;
        }
        for item in block.items.iter().filter(|item| !item.text[0].starts_with("use ")) {
            writeln!(text, "### `{}`\n", item.name()).unwrap();
            paragraphs(&item.docs, 4, &mut text);
            writeln!(text, "```wit\n{}\n```\n", item.text.join("\n")).unwrap();
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// Comments as text, their headings beneath the one that they stand under.
fn paragraphs(docs: &[String], level: usize, text: &mut String) {
    for line in docs {
        match line.strip_prefix("## ") {
            Some(heading) => writeln!(text, "{} {heading}\n", "#".repeat(level)).unwrap(),
            None => writeln!(text, "{line}").unwrap(),
        }
    }
    text.push('\n');
}

#[test]
fn the_reference_is_made_of_the_contracts_comments() {
    let (live, _) = contracts();
    let made = reference(&live);
    let file = root().join("docs/reference/wit.md");
    if std::env::var_os("GATEWAY_BLESS").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == made,
        "docs/reference/wit.md is not made of wit/policy.wit: run with GATEWAY_BLESS=1"
    );
    for said in [
        "## `interface kv`",
        "### `compare-and-set`",
        "## `world policy`",
        "tag:NAME",
    ] {
        assert!(made.contains(said), "{said}");
    }
}
