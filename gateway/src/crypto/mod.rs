//! The crypto provider of TLS and of signatures: named here, and nowhere else. Why this one: docs/decisions/0004-crypto-provider.md.

mod ed25519;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::aws_lc_rs::cipher::{
    AES_128, AES_256, AES_CBC_IV_LEN, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use ::aws_lc_rs::constant_time::verify_slices_are_equal;
use ::aws_lc_rs::error::Unspecified;
use ::aws_lc_rs::hmac;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::server::ProducesTickets;
use rustls::ticketer::TicketRotator;
use rustls::{NamedGroup, SupportedCipherSuite, SupportedProtocolVersion};

pub use ed25519::{KeyId, SIGNATURE, SigningKey, VerifyingKey, unhex};

/// Algorithms, key exchanges and randomness, shared by all that speaks TLS.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The provider with these cipher suites and groups alone, in this order. A version of TLS of which no suite is said keeps its
/// own, and so do groups.
pub fn provider_with(ciphers: &[CipherSuite], curves: &[Group]) -> Arc<CryptoProvider> {
    if ciphers.is_empty() && curves.is_empty() {
        return provider();
    }
    let mut provider = aws_lc_rs::default_provider();
    let of = |version, suites: &[SupportedCipherSuite]| -> Vec<SupportedCipherSuite> {
        let all = suites.iter().copied();
        all.filter(|suite| CipherSuite(*suite).version() == version).collect()
    };
    let said: Vec<SupportedCipherSuite> = ciphers.iter().map(|cipher| cipher.0).collect();
    let mut suites = Vec::new();
    for version in [TlsVersion::V1_3, TlsVersion::V1_2] {
        let chosen = of(version, &said);
        suites.extend(match chosen.is_empty() {
            true => of(version, &provider.cipher_suites),
            false => chosen,
        });
    }
    provider.cipher_suites = suites;
    if !curves.is_empty() {
        provider.kx_groups = curves.iter().map(|group| group.0).collect();
    }
    Arc::new(provider)
}

/// A version of TLS that is spoken. There are no older ones: the library has never had them (RFC 8996).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl TlsVersion {
    /// The library's versions from one to another.
    pub fn range(min: Self, max: Self) -> &'static [&'static SupportedProtocolVersion] {
        match (min, max) {
            (Self::V1_2, Self::V1_2) => ONLY_1_2,
            (Self::V1_3, _) => ONLY_1_3,
            (Self::V1_2, Self::V1_3) => rustls::ALL_VERSIONS,
        }
    }
}

static ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
static ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A cipher suite that the provider has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CipherSuite(SupportedCipherSuite);

impl Eq for CipherSuite {}

impl CipherSuite {
    /// The suite of this name in the IANA's registry.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|suite| suite.name() == name)
    }

    /// All there are, in the provider's order of preference.
    pub fn all() -> impl Iterator<Item = Self> {
        aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().map(Self)
    }

    /// Its name in the IANA's registry.
    pub fn name(self) -> String {
        // The library's names of TLS 1.3's suites say the version as well.
        format!("{:?}", self.0.suite()).replacen("TLS13_", "TLS_", 1)
    }

    /// The name that OpenSSL has for it, as `ECDHE-RSA-AES128-GCM-SHA256`; suites of TLS 1.3 have one name everywhere.
    pub fn openssl_name(self) -> String {
        let name = self.name();
        match name.strip_prefix("TLS_ECDHE_") {
            None => name,
            Some(rest) => {
                let rest = rest
                    .replace("_WITH_", "_")
                    .replace("AES_", "AES")
                    .replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305");
                format!("ECDHE-{}", rest.replace('_', "-"))
            }
        }
    }

    /// The version that it is for.
    pub fn version(self) -> TlsVersion {
        match self.0 {
            SupportedCipherSuite::Tls13(_) => TlsVersion::V1_3,
            SupportedCipherSuite::Tls12(_) => TlsVersion::V1_2,
        }
    }
}

/// The name that OpenSSL has for a suite that was agreed on.
pub fn cipher_name(suite: SupportedCipherSuite) -> &'static str {
    /// Put together once: a handshake only looks its suite up.
    static NAMES: LazyLock<Vec<(rustls::CipherSuite, String)>> = LazyLock::new(|| {
        let named = |suite: CipherSuite| (suite.0.suite(), suite.openssl_name());
        CipherSuite::all().map(named).collect()
    });
    let mut names = NAMES.iter();
    let known = names.find(|(known, _)| *known == suite.suite());
    known.map_or("", |(_, name)| name.as_str())
}

