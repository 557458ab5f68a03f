//! How what is wrong with the files of TLS is said: at the file that a `tls` node names.

use std::io;
use std::path::{Path, PathBuf};

use miette::SourceSpan;
use rustls_pki_types::pem;

use super::fault::HELP_WITH_FILES;
use crate::certificates::{Form, TlsError};
use crate::config::{At, Authorities, BindTls, CertificateSource, ConfigError, ServerTls, Verify};

pub(super) fn tls_fault(fault: ConfigError, files: &TlsFiles<'_>, error: &TlsError) -> ConfigError {
    match error {
        TlsError::Pem { path, what, source } => {
            let (label, help) = match source {
                pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                    ("there is no such file".to_owned(), HELP_WITH_FILES)
                }
                pem::Error::Io(_) => ("this file cannot be read".to_owned(), HELP_WITH_FILES),
                pem::Error::NoItemsFound if files.folder(path).is_some() => (
                    format!("holds no {what}"),
                    "put the key into the file, or beside it as NAME.key",
                ),
                pem::Error::NoItemsFound if files.has_its_key(path) => (
                    format!("holds no {what}"),
                    "write key=\"FILE\" when the key is in a file of its own",
                ),
                _ => (format!("holds no usable {what}"), HELP_WITH_PEM),
            };
            fault.label(files.place(path), label).help(help)
        }
        TlsError::Form { path, what, form } => {
            let label = match form {
                Form::Encrypted => "holds a key that is encrypted".to_owned(),
                Form::Der | Form::Pkcs12 => "not PEM".to_owned(),
                Form::Other(_) => format!("holds no {what}"),
            };
            let help = match form {
                Form::Encrypted => HELP_WITH_PASSPHRASE,
                Form::Pkcs12 => "openssl pkcs12 -in FILE -nodes -out NEW writes what is in it as PEM",
                Form::Der if *what == "certificate" => "openssl x509 -inform DER -in FILE -out NEW writes it as PEM",
                Form::Der => "openssl pkey -inform DER -in FILE -out NEW writes it as PEM",
                Form::Other(label) if label == "TRUSTED CERTIFICATE" => {
                    "openssl x509 -in FILE -out NEW writes it without what OpenSSL alone knows of"
                }
                Form::Other(_) if files.folder(path).is_some() => HELP_WITH_FOLDER,
                Form::Other(_) => HELP_WITH_PEM,
            };
            fault.label(files.place(path), label).help(help)
        }
        TlsError::NoCertificate(path) => fault.label(files.place(path), "holds no certificate").help(
            // Whoever names the file itself means it to be one.
            match files.folder(path) {
                Some(_) => HELP_WITH_FOLDER,
                None => HELP_WITH_PEM,
            },
        ),
        TlsError::Unusable { path, source } => {
            let fault = fault.label(files.place(path), "this certificate");
            if let rustls::Error::InvalidCertificate(_) = source {
                let help = "it has to be one of X.509, version 3: openssl x509 -noout -text -in FILE says what it is";
                return fault.help(help);
            }
            let fault = match files.key(path) {
                Some(key) => fault.label(key.span, "and this key"),
                None => fault,
            };
            if let rustls::Error::General(_) = source {
                return fault.help(HELP_WITH_KINDS);
            }
            fault.help("the first certificate in the file has to be the one that was issued for the key")
        }
        TlsError::Authority { path, .. } => fault
            .label(files.place(path), "not the certificate of an authority")
            .help(match files.is_server {
                true => "`ca=` names a file with the certificates of those who issue the server's",
                false => "`client-ca` names files with the certificates of those who issue the clients'",
            }),
        TlsError::Revocation { path, .. } => fault.label(files.place(path), "not a revocation list").help(
            "the file has to be PEM (-----BEGIN X509 CRL-----) or DER, from an authority that is named beside it",
        ),
        TlsError::Ocsp { path, .. } => fault.label(files.place(path), "not for this certificate").help(
            "ask the authority again: openssl ocsp -issuer … -cert … -url … -respout FILE; or take the file away",
        ),
        TlsError::TicketKeys { path, .. } => fault.label(files.place(path), "holds no usable keys").help(
            "one key a line, which only its owner and group may read: openssl rand -base64 48 >> FILE; chmod 600 FILE",
        ),
        TlsError::Folder { path, .. } => fault.label(files.place(path), "this folder").help(HELP_WITH_FILES),
        TlsError::EmptyFolder(path) => fault.label(files.place(path), "holds no certificate").help(
            "put PEM files there, each with a chain and its key; hidden files, and keys beside them, are passed over",
        ),
        TlsError::TooMany(path) => fault
            .label(files.place(path), "too many to look at")
            .help("split the folder, and write `cert-dir` for each part"),
        TlsError::NoSystemRoots(_) => fault
            .label(files.node, "would believe no certificate")
            .help("install the system's certificates (ca-certificates), or write ca=\"FILE\""),
        TlsError::Library(_) => fault
            .label(files.node, "needed here")
            .help("this is a defect of the gateway: please report it"),
    }
}

