//! Certificates as files, for programs that read PEM.

use std::path::{Path, PathBuf};

use gateway_tests::tls;
use tempfile::TempDir;

/// An authority and a folder with what it has issued; its own certificate is in `ca.pem`.
pub struct Authority {
    authority: tls::Authority,
    directory: TempDir,
}

/// The files of a certificate and its key, and of both together.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub bundle: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let authority = tls::Authority::new();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        Self { authority, directory }
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for a name, which is its common name as well.
    pub fn issue(&self, name: &str) -> Pair {
        let issued = self.authority.issue(&[name]);
        let file = |suffix: &str, content: &str| {
            let path = self.directory.path().join(format!("{name}.{suffix}"));
            std::fs::write(&path, content).unwrap();
            path
        };
        Pair {
            certificate: file("pem", issued.pem()),
            key: file("key", &issued.key_pem()),
            bundle: file("bundle", &issued.bundle()),
        }
    }
}

/// A path as a word of a configuration.
pub fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}
