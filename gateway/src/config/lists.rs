//! `host file="hosts.txt"`: values that stand in a file of their own, a value a line. What was read once stays the same for all that a
//! [`Reading`](super::Reading) makes of it, and goes with a tenant's files where those before stay in force.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::SourceSpan;

use super::diagnostics::{ConfigError, Source};
use super::include::or_here;
use crate::regular_file;

/// What lists of one owner say, by their paths.
pub(super) type Texts = HashMap<PathBuf, Arc<str>>;

/// The lists that a configuration and its tenants' files name.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Whether files are looked into; those of a text that is only tried are taken to be empty.
    reads: bool,
    /// By the number of the tenant whose file names them; under none those that the operator names.
    texts: HashMap<Option<usize>, Texts>,
    /// Those that have been named, as they stand behind the files of the source.
    placed: Vec<List>,
    /// Where the first of them stands.
    begin: usize,
    /// By the number of the tenant, how many bytes are read of the lists that its files name: of one as often as it is named.
    named: HashMap<usize, usize>,
}

/// A list, and where its first byte stands behind the files of the source.
#[derive(Debug, Clone)]
pub(super) struct List {
    path: PathBuf,
    /// The tenant whose file names it, with the folder that it is in; none for what the operator names.
    owner: Option<(usize, Arc<Path>)>,
    pub(super) text: Arc<str>,
    pub(super) base: usize,
}

impl Lists {
    /// Of a configuration whose lists are looked into.
    pub(super) fn of_files() -> Self {
        Self {
            reads: true,
            ..Self::default()
        }
    }

    /// From now on lists stand behind this one's files, and those that were named before are named no more.
    pub(super) fn begin(&mut self, source: &Source) {
        self.placed.clear();
        self.named.clear();
        self.begin = source.next_base();
    }

    /// Adds those that were named to the files of the source.
    pub(super) fn settle(&self, source: &mut Source) {
        for list in &self.placed {
            source.add(&list.path.display().to_string(), &list.text, list.owner.clone());
        }
    }

    /// The list at a path, which was checked. Fails with the reason, to go behind the path.
    pub(super) fn list(&mut self, path: &Path, owner: Option<(usize, Arc<Path>)>) -> Result<List, String> {
        let tenant = owner.as_ref().map(|(tenant, _)| *tenant);
        let known = |list: &&List| list.path == path && list.owner.as_ref().map(|(tenant, _)| *tenant) == tenant;
        if let Some(known) = self.placed.iter().find(known).cloned() {
            self.count(tenant, &known)?;
            return Ok(known);
        }
        let text = self.text(path, tenant, owner.as_ref().map(|(_, folder)| &**folder))?;
        let end = |list: &List| list.base + list.text.len() + 1;
        let list = List {
            path: path.to_owned(),
            owner,
            text,
            base: self.placed.last().map_or(self.begin, end),
        };
        self.placed.push(list.clone());
        self.count(tenant, &list)?;
        Ok(list)
    }

    /// A tenant's file names this list, once more perhaps. Fails as [`list`](Self::list) does.
    fn count(&mut self, tenant: Option<usize>, list: &List) -> Result<(), String> {
        let Some(tenant) = tenant else { return Ok(()) };
        let named = self.named.entry(tenant).or_default();
        *named = named.saturating_add(list.text.len().max(LEAST_COUNTED));
        match *named > MAX_OF_TENANT {
            true => Err(too_much("a tenant's files have", MAX_OF_TENANT)),
            false => Ok(()),
        }
    }

    /// The tenant, by its number, in whose lists, or else files, a fault is, or has to do with something.
    pub(super) fn tenant(&self, source: &Source, error: &ConfigError) -> Option<usize> {
        let mut places = error.places().iter().map(|label| label.span);
        places.find_map(|span| match self.at(span) {
            Some(list) => list.owner.as_ref().map(|(tenant, _)| *tenant),
            None => source.tenant_at(span),
        })
    }

    /// What the lists of a tenant's files say.
    pub(super) fn of_tenant(&self, tenant: usize) -> Texts {
        self.texts.get(&Some(tenant)).cloned().unwrap_or_default()
    }

    /// From now on those of this tenant's files say this.
    pub(super) fn replace(&mut self, tenant: usize, texts: Texts) {
        self.texts.insert(Some(tenant), texts);
    }

