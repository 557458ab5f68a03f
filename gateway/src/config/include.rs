//! `include "tenants/acme/*.kdl"` in a `tenant`: files that somebody else may write. They are read before anything is made of
//! them, and what is wrong with them is said with the rest.
//!
//! Files stand in a folder of their tenant's, and neither they nor what they name leads out of it. What may stand in them is
//! `lower::tenant`'s to say. They include nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdl::{KdlDocument, KdlEntry, KdlNode};
use miette::SourceSpan;

use super::diagnostics::{Code, ConfigError, Source, shifted};
use super::{MAX_BYTES, syntax};
use crate::regular_file;

/// What one `include` has brought.
pub(super) struct Inclusion {
    /// Where the `include` stands.
    pub(super) at: SourceSpan,
    /// Its files, in the order of their names.
    pub(super) documents: Vec<KdlDocument>,
    /// Whether all of them could be read.
    pub(super) is_whole: bool,
}

/// The files that are read.
struct Reader<'a> {
    source: &'a mut Source,
    base_dir: &'a Path,
    errors: Vec<ConfigError>,
    /// The folders of tenants, the numbers of these, and where they were named.
    folders: Vec<(PathBuf, usize, SourceSpan)>,
    /// Files of the tenant that is read.
    known: BTreeSet<PathBuf>,
}

/// Reads what the tenants of a configuration include, and adds it to its source.
pub(super) fn read(source: &mut Source, document: &KdlDocument, base_dir: &Path) -> (Vec<Inclusion>, Vec<ConfigError>) {
    let mut inclusions = Vec::new();
    let mut reader = Reader {
        source,
        base_dir,
        errors: Vec::new(),
        folders: Vec::new(),
        known: BTreeSet::new(),
    };
    let tenants = document.nodes().iter().filter(|node| node.name().value() == "tenant");
    for (tenant, node) in tenants.enumerate() {
        reader.known.clear();
        let children = node.children().into_iter().flat_map(KdlDocument::nodes);
        for node in children.filter(|node| node.name().value() == "include") {
            inclusions.push(reader.inclusion(tenant, node));
        }
    }
    (inclusions, reader.errors)
}

