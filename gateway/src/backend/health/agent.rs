//! The agent check: a program beside a server says in a line what the server can bear. HAProxy's protocol (configuration
//! manual 2.6, section 5.2, `agent-check`), so that its agents need no change.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::rhythm::{FAR, first_due, jittered};
use super::{by, excerpt};
use crate::backend::random::Random;
use crate::backend::{Backend, ConnectError, Server};
use crate::config::{AgentCheck, MAX_CONNECTIONS};
use crate::telemetry::metrics::{Admin, Agent, CheckEnd};

/// Asks one server's agent.
pub(super) struct Asker {
    backend: Arc<str>,
    server: Arc<Server>,
    agent: AgentCheck,
    /// Why the last question came to nothing, as it was logged.
    said: Option<String>,
}

impl Asker {
    pub(super) fn new(backend: &Backend, server: &Arc<Server>, agent: &AgentCheck) -> Self {
        Self {
            backend: Arc::clone(&backend.name),
            server: Arc::clone(server),
            agent: AgentCheck {
                interval: agent.interval.min(FAR),
                timeout: agent.timeout.min(FAR),
                ..agent.clone()
            },
            said: None,
        }
    }

    /// Asks until it is dropped, first when an earlier configuration would have, and after this delay when there was none.
    pub(super) async fn run(mut self, delay: Duration) {
        let mut random = Random::new();
        let planned = self.server.metrics.questions.get().due;
        let mut next = first_due(planned, Instant::now(), self.agent.interval, delay);
        loop {
            self.server.metrics.questions.plan(next, 0);
            sleep_until(next).await;
            let started = Instant::now();
            if let Some(address) = self.server.address() {
                let result = self.ask(address.ip()).await;
                self.server.metrics.agent_asked(outcome(&result, started.elapsed()));
                self.heard(result);
            }
            next = started + jittered(self.agent.interval, random.next());
        }
    }

    async fn ask(&self, server: Option<IpAddr>) -> Result<Vec<u8>, AgentError> {
        // Of a server on a UNIX socket, the configuration says where its agent is.
        let ip = self.agent.address.or(server).ok_or(ConnectError::Unresolved)?;
        let limit = self.agent.timeout;
        let exchange = async {
            let address = SocketAddr::new(ip, self.agent.port);
            let mut stream = self.server.connect_plainly(address, limit).await?;
            stream.write_all(&self.agent.send).await?;
            let mut line = Vec::new();
            loop {
                let mut piece = [0; 256];
                let n = stream.read(&mut piece).await?;
                let end = piece[..n].iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                line.extend_from_slice(&piece[..end.unwrap_or(n)]);
                if line.len() > MOST_LINE {
                    return Err(AgentError::TooLong);
                }
                match (end, n, line.is_empty()) {
                    (Some(_), ..) => return Ok(line),
                    (None, 0, true) => return Err(AgentError::Nothing),
                    // As HAProxy has it: `maxconn:3` may have been to become `maxconn:30`.
                    (None, 0, false) => return Err(AgentError::CutOff),
                    _ => {}
                }
            }
        };
        let result = by(Instant::now() + limit, exchange).await;
        result.unwrap_or(Err(AgentError::Timeout(limit)))
    }

    /// What does not answer changes nothing, as with HAProxy: a server is not worse for an agent that has died.
    fn heard(&mut self, result: Result<Vec<u8>, AgentError>) {
        let (backend, server) = (&*self.backend, &*self.server.name);
        let line = match result {
            Ok(line) => line,
            Err(error) => {
                let reason = error.to_string();
                if self.said.as_ref() != Some(&reason) {
                    tracing::info!(
                        backend,
                        server,
                        reason,
                        "the agent cannot be asked; what it said last holds"
                    );
                }
                self.said = Some(reason);
                return;
            }
        };
        self.said = None;
        let before = self.server.metrics.agent();
        let said = Said::read(&line);
        let after = said.apply(before);
        if after == before {
            return;
        }
        self.server.metrics.set_agent(after);
        let reason = said.reason;
        let left = self.server.metrics.backend_servers_up();
        match (before.up, after.up) {
            (true, false) => tracing::warn!(backend, server, reason, servers_up = left, "agent: server is down"),
            (false, true) => tracing::info!(backend, server, reason, servers_up = left, "agent: server is up"),
            _ => {
                let state = after.admin.word();
                tracing::info!(
                    backend,
                    server,
                    reason,
                    state,
                    percent = after.percent,
                    max_connections = after.max_connections,
                    "agent: server changed"
                );
            }
        }
    }
}

