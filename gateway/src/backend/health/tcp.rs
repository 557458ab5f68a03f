//! The TCP check: a connection is made, what is to be sent is sent, what is to be expected has to come, and it is closed.

use std::fmt;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{CheckError, Way, excerpt};
use crate::backend::Server;
use crate::config::{CheckStep, Expect};
use crate::stream::Stream;

/// Goes through the steps within `limit`.
pub(super) async fn check(server: &Server, way: &Way, steps: &[CheckStep], limit: Duration) -> Result<(), CheckError> {
    let deadline = Instant::now() + limit;
    let mut stream = way.open(server, limit).await?;
    let mut received = Received::default();
    for (i, step) in steps.iter().enumerate() {
        let result = match step {
            CheckStep::Send(bytes) => {
                received.clear();
                match timeout_at(deadline, stream.write_all(bytes)).await {
                    Ok(result) => result.map_err(|error| Broken::Io(error.to_string())),
                    Err(_) => Err(Broken::Stuck(limit)),
                }
            }
            CheckStep::Expect(expect) => match timeout_at(deadline, received.wait(&mut stream, expect)).await {
                Ok(result) => result,
                Err(_) => Err(Broken::Silent(limit)),
            },
        };
        result.map_err(|broken| {
            let step = i + 1;
            match (broken, &steps[i]) {
                (broken, CheckStep::Send(_)) => CheckError::Send { step, broken },
                (broken, CheckStep::Expect(expect)) => CheckError::Expect {
                    step,
                    expected: expect.to_string(),
                    broken,
                    received: excerpt(&received.bytes),
                },
            }
        })?;
    }
    Ok(())
}

/// How a step ended that did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The server said something else.
    Unlike,
    /// It closed the connection.
    Closed,
    /// It said more than is looked at.
    TooMuch,
    /// It said too little within this time.
    Silent(Duration),
    /// It took nothing within this time.
    Stuck(Duration),
    /// The connection failed.
    Io(String),
}

/// What has come since the last `send`.
#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    reads: usize,
}

impl Received {
    fn clear(&mut self) {
        self.bytes.clear();
        self.reads = 0;
    }

    /// Reads until what has come is as expected, or can no longer be.
    async fn wait(&mut self, stream: &mut Stream, expect: &Expect) -> Result<(), Broken> {
        // Of what has been looked at in vain, this many bytes cannot begin what is looked for.
        let mut seen = 0;
        loop {
            match judge(expect, &self.bytes, &mut seen) {
                Verdict::Holds => return Ok(()),
                Verdict::Never => return Err(Broken::Unlike),
                Verdict::NotYet => {}
            }
            if self.bytes.len() >= MOST_RECEIVED || self.reads >= MOST_READS {
                return Err(Broken::TooMuch);
            }
            let mut piece = [0; 2048];
            let most = piece.len().min(MOST_RECEIVED - self.bytes.len());
            match stream.read(&mut piece[..most]).await {
                Ok(0) => return Err(Broken::Closed),
                Ok(n) => self.bytes.extend_from_slice(&piece[..n]),
                Err(error) => return Err(Broken::Io(error.to_string())),
            }
            self.reads += 1;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    NotYet,
    Never,
}

fn judge(expect: &Expect, bytes: &[u8], seen: &mut usize) -> Verdict {
    match expect {
        Expect::Prefix(prefix) if bytes.starts_with(prefix) => Verdict::Holds,
        Expect::Prefix(prefix) if prefix.starts_with(bytes) => Verdict::NotYet,
        Expect::Prefix(_) => Verdict::Never,
        Expect::Contains(needle) => {
            let found = bytes[*seen..].windows(needle.len()).any(|window| window == needle);
            *seen = (bytes.len() + 1).saturating_sub(needle.len()).max(*seen);
            if found { Verdict::Holds } else { Verdict::NotYet }
        }
        Expect::Regex(pattern) if pattern.0.is_match(bytes) => Verdict::Holds,
        Expect::Regex(_) => Verdict::NotYet,
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlike => f.write_str("the server said something else"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::TooMuch => write!(f, "not within {MOST_RECEIVED} bytes or {MOST_READS} pieces"),
            Self::Silent(limit) => write!(f, "no answer within {limit:?}"),
            Self::Stuck(limit) => write!(f, "the server read nothing within {limit:?}"),
            Self::Io(error) => f.write_str(error),
        }
    }
}

/// Bytes that are looked at between two `send`: the reference says so, and it bounds what a server can make a check hold.
pub(super) const MOST_RECEIVED: usize = 16 * 1024;
/// Pieces in which they may come: each is looked at anew, and a server that sends one byte at a time would make much work
/// of little.
const MOST_READS: usize = 1_024;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;
    use crate::backend::health::tests::checked;
    use crate::config::{CheckKind, Pattern};

    fn text(text: &str) -> CheckStep {
        CheckStep::Send(text.as_bytes().to_vec())
    }

    fn prefix(bytes: impl AsRef<[u8]>) -> CheckStep {
        CheckStep::Expect(Expect::Prefix(bytes.as_ref().to_vec()))
    }

    fn contains(bytes: impl AsRef<[u8]>) -> CheckStep {
        CheckStep::Expect(Expect::Contains(bytes.as_ref().to_vec()))
    }

    fn regex(text: &str) -> CheckStep {
        let regex = regex::bytes::RegexBuilder::new(text).unicode(false).build();
        CheckStep::Expect(Expect::Regex(Pattern(regex.unwrap())))
    }

    /// A server that sends these pieces, each after it has read what goes before it, and then stays.
    async fn server(talk: &'static [(&'static str, &'static [u8])]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    for (read, write) in talk {
                        let mut asked = vec![0; read.len()];
                        stream.read_exact(&mut asked).await.unwrap();
                        assert_eq!(asked, read.as_bytes());
                        for byte in *write {
                            stream.write_all(&[*byte]).await.unwrap();
                            tokio::task::yield_now().await;
                        }
                    }
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        address
    }

