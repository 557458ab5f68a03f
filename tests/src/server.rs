//! Servers that do as a test tells them: answer, stall, reset, half-close, talk rubbish; and that remember what they saw.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::message::{Headers, Request};
use crate::wire::{Stream, Wire, eventually};

/// A TCP server on a free port; each connection is handed to a script.
pub struct Server {
    address: SocketAddr,
    script: Script,
    connections: Connections,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server that runs `script` for each connection; the connection is closed when it returns.
    pub async fn start<F>(script: impl Fn(Wire, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_at(([127, 0, 0, 1], 0).into(), script).await
    }

    /// The same at this address.
    pub async fn start_at<F>(address: SocketAddr, script: impl Fn(Wire, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let mut server = Self {
            address,
            script: Arc::new(move |wire, index| Box::pin(script(wire, index))),
            connections: Connections::default(),
            accepting: None,
        };
        server.resume().await;
        server
    }

    /// Sends back what it gets, and closes its side when the other has closed.
    pub async fn echo() -> Self {
        Self::start(|wire, _| echo(wire)).await
    }

    /// Sends `greeting` and then reads until the other end closes.
    pub async fn greeting(greeting: &'static str) -> Self {
        Self::start(move |mut wire, _| async move {
            wire.send(greeting).await?;
            wire.rest().await.map(drop)
        })
        .await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have been made to it.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// What came on one of its connections, the first megabyte of it.
    pub fn seen(&self, connection: usize) -> Vec<u8> {
        let tap = Arc::clone(&self.connections.lock().unwrap()[connection]);
        tap.lock().unwrap().clone()
    }

    /// What came on all of its connections, as text.
    pub fn seen_text(&self) -> String {
        let taps = self.connections.lock().unwrap().clone();
        taps.iter()
            .map(|tap| String::from_utf8_lossy(&tap.lock().unwrap()).into_owned())
            .collect()
    }

    /// Stops listening and drops every connection: the server has died. Its port stays its own.
    pub async fn stop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again, on the same port.
    pub async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (script, connections) = (Arc::clone(&self.script), Arc::clone(&self.connections));
        self.accepting = Some(tokio::spawn(accept(listener, script, connections)));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }
}

type Script = Arc<dyn Fn(Wire, usize) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> + Send + Sync>;
type Connections = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

async fn accept(listener: TcpListener, script: Script, connections: Connections) {
    // Dropped with this task, and every connection with it.
    let mut open = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let tap = Arc::<Mutex<Vec<u8>>>::default();
        let index = {
            let mut connections = connections.lock().unwrap();
            connections.push(Arc::clone(&tap));
            connections.len() - 1
        };
        open.spawn(script(Wire::new(Stream::Plain(stream), tap), index));
        while open.try_join_next().is_some() {}
    }
}

/// An HTTP/1.1 server; each request is answered as a function of it says.
pub struct HttpServer {
    server: Server,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl HttpServer {
    /// Starts a server that answers each request as `answer` says.
    pub async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), answer).await
    }

    /// The same at this address.
    pub async fn start_at(address: SocketAddr, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        let server = Server::start_at(address, move |wire, index| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move { converse(wire, index, &log, &*answer).await }
        })
        .await;
        Self { server, requests }
    }

    /// Answers everything with 200 and this text.
    pub async fn answering(text: &str) -> Self {
        let text = text.to_owned();
        Self::start(move |_| Answer::ok(&text)).await
    }

    /// The requests that it read whole, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The last request that it read whole.
    pub fn last(&self) -> Request {
        self.requests().pop().expect("the server has seen no request")
    }

    /// Waits until it has read that many requests.
    pub async fn has_seen(&self, n: usize) {
        eventually("the server sees the request", async || {
            self.requests.lock().unwrap().len() >= n
        })
        .await;
    }

    /// Stops listening and drops every connection.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Listens again, on the same port.
    pub async fn resume(&mut self) {
        self.server.resume().await;
    }
}

impl Deref for HttpServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