/// How a question ended, in the words that HAProxy has for checks: of a server that its agent says is down, as if it had answered
/// so itself.
fn outcome(result: &Result<Vec<u8>, AgentError>, took: Duration) -> CheckEnd {
    let (word, reason) = match result {
        Ok(line) if Said::read(line).up == Some(false) => ("L7STS", excerpt(line)),
        Ok(line) => ("L7OK", excerpt(line)),
        Err(error) => {
            let word = match error {
                AgentError::Connect(ConnectError::Timeout(_)) => "L4TOUT",
                AgentError::Connect(_) => "L4CON",
                AgentError::Timeout(_) => "L7TOUT",
                AgentError::Io(_) | AgentError::Nothing | AgentError::CutOff | AgentError::TooLong => "L7RSP",
            };
            (word, error.to_string())
        }
    };
    CheckEnd {
        passed: result.is_ok(),
        took,
        word,
        status: None,
        reason: Some(reason),
    }
}

/// Why an agent said nothing.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no line within {0:?}")]
    Timeout(Duration),
    #[error("it closed without a word")]
    Nothing,
    #[error("it closed before its line had ended")]
    CutOff,
    #[error("its line is longer than {MOST_LINE} bytes")]
    TooLong,
}

/// What an agent's line says. What it does not mention stays as it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    admin: Option<Admin>,
    up: Option<bool>,
    percent: Option<u16>,
    max_connections: Option<usize>,
    /// What follows `#`.
    reason: String,
}

impl Said {
    /// Words in any order, with spaces, tabs or commas between them; of two that contradict each other the later counts.
    /// Unknown ones are for others to understand.
    fn read(line: &[u8]) -> Self {
        let (words, reason) = match line.iter().position(|byte| *byte == b'#') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let mut said = Self {
            reason: reason.escape_ascii().to_string(),
            ..Self::default()
        };
        for word in words.split(|byte| matches!(byte, b' ' | b'\t' | b',')) {
            match word.to_ascii_lowercase().as_slice() {
                b"up" => said.up = Some(true),
                b"down" | b"failed" | b"stopped" | b"fail" => said.up = Some(false),
                b"ready" => said.admin = Some(Admin::Ready),
                b"drain" => said.admin = Some(Admin::Drain),
                b"maint" => said.admin = Some(Admin::Maintenance),
                other => {
                    said.percent = percent(other).or(said.percent);
                    said.max_connections = max_connections(other).or(said.max_connections);
                }
            }
        }
        said
    }

    fn apply(&self, before: Agent) -> Agent {
        Agent {
            admin: self.admin.unwrap_or(before.admin),
            up: self.up.unwrap_or(before.up),
            percent: self.percent.unwrap_or(before.percent),
            max_connections: self.max_connections.or(before.max_connections),
        }
    }
}

/// Of more than a share can be: as much as there is.
fn percent(word: &[u8]) -> Option<u16> {
    let digits = number(word.strip_suffix(b"%")?)?;
    Some(digits.parse().unwrap_or(u16::MAX))
}

/// Of what no server has: as much as one may be configured to have.
fn max_connections(word: &[u8]) -> Option<usize> {
    let digits = number(word.strip_prefix(b"maxconn:")?)?;
    let most = usize::try_from(*MAX_CONNECTIONS.end()).unwrap_or(usize::MAX);
    Some(digits.parse().map_or(most, |max: usize| max.min(most)))
}

/// Digits, one at least.
fn number(digits: &[u8]) -> Option<&str> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)
}

