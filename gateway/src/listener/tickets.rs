//! Session tickets under keys from a file, which several gateways may share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::server::ProducesTickets;

use crate::certificates::{Stamp, TlsError, ticket_keys};
use crate::config::TicketKeys;
use crate::crypto::TicketKey;

/// A file with keys, and what was read of it last.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    lifetime: u32,
    stamp: Option<Stamp>,
    keys: Arc<Vec<TicketKey>>,
    /// Tickets made then or before are none any more, in Unix time.
    forgotten: u64,
}

impl KeyFile {
    pub(super) fn load(said: &TicketKeys) -> Result<Self, TlsError> {
        let path = said.file.value.clone();
        // Taken first: what changes in between is read again.
        let stamp = Stamp::of(&path);
        Ok(Self {
            keys: Arc::new(ticket_keys(&path)?),
            lifetime: u32::try_from(said.lifetime.as_secs()).unwrap_or(u32::MAX),
            path,
            stamp,
            forgotten: 0,
        })
    }

    /// No ticket that has been made so far is good any more, whoever made it.
    pub(super) fn forget(&mut self) {
        self.forgotten = now();
    }

    /// Looks at the file again: none when it is known, or has been told to be unusable.
    pub(super) fn refresh(&mut self) -> Option<Result<(), TlsError>> {
        let stamp = Stamp::of(&self.path);
        if stamp == self.stamp {
            return None;
        }
        self.stamp = stamp;
        Some(ticket_keys(&self.path).map(|keys| self.keys = Arc::new(keys)))
    }

    /// What makes and opens tickets with the keys of now. `rules` is what tickets are good for: a ticket of a bind that believes
    /// other clients is none, whoever made it.
    pub(super) fn tickets(&self, rules: [u8; 32]) -> Arc<dyn ProducesTickets> {
        Arc::new(SharedTickets {
            keys: Arc::clone(&self.keys),
            rules,
            lifetime: self.lifetime,
            forgotten: self.forgotten,
        })
    }
}

/// Keys that live as long as somebody leaves them in their file: so tickets say when they were made.
#[derive(Debug)]
struct SharedTickets {
    keys: Arc<Vec<TicketKey>>,
    rules: [u8; 32],
    /// Seconds.
    lifetime: u32,
    /// Those made then or before are not good, in Unix time.
    forgotten: u64,
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let dated = [&now().to_be_bytes()[..], plain].concat();
        self.keys.first()?.seal(&dated, &self.rules)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.iter().find(|key| ticket.starts_with(key.name()))?;
        let dated = key.open(ticket, &self.rules)?;
        let (made, plain) = dated.split_first_chunk()?;
        let made = u64::from_be_bytes(*made);
        // The clock of whoever made it may be ahead.
        let age = now().saturating_sub(made);
        (made > self.forgotten && age <= u64::from(self.lifetime)).then(|| plain.to_vec())
    }
}

/// Seconds of Unix time.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tickets(names: &[u8], rules: u8, lifetime: u32) -> SharedTickets {
        let keys = names.iter().map(|name| TicketKey::new(&[*name; 48]).unwrap());
        SharedTickets {
            keys: Arc::new(keys.collect()),
            rules: [rules; 32],
            lifetime,
            forgotten: 0,
        }
    }

    #[test]
    fn the_first_key_makes_tickets_and_all_open_theirs() {
        let old = tickets(&[1], 0, 60).encrypt(b"session").unwrap();
        let both = tickets(&[2, 1], 0, 60);
        assert_eq!(both.decrypt(&old).as_deref(), Some(&b"session"[..]));
        let new = both.encrypt(b"session").unwrap();
        assert!(tickets(&[1], 0, 60).decrypt(&new).is_none());
        assert!(tickets(&[2], 0, 60).decrypt(&new).is_some());
        assert!(tickets(&[2], 1, 60).decrypt(&new).is_none(), "under other rules");
    }

    #[test]
    fn a_ticket_is_good_for_its_lifetime() {
        let of = tickets(&[1], 0, 60);
        let dated = |made: u64| {
            of.keys[0]
                .seal(&[&made.to_be_bytes()[..], b"session"].concat(), &of.rules)
                .unwrap()
        };
        for (made, is_good) in [(now() - 59, true), (now() - 62, false), (1, false), (now() + 100, true)] {
            assert_eq!(of.decrypt(&dated(made)).is_some(), is_good, "{made}");
        }
        let forgetful = SharedTickets {
            forgotten: now(),
            ..tickets(&[1], 0, 60)
        };
        assert!(forgetful.decrypt(&dated(forgetful.forgotten)).is_none());
        assert!(forgetful.decrypt(&dated(forgetful.forgotten + 1)).is_some());
        assert!(of.decrypt(&of.keys[0].seal(b"short", &of.rules).unwrap()).is_none());
    }
}
