//! The crypto provider of TLS: named here, and nowhere else. Why this one: docs/decisions/0004-crypto-provider.md.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Algorithms, key exchanges and randomness, shared by all that speaks TLS.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
