//! A client and a server of HTTP/2 under a test's control.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::wire::{PATIENCE, within};

/// A connection of HTTP/2 to the gateway.
pub struct Http2Client {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// A response that came over HTTP/2.
#[derive(Debug)]
pub struct Http2Response {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its content.
    pub body: Vec<u8>,
    /// What came behind its content.
    pub trailers: Option<HeaderMap>,
}

impl Http2Response {
    /// Its content as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header field's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Http2Client {
    /// Connects, and speaks HTTP/2 without having asked.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within(PATIENCE, "connecting", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("connecting to {address}: {e}"));
        stream.set_nodelay(true).unwrap();
        Self::over(stream, &h2::client::Builder::new()).await
    }

    /// Connects with settings of its own.
    pub async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, builder).await
    }

    /// Connects in TLS, and agrees on HTTP/2 there.
    pub async fn connect_tls(address: SocketAddr, name: &str, mut config: rustls::ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let handshake = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = within(PATIENCE, "the TLS handshake", handshake).await.unwrap();
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            Some(&b"h2"[..]),
            "what was agreed on"
        );
        Self::over(stream, &h2::client::Builder::new()).await
    }

    async fn over<T>(stream: T, builder: &h2::client::Builder) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = within(PATIENCE, "the preface", builder.handshake(stream))
            .await
            .unwrap();
        Self {
            sender,
            driver: tokio::spawn(connection),
        }
    }

    /// Sends a request's head.
    pub async fn open(&self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = within(PATIENCE, "room for a stream", self.sender.clone().ready()).await;
        ready.unwrap().send_request(request, ends).unwrap()
    }

    /// Sends a request and reads its response.
    pub async fn try_ask(&self, request: Request<Vec<u8>>) -> Result<Http2Response, h2::Error> {
        let (head, body) = request.into_parts();
        let mut sender = within(PATIENCE, "room for a stream", self.sender.clone().ready()).await?;
        let (response, mut stream) = sender.send_request(Request::from_parts(head, ()), body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body.into(), true)?;
        }
        within(PATIENCE, "a response", read(response)).await
    }

    /// Sends a request and reads its response, which has to come.
    pub async fn ask(&self, request: Request<Vec<u8>>) -> Http2Response {
        self.try_ask(request).await.unwrap()
    }

    /// Gets something.
    pub async fn get(&self, path: &str) -> Http2Response {
        self.ask(http2_get(path)).await
    }

    /// The handle that sends requests.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// Waits for the connection to end.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.sender);
        within(PATIENCE, "the connection ends", self.driver).await.unwrap()
    }
}

/// Reads a response whole.
pub async fn read(response: ResponseFuture) -> Result<Http2Response, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let body = drain(&mut stream).await?;
    Ok(Http2Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        trailers: stream.trailers().await?,
    })
}

/// Reads content whole, and opens the windows again as it comes.
pub async fn drain(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// A GET request for this path.
pub fn http2_get(path: &str) -> Request<Vec<u8>> {
    Request::get(format!("http://app.example{path}"))
        .version(http::Version::HTTP_2)
        .body(Vec::new())
        .unwrap()
}

/// A POST request with this content.
pub fn http2_post(path: &str, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    Request::post(format!("http://app.example{path}"))
        .version(http::Version::HTTP_2)
        .body(body.into())
        .unwrap()
}

/// A server of HTTP/2; each stream is handed to a script.
pub struct Http2Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Request<()>>>>,
}

