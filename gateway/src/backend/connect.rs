//! Reaching a server: the one place where connections to servers are opened, for requests, relays and checks alike.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustls_pki_types::ServerName;
use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::source::Outgoing;
use super::tls::handshake_fault;
use super::{Connector, Server};
use crate::address::{Address, UnixAddress};
use crate::keep_alive;
use crate::proxy_protocol::{Addresses, Format, Header};
use crate::socket::Socket;
use crate::stream::Stream;
use crate::telemetry::pace::Pace;
use crate::unix_socket::sock_addr;

/// Why a server was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was refused, or failed otherwise.
    #[error("cannot connect: {0}")]
    Io(io::Error),
    /// The gateway itself had not what a connection takes: a descriptor, memory, or a local port. It says nothing about the
    /// server.
    #[error("the gateway lacks what a connection takes: {0}")]
    Lack(io::Error),
    /// It did not stand in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// It is not known where the server is.
    #[error("the server's address is not known")]
    Unresolved,
    /// It is there, but TLS with it came to nothing: most often, its certificate is not believed.
    #[error("no TLS with it: {}", handshake_fault(.0))]
    Tls(io::Error),
    /// It is there, but TLS with it did not stand in time: most often, it speaks none.
    #[error("no TLS with it within {0:?}")]
    TlsTimeout(Duration),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => Self::Lack(error),
            _ => Self::Io(error),
        }
    }
}

/// What a connection takes over of the client that it is for; nothing where it is for none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Who it is, for a server that [is to know](Server::is_for_one_client).
    pub introduction: Option<&'a Header>,
    /// Whom it asked for, for a server that [wants its name](Server::wants_name).
    pub name: Option<&'a ServerName<'static>>,
    /// Something is said to the server as soon as the connection stands. It leaves with the packet that ends the handshake then.
    pub speaks: bool,
}

/// What is said first on a connection.
enum First<'a> {
    /// Nobody knows when something is.
    Open,
    /// Something, as soon as the connection stands.
    Soon,
    /// What has come of it already, as soon as the connection stands. As much as there is room for is sent, and taken off. Whoever goes
    /// on sees to it that later pieces go out at once.
    Said(&'a mut Bytes),
}

impl First<'_> {
    fn is_soon(&self) -> bool {
        match self {
            Self::Open => false,
            Self::Soon => true,
            Self::Said(bytes) => !bytes.is_empty(),
        }
    }
}

impl Server {
    /// Opens a connection of the gateway's own within `limit`, as a check does. A server that wants an introduction is told
    /// that this is no client's.
    pub async fn connect(&self, limit: Duration) -> Result<Stream, ConnectError> {
        self.connect_for(Wishes::default(), limit).await
    }

    /// Opens a connection within `limit`: everything up to the first byte of what the client has to say. One that lasts wants
    /// [`keep_alive`](Self::keep_alive), too.
    pub async fn connect_for(&self, client: Wishes<'_>, limit: Duration) -> Result<Stream, ConnectError> {
        let first = match client.speaks {
            true => First::Soon,
            false => First::Open,
        };
        self.connect_with(client, first, limit).await
    }

    /// The same, with what the client has said by now; it may be nothing. What was sent of it is taken off. Whoever goes on sees to it that
    /// small pieces go out at once (`TCP_NODELAY`), from the second on: the first does.
    pub async fn connect_saying(
        &self,
        client: Wishes<'_>,
        said: &mut Bytes,
        limit: Duration,
    ) -> Result<Stream, ConnectError> {
        self.connect_with(client, First::Said(said), limit).await
    }

