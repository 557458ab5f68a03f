//! `include "tenants/acme/*.kdl"` in a `tenant`: files that somebody else may write. They are read once, before anything is made of
//! them, and what is wrong with them is said with the rest, or keeps them from being used: `Reading` says which.
//!
//! Files stand in a folder of their tenant's, and neither they nor what they name leads out of it. What may stand in them is
//! `lower::tenant`'s to say. They include nothing.

mod pattern;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kdl::{KdlDocument, KdlEntry, KdlNode};
use miette::SourceSpan;

use super::diagnostics::{Code, ConfigError, Source, shifted};
use super::syntax;
use crate::regular_file;
use pattern::{matching, means};

/// What one `include` has brought.
pub(super) struct Inclusion {
    /// Where the `include` stands.
    pub(super) at: SourceSpan,
    /// Its files, in the order of their names.
    pub(super) documents: Vec<KdlDocument>,
    /// Whether all of them could be read.
    pub(super) is_whole: bool,
}

/// What one tenant includes, as it lies there.
pub(super) struct TenantFiles {
    /// The tenant's name; empty where it has none.
    pub(super) name: String,
    /// `on-error="refuse"`: a fault in them is one of the whole configuration.
    pub(super) refuses: bool,
    /// What keeps some of them from being read.
    pub(super) faults: Vec<ConfigError>,
    includes: Vec<Include>,
}

/// One `include`.
struct Include {
    at: SourceSpan,
    /// The folders and patterns of names that it says.
    patterns: Vec<(PathBuf, String)>,
    files: Vec<TenantFile>,
    is_whole: bool,
}

/// A file of a tenant's, as it was read.
#[derive(Debug, Clone)]
pub(super) struct TenantFile {
    folder: Arc<Path>,
    name: OsString,
    text: Arc<str>,
}

/// Reads what the tenants of a configuration include, in their order. What the operator has said wrong comes with it.
pub(super) fn read(document: &KdlDocument, base_dir: &Path) -> (Vec<TenantFiles>, Vec<ConfigError>) {
    let mut folders = Folders {
        base_dir,
        known: Vec::new(),
        errors: Vec::new(),
    };
    let tenants = document.nodes().iter().filter(|node| node.name().value() == "tenant");
    let read = tenants
        .enumerate()
        .map(|(tenant, node)| {
            let mut reader = Reader {
                tenant,
                folders: &mut folders,
                faults: Vec::new(),
                known: BTreeSet::new(),
                bytes: 0,
            };
            let children = node.children().into_iter().flat_map(KdlDocument::nodes);
            let nodes: Vec<_> = children.filter(|node| node.name().value() == "include").collect();
            let includes = nodes.iter().map(|node| reader.include(node)).collect();
            let says = |node: &&KdlNode| node.get("on-error").and_then(|value| value.as_string()) == Some("refuse");
            TenantFiles {
                name: node
                    .get(0)
                    .and_then(|name| name.as_string())
                    .unwrap_or_default()
                    .to_owned(),
                refuses: nodes.iter().any(says),
                faults: reader.faults,
                includes,
            }
        })
        .collect();
    (read, folders.errors)
}

impl TenantFiles {
    /// Adds the files as they were read to a source. What cannot be parsed is reported.
    pub(super) fn as_they_are(
        &self,
        source: &mut Source,
        tenant: usize,
        errors: &mut Vec<ConfigError>,
    ) -> Vec<Inclusion> {
        let inclusion =
            |include: &Include| inclusion(include.at, &include.files, include.is_whole, source, tenant, errors);
        self.includes.iter().map(inclusion).collect()
    }

    /// Adds the files as they were before: all of them in the place of the first `include`.
    pub(super) fn as_they_were(
        &self,
        before: &[TenantFile],
        source: &mut Source,
        tenant: usize,
        errors: &mut Vec<ConfigError>,
    ) -> Vec<Inclusion> {
        let mut includes = self.includes.iter();
        let first = includes.next();
        let first = first.map(|first| inclusion(first.at, before, true, source, tenant, errors));
        let rest = includes.map(|include| Inclusion::nothing(include.at));
        first.into_iter().chain(rest).collect()
    }

