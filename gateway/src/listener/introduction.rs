//! The PROXY header that a connection begins with, where `accept-proxy` says so: read whole, within its time, and nothing
//! beyond it, so that whoever reads next (TLS, HTTP, a relay) finds the client's first byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::proxy_protocol::{Header, ParseError, Parsed, parse};

/// A connection that is over before it began: no PROXY header came, and one had to.
#[derive(Debug)]
pub struct Unintroduced {
    /// Who connected; none of a UNIX socket.
    pub peer: Option<SocketAddr>,
    /// Where to, likewise.
    pub local: Option<SocketAddr>,
    /// When.
    pub since: Instant,
    /// Why there is no header.
    pub fault: Fault,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// What came is none.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// It did not come whole in time.
    #[error("the PROXY header did not come whole in time")]
    Late,
    /// The connection ended inside it.
    #[error("the connection ended inside its PROXY header")]
    Cut,
    /// Not one byte came until the end, or in time: somebody looks whether the port is open.
    #[error("nothing was sent")]
    Silent,
}

/// Reads the header within `limit`.
pub async fn read(stream: &mut TcpStream, limit: Duration) -> Result<Header, Fault> {
    let mut reader = Reader {
        buffer: vec![0; USUAL],
        have: 0,
    };
    match tokio::time::timeout(limit, reader.read(stream)).await {
        Ok(result) => result,
        Err(_) if reader.have == 0 => Err(Fault::Silent),
        Err(_) => Err(Fault::Late),
    }
}

struct Reader {
    /// What has been read, and room for more.
    buffer: Vec<u8>,
    /// Bytes of it that have been read. All of them belong to the header.
    have: usize,
}

impl Reader {
    /// Looks at what has come, and takes what belongs to the header: two calls of the system for a header that comes in one
    /// piece. As long as it is incomplete, all that has come belongs to it; so what has been looked at is always taken, and
    /// looking again waits for more.
    async fn read(&mut self, stream: &mut TcpStream) -> Result<Header, Fault> {
        loop {
            let came = match stream.peek(&mut self.buffer[self.have..]).await {
                Ok(came) => came,
                Err(_) => return Err(self.ended()),
            };
            if came == 0 {
                return Err(self.ended());
            }
            let seen = self.have + came;
            match parse(&self.buffer[..seen])? {
                Parsed::Complete { header, length } => {
                    self.take(stream, length).await.map_err(|_| Fault::Cut)?;
                    return Ok(header);
                }
                Parsed::Incomplete { need } => {
                    self.take(stream, seen).await.map_err(|_| Fault::Cut)?;
                    if self.buffer.len() < need {
                        self.buffer.resize(need, 0);
                    }
                }
            }
        }
    }

    /// Takes bytes that have been looked at, up to this position. They are there: this does not wait.
    async fn take(&mut self, stream: &mut TcpStream, end: usize) -> io::Result<()> {
        stream.read_exact(&mut self.buffer[self.have..end]).await?;
        self.have = end;
        Ok(())
    }

    fn ended(&self) -> Fault {
        match self.have {
            0 => Fault::Silent,
            _ => Fault::Cut,
        }
    }
}

/// Bytes looked at first: what the specification wants every header to fit into. Longer ones get room when they say so,
/// [`MAX_HEADER`](crate::proxy_protocol::MAX_HEADER) at most.
const USUAL: usize = 536;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy_protocol::{Addresses, Format, RawTlv, Tlv};

    const LIMIT: Duration = Duration::from_secs(10);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn header(padding: usize) -> Header {
        let addresses = Addresses::tcp("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let value = vec![b'\n'; padding].into();
        Header::proxied(addresses, vec![Tlv::Other(RawTlv { kind: 0xe0, value })])
    }

    #[tokio::test]
    async fn nothing_beyond_the_header_is_taken() {
        for padding in [0, 3, 505, 506, 507, 508, 4000] {
            let (mut client, mut server) = pair().await;
            let bytes = header(padding).encode(Format::V2 { checksum: true });
            client
                .write_all(&[&bytes[..], b"PROXY \r\nhello"].concat())
                .await
                .unwrap();
            assert_eq!(read(&mut server, LIMIT).await.unwrap(), header(padding));
            let mut next = [0; 13];
            server.read_exact(&mut next).await.unwrap();
            assert_eq!(&next, b"PROXY \r\nhello");
        }
    }

    #[tokio::test]
    async fn a_header_comes_byte_by_byte() {
        for bytes in [
            header(600).encode(Format::V2 { checksum: false }),
            header(0).encode(Format::V1),
        ] {
            let (mut client, mut server) = pair().await;
            let end = bytes.len();
            let sending = async move {
                for byte in bytes.iter().chain(b"x") {
                    client.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client
            };
            let (_client, got) = tokio::join!(sending, read(&mut server, LIMIT));
            assert!(matches!(got, Ok(Header::Proxied(_))), "{got:?}");
            let mut next = [0; 2];
            assert_eq!(server.read(&mut next).await.unwrap(), 1, "{end}");
            assert_eq!(next[0], b'x');
        }
    }

    #[tokio::test]
    async fn what_does_not_come_is_told_apart() {
        let short = Duration::from_millis(50);
        let (mut client, mut server) = pair().await;
        assert!(matches!(read(&mut server, short).await, Err(Fault::Silent)));
        client.write_all(b"PROXY TCP4 ").await.unwrap();
        assert!(matches!(read(&mut server, short).await, Err(Fault::Late)));

        let (mut client, mut server) = pair().await;
        client.write_all(b"PROXY UNKNOWN\r").await.unwrap();
        drop(client);
        assert!(matches!(read(&mut server, LIMIT).await, Err(Fault::Cut)));

        let (client, mut server) = pair().await;
        drop(client);
        assert!(matches!(read(&mut server, LIMIT).await, Err(Fault::Silent)));

        let (mut client, mut server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let got = read(&mut server, LIMIT).await;
        assert!(matches!(got, Err(Fault::Malformed(ParseError::NoHeader))));
    }
}