    async fn connect_with(
        &self,
        client: Wishes<'_>,
        first: First<'_>,
        limit: Duration,
    ) -> Result<Stream, ConnectError> {
        let time = Time::begin(limit);
        // Pinned here and lent: what waits for it would move it twice.
        let opened = pin!(self.open(self.address(), client, first, time));
        match timeout_at(time.end, opened).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(limit)),
        }
        .inspect_err(|error| self.note(error))
    }

    /// Whether what a client says first can go to it as soon as the connection stands: nothing else does.
    pub fn is_told_at_once(&self) -> bool {
        self.tls.is_none() && self.send_proxy.is_none()
    }

    /// Has the system look after the other end of a connection to it while that is silent, as `tcp-keep-alive` says. Not part
    /// of connecting: these are four system calls, which a connection for a single request has nothing from.
    pub fn keep_alive(&self, stream: &Stream) {
        if self.keep_alive.is_some() {
            keep_alive::set(SockRef::from(stream.tcp()), self.keep_alive);
        }
    }

    /// Opens a connection of the gateway's own to another address within `limit`, which begins there as one of traffic does
    /// at the server's.
    pub(super) async fn connect_to(&self, address: SocketAddr, limit: Duration) -> Result<Stream, ConnectError> {
        let time = Time::begin(limit);
        let opened = self.open(Some(address.into()), Wishes::default(), First::Open, time);
        match timeout_at(time.end, opened).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(limit)),
        }
        .inspect_err(|error| self.note(error))
    }

    /// Opens a plain connection to another address within `limit`, for a check that does not go where traffic goes: what
    /// the server speaks on its own port says nothing about another one.
    pub(super) async fn connect_plainly(&self, address: SocketAddr, limit: Duration) -> Result<Stream, ConnectError> {
        match tokio::time::timeout(limit, connected(address, &self.outgoing, None, First::Open)).await {
            Ok(stream) => stream.map(Stream::Plain),
            Err(_) => Err(ConnectError::Timeout(limit)),
        }
        .inspect_err(|error| self.note(error))
    }

    /// Opens a connection of the gateway's own in a TLS that is not traffic's, to the server or to another address, within
    /// `limit`. With a PROXY header before it, where the server wants one and the address is `introduced`.
    pub(super) async fn connect_in(
        &self,
        tls: &Connector,
        elsewhere: Option<SocketAddr>,
        introduced: bool,
        limit: Duration,
    ) -> Result<Stream, ConnectError> {
        let time = Time::begin(limit);
        let opened = async {
            let address = elsewhere.map(Address::Ip).or_else(|| self.address());
            let address = address.ok_or(ConnectError::Unresolved)?;
            let stream = self.reach(&address, None, introduced, First::Soon).await?;
            secure(tls, stream, address.ip(), None, time).await
        };
        match timeout_at(time.end, opened).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(limit)),
        }
        .inspect_err(|error| self.note(error))
    }

    async fn open(
        &self,
        address: Option<Address>,
        client: Wishes<'_>,
        first: First<'_>,
        time: Time,
    ) -> Result<Stream, ConnectError> {
        let address = address.ok_or(ConnectError::Unresolved)?;
        match &self.tls {
            Some(tls) => {
                let stream = self.reach(&address, client.introduction, true, First::Soon).await?;
                secure(tls, stream, address.ip(), client.name, time).await
            }
            None => {
                let stream = self.reach(&address, client.introduction, true, first).await?;
                Ok(Stream::Plain(stream))
            }
        }
    }

    /// A connection as far as TLS: with its options, and a PROXY header if it is `introduced` and the server wants one.
    async fn reach(
        &self,
        address: &Address,
        client: Option<&Header>,
        introduced: bool,
        first: First<'_>,
    ) -> Result<TcpStream, ConnectError> {
        let proxy = self.send_proxy.filter(|_| introduced);
        let first = match proxy {
            Some(_) => First::Soon,
            None => first,
        };
        let mut stream = match address {
            Address::Ip(address) => {
                let client = client.and_then(client_ip);
                let is_seen_to = matches!(first, First::Said(_));
                let stream = connected(*address, &self.outgoing, client, first).await?;
                if !is_seen_to {
                    // What comes in one piece goes out in one piece; holding it back (Nagle) only adds delay.
                    let _ = stream.set_nodelay(true);
                }
                stream
            }
            Address::Unix(address) => connected_unix(address).await?,
        };
        if let Some(format) = proxy {
            let header = match client {
                Some(header) => header.encode(format),
                None => own_header(format, &stream)?.encode(format),
            };
            // Before TLS, and so on its own.
            stream.write_all(&header).await?;
        }
        Ok(stream)
    }

    /// A certificate that is not believed is a fault that somebody has to mend, and so is a gateway that lacks something:
    /// they are spoken of, now and then.
    fn note(&self, error: &ConnectError) {
        if let ConnectError::Lack(error) = error {
            if let Some(left_out) = LACKING.take() {
                tracing::warn!(%error, left_out, "the gateway lacks what connections to servers take");
            }
            return;
        }
        let (Some(tls), ConnectError::Tls(error)) = (&self.tls, error) else {
            return;
        };
        self.metrics.tls_failed();
        if let Some(left_out) = tls.pace.take() {
            let (backend, server) = (self.metrics.backend_name(), &*self.name);
            tracing::warn!(backend, server, %error, left_out, "no TLS with the server");
        }
    }
}

/// A connection that stands. As [`TcpStream::connect`] makes it, without its question whether there was an error: of a
/// connection that failed the poller says so with the event that ends the wait, and of one that stands nothing need be asked.
/// What it is told before is the gateway's own affair, and its to mend where that cannot be done.
async fn connected(
    address: SocketAddr,
    outgoing: &Outgoing,
    client: Option<IpAddr>,
    mut first: First<'_>,
) -> Result<TcpStream, ConnectError> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    let prepared = outgoing.prepare(&socket, address, client);
    prepared.map_err(ConnectError::Lack)?;
    if first.is_soon() {
        // The packet that ends the handshake does not leave at once, then, but with what is said (tcp(7), `TCP_QUICKACK`).
        let _ = socket.set_tcp_quickack(false);
    }
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error.into()),
        _ => {}
    }
    // Registered only now: a socket that is not connecting yet has an event that says it is closed. And before anything is sent: nobody
    // would know of what was, should it fail.
    let stream = TcpStream::from_std(socket.into())?;
    // The handshake with a server on this machine is over by now, if it has room for a connection.
    if address.ip().to_canonical().is_loopback() && stands(&stream, &mut first)? {
        return Ok(stream);
    }
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    if (ready.is_error() || ready.is_write_closed())
        && let Some(error) = stream.take_error()?
    {
        return Err(error.into());
    }
    if let First::Said(said) = first {
        say(&stream, said)?;
    }
    Ok(stream)
}

