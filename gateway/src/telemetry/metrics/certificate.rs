//! Metrics of certificates that are shown to clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::exporter::Exporter;

/// When the certificate of a name on a bind expires.
#[derive(Debug)]
pub struct CertificateMetrics {
    pub(super) frontend: Arc<str>,
    pub(super) bind: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) key: &'static str,
    /// In Unix time.
    not_after: AtomicI64,
}

impl CertificateMetrics {
    pub(super) fn new(frontend: &str, bind: &str, name: &str, key: &'static str) -> Self {
        Self {
            frontend: frontend.into(),
            bind: bind.into(),
            name: name.into(),
            key,
            not_after: AtomicI64::new(i64::MAX),
        }
    }

    /// It expires then, in Unix time; or, when there is `another` of that name and key, then if that is sooner.
    pub fn expires(&self, not_after: i64, another: bool) {
        match another {
            true => self.not_after.fetch_min(not_after, Ordering::Relaxed),
            false => self.not_after.swap(not_after, Ordering::Relaxed),
        };
    }
}

pub(super) fn register(exporter: &mut Exporter, certificate: &Arc<CertificateMetrics>) {
    let labels = [
        ("frontend", &*certificate.frontend),
        ("bind", &*certificate.bind),
        ("name", &*certificate.name),
        ("key", certificate.key),
    ];
    let mut of = exporter.of(certificate, &labels);
    let help = "Seconds until the certificate of a bind expires, by its first name; negative when it has.";
    of.gauge("gateway_certificate_expiry_seconds", help, |certificate| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        certificate.not_after.load(Ordering::Relaxed) as f64 - now.as_secs() as f64
    });
}
