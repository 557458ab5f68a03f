//! Which clients are believed: the authorities that their certificates have to be from, and what those have revoked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::client_verifier::ClientVerifier;
use crate::certificates::{self, Listed, Stamp, TlsError, add_authorities, read, revocation_lists};
use crate::config::ClientAuthorities;

/// What clients have to show.
#[derive(Debug)]
pub(super) struct Clients {
    /// None when they are not asked for anything.
    pub(super) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Of all that decides whom it believes.
    pub(super) digest: [u8; 32],
    stamps: Vec<Option<Stamp>>,
    /// What could not be read, and has been told.
    failed: Option<Vec<Option<Stamp>>>,
    /// When a revocation list is out of date, and which.
    next_update: Option<(i64, PathBuf)>,
    told: AtomicBool,
}

impl Clients {
    /// Reads the files. Fails with all that is wrong with them.
    pub(super) fn load(
        clients: Option<&ClientAuthorities>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Vec<TlsError>> {
        let stamps = stamps(clients);
        let Some(clients) = clients else {
            return Ok(Self {
                verifier: None,
                digest: [0; 32],
                stamps,
                failed: None,
                next_update: None,
                told: AtomicBool::new(false),
            });
        };
        let mut digest = Sha256::new();
        digest.update([u8::from(clients.required), u8::from(clients.depth.is_some())]);
        digest.update(clients.depth.unwrap_or_default().to_be_bytes());
        let mut roots = RootCertStore::empty();
        let (mut listed, mut errors) = (Vec::new(), Vec::new());
        for file in &clients.files {
            let added = read(&file.value, "certificate").and_then(|bytes| {
                digest.update(Sha256::digest(&bytes));
                add_authorities(&mut roots, &file.value, &bytes)
            });
            match added {
                Ok(certificates) => listed.extend(certificates),
                Err(error) => errors.push(error),
            }
        }
        let lists = revocation_lists(&clients.crls).unwrap_or_else(|more| {
            errors.extend(more);
            certificates::RevocationLists::default()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        for list in &lists.lists {
            digest.update(Sha256::digest(list));
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(lists.lists)
            // As HAProxy: a list that is out of date says nothing about who was revoked since.
            .enforce_revocation_expiration();
        let builder = match clients.required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let verifier = builder.build().map_err(|error| match clients.crls.first() {
            Some(crl) => vec![TlsError::Revocation {
                path: crl.value.clone(),
                why: error.to_string(),
            }],
            None => vec![TlsError::Library(rustls::Error::General(error.to_string()))],
        })?;
        let listed = match clients.crls.is_empty() {
            true => Listed::new(listed),
            false => Listed::default(),
        };
        Ok(Self {
            verifier: Some(Arc::new(ClientVerifier::new(verifier, listed, clients.depth))),
            digest: digest.finalize().into(),
            stamps,
            failed: None,
            next_update: lists.next_update,
            told: AtomicBool::new(false),
        })
    }

    /// Looks at the files again: none when what they say is known, or has been told to be unusable.
    pub(super) fn refresh(
        &mut self,
        clients: Option<&ClientAuthorities>,
        provider: &Arc<CryptoProvider>,
    ) -> Option<Result<Self, Vec<TlsError>>> {
        let stamps = stamps(clients);
        if self.stamps == stamps || self.failed.as_ref() == Some(&stamps) {
            return None;
        }
        match Self::load(clients, provider) {
            // Touched, and nothing else.
            Ok(loaded) if loaded.digest == self.digest => {
                *self = loaded;
                None
            }
            Ok(loaded) => Some(Ok(loaded)),
            Err(errors) => {
                self.failed = Some(stamps);
                Some(Err(errors))
            }
        }
    }

    /// When the first of the revocation lists is out of date, in Unix time.
    pub(super) fn lists_until(&self) -> Option<i64> {
        self.next_update.as_ref().map(|(until, _)| *until)
    }

    /// Tells, once, of a revocation list that is out of date or will be within a day.
    pub(super) fn tell_age(&self, frontend: &str, bind: &str, now: i64) {
        let Some((next, file)) = &self.next_update else { return };
        if *next - now > DAY || self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let hours = (*next - now).max(0) / 3600;
        let file = file.display();
        warn!(
            frontend,
            bind, %file, hours, "a revocation list is about to be out of date: clients that it speaks of are refused then"
        );
    }

    /// All files that are looked at.
    pub(super) fn paths(clients: Option<&ClientAuthorities>) -> impl Iterator<Item = PathBuf> {
        let files = clients
            .into_iter()
            .flat_map(|clients| clients.files.iter().chain(&clients.crls));
        files.map(|file| file.value.clone())
    }
}

fn stamps(clients: Option<&ClientAuthorities>) -> Vec<Option<Stamp>> {
    Clients::paths(clients).map(|path| Stamp::of(&path)).collect()
}

const DAY: i64 = 24 * 60 * 60;