/// The files that a `tls` node names.
pub(super) struct TlsFiles<'a> {
    node: SourceSpan,
    files: Vec<&'a At<PathBuf>>,
    folders: Vec<&'a At<PathBuf>>,
    /// By certificate, its key where that has a file of its own.
    keys: Vec<(&'a At<PathBuf>, Option<&'a At<PathBuf>>)>,
    is_server: bool,
}

impl<'a> TlsFiles<'a> {
    pub(super) fn of_bind(tls: &'a BindTls, node: SourceSpan) -> Self {
        let mut named = Self {
            node,
            files: Vec::new(),
            folders: Vec::new(),
            keys: Vec::new(),
            is_server: false,
        };
        for source in &tls.certificates {
            match source {
                CertificateSource::Files(files) => {
                    named.files.push(&files.cert);
                    named.files.extend(files.key.iter().chain(&files.ocsp));
                    named.keys.push((&files.cert, files.key.as_ref()));
                }
                CertificateSource::Folder(folder) => named.folders.push(folder),
            }
        }
        if let Some(clients) = &tls.clients {
            named.files.extend(clients.files.iter().chain(&clients.crls));
        }
        named.files.extend(tls.ticket_keys.iter().map(|keys| &keys.file));
        named
    }

    pub(super) fn of_server(tls: &'a ServerTls) -> Self {
        let mut files: Vec<_> = tls.crls.iter().collect();
        if let Verify::Required(Authorities::File(file)) = &tls.verify {
            files.push(file);
        }
        let mut keys = Vec::new();
        if let Some(identity) = &tls.identity {
            files.push(&identity.cert);
            files.extend(&identity.key);
            keys.push((&identity.cert, identity.key.as_ref()));
        }
        Self {
            node: tls.origin.span,
            files,
            folders: Vec::new(),
            keys,
            is_server: true,
        }
    }

    /// Where the file is named, or the folder that it is in.
    fn place(&self, path: &Path) -> SourceSpan {
        let file = self.files.iter().find(|file| file.value == path).copied();
        let is_it = |folder: &&&At<PathBuf>| path == folder.value;
        let named = file.or_else(|| self.folders.iter().find(is_it).copied());
        named.or_else(|| self.folder(path)).map_or(self.node, |file| file.span)
    }

    /// The folder that a file is in, when it is not named itself.
    fn folder(&self, path: &Path) -> Option<&'a At<PathBuf>> {
        if self.files.iter().any(|file| file.value == path) {
            return None;
        }
        let inside = |folder: &&&At<PathBuf>| path.parent() == Some(folder.value.as_path());
        self.folders.iter().find(inside).copied()
    }

    /// The key's file of a certificate, where it has one of its own.
    fn key(&self, cert: &Path) -> Option<&At<PathBuf>> {
        self.keys.iter().find(|(known, _)| known.value == cert)?.1
    }

    /// Whether a certificate is said to have its key in its own file.
    fn has_its_key(&self, path: &Path) -> bool {
        self.keys.iter().any(|(cert, key)| cert.value == path && key.is_none())
    }
}

const HELP_WITH_PEM: &str = "the file has to be PEM: text between -----BEGIN … ----- and -----END … -----";
const HELP_WITH_FOLDER: &str = "each file of the folder has to be a certificate with its key: take this one away, or give it a name \
                                that begins with a dot, which is passed over";
const HELP_WITH_PASSPHRASE: &str = "nobody is asked for its passphrase: `openssl pkey -in FILE -out NEW` writes it without; let \
                                    nobody else read that";
const HELP_WITH_KINDS: &str = "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 can be used: make such a key, \
                               and have a certificate issued for it";
