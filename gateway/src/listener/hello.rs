//! Waiting for a client's ClientHello, and leaving it where it is: whoever reads the connection next gets every byte.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::client_hello::{MAX_BYTES, Parser, Progress};
use crate::policy::ClientHello;

/// What the client says first, if that is a ClientHello and there within `limit`. What is not TLS is known by its first byte
/// and does not wait; a client that says nothing, because its server speaks first, waits for the whole limit.
pub async fn peek(stream: TcpStream, limit: Duration) -> io::Result<(TcpStream, Option<ClientHello>)> {
    let mut looker = Looker::default();
    let found = match timeout(limit, looker.look(&stream)).await {
        Ok(Ok(Progress::Done(hello))) => Some(hello),
        Ok(Ok(Progress::Refused(refusal))) => {
            debug!(%refusal, "no ClientHello to route by");
            None
        }
        Ok(Ok(Progress::Incomplete)) | Err(_) => None,
        Ok(Err(error)) => return Err(error),
    };
    if found.is_none() && looker.seen > 0 {
        // It is marked as having nothing to read until more comes, and there are bytes. Only a new registration tells again.
        return Ok((TcpStream::from_std(stream.into_std()?)?, None));
    }
    Ok((stream, found))
}

/// Looks at bytes again and again, and reads those that are new.
#[derive(Default)]
struct Looker {
    parser: Parser,
    seen: usize,
}

impl Looker {
    /// Until it is known what it is, or nothing more will come.
    async fn look(&mut self, stream: &TcpStream) -> io::Result<Progress> {
        loop {
            let ready = stream.ready(Interest::READABLE).await?;
            let looked = stream.try_io(Interest::READABLE, || self.look_once(stream));
            match looked {
                Ok(Progress::Incomplete) if ready.is_read_closed() => return Ok(Progress::Incomplete),
                Ok(Progress::Incomplete) => {}
                Ok(progress) => return Ok(progress),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready.is_read_closed() {
                        return Ok(Progress::Incomplete);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// "Would block" stands for nothing new: then more is waited for.
    fn look_once(&mut self, stream: &TcpStream) -> io::Result<Progress> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(MAX_BYTES, 0);
            let (_, length) = recv(stream, &mut buffer[..], RecvFlags::PEEK)?;
            let new = buffer.get(self.seen..length).unwrap_or_default();
            if new.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.seen = length;
            Ok(self.parser.feed(new))
        })
    }
}

thread_local! {
    /// One for all connections of a worker: a look is over before another begins.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A whole ClientHello of a name, in one record.
    fn hello(name: &str) -> Vec<u8> {
        let long = |data: &[u8]| [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat();
        let names = long(&[&[0], &long(name.as_bytes())[..]].concat());
        let extensions = [&[0, 0], &long(&names)[..]].concat();
        let body = [&[3, 3], &[7; 32][..], &[0, 0, 2, 0x13, 1, 1, 0], &long(&extensions)].concat();
        let message = [&[1, 0], &long(&body)[..]].concat();
        [&[22, 3, 1], &long(&message)[..]].concat()
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn every_byte_is_left_where_it_is() {
        let (mut client, server) = pair().await;
        let bytes = hello("www.example.net");
        let sent = bytes.clone();
        let sending = tokio::spawn(async move {
            for byte in sent.chunks(1) {
                client.write_all(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
            client
        });
        let (mut server, found) = peek(server, LONG).await.unwrap();
        assert_eq!(found.unwrap().sni.as_deref(), Some("www.example.net"));
        let mut client = sending.await.unwrap();
        client.write_all(b"more").await.unwrap();
        let mut read = vec![0; bytes.len() + 4];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, [&bytes[..], b"more"].concat());
    }

    #[tokio::test]
    async fn half_a_hello_is_read_after_the_limit() {
        let (mut client, server) = pair().await;
        client.write_all(&hello("www.example.net")[..20]).await.unwrap();
        let (mut server, found) = peek(server, Duration::from_millis(50)).await.unwrap();
        assert_eq!(found, None);
        // Without another byte from the client.
        let mut read = [0; 20];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, hello("www.example.net")[..20]);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_cannot_come() {
        for sent in [&b"GET"[..], b"\x16\x03", b""] {
            let (mut client, server) = pair().await;
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let (mut server, found) = peek(server, LONG).await.unwrap();
            assert_eq!(found, None);
            let mut read = Vec::new();
            server.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }

    #[tokio::test]
    async fn too_much_is_not_waited_for() {
        let (mut client, server) = pair().await;
        // Records of one byte each.
        let bomb: Vec<u8> = [22, 3, 1, 0, 1, 1]
            .into_iter()
            .chain([22, 3, 1, 0, 1, 0].into_iter().cycle().take(60_000))
            .collect();
        client.write_all(&bomb).await.unwrap();
        let (_, found) = peek(server, LONG).await.unwrap();
        assert_eq!(found, None);
    }
}