    fn at(&self, span: SourceSpan) -> Option<&List> {
        let behind = self.placed.partition_point(|list| list.base <= span.offset());
        self.placed.get(behind.checked_sub(1)?)
    }

    fn text(&mut self, path: &Path, tenant: Option<usize>, folder: Option<&Path>) -> Result<Arc<str>, String> {
        if !self.reads {
            return Ok(Arc::from(""));
        }
        let texts = self.texts.entry(tenant).or_default();
        if let Some(text) = texts.get(path) {
            return Ok(Arc::clone(text));
        }
        let held: usize = texts.values().map(|text| text.len()).sum();
        let most = match folder {
            Some(_) => MAX_OF_TENANT,
            None => MAX_OF_ALL,
        };
        if held >= most || texts.len() >= MAX_LISTS {
            return Err(match folder {
                Some(_) => too_much("a tenant's files have", most),
                None => too_much("a configuration has", most),
            });
        }
        let room = MAX_BYTES.min(most - held);
        let read = match folder {
            Some(folder) => {
                let below = path.strip_prefix(folder).unwrap_or(path);
                regular_file::read_beneath(or_here(folder), below, room)
            }
            None => regular_file::read(path, room),
        };
        let text = String::from_utf8(read.map_err(|error| error.to_string())?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            format!("it is not UTF-8: byte {at}, in line {line}, begins no character")
        })?;
        // What some editors begin a file with is no part of its first value.
        let text = Arc::from(text.strip_prefix('\u{feff}').unwrap_or(&text));
        texts.insert(path.to_owned(), Arc::clone(&text));
        Ok(text)
    }
}

fn too_much(who: &str, most: usize) -> String {
    format!("{who} at most {MAX_LISTS} lists, of {} MiB together", most >> 20)
}

/// Bytes of one list: some hundred thousand names.
const MAX_BYTES: usize = 4 << 20;
/// Bytes of all lists that the operator names.
const MAX_OF_ALL: usize = 64 << 20;
/// Bytes of all that one tenant's files name: they are kept for as long as the files are, and read as often as they are named.
const MAX_OF_TENANT: usize = 4 << 20;
/// Bytes that a list counts as at least each time: it takes time to find.
const LEAST_COUNTED: usize = 1 << 10;
/// Lists of one owner.
const MAX_LISTS: usize = 1_000;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::super::{AclTest, Config, InForce, LastGood, Match, Reading, Text, load};
    use super::{Arc, Lists, Source};
    use std::fs;

    const CONFIG: &str = r#"
