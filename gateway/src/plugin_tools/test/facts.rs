//! What is known of a case's connection, as a listener would know it.

use anyhow::{Context, Result, anyhow};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::fixture;
use crate::policy::{ClientCertificate, ClientHello, ConnectionFacts, Ends, Preamble, TlsFacts};
use crate::regular_file;

/// What a fixture says of it.
///
/// # Errors
/// When the file with the client's certificate cannot be read, or holds none.
pub(super) fn of_connection(said: &fixture::Connection) -> Result<ConnectionFacts> {
    let tls = said.tls.as_ref().map(tls).transpose()?;
    let hello = said.hello.as_ref().map(|hello| ClientHello {
        sni: hello.sni.clone(),
        alpn: hello.alpn.iter().map(|name| name.clone().into_bytes()).collect(),
    });
    Ok(ConnectionFacts {
        accepted: tokio::time::Instant::now(),
        ends: Ends::new(said.client, said.local),
        tls: tls.map(Box::new),
        preamble: hello.map(|hello| {
            Box::new(Preamble {
                hello: Some(hello),
                ..Preamble::default()
            })
        }),
    })
}

fn tls(said: &fixture::Tls) -> Result<TlsFacts> {
    let client_certificate = match &said.certificate {
        None => None,
        Some(path) => {
            let shown = path.value.display();
            let pem =
                regular_file::read(&path.value, MAX_CERTIFICATE).with_context(|| format!("cannot read {shown}"))?;
            let certificate = CertificateDer::from_pem_slice(&pem)
                .map_err(|error| anyhow!("{shown} holds no certificate: {error}"))?;
            Some(ClientCertificate::new(certificate.to_vec()))
        }
    };
    Ok(TlsFacts {
        version: said.version,
        cipher: said.cipher,
        sni: said.sni.clone(),
        alpn: said.alpn.as_ref().map(|alpn| alpn.clone().into_bytes()),
        client_certificate,
    })
}

/// Bytes of a client's certificate in PEM: many times what one has.
const MAX_CERTIFICATE: usize = 1 << 20;