/// Bytes of an agent's line: many times what one says, and all that a broken one can make us hold.
const MOST_LINE: usize = 1_024;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;
    use crate::backend::test_backend;
    use crate::config::Balance;

    fn said(line: &str) -> Said {
        Said::read(line.as_bytes())
    }

    #[test]
    fn lines_are_read_as_haproxy_reads_them() {
        assert_eq!(said("75%").percent, Some(75));
        assert_eq!(said("0%").percent, Some(0));
        assert_eq!(said("99999%").percent, Some(u16::MAX), "HAProxy stops at 25600%");
        for nothing in [
            "",
            "75",
            "%",
            "-1%",
            "7 5 %",
            "1e2%",
            "maxconn:",
            "maxconn:-1",
            "maxconn:many",
            "maxconn 30",
            "hello",
            "+5%",
        ] {
            assert_eq!(said(nothing), Said::default(), "{nothing}");
        }
        let all = said("ready, UP\t200%  maxconn:10");
        assert_eq!(
            (all.admin, all.up, all.percent),
            (Some(Admin::Ready), Some(true), Some(200))
        );
        assert_eq!(all.max_connections, Some(10));
        assert_eq!(said("MAXCONN:30").max_connections, Some(30));
        assert_eq!(said("maxconn:0").max_connections, Some(0));
        assert_eq!(said("maxconn:99999999999999999999").max_connections, Some(10_000_000));
        let down = said("down#disk, 5% left");
        assert_eq!(
            (down.up, down.percent, &*down.reason),
            (Some(false), None, "disk, 5% left")
        );
        assert_eq!(said("stopped").up, Some(false));
        assert_eq!(said("failed #x\x1b").reason, "x\\x1b");
        assert_eq!(said("drain maint").admin, Some(Admin::Maintenance));
    }

    #[test]
    fn what_is_not_mentioned_stays() {
        let drained = said("drain 50% maxconn:7").apply(Agent::default());
        let then = said("up").apply(drained);
        assert_eq!(
            (then.admin, then.percent, then.max_connections),
            (Admin::Drain, 50, Some(7))
        );
        let ready = Agent {
            max_connections: Some(7),
            ..Agent::default()
        };
        assert_eq!(said("ready 100%").apply(then), ready);
    }

    #[tokio::test]
    async fn an_answer_is_one_bounded_line() {
        let asked = async |answer: &'static [u8]| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = [0; 3];
                stream.read_exact(&mut question).await.unwrap();
                assert_eq!(&question, b"hi\n");
                let _ = stream.write_all(answer).await;
                if answer.ends_with(b"stay") {
                    let _ = stream.read(&mut question).await;
                }
            });
            let backend = test_backend(Balance::RoundRobin, &[(1, false)]);
            let agent = AgentCheck {
                port: address.port(),
                address: None,
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(200),
                send: b"hi\n".to_vec(),
            };
            let asker = Asker::new(&backend, &backend.servers[0], &agent);
            asker.ask(Some(address.ip())).await.map_err(|error| error.to_string())
        };
        assert_eq!(asked(b"75%\r\ndown\n").await.unwrap(), b"75%");
        assert_eq!(asked(b"drain\r").await.unwrap(), b"drain");
        assert_eq!(
            asked(b"maxconn:3").await.unwrap_err(),
            "it closed before its line had ended"
        );
        assert_eq!(asked(b"").await.unwrap_err(), "it closed without a word");
        assert_eq!(asked(b"stay").await.unwrap_err(), "no line within 200ms");
        let long = asked(&[b'x'; 4096]).await.unwrap_err();
        assert_eq!(long, "its line is longer than 1024 bytes");
        for (length, is_read) in [(1_024, true), (1_025, false)] {
            let line: &'static [u8] = [vec![b'x'; length], b"\n".to_vec()].concat().leak();
            assert_eq!(asked(line).await.is_ok(), is_read, "{length}");
        }
    }

    #[test]
    fn questions_end_in_the_words_of_checks() {
        let ms = Duration::from_millis(1);
        let word = |result: Result<Vec<u8>, AgentError>| outcome(&result, ms).word;
        assert_eq!(word(Ok(b"up 50%".to_vec())), "L7OK");
        assert_eq!(word(Ok(b"50% #down at night".to_vec())), "L7OK");
        assert_eq!(word(Ok(b"down #disk".to_vec())), "L7STS");
        assert_eq!(word(Err(AgentError::Timeout(ms))), "L7TOUT");
        assert_eq!(word(Err(AgentError::Nothing)), "L7RSP");
        assert_eq!(word(Err(AgentError::Connect(ConnectError::Timeout(ms)))), "L4TOUT");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let said = Said::read(&line);
            prop_assert!(said.reason.is_ascii());
        }
    }
}
