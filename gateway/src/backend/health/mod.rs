//! Health checks: each server is asked at its interval, and goes down or up after so many answers in a row.

mod http;
mod state;
mod tcp;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::random::Random;
use super::{Backend, ConnectError, Server};
use crate::config::{Check, CheckKind};

use state::{Health, Transition};

/// The checks of a set of backends, running until this is dropped.
#[derive(Debug)]
#[must_use = "the checks stop when this is dropped"]
pub struct Checks {
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl Checks {
    /// Starts the checks of those backends that have one. Has to be called inside the control runtime.
    ///
    /// Servers are up, or as a previous configuration's checks left them, until their checks say otherwise. First
    /// checks are spread over the interval, and every interval varies a little, so that checks never come in bursts.
    pub fn start(backends: &[Arc<Backend>]) -> Self {
        let mut tasks = JoinSet::new();
        let checked: Vec<_> = backends
            .iter()
            .filter_map(|backend| Some((backend, backend.check.as_ref()?)))
            .flat_map(|(backend, check)| backend.servers.iter().map(move |server| (backend, server, check)))
            .collect();
        let total = checked.len();
        for (position, (backend, server, check)) in checked.into_iter().enumerate() {
            let checker = Checker {
                backend: Arc::clone(&backend.name),
                server: Arc::clone(server),
                check: Check {
                    interval: check.interval.min(FAR),
                    timeout: check.timeout.min(FAR),
                    ..check.clone()
                },
                health: Health::new(server.is_up(), check.rise, check.fall),
            };
            tasks.spawn(checker.run(first_delay(check.interval.min(FAR), position, total)));
        }
        Self { _tasks: tasks }
    }
}

/// The checks of one server.
struct Checker {
    backend: Arc<str>,
    server: Arc<Server>,
    check: Check,
    health: Health,
}

impl Checker {
    async fn run(mut self, delay: Duration) {
        let mut random = Random::new();
        let mut next = Instant::now() + delay;
        loop {
            sleep_until(next).await;
            let started = Instant::now();
            let result = self.once(started).await;
            self.observe(result);
            // From the start of this check, not from when it was due: after a pause of the machine, checks that were
            // missed are not made up for.
            next = started + jittered(self.check.interval, random.next());
        }
    }

    async fn once(&self, started: Instant) -> Result<(), CheckError> {
        let attempt = async {
            match &self.check.kind {
                CheckKind::Tcp => tcp::check(&self.server, self.check.timeout).await,
                CheckKind::Http(check) => http::check(&self.server, check, self.check.timeout).await,
            }
        };
        match timeout_at(started + self.check.timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(CheckError::Timeout(self.check.timeout)),
        }
    }

    fn observe(&mut self, result: Result<(), CheckError>) {
        self.server.metrics.checked(result.is_ok());
        let Some(transition) = self.health.observe(result.is_ok()) else {
            return;
        };
        let (backend, server) = (&*self.backend, &*self.server.name);
        match (transition, result) {
            (Transition::Down, Err(reason)) => {
                self.server.metrics.went(false);
                tracing::warn!(backend, server, %reason, checks = self.check.fall, "server is down");
            }
            (Transition::Down, Ok(())) => self.server.metrics.went(false),
            (Transition::Up, _) => {
                self.server.metrics.went(true);
                tracing::info!(backend, server, checks = self.check.rise, "server is up");
            }
        }
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the check's request cannot be made: {0}")]
    Request(#[from] ::http::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the body does not contain {0:?}")]
    Body(String),
}

/// Spreads the first checks of all servers evenly over the interval.
fn first_delay(interval: Duration, position: usize, total: usize) -> Duration {
    let total = u32::try_from(total.max(1)).unwrap_or(u32::MAX);
    let position = u32::try_from(position).unwrap_or(u32::MAX).min(total);
    // Divides first: an interval may be as long as a duration can be.
    interval / total * position
}

/// The interval, more or less a twentieth.
fn jittered(interval: Duration, random: u64) -> Duration {
    let span = interval / JITTER_PART * 2;
    let thousandths = u32::try_from(random % 1001).unwrap_or(0);
    (interval - interval / JITTER_PART).saturating_add(span / 1000 * thousandths)
}

/// Enough to drift apart what happens to coincide, too little to notice.
const JITTER_PART: u32 = 20;

/// A time that no check waits for, and that can be added to the clock.
const FAR: Duration = Duration::from_secs(365 * 86400);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Mutex;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::backend::{echo, test_backend_of, test_config};
    use crate::config::{Balance, HttpCheck, Mode};
    use crate::telemetry::metrics::Registry;

    fn http(uri: &str) -> HttpCheck {
        HttpCheck {
            method: "GET".into(),
            uri: uri.into(),
            host: None,
            status: vec![(200, 399)],
            body_contains: Vec::new(),
        }
    }

    fn checked(address: SocketAddr, kind: CheckKind) -> Arc<Backend> {
        let mut backend = test_config(Balance::RoundRobin, &[(1, false)]);
        backend.check = Some(Check {
            kind,
            interval: Duration::from_millis(20),
            timeout: Duration::from_millis(20),
            rise: 2,
            fall: 3,
        });
        test_backend_of(&backend, &[address], &Registry::new())
    }

    /// A server that says this to everyone and closes.
    async fn saying(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        address
    }

    async fn ask(address: SocketAddr, check: &HttpCheck) -> Result<(), CheckError> {
        let backend = checked(address, CheckKind::Tcp);
        http::check(&backend.servers[0], check, Duration::from_secs(5)).await
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it did not come to that");
    }

    #[tokio::test]
    async fn a_server_goes_down_when_nothing_listens_and_up_when_something_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = checked(address, CheckKind::Tcp);
        let server = &backend.servers[0];
        assert!(server.is_up());
        drop(listener);
        let _checks = Checks::start(std::slice::from_ref(&backend));
        until(|| !server.is_up()).await;
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.set_reuseaddr(true).unwrap();
        listener.bind(address).unwrap();
        let _listener = listener.listen(16).unwrap();
        until(|| server.is_up()).await;
    }

