//! Revocation lists (RFC 5280, section 5).

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{TlsError, file};
use crate::config::At;

/// Lists that have been read.
#[derive(Debug, Default)]
pub struct RevocationLists {
    /// In DER.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them is out of date, in Unix time, and which file that is. From then on nobody is believed whose
    /// authority it is of.
    pub next_update: Option<(i64, PathBuf)>,
}

/// Reads lists from files, in PEM (several in one) or DER.
pub fn revocation_lists(files: &[At<PathBuf>]) -> Result<RevocationLists, Vec<TlsError>> {
    let mut read = RevocationLists::default();
    let mut errors = Vec::new();
    for At { value: path, .. } in files {
        match lists(path) {
            Ok(lists) => {
                for (list, next) in lists {
                    read.lists.push(list);
                    if let Some(next) = next
                        && read.next_update.as_ref().is_none_or(|(known, _)| next < *known)
                    {
                        read.next_update = Some((next, path.clone()));
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

type List = (CertificateRevocationListDer<'static>, Option<i64>);

fn lists(path: &Path) -> Result<Vec<List>, TlsError> {
    let unusable = |why: String| TlsError::Revocation {
        path: path.to_owned(),
        why,
    };
    let bytes = file::read(path, "revocation list")?;
    let lists = match bytes.first() {
        Some(0x30) => vec![CertificateRevocationListDer::from(bytes)],
        _ => CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable(error.to_string()))?,
    };
    if lists.is_empty() {
        return Err(unusable("there is none in it (-----BEGIN X509 CRL-----)".to_owned()));
    }
    let dated = |list: CertificateRevocationListDer<'static>| {
        let next = match CertificateRevocationList::from_der(&list) {
            Ok((_, parsed)) => parsed.next_update().map(|next| next.timestamp()),
            Err(error) => return Err(unusable(error.to_string())),
        };
        Ok((list, next))
    };
    lists.into_iter().map(dated).collect()
}
