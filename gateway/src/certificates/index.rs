//! Which certificate is shown to whom.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SupportedCipherSuite};

use super::Certificate;

/// Certificates by name. A name that is there itself comes before a pattern, and among certificates for one name the first of
/// each kind of key; of those, the first kind that the client can use.
#[derive(Debug)]
pub struct Index {
    names: HashMap<String, Kinds>,
    /// By what follows the star: `.example.net`.
    patterns: HashMap<String, Kinds>,
    /// Shown when no name fits, or when none is asked for; none says that nothing is.
    default: Option<Kinds>,
    suites: Vec<SupportedCipherSuite>,
}

/// At most one certificate of each kind of key, the preferred kind first.
type Kinds = Vec<Arc<Certificate>>;

impl Index {
    /// Of these certificates, the first of which is the default unless only names that are known are served (`strict`). `suites`
    /// are those that may be agreed on.
    pub fn new(certificates: &[Arc<Certificate>], strict: bool, suites: Vec<SupportedCipherSuite>) -> Self {
        let (mut names, mut patterns) = (HashMap::<_, Kinds>::new(), HashMap::<_, Kinds>::new());
        for certificate in certificates {
            for name in &certificate.names {
                match name.strip_prefix('*') {
                    Some(rest) => add(patterns.entry(rest.to_owned()).or_default(), certificate),
                    None => add(names.entry(name.clone()).or_default(), certificate),
                }
            }
        }
        let default = certificates.first().filter(|_| !strict).map(|first| {
            let named = first.names.first();
            let kinds = named.and_then(|name| match name.strip_prefix('*') {
                Some(rest) => patterns.get(rest),
                None => names.get(name),
            });
            kinds.cloned().unwrap_or_else(|| vec![Arc::clone(first)])
        });
        Self {
            names,
            patterns,
            default,
            suites,
        }
    }

    fn find(&self, name: &str) -> Option<&Kinds> {
        let lower;
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => {
                lower = name.to_ascii_lowercase();
                &lower
            }
            false => name,
        };
        self.names.get(name).or_else(|| {
            let (_, rest) = name.split_once('.')?;
            // With the dot.
            self.patterns.get(&name[name.len() - rest.len() - 1..])
        })
    }

    fn can_use(&self, certificate: &Certificate, hello: &ClientHello<'_>) -> bool {
        let key = &certificate.key.key;
        let agreed = |offered: &CipherSuite| {
            let mut ours = self.suites.iter().filter(|suite| suite.suite() == *offered);
            ours.any(|suite| suite.usable_for_signature_algorithm(key.algorithm()))
        };
        key.choose_scheme(hello.signature_schemes()).is_some() && hello.cipher_suites().iter().any(agreed)
    }
}

fn add(kinds: &mut Kinds, certificate: &Arc<Certificate>) {
    match kinds.binary_search_by_key(&certificate.kind, |known| known.kind) {
        // The first one stays.
        Ok(_) => {}
        Err(place) => kinds.insert(place, Arc::clone(certificate)),
    }
}

impl ResolvesServerCert for Index {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        let kinds = named.or(self.default.as_ref())?;
        let chosen = match &kinds[..] {
            [only] => Some(only),
            several => several
                .iter()
                .find(|certificate| self.can_use(certificate, &hello))
                // Which the client will refuse: with the words of TLS, and not with our silence.
                .or(several.first()),
        };
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}