    #[tokio::test]
    async fn checks_stop_with_their_handle() {
        let attempts = Arc::new(Mutex::new(0));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let counted = Arc::clone(&attempts);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                *counted.lock().unwrap() += 1;
            }
        });
        let checks = Checks::start(&[checked(address, CheckKind::Tcp)]);
        until(|| *attempts.lock().unwrap() > 2).await;
        drop(checks);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let before = *attempts.lock().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(*attempts.lock().unwrap(), before);
    }

    #[tokio::test]
    async fn http_checks_judge_status_and_body() {
        let (address, _echo) = echo::start(Mode::Http, "e").unwrap();
        assert!(ask(address, &http("/health")).await.is_ok());
        let error = ask(address, &http("/status/503")).await.unwrap_err();
        assert_eq!(error.to_string(), "status 503");

        let mut check = http("/status/404");
        check.status = vec![(200, 200), (400, 404)];
        check.method = "HEAD".into();
        assert!(ask(address, &check).await.is_ok());

        let mut check = http("/anything");
        check.host = Some("example.net".into());
        check.body_contains = vec!["server: e".into(), "header: host: example.net".into()];
        assert!(ask(address, &check).await.is_ok());
        check.body_contains.push("ready".into());
        let error = ask(address, &check).await.unwrap_err();
        assert_eq!(error.to_string(), "the body does not contain \"ready\"");
    }

    #[tokio::test]
    async fn a_body_is_read_to_64_kib_and_no_further() {
        let mut check = http("/bytes/1000000000");
        let (address, _echo) = echo::start(Mode::Http, "e").unwrap();
        check.body_contains = vec!["y".into()];
        assert!(matches!(ask(address, &check).await, Err(CheckError::Body(_))));
        check.body_contains = vec!["x".repeat(MOST_SEEN)];
        assert!(ask(address, &check).await.is_ok());
        check.body_contains = vec!["x".repeat(MOST_SEEN + 1)];
        assert!(matches!(ask(address, &check).await, Err(CheckError::Body(_))));
    }

    #[tokio::test]
    async fn what_is_no_answer_fails_the_check() {
        let answers: [&[u8]; 4] = [
            b"",
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            &[b'x'; 100_000],
        ];
        for answer in answers {
            let address = saying(answer.to_vec()).await;
            let mut check = http("/");
            check.body_contains = vec!["short".into()];
            let error = ask(address, &check).await.unwrap_err();
            assert!(matches!(error, CheckError::Http(_)), "{error:?}");
        }
        // Closing is an end of a body without a length.
        let address = saying(b"HTTP/1.0 200 OK\r\n\r\nready".to_vec()).await;
        let mut check = http("/");
        check.body_contains = vec!["ready".into()];
        assert!(ask(address, &check).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_times_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let backend = checked(listener.local_addr().unwrap(), CheckKind::Http(http("/")));
        let checker = Checker {
            backend: "app".into(),
            server: Arc::clone(&backend.servers[0]),
            check: backend.check.clone().unwrap(),
            health: Health::new(true, 1, 1),
        };
        let error = checker.once(Instant::now()).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 20ms");
    }

    proptest! {
        #[test]
        fn first_checks_are_spread_over_the_interval(millis in 1_u64..1_000_000, total in 1_usize..500) {
            let interval = Duration::from_millis(millis);
            let delays: Vec<_> = (0..total).map(|position| first_delay(interval, position, total)).collect();
            prop_assert!(delays.iter().all(|delay| *delay < interval));
            prop_assert!(delays.is_sorted());
            let gap = interval / u32::try_from(total).unwrap();
            prop_assert!(delays.windows(2).all(|pair| pair[1] - pair[0] == gap));
        }

        #[test]
        fn an_interval_varies_by_a_twentieth(millis in 1_u64..10_000_000, random in any::<u64>()) {
            let interval = Duration::from_millis(millis);
            let varied = jittered(interval, random);
            prop_assert!(varied >= interval - interval / 20 && varied <= interval + interval / 20);
        }
    }

    #[test]
    fn no_interval_is_too_long() {
        jittered(Duration::MAX, u64::MAX);
        first_delay(Duration::MAX, usize::MAX, usize::MAX);
    }

    const MOST_SEEN: usize = 64 * 1024;
}