    async fn ask(address: SocketAddr, steps: &[CheckStep]) -> Result<(), String> {
        let backend = checked(address, CheckKind::Tcp(Vec::new()));
        let result = check(&backend.servers[0], &Way::default(), steps, Duration::from_millis(300)).await;
        result.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn steps_are_gone_through_in_order() {
        let address = server(&[
            ("", b"220-mail ESMTP\r\n220 ready\r\n"),
            ("EHLO x\r\n", b"250-mail\r\n250 PIPELINING\r\n"),
            ("QUIT\r\n", b"221 bye\r\n"),
        ])
        .await;
        let steps = [
            prefix("220"),
            regex("(?m)^220 "),
            text("EHLO x\r\n"),
            contains("250 PIPELINING\r\n"),
            text("QUIT\r\n"),
            prefix("221"),
        ];
        assert_eq!(ask(address, &steps).await, Ok(()));
        // What came before a `send` does not count after it.
        let steps = [
            prefix("220"),
            contains("ready\r\n"),
            text("EHLO x\r\n"),
            contains("220"),
        ];
        let error = ask(address, &steps).await.unwrap_err();
        assert!(
            error.starts_with("step 4, expect contains=\"220\": no answer within 300ms; received \"250-mail"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_reason_says_what_came_instead() {
        let address = server(&[("", b"-LOADING\x00 dataset")]).await;
        assert_eq!(
            ask(address, &[prefix("+PONG")]).await.unwrap_err(),
            r#"step 1, expect prefix="+PONG": the server said something else; received "-""#
        );
        let silent = server(&[]).await;
        assert_eq!(
            ask(silent, &[text("PING\r\n"), prefix("+PONG\r\n")]).await.unwrap_err(),
            r#"step 2, expect prefix="+PONG\r\n": no answer within 300ms; received """#
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let closing = listener.local_addr().unwrap();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let error = ask(closing, &[prefix(b"\xff")]).await.unwrap_err();
        assert!(error.starts_with("step 1, expect prefix-hex=\"ff\": "), "{error}");
    }

    #[tokio::test]
    async fn what_a_server_can_make_a_check_hold_is_bounded() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let error = ask(address, &[contains("y")]).await.unwrap_err();
        assert!(error.contains("not within 16384 bytes or 1024 pieces"), "{error}");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_verdict_is_that_on_the_whole(
            bytes in proptest::collection::vec(0_u8..3, 0..40),
            needle in proptest::collection::vec(0_u8..3, 1..5),
            cuts in proptest::collection::vec(0_usize..40, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            for expect in [Expect::Contains(needle.clone()), Expect::Prefix(needle.clone())] {
                let mut seen = 0;
                let mut verdict = Verdict::NotYet;
                for &cut in &cuts {
                    verdict = judge(&expect, &bytes[..cut], &mut seen);
                    if verdict != Verdict::NotYet {
                        break;
                    }
                }
                let holds = match expect {
                    Expect::Prefix(_) => bytes.starts_with(&needle),
                    _ => bytes.windows(needle.len()).any(|window| window == needle),
                };
                prop_assert_eq!(verdict == Verdict::Holds, holds);
            }
        }
    }
}