impl Reader<'_> {
    fn inclusion(&mut self, tenant: usize, node: &KdlNode) -> Inclusion {
        let mut inclusion = Inclusion {
            at: node.name().span(),
            documents: Vec::new(),
            is_whole: true,
        };
        for entry in node.entries().iter().filter(|entry| entry.name().is_none()) {
            // What is no text is reported where the node is read.
            let Some(pattern) = entry.value().as_string() else {
                inclusion.is_whole = false;
                continue;
            };
            match self.files(tenant, pattern, entry) {
                Ok(files) => {
                    for (folder, name) in files {
                        match self.document(&folder, &name, entry.span()) {
                            Some(document) => inclusion.documents.push(document),
                            None => inclusion.is_whole = false,
                        }
                    }
                }
                Err(error) => {
                    self.errors.push(error);
                    inclusion.is_whole = false;
                }
            }
        }
        inclusion
    }

    /// The files that a pattern means, by their folder and name.
    fn files(
        &mut self,
        tenant: usize,
        pattern: &str,
        entry: &KdlEntry,
    ) -> Result<Vec<(Arc<Path>, OsString)>, ConfigError> {
        let span = entry.span();
        let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let has_star = folder.contains('*');
        let folder = match folder {
            "" if pattern.starts_with('/') => Path::new("/").to_owned(),
            folder => self.base_dir.join(folder),
        };
        if name.is_empty() || has_star {
            let error = ConfigError::new(Code::Value, "an `include` names files of one folder");
            let error = error.label(span, "`*` stands for a part of a file's name, and nothing else");
            return Err(error.help("write include \"tenants/acme/*.kdl\""));
        }
        let shown = or_here(&folder);
        let real = shown.canonicalize().map_err(|error| {
            let error = ConfigError::new(Code::Io, format!("cannot read {}: {error}", shown.display()));
            let error = error.label(span, "in this folder");
            error.help(
                "make the folder, or name another one: relative paths start at the folder of the configuration file",
            )
        })?;
        self.own_folder(tenant, &real, span)?;
        let names = if name.contains('*') {
            matching(&real, name).map_err(|error| {
                let error = ConfigError::new(Code::Io, format!("cannot read {}: {error}", shown.display()));
                error.label(span, "in this folder").help("see that it may be read")
            })?
        } else {
            [OsString::from(name)].into()
        };
        if self.known.len() + names.len() > MAX_FILES {
            let message = format!("a tenant has at most {MAX_FILES} files");
            let error = ConfigError::new(Code::Value, message).label(span, "these are more");
            return Err(error.help("join some of them"));
        }
        if let Some(again) = names.iter().find(|name| !self.known.insert(real.join(name))) {
            let message = format!("{} is included twice", folder.join(again).display());
            let error = ConfigError::new(Code::Duplicate, message).label(span, "again here");
            return Err(error.help("leave one out"));
        }
        // What is named on the way to the folder is the operator's; from there on it is not.
        let folder: Arc<Path> = folder.into();
        Ok(names.into_iter().map(|name| (Arc::clone(&folder), name)).collect())
    }

    /// Nobody's files stand beside the configuration, or in the folder of another tenant.
    fn own_folder(&mut self, tenant: usize, real: &Path, span: SourceSpan) -> Result<(), ConfigError> {
        let base = or_here(self.base_dir);
        if base.canonicalize().is_ok_and(|base| base.starts_with(real)) {
            let error = ConfigError::new(Code::Conflict, "a tenant's files stand in a folder of their own");
            let error = error.label(span, "the configuration stands there, too");
            return Err(error.help("put them in a folder below: include \"tenants/acme/*.kdl\""));
        }
        let overlaps = |folder: &Path| folder.starts_with(real) || real.starts_with(folder);
        let mut others = self.folders.iter();
        if let Some((_, _, first)) = others.find(|(folder, of, _)| *of != tenant && overlaps(folder)) {
            let error = ConfigError::new(Code::Conflict, "two tenants have the same folder");
            let error = error.label(span, "another tenant's files stand there");
            let error = error.label(*first, "as it is said here");
            return Err(error.help("give each tenant a folder of its own: each may read what stands in its own"));
        }
        self.folders.push((real.to_owned(), tenant, span));
        Ok(())
    }

    /// One file. None where something is wrong with it, which has been reported.
    fn document(&mut self, folder: &Arc<Path>, name: &OsStr, span: SourceSpan) -> Option<KdlDocument> {
        let path = folder.join(name);
        let fail = |message: String, help: &str| {
            let error = ConfigError::new(Code::Io, format!("cannot read {}: {message}", path.display()));
            error.label(span, "included here").help(help)
        };
        let read = regular_file::read_beneath(or_here(folder), Path::new(name), MAX_FILE_BYTES);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                self.errors
                    .push(fail(error.to_string(), "see that it is there, and may be read"));
                return None;
            }
        };
        let Ok(text) = String::from_utf8(bytes) else {
            self.errors.push(fail("it is not UTF-8".to_owned(), "save it as UTF-8"));
            return None;
        };
        let base = self.source.next_base();
        if base + text.len() > MAX_BYTES {
            let message = format!("a configuration has at most {} MiB with all its files", MAX_BYTES >> 20);
            self.errors.push(fail(message, "include fewer"));
            return None;
        }
        self.source.add(&path.display().to_string(), &text, folder);
        match syntax::document(&text) {
            Ok(mut document) => {
                shift(&mut document, base);
                Some(document)
            }
            Err(errors) => {
                self.errors.extend(errors.into_iter().map(|error| error.shifted(base)));
                None
            }
        }
    }
}

/// The folder that a path means which may be empty.
fn or_here(folder: &Path) -> &Path {
    match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    }
}

/// The files of a folder whose names a pattern means, in their order; those that begin with a dot it does not.
fn matching(folder: &Path, pattern: &str) -> std::io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for (position, entry) in folder.read_dir()?.enumerate() {
        if position >= MAX_ENTRIES {
            return Err(std::io::Error::other(format!(
                "more than {MAX_ENTRIES} files are in it"
            )));
        }
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") || !means(pattern.as_bytes(), bytes) {
            continue;
        }
        // It will stand in messages and log lines.
        if name.to_str().is_none_or(|name| name.chars().any(char::is_control)) {
            return Err(std::io::Error::other(format!("the name {name:?} cannot be printed")));
        }
        names.insert(name);
    }
    Ok(names)
}

