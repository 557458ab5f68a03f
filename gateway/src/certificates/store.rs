//! The certificates of a bind: read when it is made, and read again when files change, each for itself. One that cannot be
//! read any more stays as it was.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::TlsError;
use super::certificate::{self, Certificate};
use super::file::Stamp;
use crate::config::{At, CertificateFiles, CertificateSource};

/// Certificates, in the order of their places and, within a folder, of their names.
#[derive(Debug)]
pub struct Store {
    certificates: Vec<Arc<Certificate>>,
    /// What could not be read, and of which files that has been told.
    failed: HashMap<PathBuf, Vec<Option<Stamp>>>,
}

/// What came of looking at files again.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// Whether anything is another than before.
    pub changed: bool,
    /// Certificates that were read anew.
    pub loaded: Vec<Arc<Certificate>>,
    /// What cannot be used and was not told before.
    pub failures: Vec<TlsError>,
}

impl Store {
    /// Reads all of them, as of `now` in Unix time. Fails with all that is wrong.
    pub fn load(sources: &[CertificateSource], now: i64) -> Result<Self, Vec<TlsError>> {
        let mut certificates = Vec::new();
        let mut errors = Vec::new();
        for source in sources {
            match files(source) {
                Ok(files) => {
                    for files in files {
                        let loaded = Certificate::load(&files, now).and_then(|certificate| match &files.ocsp {
                            // What was asked for has to be there.
                            Some(_) => certificate.responded().map_err(|error| vec![error]),
                            // A certificate that has been renewed goes before a response that has not.
                            None => Ok(certificate),
                        });
                        match loaded {
                            Ok(certificate) => certificates.push(Arc::new(certificate)),
                            Err(all) => errors.extend(all),
                        }
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            certificates,
            failed: HashMap::new(),
        })
    }

    /// The certificates; at least one.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// Looks at the files again.
    pub fn refresh(&mut self, sources: &[CertificateSource], now: i64) -> Refreshed {
        let mut refreshed = Refreshed::default();
        let mut next = Vec::with_capacity(self.certificates.len());
        let mut failed = HashMap::new();
        let before: HashMap<PathBuf, Arc<Certificate>> = self
            .certificates
            .iter()
            .map(|known| (known.path.clone(), Arc::clone(known)))
            .collect();
        for source in sources {
            let files = match files(source) {
                Ok(files) => files,
                Err(error) => {
                    let CertificateSource::Folder(folder) = source else {
                        continue;
                    };
                    // Told once.
                    if !self.failed.contains_key(&folder.value) {
                        refreshed.failures.push(error);
                    }
                    failed.insert(folder.value.clone(), Vec::new());
                    let inside = |known: &&Arc<Certificate>| known.path.parent() == Some(folder.value.as_path());
                    next.extend(self.certificates.iter().filter(inside).cloned());
                    continue;
                }
            };
            for files in files {
                let path = &files.cert.value;
                let stamps = certificate::stamps(&files);
                let known = before.get(path);
                if let Some(known) = known.filter(|known| known.is_current(&stamps, now)) {
                    next.push(Arc::clone(known));
                    continue;
                }
                let is_told = self.failed.get(path) == Some(&stamps);
                let is_over = known.is_some_and(|known| known.response_is_over(now));
                if is_told && !is_over {
                    failed.insert(path.clone(), stamps);
                    next.extend(known.cloned());
                    continue;
                }
                let loaded = Certificate::load(&files, now).and_then(|certificate| match known {
                    // Nothing but the response has changed: the one before stays as long as it is good.
                    Some(known) if certificate.is_only_without(known) && !is_over => {
                        certificate.responded().map_err(|error| vec![error])
                    }
                    _ => Ok(certificate),
                });
                match loaded {
                    Ok(certificate) => {
                        let certificate = Arc::new(certificate);
                        refreshed.changed = true;
                        refreshed.loaded.push(Arc::clone(&certificate));
                        next.push(certificate);
                    }
                    Err(errors) => {
                        if !is_told {
                            refreshed.failures.extend(errors);
                        }
                        failed.insert(path.clone(), stamps);
                        next.extend(known.cloned());
                    }
                }
            }
        }
        self.failed = failed;
        refreshed.changed |= next.len() != self.certificates.len();
        self.certificates = next;
        refreshed
    }

    /// All files that are looked at, for whoever watches them; a folder as a file in it.
    pub fn paths(sources: &[CertificateSource]) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for source in sources {
            if let CertificateSource::Folder(folder) = source {
                // A name that no file has: what counts is where it would be.
                paths.push(folder.value.join("*"));
            }
            for files in files(source).unwrap_or_default() {
                paths.extend(certificate::paths(&files));
            }
        }
        paths
    }
}

/// The certificates of a place.
pub fn files(source: &CertificateSource) -> Result<Vec<CertificateFiles>, TlsError> {
    match source {
        CertificateSource::Files(files) => Ok(vec![files.clone()]),
        CertificateSource::Folder(folder) => {
            let names = listed(&folder.value)?;
            let file = |path| CertificateFiles {
                cert: At {
                    value: path,
                    span: folder.span,
                },
                key: None,
                ocsp: None,
            };
            Ok(names.into_iter().map(file).collect())
        }
    }
}

/// The files of a folder that are for certificates, by their names.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, TlsError> {
    let failed = |source| TlsError::Folder {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_passed_over(path.file_name().unwrap_or_default()) || !path.is_file() {
            continue;
        }
        if files.len() == MAX_FILES {
            return Err(TlsError::TooMany(folder.to_owned()));
        }
        files.push(path);
    }
    if files.is_empty() {
        return Err(TlsError::EmptyFolder(folder.to_owned()));
    }
    files.sort_unstable();
    Ok(files)
}

/// What stands beside certificates: hidden files, keys, and what HAProxy has there.
fn is_passed_over(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let besides: [&[u8]; 4] = [b".key", b".ocsp", b".issuer", b".sctl"];
    name.starts_with(b".") || besides.iter().any(|end| name.ends_with(end))
}

/// Files of a folder. Ten thousand certificates take some 100 MB and a second to read.
pub const MAX_FILES: usize = 10_000;