async fn converse(
    mut wire: Wire,
    index: usize,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> io::Result<()> {
    while let Some(head) = wire.head().await? {
        let mut first = head.first.splitn(3, ' ').map(str::to_owned);
        let mut next = || first.next().unwrap_or_default();
        let framing = head.request_framing().map_err(io::Error::other)?;
        let request = Request {
            method: next(),
            target: next(),
            version: next(),
            body: wire.body(framing).await?,
            headers: head.headers,
            raw: head.raw,
            connection: index,
        };
        let answer = answer(&request);
        let silent = request.method == "HEAD";
        log.lock().unwrap().push(request);
        for step in answer.steps(silent) {
            match step {
                Step::Send(bytes) => wire.send(bytes).await?,
                Step::Stream(bytes) => stream(&mut wire, bytes).await?,
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Echo => return echo(wire).await,
                Step::Stall => return wire.rest().await.map(drop),
                Step::HalfClose => wire.half_close().await?,
                Step::Close => return Ok(()),
                Step::Reset => {
                    wire.reset();
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

async fn echo(mut wire: Wire) -> io::Result<()> {
    loop {
        let bytes = wire.some().await?;
        if bytes.is_empty() {
            return wire.half_close().await;
        }
        wire.send(&bytes).await?;
    }
}

async fn stream(wire: &mut Wire, bytes: u64) -> io::Result<()> {
    let block = vec![b'x'; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(block.len() as u64);
        wire.send(&block[..n as usize]).await?;
        left -= n;
    }
    Ok(())
}

/// What a server does about a request.
pub struct Answer {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
    raw: bool,
    after: Vec<Step>,
}

enum Step {
    Send(Vec<u8>),
    Stream(u64),
    Pause(Duration),
    Echo,
    Stall,
    HalfClose,
    Close,
    Reset,
}

impl Answer {
    /// 200 with this content.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200).body(body)
    }

    /// This status, no content.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Headers::default(),
            body: Vec::new(),
            raw: false,
            after: Vec::new(),
        }
    }

    /// Exactly these bytes, whatever they are.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self {
            raw: true,
            ..Self::status(0)
        }
        .then_send(bytes)
    }

    /// Nothing: the steps that follow are all there is.
    pub fn nothing() -> Self {
        Self::raw("")
    }

    /// With one more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this content.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Then sends bytes.
    #[must_use]
    pub fn then_send(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        self.then(Step::Send(bytes))
    }

    /// Then sends that many bytes, as fast as they are taken.
    #[must_use]
    pub fn then_stream(self, bytes: u64) -> Self {
        self.then(Step::Stream(bytes))
    }

    /// Then waits.
    #[must_use]
    pub fn then_pause(self, time: Duration) -> Self {
        self.then(Step::Pause(time))
    }

    /// 101: from here on the connection speaks this protocol.
    pub fn switching(protocol: &str) -> Self {
        Self::status(101)
            .header("Connection", "Upgrade")
            .header("Upgrade", protocol)
    }

    /// Then sends back what comes until the other end closes its side.
    #[must_use]
    pub fn then_echo(self) -> Self {
        self.then(Step::Echo)
    }

    /// Then does nothing more until the other end closes.
    #[must_use]
    pub fn then_stall(self) -> Self {
        self.then(Step::Stall)
    }

    /// Then closes its sending side.
    #[must_use]
    pub fn then_half_close(self) -> Self {
        self.then(Step::HalfClose)
    }

    /// Then closes the connection.
    #[must_use]
    pub fn then_close(self) -> Self {
        self.then(Step::Close)
    }

    /// Then resets the connection.
    #[must_use]
    pub fn then_reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// The head alone with this length, for content that later steps send.
    pub fn head_only(length: u64) -> Self {
        Self::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))
    }

    fn then(mut self, step: Step) -> Self {
        self.after.push(step);
        self
    }

    fn steps(self, silent: bool) -> Vec<Step> {
        let mut steps = self.after;
        if !self.raw {
            let mut text = format!("HTTP/1.1 {} Because\r\n", self.status);
            for (name, value) in &self.headers.0 {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            if self.status >= 200 && !matches!(self.status, 204 | 304) && !self.headers.has("transfer-encoding") {
                text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
            }
            text.push_str("\r\n");
            let mut bytes = text.into_bytes();
            if !silent {
                bytes.extend(self.body);
            }
            steps.insert(0, Step::Send(bytes));
        }
        steps
    }
}

/// An address that refuses connections for as long as the guard lives.
pub fn refusing() -> (SocketAddr, TcpSocket) {
    // Bound and not listening: nobody else gets the port, and the kernel answers a SYN with RST.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// An address where connecting gets no answer for as long as the guard lives.
pub async fn blackhole() -> (SocketAddr, impl Send) {
    // A listener whose accept queue is full drops every SYN.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            Ok(stream) => queued.push(stream.unwrap()),
            Err(_) => return (address, (listener, queued)),
        }
    }
}