/// Whether a name is what a pattern says, in which `*` stands for anything. Takes no longer than their lengths multiplied.
fn means(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how far the name was taken for it.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Moves all places so many bytes further on. Blocks nest as deep as `syntax` lets them.
fn shift(document: &mut KdlDocument, by: usize) {
    document.set_span(shifted(document.span(), by));
    for node in document.nodes_mut() {
        node.set_span(shifted(node.span(), by));
        let name = node.name_mut();
        name.set_span(shifted(name.span(), by));
        for entry in node.entries_mut() {
            entry.set_span(shifted(entry.span(), by));
            if let Some(name) = entry.name_mut() {
                name.set_span(shifted(name.span(), by));
            }
        }
        if let Some(children) = node.children_mut() {
            shift(children, by);
        }
    }
}

/// Files of one tenant: what a person can still look through.
const MAX_FILES: usize = 64;
/// Bytes of one file. A block of a plugin has some hundred; lists are what `config-file` is for.
const MAX_FILE_BYTES: usize = 256 << 10;
/// What is looked at in a folder in search of files.
const MAX_ENTRIES: usize = 10_000;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Loaded, load};
    use super::*;
    use std::fs;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("*.kdl", "a.kdl"),
            ("*", "a"),
            ("a*b*c", "abbc"),
            ("a*", "a"),
            ("**a", "ba"),
        ] {
            assert!(means(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.kdl", "a.kdl~"),
            ("a*b", "ac"),
            ("", "a"),
            ("a", "ab"),
            ("*ab", "aab c"),
        ] {
            assert!(!means(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    const MAIN: &str = r#"
        tenant "acme" {
            hosts "acme.example"
            limit cpu="5ms"
            quota kv="8MiB"
            grant "log" "kv"
            backends "acme"
            include "tenants/acme/*.kdl"
        }
        tenant "rival" { hosts "rival.example"; include "tenants/rival/auth.kdl" }
        frontend "web" { bind "127.0.0.1:80"; tenants "acme" "rival"; acl "mine" { path-prefix "/acme/" }; use-backend "acme" if="mine"; default-backend "app" }
        backend "app" { server "s" "127.0.0.1:81" }
        backend "acme" { server "s" "127.0.0.1:82" }
    "#;
    const AUTH: &str = r#"plugin "auth" "auth.wasm" { on-failure "deny" }
use-plugin "auth"
"#;

    /// A configuration with its files, and what is wrong with it.
    fn tried(files: &[(&str, &str)]) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().unwrap();
        let all = [
            ("config.kdl", MAIN),
            ("tenants/rival/auth.kdl", AUTH),
            ("tenants/acme/.a.kdl", "{"),
        ];
        for (name, text) in all.iter().chain(files) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("../rival/auth.kdl", folder.path().join("tenants/acme/z")).unwrap();
        load(&folder.path().join("config.kdl")).map_err(|errors| {
            let text = format!("{errors:?}");
            text.replace(&format!("{}/", folder.path().display()), "")
        })
    }

    #[test]
    fn two_tenants_may_have_plugins_of_one_name_in_files_of_their_own() {
        let loaded = tried(&[("tenants/acme/auth.kdl", AUTH)]).unwrap();
        let plugins = &loaded.config.plugins;
        let names: Vec<_> = plugins.iter().map(|plugin| &*plugin.name).collect();
        assert_eq!(names, ["acme/auth", "rival/auth"]);
        for (plugin, folder) in plugins.iter().zip(["acme", "rival"]) {
            let origin = &plugin.origin;
            assert!(
                origin.file.ends_with(&format!("tenants/{folder}/auth.kdl")),
                "{origin:?}"
            );
            assert_eq!(origin.line, 1);
            assert!(plugin.folder.as_ref().unwrap().ends_with(format!("tenants/{folder}")));
        }
        assert_eq!(loaded.config.frontends[0].plugins.len(), 2);
    }

    #[test]
    fn a_tenants_files_put_off_no_limit_and_take_nothing_from_the_operators_plugins() {
        let main = MAIN.replace(
            "include \"tenants/acme/*.kdl\"",
            "plugin \"guard\" \"guard.wasm\" { on-failure \"deny\" }; use-plugin \"guard\"; include \"tenants/acme/*.kdl\"",
        );
        let said = tried(&[
            ("config.kdl", main.as_str()),
            (
                "tenants/acme/a.kdl",
                r#"plugin "a" "a.wasm" {
    heavy queue=65 wait="2s"
    quarantine failures=21
    call "acme" timeout="2s" in-flight=65 max-body="65KiB"
    on-failure "skip"
}
use-plugin "a" canary="99%" instead-of="guard"
plugin "b/c" "b.wasm" { on-failure "skip" }
plugin "d" "d\n.wasm" { on-failure "skip" }
"#,
            ),
        ])
        .unwrap_err();
        for words in [
            "a.kdl:2:17: `queue` has to be from 1 to 64",
            "a.kdl:2:25: `wait` has to be from 1ms to 1s",
            "a.kdl:3:25: `failures` has to be from 1 to 20",
            "a.kdl:4:25: `timeout` has to be from 1ms to 1s",
            "a.kdl:4:40: `in-flight` has to be from 1 to 64",
            "a.kdl:4:52: `max-body` has to be from 1KiB to 64KiB",
            "a.kdl:7:40: a tenant's file takes no requests from its operator's plugins",
            "a.kdl:8:8: the plugin's name has a slash in it",
            "a.kdl:9:12: this path has a control character in it",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn a_file_whose_name_cannot_be_printed_is_not_passed_over() {
        let said = tried(&[("tenants/acme/a\nERROR.kdl", AUTH)]).unwrap_err();
        assert!(said.contains(r#"the name "a\nERROR.kdl" cannot be printed"#), "{said}");
    }

    #[test]
    fn a_tenants_files_say_what_a_tenant_may_say_and_all_faults_are_said_at_once() {
        let said = tried(&[
            (
                "tenants/acme/a.kdl",
                r#"
plugin "a" "../../etc/a.wasm" {
    grant "log" "random"
    limit cpu="6ms" memory="32MiB" kv="9MiB" log="20/s"
    call "app"
    route-to "acme" "app"
    config-file "list" "/etc/shadow"
    on-failure "deny"
}
use-plugin "a"
use-plugin "rival/auth"
hosts "rival.example"
quota plugin-cpu="9 cores"
frontend "mine" { bind "127.0.0.1:99" }
include "more.kdl"
"#,
            ),
            ("tenants/acme/b.kdl", "plugin \"b\" {\n"),
        ])
        .unwrap_err();
        for words in [
            "tenants/acme/a.kdl:2:12: a tenant's file names files in its own folder and below",
            "tenants/acme/a.kdl:3:17: tenant \"acme\" may not grant `random`",
            "tenants/acme/a.kdl:4:15: a plugin of tenant \"acme\" has at most 5ms",
            "tenants/acme/a.kdl:4:28: a plugin of tenant \"acme\" has at most 16MiB",
            "tenants/acme/a.kdl:4:39: a plugin of tenant \"acme\" has at most 8MiB",
            "tenants/acme/a.kdl:4:50: a plugin of tenant \"acme\" has at most 10/s",
            "tenants/acme/a.kdl:5:10: tenant \"acme\" has no backend \"app\"",
            "tenants/acme/a.kdl:6:21: tenant \"acme\" has no backend \"app\"",
            "tenants/acme/a.kdl:7:24: a tenant's file names files in its own folder and below",
            "tenants/acme/a.kdl:12:1: a tenant's file has no `hosts`",
            "tenants/acme/a.kdl:13:1: a tenant's file has no `quota`",
            "tenants/acme/a.kdl:14:1: a tenant's file has no `frontend`",
            "tenants/acme/a.kdl:15:1: a tenant's file has no `include`",
            "tenants/acme/b.kdl:1:12: this block is never closed",
        ] {
            assert!(said.contains(words), "{words}:\n{said}");
        }
        let said = tried(&[("tenants/acme/a.kdl", "use-plugin \"rival/auth\"")]).unwrap_err();
        assert!(said.contains("there is no plugin \"acme/rival/auth\""), "{said}");
    }

    #[test]
    fn what_leads_out_of_its_folder_is_not_included() {
        let with = |include: &str| MAIN.replace("tenants/acme/*.kdl", include);
        for (include, words) in [
            ("tenants/acme/z", "it leads out of the folder of its tenant"),
            ("acme.kdl", "a tenant's files stand in a folder of their own"),
            ("../*.kdl", "a tenant's files stand in a folder of their own"),
            ("tenants/rival/*.kdl", "two tenants have the same folder"),
            ("tenants/*.kdl", "two tenants have the same folder"),
            ("tenants/*/a.kdl", "an `include` names files of one folder"),
            ("tenants/nobody/*.kdl", "cannot read"),
            ("tenants/acme/none.kdl", "cannot read"),
        ] {
            let said = tried(&[("config.kdl", &with(include)), ("tenants/acme/a.kdl", AUTH)]).unwrap_err();
            assert!(said.contains(words), "{include}: {words}:\n{said}");
        }
    }

    #[test]
    fn files_are_bounded_in_number_and_length() {
        let long = format!("// {}", "x".repeat(MAX_FILE_BYTES));
        let said = tried(&[("tenants/acme/a.kdl", &long)]).unwrap_err();
        assert!(said.contains("it is larger than 262144 bytes"), "{said}");
        let names: Vec<_> = (0..=MAX_FILES).map(|n| format!("tenants/acme/{n}.kdl")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        let said = tried(&files).unwrap_err();
        assert!(said.contains("a tenant has at most 64 files"), "{said}");
        assert!(tried(&files[..MAX_FILES]).is_ok());
    }
}
