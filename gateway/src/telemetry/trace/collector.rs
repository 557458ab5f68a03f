//! The collector as it is reached: over TCP or TLS, with the header fields that it wants to see. One request at a time, over a
//! connection of its own.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certificates::{self, SystemRoots, TlsError};
use crate::config::{At, CollectorValue, Endpoint, ServerTls, Tracing};
use crate::regular_file;

/// A collector, with what stands in files read.
pub struct Collector {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    headers: HeaderMap,
}

/// Why what is said of a collector cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Files of TLS with it.
    #[error("{source}")]
    Tls {
        /// What is said of it.
        tls: Box<ServerTls>,
        /// Why.
        source: TlsError,
    },
    /// A file with the value of a header field.
    #[error("{}: {why}", path.value.display())]
    Header {
        /// The file.
        path: At<PathBuf>,
        /// Why.
        why: String,
    },
}

impl Collector {
    /// What the configuration says of it. Fails with all that is wrong.
    pub fn new(tracing: &Tracing, system: &SystemRoots) -> Result<Self, Vec<CollectorError>> {
        let mut errors = Vec::new();
        let tls = tracing.tls.as_ref().and_then(|(tls, name)| {
            let roots = system.of(tls).map_err(|error| vec![error]);
            let alpn = vec![b"http/1.1".to_vec()];
            match roots.and_then(|roots| certificates::client(tls, roots.as_ref(), alpn)) {
                Ok(config) => Some((TlsConnector::from(Arc::new(config)), name.clone())),
                Err(sources) => {
                    errors.extend(sources.into_iter().map(|source| CollectorError::Tls {
                        tls: Box::new(tls.clone()),
                        source,
                    }));
                    None
                }
            }
        });
        let mut headers = HeaderMap::new();
        for said in &tracing.headers {
            let value = match &said.value {
                CollectorValue::Said(value) => value.clone(),
                CollectorValue::File(path) => match read(path) {
                    Ok(value) => value,
                    Err(why) => {
                        let path = path.clone();
                        errors.push(CollectorError::Header { path, why });
                        continue;
                    }
                },
            };
            headers.insert(said.name.clone(), value);
        }
        match errors.is_empty() {
            true => Ok(Self {
                endpoint: tracing.endpoint.clone(),
                tls,
                headers,
            }),
            false => Err(errors),
        }
    }

    /// Where it is, for logs.
    pub fn authority(&self) -> &str {
        &self.endpoint.authority
    }

    /// Sends an encoded request. Answers the status; whoever calls bounds the time.
    pub(super) async fn send(&self, body: Bytes) -> io::Result<StatusCode> {
        let stream = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await?;
        match &self.tls {
            Some((connector, name)) => {
                self.send_over(connector.connect(name.clone(), stream).await?, body)
                    .await
            }
            None => self.send_over(stream, body).await,
        }
    }

    async fn send_over<S>(&self, stream: S, body: Bytes) -> io::Result<StatusCode>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut request = Request::post(format!("{}/v1/traces", self.endpoint.path))
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(
            header::HOST,
            HeaderValue::try_from(&self.endpoint.authority).map_err(io::Error::other)?,
        );
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let answer = async { sender.send_request(request).await.map_err(io::Error::other) };
        // The connection moves while the answer is awaited; what it says beside its status does not matter.
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer.map(|answer| answer.status()),
            ended = &mut connection => match ended {
                // The answer may have come with the end.
                Ok(()) => answer.await.map(|answer| answer.status()),
                Err(error) => Err(io::Error::other(error)),
            },
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What a file has for a header field: its text, without white space around it.
fn read(path: &At<PathBuf>) -> Result<HeaderValue, String> {
    let bytes = regular_file::read(&path.value, MAX_FILE).map_err(|error| error.to_string())?;
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Err("holds no header's value".to_owned());
    }
    let unusable = |_| "holds what no header's value may have: a line break or another control character".to_owned();
    let mut value = HeaderValue::from_bytes(text).map_err(unusable)?;
    // It may be a secret.
    value.set_sensitive(true);
    Ok(value)
}

/// Bytes of a file with a token: as long as one may be in most servers.
const MAX_FILE: usize = 8 << 10;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_its_file_has_without_the_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = At {
            value: folder.path().join("token"),
            span: (0, 0).into(),
        };
        let holding = |content: &str| {
            std::fs::write(&path.value, content).unwrap();
            read(&path)
        };
        assert_eq!(holding("Bearer abc\n").unwrap(), "Bearer abc");
        assert!(holding(" \n").is_err() && holding("a\nb").is_err());
        assert!(holding(&"a".repeat(MAX_FILE + 1)).is_err());
        // Whoever prints it sees nothing of it.
        assert!(!format!("{:?}", holding("Bearer abc").unwrap()).contains("abc"));
    }
}
