//! A client that sends bytes and reads what comes back. Everything that goes wrong panics with what had come until then.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::message::{RequestText, Response};
use crate::wire::{PATIENCE, Stream, Wire, within};

/// A connection to the gateway.
pub struct Client {
    wire: Wire,
    peer: SocketAddr,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within(PATIENCE, "connecting", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("connecting to {address}: {e}"));
        stream.set_nodelay(true).unwrap();
        Self {
            wire: Wire::new(Stream::Plain(stream), Arc::default()),
            peer: address,
        }
    }

    /// Connects to a UNIX socket.
    pub async fn connect_unix(path: &Path) -> Self {
        let stream = within(PATIENCE, "connecting", UnixStream::connect(path)).await;
        let stream = stream.unwrap_or_else(|e| panic!("connecting to {}: {e}", path.display()));
        // A wire's type is one of TCP, which holds any stream's descriptor.
        let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std().unwrap()));
        Self {
            wire: Wire::new(Stream::Plain(TcpStream::from_std(stream).unwrap()), Arc::default()),
            peer: ([127, 0, 0, 1], 0).into(),
        }
    }

    /// Connects from another address of the loopback network, as another client would.
    pub async fn connect_from(address: SocketAddr, from: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = within(PATIENCE, "connecting", socket.connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            wire: Wire::new(Stream::Plain(stream), Arc::default()),
            peer: address,
        }
    }

    /// Connects from an address, and whether that is ended at once without a word. The end may be there before the client
    /// knows that it is connected.
    pub async fn is_turned_away(address: SocketAddr, from: [u8; 4]) -> bool {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        match within(PATIENCE, "connecting", socket.connect(address)).await {
            Ok(stream) => match Wire::new(Stream::Plain(stream), Arc::default()).rest().await {
                Ok(bytes) => bytes.is_empty(),
                Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
            },
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Connects and speaks TLS, trusting this one certificate authority.
    pub async fn connect_tls(address: SocketAddr, name: &str, authority: &CertificateDer<'static>) -> Self {
        Self::connect_tls_with(address, name, trusting(authority)).await
    }

    /// Connects and speaks TLS in this way.
    pub async fn connect_tls_with(address: SocketAddr, name: &str, config: rustls::ClientConfig) -> Self {
        Self::handshake(address, b"", name, config).await
    }

    /// Connects, sends these bytes plainly, and then speaks TLS, trusting this one certificate authority.
    pub async fn connect_tls_after(
        address: SocketAddr,
        preface: &[u8],
        name: &str,
        authority: &CertificateDer<'static>,
    ) -> Self {
        Self::handshake(address, preface, name, trusting(authority)).await
    }

    async fn handshake(address: SocketAddr, preface: &[u8], name: &str, config: rustls::ClientConfig) -> Self {
        let mut stream = within(PATIENCE, "connecting", TcpStream::connect(address))
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(preface).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let handshake = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = within(PATIENCE, "the TLS handshake", handshake).await;
        let stream = stream.unwrap_or_else(|e| panic!("TLS handshake with {address}: {e}"));
        Self {
            wire: Wire::new(Stream::Tls(Box::new(stream)), Arc::default()),
            peer: address,
        }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let result = self.wire.send(bytes).await;
        self.check("sending", result);
    }

    /// Sends bytes; the other end may already have closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes).await
    }

    /// Sends a request and reads its response.
    pub async fn ask(&mut self, request: RequestText) -> Response {
        self.send(request.bytes()).await;
        self.response_to(request.method_name()).await
    }

    /// Reads the response to a GET request.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    /// Reads the response to a request with this method.
    pub async fn response_to(&mut self, method: &str) -> Response {
        let result = self.read_response(method).await;
        self.check("reading a response", result)
    }

    /// Reads a response if a whole one comes before the connection ends.
    pub async fn try_response(&mut self) -> Option<Response> {
        self.read_response("GET").await.ok()
    }

    /// Reads a final response's head and leaves its content unread.
    pub async fn response_head(&mut self) -> Response {
        let result = self.read_head().await.map(|(response, _)| response);
        self.check("reading a response's head", result)
    }

    /// Reads up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        let result = self.wire.rest().await;
        self.check("reading up to the end", result)
    }

    /// Reads exactly `n` bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        let result = self.wire.exactly(n).await;
        self.check("reading", result)
    }

    /// Reads and forgets up to `n` bytes; says how many came.
    pub async fn skip(&mut self, n: u64) -> u64 {
        let result = self.wire.skip(n).await;
        self.check("reading", result)
    }

    /// Waits for the other end to close, gracefully or by a reset, with nothing more sent.
    pub async fn closed(&mut self) {
        match self.wire.rest().await {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => panic!("{} sent {:?} where it had to close", self.peer, text(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{} did not close: {e}", self.peer),
        }
    }

    /// Reads up to the end of the stream, however it ends.
    pub async fn until_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(bytes) = self.wire.some().await {
            if bytes.is_empty() {
                break;
            }
            all.extend(bytes);
        }
        all
    }

    /// Whether the connection ends, however, within the limits; what comes until then is ignored.
    pub async fn ends(&mut self) -> bool {
        match self.wire.rest().await {
            Ok(_) => true,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Waits for the connection to end; whether it ended by a reset. What comes until then is ignored.
    pub async fn is_reset(&mut self) -> bool {
        match self.wire.rest().await {
            Ok(_) => false,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => true,
            Err(e) => panic!("{} neither closed nor reset: {e}", self.peer),
        }
    }

    /// Says that nothing more will be sent; reading goes on.
    pub async fn half_close(&mut self) {
        let result = self.wire.half_close().await;
        self.check("half-closing", result);
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        self.wire.reset();
    }

    /// This end's address.
    pub fn address(&self) -> SocketAddr {
        self.wire.tcp().local_addr().unwrap()
    }

    /// The socket beneath, for its options.
    pub fn tcp(&self) -> &TcpStream {
        self.wire.tcp()
    }

    async fn read_response(&mut self, method: &str) -> io::Result<Response> {
        let (mut response, head) = self.read_head().await?;
        let framing = head
            .response_framing(response.status, method)
            .map_err(io::Error::other)?;
        response.body = self.wire.body(framing).await?;
        Ok(response)
    }

    async fn read_head(&mut self) -> io::Result<(Response, crate::message::Head)> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.head().await?;
            let head = head.ok_or_else(|| io::Error::other("closed without a response"))?;
            let status = head
                .first
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3)?.parse().ok());
            let status: u16 = status.ok_or_else(|| io::Error::other(format!("{:?} is no status line", head.first)))?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let response = Response {
                status,
                interim,
                headers: head.headers.clone(),
                body: Vec::new(),
                raw: head.raw.clone(),
            };
            return Ok((response, head));
        }
    }

    fn check<T>(&self, doing: &str, result: io::Result<T>) -> T {
        result.unwrap_or_else(|e| {
            let seen = self.wire.seen();
            panic!(
                "{doing} ({}): {e}; seen so far ({} bytes): {}",
                self.peer,
                seen.len(),
                text(&seen)
            )
        })
    }
}

fn trusting(authority: &CertificateDer<'static>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(4096)].escape_ascii().to_string()
}