    /// As if no pattern meant a file.
    pub(super) fn as_none(&self) -> Vec<Inclusion> {
        self.includes
            .iter()
            .map(|include| Inclusion::nothing(include.at))
            .collect()
    }

    /// All of them.
    pub(super) fn files(&self) -> impl Iterator<Item = &TenantFile> {
        self.includes.iter().flat_map(|include| &include.files)
    }

    /// Whether the operator still includes a file that was read before.
    pub(super) fn mean(&self, file: &TenantFile) -> bool {
        let mut patterns = self.includes.iter().flat_map(|include| &include.patterns);
        patterns
            .any(|(folder, pattern)| *folder == *file.folder && means(pattern.as_bytes(), file.name.as_encoded_bytes()))
    }
}

impl Inclusion {
    fn nothing(at: SourceSpan) -> Self {
        Self {
            at,
            documents: Vec::new(),
            is_whole: true,
        }
    }
}

fn inclusion(
    at: SourceSpan,
    files: &[TenantFile],
    mut is_whole: bool,
    source: &mut Source,
    tenant: usize,
    errors: &mut Vec<ConfigError>,
) -> Inclusion {
    let mut documents = Vec::with_capacity(files.len());
    for file in files {
        let base = source.next_base();
        let path = file.folder.join(&file.name);
        let owner = Some((tenant, Arc::clone(&file.folder)));
        source.add(&path.display().to_string(), &file.text, owner);
        match syntax::document(&file.text) {
            Ok(mut document) => {
                shift(&mut document, base);
                documents.push(document);
            }
            Err(faults) => {
                errors.extend(faults.into_iter().map(|error| error.shifted(base)));
                is_whole = false;
            }
        }
    }
    Inclusion {
        at,
        documents,
        is_whole,
    }
}

/// The folders of all tenants.
struct Folders<'a> {
    base_dir: &'a Path,
    /// With the numbers of the tenants, and where they were named.
    known: Vec<(PathBuf, usize, SourceSpan)>,
    /// What the operator has said wrong.
    errors: Vec<ConfigError>,
}

/// The files of one tenant that are read.
struct Reader<'a, 'b> {
    tenant: usize,
    folders: &'b mut Folders<'a>,
    faults: Vec<ConfigError>,
    known: BTreeSet<PathBuf>,
    bytes: usize,
}

/// Files by their folder and names.
type Named = (Arc<Path>, BTreeSet<OsString>);

impl Reader<'_, '_> {
    fn include(&mut self, node: &KdlNode) -> Include {
        let mut include = Include {
            at: node.name().span(),
            patterns: Vec::new(),
            files: Vec::new(),
            is_whole: true,
        };
        for entry in node.entries().iter().filter(|entry| entry.name().is_none()) {
            // What is no text is reported where the node is read.
            let Some(said) = entry.value().as_string() else {
                include.is_whole = false;
                continue;
            };
            let Some((folder, pattern)) = self.folders.pattern(said, entry) else {
                include.is_whole = false;
                continue;
            };
            include.patterns.push((folder.clone(), pattern.to_owned()));
            match self.named(folder, pattern, entry.span()) {
                Ok((folder, names)) => {
                    for name in names {
                        match self.file(&folder, name, entry.span()) {
                            Ok(file) => include.files.push(file),
                            Err(fault) => {
                                self.faults.push(fault);
                                include.is_whole = false;
                            }
                        }
                    }
                }
                Err(fault) => {
                    self.faults.extend(fault);
                    include.is_whole = false;
                }
            }
        }
        include
    }