/// A group of key exchange that the provider has: an elliptic curve, a lattice, or both together.
#[derive(Debug, Clone, Copy)]
pub struct Group(&'static dyn SupportedKxGroup);

impl Group {
    /// The group of this name in the IANA's registry, whatever its case; `P-256`, `P-384`, `prime256v1` are known too.
    pub fn named(name: &str) -> Option<Self> {
        let name = match name {
            "P-256" | "prime256v1" => "secp256r1",
            "P-384" => "secp384r1",
            name => name,
        };
        Self::all().find(|group| group.name().eq_ignore_ascii_case(name))
    }

    /// All there are, in the provider's order of preference.
    pub fn all() -> impl Iterator<Item = Self> {
        aws_lc_rs::ALL_KX_GROUPS.iter().copied().map(Self)
    }

    /// Its name, as the library writes it; case does not matter.
    pub fn name(self) -> String {
        match self.0.name() {
            NamedGroup::X25519 => "x25519".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Group {}

/// Keys for session tickets, which are made anew as time goes by: each makes tickets for `rotate`, and opens them for as long
/// again. Shared by all workers. What a ticket is good for, its maker has to see to: whoever holds the same keys opens it.
pub fn tickets(rotate: Duration) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    let seconds = u32::try_from(rotate.as_secs()).unwrap_or(u32::MAX);
    let rotator = TicketRotator::new(seconds, || {
        // One of the provider's own that is given up before it would rotate by itself.
        let key = aws_lc_rs::Ticketer::new().map_err(|_| rustls::crypto::GetRandomFailed)?;
        Ok(Box::new(Key(key)) as Box<dyn ProducesTickets>)
    })?;
    Ok(Arc::new(Tickets { rotator, seconds }))
}

/// The longest time for which a key may make tickets: after it, the provider's own keys rotate by themselves.
pub const MAX_TICKET_ROTATION: Duration = Duration::from_secs(6 * 60 * 60);

#[derive(Debug)]
struct Tickets {
    rotator: TicketRotator,
    seconds: u32,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// Seconds for which a client may keep a ticket: as long as it is sure to be opened.
    fn lifetime(&self) -> u32 {
        self.seconds
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.rotator.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.rotator.decrypt(cipher)
    }
}

#[derive(Debug)]
struct Key(Arc<dyn ProducesTickets>);

impl ProducesTickets for Key {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// A key for tickets that comes from elsewhere, so that several gateways may have it: AES in CBC mode and HMAC with SHA-256, as
/// RFC 5077 recommends in section 4.
pub struct TicketKey {
    name: [u8; TICKET_KEY_NAME],
    encrypting: PaddedBlockEncryptingKey,
    decrypting: PaddedBlockDecryptingKey,
    mac: hmac::Key,
}

impl TicketKey {
    /// A key of 48 or 80 bytes: its name, and the keys of AES-128 or AES-256 and of the HMAC, which are as long as each other.
    /// None when there are more or fewer.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let algorithm = match bytes.len() {
            48 => &AES_128,
            80 => &AES_256,
            _ => return None,
        };
        let (name, keys) = bytes.split_at(TICKET_KEY_NAME);
        let (aes, mac) = keys.split_at(keys.len() / 2);
        let aes = || UnboundCipherKey::new(algorithm, aes).ok();
        Some(Self {
            name: name.try_into().ok()?,
            encrypting: PaddedBlockEncryptingKey::cbc_pkcs7(aes()?).ok()?,
            decrypting: PaddedBlockDecryptingKey::cbc_pkcs7(aes()?).ok()?,
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac),
        })
    }

    /// What tickets say of the key that opens them.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// A ticket that holds `plain`, and is opened only by whoever says the same of its use.
    pub fn seal(&self, plain: &[u8], used_for: &[u8; 32]) -> Option<Vec<u8>> {
        let mut state = plain.to_vec();
        let context = self.encrypting.encrypt(&mut state).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let tag = self.tag(iv, &state, used_for)?;
        Some([&self.name, iv, &state, tag.as_ref()].concat())
    }

    /// What a ticket of this key holds.
    pub fn open(&self, ticket: &[u8], used_for: &[u8; 32]) -> Option<Vec<u8>> {
        let rest = ticket.strip_prefix(&self.name)?;
        let (iv, rest) = rest.split_at_checked(AES_CBC_IV_LEN)?;
        let (state, tag) = rest.split_at_checked(rest.len().checked_sub(TICKET_TAG)?)?;
        let expected = self.tag(iv, state, used_for)?;
        verify_slices_are_equal(expected.as_ref(), tag).ok()?;
        let iv: [u8; AES_CBC_IV_LEN] = iv.try_into().ok()?;
        let mut state = state.to_vec();
        let context = DecryptionContext::Iv128(iv.into());
        let plain: Result<&mut [u8], Unspecified> = self.decrypting.decrypt(&mut state, context);
        Some(plain.ok()?.to_vec())
    }

    fn tag(&self, iv: &[u8], state: &[u8], used_for: &[u8; 32]) -> Option<hmac::Tag> {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&self.name);
        context.update(iv);
        context.update(&u16::try_from(state.len()).ok()?.to_be_bytes());
        context.update(state);
        // Beyond the RFC: of a fixed length, so that nothing of the state can be taken for it.
        context.update(used_for);
        Some(context.sign())
    }
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

/// A key by which the gateway knows again what it has written itself: HMAC with SHA-256.
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key that these bytes are.
    pub fn new(bytes: &[u8; MAC_KEY]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Bytes for a new key. None when the system has no randomness to give.
    pub fn random() -> Option<[u8; MAC_KEY]> {
        let mut bytes = [0; MAC_KEY];
        provider().secure_random.fill(&mut bytes).ok()?;
        Some(bytes)
    }

    /// What proves that these parts, one after the other, were written by whoever has the key.
    pub fn tag(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.of(parts).as_ref().to_vec()
    }

    /// Whether this proves it.
    pub fn is_tag(&self, tag: &[u8], parts: &[&[u8]]) -> bool {
        verify_slices_are_equal(self.of(parts).as_ref(), tag).is_ok()
    }

    fn of(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            // With its length, so that no part can be taken for the end of the one before.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MacKey").finish_non_exhaustive()
    }
}

/// Bytes of a [`MacKey`], and of what it makes.
pub const MAC_KEY: usize = 32;
/// Bytes of a tag of a [`MacKey`].
pub const MAC_TAG: usize = 32;

/// Bytes of a key's name, and of what proves that a ticket is its.
const TICKET_KEY_NAME: usize = 16;
const TICKET_TAG: usize = 32;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_of_the_iana_and_of_openssl() {
        let names: Vec<_> = CipherSuite::all()
            .map(|suite| (suite.name(), suite.openssl_name()))
            .collect();
        for (iana, openssl) in [
            ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
            (
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
            ),
            (
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
            ),
        ] {
            assert!(
                names.contains(&(iana.to_owned(), openssl.to_owned())),
                "{iana}: {names:?}"
            );
        }
        assert!(names.iter().all(|(iana, _)| iana.starts_with("TLS_")), "{names:?}");
    }

    #[test]
    fn groups_are_found_by_name() {
        for name in [
            "x25519",
            "X25519",
            "secp256r1",
            "P-256",
            "prime256v1",
            "X25519MLKEM768",
            "secp384r1",
        ] {
            assert!(Group::named(name).is_some(), "{name}");
        }
        assert!(Group::named("secp521r1").is_none());
    }

    #[test]
    fn a_ticket_is_opened_by_the_key_that_made_it_and_by_no_other() {
        let (one, other) = (
            tickets(Duration::from_secs(60)).unwrap(),
            tickets(Duration::from_secs(60)).unwrap(),
        );
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(one.lifetime(), 60);
    }

    #[test]
    fn a_shared_key_opens_its_tickets_for_the_same_use_only() {
        for length in [48, 80] {
            let bytes: Vec<u8> = (0..length).collect();
            let (one, same) = (TicketKey::new(&bytes).unwrap(), TicketKey::new(&bytes).unwrap());
            let ticket = one.seal(b"session", &[1; 32]).unwrap();
            assert_eq!(same.open(&ticket, &[1; 32]).as_deref(), Some(&b"session"[..]));
            assert_eq!(same.open(&ticket, &[2; 32]), None);
            assert_ne!(one.seal(b"session", &[1; 32]).unwrap(), ticket, "the same text twice");
            // A key of the same name with another secret.
            let mut other = bytes.clone();
            other[47] ^= 1;
            assert_eq!(TicketKey::new(&other).unwrap().open(&ticket, &[1; 32]), None);
        }
        for length in [0, 16, 47, 49, 79, 81] {
            assert!(TicketKey::new(&vec![0; length]).is_none(), "{length}");
        }
    }

    #[test]
    fn a_ticket_that_was_touched_is_none() {
        let key = TicketKey::new(&[7; 80]).unwrap();
        let ticket = key.seal(b"session", &[0; 32]).unwrap();
        for i in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[i] ^= 0x80;
            assert_eq!(key.open(&touched, &[0; 32]), None, "{i}");
            assert_eq!(key.open(&ticket[..i], &[0; 32]), None, "{i}");
        }
    }
}