/// Whether a connection stands already. If so, what is said first has been sent.
fn stands(socket: &TcpStream, first: &mut First<'_>) -> io::Result<bool> {
    match first {
        First::Said(said) if !said.is_empty() => say(socket, said),
        _ => Ok(socket.peer_addr().is_ok()),
    }
}

/// Sends what there is room for, and takes it off. Whether there was any.
fn say(socket: &impl AsFd, said: &mut Bytes) -> io::Result<bool> {
    if said.is_empty() {
        return Ok(true);
    }
    match send(socket, said, SendFlags::NOSIGNAL) {
        Ok(sent) => {
            said.advance(sent);
            Ok(true)
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The same over a UNIX socket, whose type is one of TCP as that holds any stream's descriptor. A server whose queue is full is
/// waited for, as one of TCP is; the system only tells that it was full.
async fn connected_unix(address: &UnixAddress) -> io::Result<TcpStream> {
    let address: SockAddr = sock_addr(address)?;
    loop {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        match socket.connect(&address) {
            Ok(()) => return TcpStream::from_std(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(FULL_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// Boxed, so that connecting without TLS has no room for a handshake to keep.
async fn secure(
    tls: &Connector,
    stream: TcpStream,
    address: Option<IpAddr>,
    name: Option<&ServerName<'static>>,
    time: Time,
) -> Result<Stream, ConnectError> {
    let handshake = tls.handshake(Socket::new(stream), address, name);
    match Box::pin(timeout_at(time.end, handshake)).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream.into()))),
        Ok(Err(error)) => Err(ConnectError::Tls(error)),
        Err(_) => Err(ConnectError::TlsTimeout(time.limit)),
    }
}

/// The address of the client that a header speaks for; none over UNIX sockets.
fn client_ip(header: &Header) -> Option<IpAddr> {
    let Header::Proxied(proxied) = header else { return None };
    let (client, _) = proxied.addresses.as_tcp()?;
    Some(client.ip())
}

/// The time that connecting has, TLS included: whoever waits for a part of it ends with the whole, and knows for what it waited.
#[derive(Debug, Clone, Copy)]
struct Time {
    limit: Duration,
    end: Instant,
}

impl Time {
    fn begin(limit: Duration) -> Self {
        let end = Instant::now() + limit;
        Self { limit, end }
    }
}

/// Between looks whether a UNIX socket's queue has room again: a busy server takes some in that time, and looking costs little.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// One for all servers: what is lacking, all of them lack.
static LACKING: LazyLock<Pace> = LazyLock::new(Pace::default);

/// What the gateway says of a connection of its own. Version 1 has no word for it that every server takes: the
/// specification (section 2.1) asks for the connection's own ends instead, and those of a UNIX socket can only be unknown.
fn own_header(format: Format, stream: &TcpStream) -> io::Result<Header> {
    Ok(match format {
        Format::V1 if SockRef::from(stream).domain()? == Domain::UNIX => Header::Unknown,
        Format::V1 => Header::proxied(Addresses::tcp(stream.local_addr()?, stream.peer_addr()?), Vec::new()),
        Format::V2 { .. } => Header::Local,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::socket::Packets;

    #[tokio::test]
    async fn what_is_said_at_once_ends_the_handshake() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let outgoing = Outgoing::default();
        for (words, packets) in [("", 2), ("hello", 2)] {
            let mut said = Bytes::from(words);
            let stream = connected(address, &outgoing, None, First::Said(&mut said))
                .await
                .unwrap();
            let (accepted, _) = listener.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            assert_eq!(said, "");
            assert_eq!(Packets::of(&stream).sent, packets, "{words:?}");
            drop(stream);
            let mut heard = String::new();
            let mut accepted = TcpStream::from_std(accepted).unwrap();
            accepted.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, words);
        }
    }

    #[tokio::test]
    async fn nobody_is_told_anything_who_refuses() {
        // Bound, and listening to nobody.
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let outgoing = Outgoing::default();
        for words in ["", "hello"] {
            let mut said = Bytes::from(words);
            let error = connected(address, &outgoing, None, First::Said(&mut said))
                .await
                .unwrap_err();
            let refused = matches!(&error, ConnectError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused);
            assert!(refused, "{words:?}: {error}");
            assert_eq!(said, words);
        }
    }
}