    /// The files that a pattern means. No error where it is the operator's, which has been reported.
    fn named(&mut self, folder: PathBuf, pattern: &str, span: SourceSpan) -> Result<Named, Option<ConfigError>> {
        let shown = or_here(&folder);
        let real = shown.canonicalize().map_err(|error| {
            let error = ConfigError::new(Code::Io, format!("cannot read {}: {error}", shown.display()));
            let error = error.label(span, "in this folder");
            error.help(
                "make the folder, or name another one: relative paths start at the folder of the configuration file",
            )
        })?;
        if self.folders.take(self.tenant, &real, span).is_none() {
            return Err(None);
        }
        let names = if pattern.contains('*') {
            matching(&real, pattern).map_err(|error| {
                let error = ConfigError::new(Code::Io, format!("cannot read {}: {error}", shown.display()));
                error.label(span, "in this folder").help("see that it may be read")
            })?
        } else {
            [OsString::from(pattern)].into()
        };
        if self.known.len() + names.len() > MAX_FILES {
            let message = format!("a tenant has at most {MAX_FILES} files");
            let error = ConfigError::new(Code::Value, message).label(span, "these are more");
            return Err(Some(error.help("join some of them")));
        }
        if let Some(again) = names.iter().find(|name| !self.known.insert(real.join(name))) {
            let message = format!("{} is included twice", folder.join(again).display());
            let error = ConfigError::new(Code::Duplicate, message).label(span, "again here");
            return Err(Some(error.help("leave one out")));
        }
        // What is named on the way to the folder is the operator's; from there on it is not.
        Ok((folder.into(), names))
    }

    fn file(&mut self, folder: &Arc<Path>, name: OsString, span: SourceSpan) -> Result<TenantFile, ConfigError> {
        let path = folder.join(&name);
        let fail = |message: String, help: &str| {
            let error = ConfigError::new(Code::Io, format!("cannot read {}: {message}", path.display()));
            error.label(span, "included here").help(help)
        };
        let bytes = regular_file::read_beneath(or_here(folder), Path::new(&name), MAX_FILE_BYTES)
            .map_err(|error| fail(error.to_string(), "see that it is there, and may be read"))?;
        let text = String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8".to_owned(), "save it as UTF-8"))?;
        self.bytes += text.len();
        if self.bytes > MAX_BYTES_OF_ALL {
            let message = format!("a tenant's files have at most {} KiB together", MAX_BYTES_OF_ALL >> 10);
            return Err(fail(message, "have fewer, or move lists into a `config-file`"));
        }
        Ok(TenantFile {
            folder: Arc::clone(folder),
            name,
            text: text.into(),
        })
    }
}

impl Folders<'_> {
    /// The folder and the pattern that an `include` says.
    fn pattern<'p>(&mut self, said: &'p str, entry: &KdlEntry) -> Option<(PathBuf, &'p str)> {
        let (folder, name) = said.rsplit_once('/').unwrap_or(("", said));
        if name.is_empty() || folder.contains('*') {
            let error = ConfigError::new(Code::Value, "an `include` names files of one folder");
            let error = error.label(entry.span(), "`*` stands for a part of a file's name, and nothing else");
            self.errors.push(error.help("write include \"tenants/acme/*.kdl\""));
            return None;
        }
        let folder = match folder {
            "" if said.starts_with('/') => Path::new("/").to_owned(),
            folder => self.base_dir.join(folder),
        };
        Some((folder, name))
    }

    /// Nobody's files stand beside the configuration, or in the folder of another tenant.
    fn take(&mut self, tenant: usize, real: &Path, span: SourceSpan) -> Option<()> {
        let base = or_here(self.base_dir);
        if base.canonicalize().is_ok_and(|base| base.starts_with(real)) {
            let error = ConfigError::new(Code::Conflict, "a tenant's files stand in a folder of their own");
            let error = error.label(span, "the configuration stands there, too");
            self.errors
                .push(error.help("put them in a folder below: include \"tenants/acme/*.kdl\""));
            return None;
        }
        let overlaps = |folder: &Path| folder.starts_with(real) || real.starts_with(folder);
        let mut others = self.known.iter();
        if let Some((_, _, first)) = others.find(|(folder, of, _)| *of != tenant && overlaps(folder)) {
            let error = ConfigError::new(Code::Conflict, "two tenants have the same folder");
            let error = error.label(span, "another tenant's files stand there");
            let error = error.label(*first, "as it is said here");
            self.errors
                .push(error.help("give each tenant a folder of its own: each may read what stands in its own"));
            return None;
        }
        self.known.push((real.to_owned(), tenant, span));
        Some(())
    }
}

/// The folder that a path means which may be empty.
pub(super) fn or_here(folder: &Path) -> &Path {
    match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    }
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
/// Bytes of all files of one tenant: each is read and kept at every reload, and nobody's many leave less room for others'.
const MAX_BYTES_OF_ALL: usize = 1 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