frontend "web" { bind "127.0.0.1:80"; tenants "acme"; @acls
deny if="a"; default-backend "app" }
tenant "acme" { hosts "acme.example"; quota patterns=5; include "tenants/acme/*.kdl" }
backend "app" { server "s" "127.0.0.1:81" }
"#;

    /// What a configuration with these acls and files means, or what is wrong with it.
    fn tried(acls: &str, files: &[(&str, &[u8])]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("tenants/acme")).unwrap();
        fs::write(folder.path().join("config.kdl"), CONFIG.replace("@acls", acls)).unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        match load(&folder.path().join("config.kdl")) {
            Ok(loaded) => Ok(loaded.config),
            Err(errors) => {
                let drawn: String = errors
                    .iter()
                    .filter_map(|error| {
                        miette::Diagnostic::help(&errors.located(error)).map(|help| format!("\n{help}"))
                    })
                    .collect();
                let text = format!("{errors:?}{drawn}");
                Err(text.replace(&format!("{}/", folder.path().display()), ""))
            }
        }
    }

    fn matches(config: &Config) -> &Match {
        match &config.frontends[0].acls[0].test {
            AclTest::Match(test) => test,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_is_held_once_however_often_a_configuration_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, "a.example\n").unwrap();
        let mut lists = Lists::of_files();
        let mut tried = Vec::new();
        for _ in 0..3 {
            let mut source = Source::new("config.kdl", "");
            lists.begin(&source);
            let text = lists.list(&path, None).unwrap().text;
            lists.settle(&mut source);
            tried.push((source, text));
        }
        // By each source and by this test three times; by what was read; and by what has been named last.
        assert_eq!(Arc::strong_count(&tried[0].1), 3 + 3 + 1 + 1);
    }

    #[test]
    fn values_stand_in_files() {
        let lines = "\u{feff}B.example\r\n# ours\r\n\n  b.example \r\n*.a.example\nb.example\n".as_bytes();
        let config = tried(
            r#"acl "a" { host "c.example" file="hosts.txt" }"#,
            &[("hosts.txt", lines)],
        )
        .unwrap();
        let names = ["c.example", "*.a.example", "b.example"].map(str::to_owned).to_vec();
        assert_eq!(*matches(&config), Match::Host(names));
        let all = r#"acl "a" {
            path file="v"; path-prefix file="v"; path-suffix file="v"; path-contains file="v"; path-regex file="v"
            host-regex file="v"; source file="nets"; destination file="nets"; port file="ports"; source-port file="ports"
            header "x-a" file="v"; cookie "a" file="v" match="exact"; query "a" file="v" match="suffix"; upgrade file="names"
            method file="methods"
        }"#;
        let files: [(&str, &[u8]); 5] = [
            ("v", b"/a\n/b"),
            ("nets", b"10.0.0.0/8\n2001:db8::1\n"),
            ("ports", b"80\n8000-8100\n"),
            ("names", b"websocket"),
            ("methods", b"GET\n"),
        ];
        let config = tried(all, &files).unwrap();
        let Match::All(parts) = matches(&config) else { panic!() };
        assert_eq!(parts.len(), 15);
        assert!(parts.contains(&Match::Path(Text::Prefix(vec!["/a".to_owned(), "/b".to_owned()]))));
        assert!(parts.contains(&Match::Source(vec![
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::1/128".parse().unwrap()
        ])));
        assert!(parts.contains(&Match::SourcePort(vec![(80, 80), (8000, 8100)])));
        let named = |text: fn(Vec<String>) -> Text| Some(text(vec!["/a".to_owned(), "/b".to_owned()]));
        for part in parts {
            match part {
                Match::Header(of) | Match::Cookie(of) => assert_eq!(of.value, named(Text::Exact)),
                Match::Query(of) => assert_eq!(of.value, named(Text::Suffix)),
                _ => {}
            }
        }
        // Whoever writes the list may have nothing to say today: then nothing is in it.
        let empty = tried(r#"acl "a" { host file="hosts.txt" }"#, &[("hosts.txt", b"# none\n")]).unwrap();
        assert_eq!(*matches(&empty), Match::Host(Vec::new()));
    }

    #[test]
    fn faults_of_a_list_are_shown_in_it() {
        let host = r#"acl "a" { host file="list" }"#;
        let regex = r#"acl "a" { header "x-a" file="list" match="regex" }"#;
        let cases: &[(&str, &[u8], &[&str])] = &[
            (
                host,
                b"a.example\n\n b..example:80\n",
                &["list:3:2: a host is compared without its port", "config.kdl, line 2"],
            ),
            (
                host,
                b"a.example\n\xff\n",
                &["config.kdl", "cannot read list: it is not UTF-8: byte 10, in line 2"],
            ),
            (
                host,
                &[b'\n'; (4 << 20) + 1],
                &["cannot read list: it is larger than 4194304 bytes"],
            ),
            (r#"acl "a" { host file="none" }"#, b"", &["cannot read none: "]),
            (r#"acl "a" { host file="." }"#, b"", &["not a regular file"]),
            (
                r#"acl "a" { host file="list"; path file=1 }"#,
                b"",
                &["`file` has to be a text"],
            ),
            (
                r#"acl "a" { source file="list" }"#,
                b"10.0.0.1/8\n",
                &["list:1:1: 10.0.0.1 has bits set behind its first 8"],
            ),
            (
                r#"acl "a" { path file="list" }"#,
                b"/a\nb\n",
                &["list:2:1: a path begins with `/`"],
            ),
            (regex, b"^a\n(\n", &["list:2:1: this is not a regular expression"]),
            (
                r#"acl "a" { header "x-a" "b" file="list" }"#,
                b"b",
                &["`header` tests its value in two ways"],
            ),
            (
                r#"acl "a" { header "x-a" match="prefix" }"#,
                b"",
                &["`match=` does nothing here"],
            ),
            (
                r#"acl "a" { header "x-a" file="list" match="domain" }"#,
                b"",
                &["`match` has to be"],
            ),
            (
                r#"acl "a" { tls-version "1.3" file="list" }"#,
                b"1.4",
                &["list:1:1: a version has to be"],
            ),
        ];
        for (acls, list, says) in cases {
            let said = tried(acls, &[("list", list)]).unwrap_err();
            for words in *says {
                assert!(said.contains(words), "{acls}: {words}: {said}");
            }
        }
        let many: String = (0..=100_000).map(|n| format!("/{n}\n")).collect();
        let said = tried(r#"acl "a" { path file="list" }"#, &[("list", many.as_bytes())]).unwrap_err();
        assert!(
            said.contains("list:100001:1: a list has at most 100000 values"),
            "{said}"
        );
    }

    #[test]
    fn a_tenants_lists_stay_in_its_folder_and_count_as_what_it_compares_with() {
        let tenant: &[u8] = b"acl \"a\" { host file=\"list\" }\ndeny if=\"a\"";
        let tried = |tenant: &[u8], list: &[u8]| {
            let files: [(&str, &[u8]); 3] = [
                ("tenants/acme/a.kdl", tenant),
                ("tenants/acme/list", list),
                ("list", b"b.example"),
            ];
            tried(r#"acl "a" { path "/" }"#, &files)
        };
        let config = tried(tenant, b"a.example\n").unwrap();
        assert!(
            matches!(&config.tenants[0].rules.acls[0].test, AclTest::Match(Match::Host(names)) if names[0] == "a.example")
        );
        // Four hosts and the name in the condition are five, and five are one too many.
        assert!(tried(tenant, b"a\nb\nc\nd\n").is_ok());
        let said = tried(tenant, b"a\nb\nc\nd\ne\n").unwrap_err();
        assert!(
            said.contains("this tenant decides by more than its `quota patterns=5`"),
            "{said}"
        );
        // What is named again and again is not read beyond what may be compared with, or named.
        let often = |times: usize| {
            format!(
                "acl \"a\" {{ {} }}\ndeny if=\"a\"",
                "path file=\"list\"; ".repeat(times)
            )
        };
        let said = tried(often(26).as_bytes(), b"/a\n/b\n").unwrap_err();
        assert!(
            said.contains("list:1:1: this tenant has at most 50 lines in lists"),
            "{said}"
        );
        let comment = format!("# {}\n", "x".repeat(1 << 20));
        let said = tried(often(3).as_bytes(), comment.as_bytes());
        assert!(said.is_ok(), "{said:?}");
        let said = tried(often(4).as_bytes(), comment.as_bytes()).unwrap_err();
        assert!(
            said.contains("a tenant's files have at most 1000 lists, of 4 MiB together"),
            "{said}"
        );
        let regex: &[u8] = b"acl \"a\" { host-regex file=\"list\" }\ndeny if=\"a\"";
        let said = tried(regex, b"a\n").unwrap_err();
        assert!(
            said.contains("list:1:1: this tenant has at most 0 regular expressions"),
            "{said}"
        );
        for out in ["../../list", "/etc/hostname"] {
            let text = format!("acl \"a\" {{ host file={out:?} }}\ndeny if=\"a\"");
            let said = tried(text.as_bytes(), b"").unwrap_err();
            assert!(said.contains("a tenant's file names files in its own folder"), "{said}");
        }
    }

    #[test]
    fn a_tenant_that_goes_on_as_before_goes_on_with_the_list_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
        fs::create_dir_all(folder.path().join("tenants/acme")).unwrap();
        write(
            "config.kdl",
            CONFIG.replace("@acls", r#"acl "a" { path "/" }"#).as_bytes(),
        );
        write("tenants/acme/a.kdl", b"acl \"a\" { host file=\"list\" }\ndeny if=\"a\"");
        let read = |before: &LastGood| {
            let mut reading = Reading::of_file(&folder.path().join("config.kdl"), before).unwrap();
            let config = reading.lower().unwrap().config;
            let names = match config.tenants[0].rules.acls.first().map(|acl| &acl.test) {
                Some(AclTest::Match(Match::Host(names))) => names.clone(),
                other => panic!("{other:?}"),
            };
            (names, config.tenants[0].in_force, reading.last_good())
        };
        write("tenants/acme/list", b"one.example");
        let (names, _, before) = read(&LastGood::default());
        assert_eq!(names, ["one.example"]);
        write("tenants/acme/list", b"two.example\n-,-\n");
        let (names, in_force, before) = read(&before);
        assert_eq!((names, in_force), (vec!["one.example".to_owned()], InForce::Before));
        write("tenants/acme/list", b"two.example");
        let (names, in_force, _) = read(&before);
        assert_eq!((names, in_force), (vec!["two.example".to_owned()], InForce::Current));
    }
}