/// A stream of a server.
pub struct Http2Exchange {
    /// The request, its content unread.
    pub request: Request<RecvStream>,
    /// Where the response goes.
    pub respond: SendResponse<Bytes>,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

impl Http2Exchange {
    /// Answers with 200 and this content.
    pub fn answer(mut self, body: impl Into<Bytes>) -> Result<(), h2::Error> {
        let mut stream = self.respond.send_response(Response::new(()), false)?;
        stream.send_data(body.into(), true)
    }
}

impl Http2Server {
    /// Starts a server that runs `script` for each stream, with these settings.
    pub async fn start_with<F>(
        settings: impl Fn(&mut h2::server::Builder) + Send + Sync + 'static,
        tls: Option<rustls::ServerConfig>,
        script: impl Fn(Http2Exchange) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let tls = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            tokio_rustls::TlsAcceptor::from(Arc::new(config))
        });
        let (script, settings) = (Arc::new(script), Arc::new(settings));
        let accepting = tokio::spawn({
            let (connections, requests) = (connections.clone(), requests.clone());
            async move {
                let mut open = JoinSet::new();
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        continue;
                    };
                    let _ = stream.set_nodelay(true);
                    let index = connections.fetch_add(1, Ordering::SeqCst);
                    let (script, settings) = (script.clone(), settings.clone());
                    let (requests, tls) = (requests.clone(), tls.clone());
                    open.spawn(async move {
                        let mut builder = h2::server::Builder::new();
                        settings(&mut builder);
                        match tls {
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => converse(stream, &builder, index, &requests, &*script).await,
                                Err(error) => Err(io::Error::other(error)),
                            },
                            None => converse(stream, &builder, index, &requests, &*script).await,
                        }
                    });
                }
            }
        });
        Self {
            address,
            accepting,
            connections,
            requests,
        }
    }

    /// Starts a server that runs `script` for each stream.
    pub async fn start<F>(script: impl Fn(Http2Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        Self::start_with(|_| {}, None, script).await
    }

    /// Answers everything with 200 and this text.
    pub async fn answering(text: &'static str) -> Self {
        Self::start(move |exchange: Http2Exchange| async move { exchange.answer(text) }).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have been made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The heads of the requests that it has seen, in order.
    pub fn requests(&self) -> Vec<Request<()>> {
        let clone = |request: &Request<()>| {
            let mut copy = Request::new(());
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.version_mut() = request.version();
            *copy.headers_mut() = request.headers().clone();
            copy
        };
        self.requests.lock().unwrap().iter().map(clone).collect()
    }

    /// The head of the last request.
    pub fn last(&self) -> Request<()> {
        self.requests().pop().expect("the server has seen no request")
    }
}

impl Drop for Http2Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn converse<T, F>(
    stream: T,
    builder: &h2::server::Builder,
    index: usize,
    requests: &Mutex<Vec<Request<()>>>,
    script: &(impl Fn(Http2Exchange) -> F + Send + Sync),
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<(), h2::Error>> + Send + 'static,
{
    let mut connection = builder.handshake(stream).await.map_err(io::Error::other)?;
    let mut streams = JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.version_mut() = request.version();
        *head.headers_mut() = request.headers().clone();
        requests.lock().unwrap().push(head);
        streams.spawn(script(Http2Exchange {
            request,
            respond,
            connection: index,
        }));
        while streams.try_join_next().is_some() {}
    }
    Ok(())
}

/// A client of HTTP/2 that sends what it likes, frame by frame.
pub struct Http2Frames {
    client: crate::client::Client,
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Frame {
    /// Its type (RFC 9113, section 6).
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Http2Frame {
    /// The frame as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        frame(self.kind, self.flags, self.stream, &self.payload)
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            3 => 0,
            7 => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().unwrap()))
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block in which every field is written out (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// A length without Huffman coding: seven bits, and more where they are not enough (RFC 7541, section 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

impl Http2Frames {
    /// Connects, and says the preface with empty SETTINGS.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut client = crate::client::Client::connect(address).await;
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(frame(4, 0, 0, b"")).await;
        Self { client }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.send(bytes).await;
    }

    /// Sends bytes; the other end may already have closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.client.try_send(bytes).await
    }

    /// Sends a request's head on a stream, and nothing behind it.
    pub async fn request(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(frame(1, 5, stream, &block(fields))).await;
    }

    /// The next frame.
    pub async fn next(&mut self) -> Http2Frame {
        let head = self.client.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        Http2Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..9].try_into().unwrap()),
            payload: self.client.exactly(length).await,
        }
    }

    /// The next frame that this is true of.
    pub async fn find(&mut self, mut is_it: impl FnMut(&Http2Frame) -> bool) -> Http2Frame {
        loop {
            let frame = self.next().await;
            if is_it(&frame) {
                return frame;
            }
        }
    }

    /// Waits for the connection to end.
    pub async fn ends(&mut self) -> bool {
        self.client.ends().await
    }

    /// All that comes up to the end of the connection, as far as whole frames come.
    pub async fn rest(&mut self) -> Vec<Http2Frame> {
        let mut frames = Vec::new();
        let bytes = self.client.until_end().await;
        let mut bytes = bytes.as_slice();
        while let Some((head, rest)) = bytes.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, rest)) = rest.split_at_checked(length) else {
                break;
            };
            frames.push(Http2Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes(head[5..9].try_into().unwrap()),
                payload: payload.to_vec(),
            });
            bytes = rest;
        }
        frames
    }
}
