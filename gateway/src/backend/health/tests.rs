//! Checks against servers of flesh and bone.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::checker::Checker;
use super::*;
use crate::backend::{echo, test_backend_of, test_config};
use crate::config::{
    Balance, Check, CheckKind, HttpCheck, HttpExpect, HttpTest, InitialState, Mode, Observe, Observed, OnError,
    Schedule, TextTest,
};
use crate::telemetry::metrics::Registry;

fn http(uri: &str) -> HttpCheck {
    HttpCheck {
        method: "GET".into(),
        uri: uri.into(),
        version: None,
        host: None,
        headers: Vec::new(),
        body: Vec::new(),
        drain: Vec::new(),
        expects: vec![status(&[(200, 399)])],
        most_body: 64 * 1024,
    }
}

fn status(ranges: &[(u16, u16)]) -> HttpExpect {
    HttpExpect {
        negated: false,
        test: HttpTest::Status(ranges.to_vec()),
    }
}

fn body_contains(text: impl Into<String>) -> HttpExpect {
    HttpExpect {
        negated: false,
        test: HttpTest::Body(TextTest::Contains(text.into())),
    }
}

pub(super) fn checked(address: SocketAddr, kind: CheckKind) -> Arc<Backend> {
    let mut backend = test_config(Balance::RoundRobin, &[(1, false)]);
    backend.check = Some(Check {
        kind,
        target: CheckTarget::default(),
        tls: None,
        schedule: test_schedule(2, 3),
        observe: None,
    });
    test_backend_of(&backend, &[address], &Registry::new())
}

/// Every 20 ms, up at first.
pub(super) fn test_schedule(rise: u32, fall: u32) -> Schedule {
    Schedule {
        interval: Duration::from_millis(20),
        fast_interval: Duration::from_millis(20),
        down_interval: Duration::from_millis(20),
        timeout: Duration::from_millis(20),
        rise,
        fall,
        initial: InitialState::Up,
    }
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
    let backend = checked(address, CheckKind::Tcp(Vec::new()));
    http::check(&backend.servers[0], &Way::default(), check, Duration::from_secs(5)).await
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
    let backend = checked(address, CheckKind::Tcp(Vec::new()));
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
    let checks = Checks::start(&[checked(address, CheckKind::Tcp(Vec::new()))]);
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
    check.expects = vec![status(&[(200, 200), (400, 404)])];
    check.method = "HEAD".into();
    assert!(ask(address, &check).await.is_ok());

    let mut check = http("/anything");
    check.host = Some("example.net".into());
    check.expects = vec![body_contains("server: e"), body_contains("header: host: example.net")];
    assert!(ask(address, &check).await.is_ok());
    check.expects.push(body_contains("ready"));
    let error = ask(address, &check).await.unwrap_err();
    assert_eq!(error.to_string(), "the body does not contain \"ready\"");
}

#[tokio::test]
async fn a_body_is_read_to_64_kib_and_no_further() {
    let mut check = http("/bytes/1000000000");
    let (address, _echo) = echo::start(Mode::Http, "e").unwrap();
    check.expects = vec![body_contains("y")];
    assert!(matches!(ask(address, &check).await, Err(CheckError::Body(_))));
    check.expects = vec![body_contains("x".repeat(MOST_SEEN))];
    assert!(ask(address, &check).await.is_ok());
    check.expects = vec![body_contains("x".repeat(MOST_SEEN + 1))];
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
        check.expects = vec![body_contains("short")];
        let error = ask(address, &check).await.unwrap_err();
        assert!(matches!(error, CheckError::Http(_)), "{error:?}");
    }
    // Closing is an end of a body without a length.
    let address = saying(b"HTTP/1.0 200 OK\r\n\r\nready".to_vec()).await;
    let mut check = http("/");
    check.expects = vec![body_contains("ready")];
    assert!(ask(address, &check).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_times_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let backend = checked(listener.local_addr().unwrap(), CheckKind::Http(http("/")));
    let check = backend.check.clone().unwrap();
    let checker = Checker::new(&backend, &backend.servers[0], &check);
    let error = checker.once(Instant::now()).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 20ms");
}

fn checker(observe: Option<Observe>) -> Checker {
    let mut backend = test_config(Balance::RoundRobin, &[(1, false)]);
    let check = Check {
        kind: CheckKind::Tcp(Vec::new()),
        target: CheckTarget::default(),
        tls: None,
        schedule: Schedule {
            interval: Duration::from_secs(10),
            fast_interval: Duration::from_secs(1),
            down_interval: Duration::from_secs(60),
            ..test_schedule(2, 3)
        },
        observe,
    };
    backend.check = Some(check.clone());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let backend = test_backend_of(&backend, &[address], &Registry::new());
    Checker::new(&backend, &backend.servers[0], &check)
}

fn fail(checker: &mut Checker) -> Duration {
    checker.observe(Err(CheckError::Status(500)));
    checker.interval()
}

fn pass(checker: &mut Checker) -> Duration {
    checker.observe(Ok(()));
    checker.interval()
}

#[test]
fn the_interval_is_fast_while_the_state_changes_and_another_while_down() {
    let mut checker = checker(None);
    let seconds = Duration::from_secs;
    assert_eq!(pass(&mut checker), seconds(10));
    assert_eq!(fail(&mut checker), seconds(1));
    assert_eq!(pass(&mut checker), seconds(10));
    assert_eq!(fail(&mut checker), seconds(1));
    assert_eq!(fail(&mut checker), seconds(1));
    assert_eq!(fail(&mut checker), seconds(60));
    assert!(!checker.server.is_up());
    assert_eq!(fail(&mut checker), seconds(60));
    assert_eq!(pass(&mut checker), seconds(1));
    assert_eq!(pass(&mut checker), seconds(10));
    assert!(checker.server.is_up());
}

#[test]
fn failing_traffic_does_what_on_error_says() {
    let after = |on_error| {
        let mut checker = checker(Some(Observe {
            what: Observed::Connect,
            error_limit: 1,
            on_error,
        }));
        pass(&mut checker);
        checker.tripped();
        (checker.server.is_up(), checker.interval().as_secs(), checker)
    };
    let (up, seconds, _) = after(OnError::FastCheck);
    assert_eq!((up, seconds), (true, 10));
    let (up, seconds, mut checker) = after(OnError::FailCheck);
    assert_eq!((up, seconds), (true, 1));
    fail(&mut checker);
    checker.tripped();
    assert!(!checker.server.is_up());
    let (up, seconds, mut checker) = after(OnError::SuddenDeath);
    assert_eq!((up, seconds), (true, 1));
    fail(&mut checker);
    assert!(!checker.server.is_up());
    let (up, seconds, mut checker) = after(OnError::MarkDown);
    assert_eq!((up, seconds), (false, 60));
    checker.tripped();
    pass(&mut checker);
    assert!(!checker.server.is_up(), "it takes `rise` checks to come back");
    pass(&mut checker);
    assert!(checker.server.is_up());
}

#[tokio::test(start_paused = true)]
async fn checks_keep_the_fast_interval_however_much_traffic_fails() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut backend = test_config(Balance::RoundRobin, &[(1, false)]);
    let schedule = Schedule {
        interval: Duration::from_secs(3600),
        fast_interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        ..test_schedule(2, 1000)
    };
    backend.check = Some(Check {
        kind: CheckKind::Tcp(Vec::new()),
        target: CheckTarget::default(),
        tls: None,
        schedule,
        observe: Some(Observe {
            what: Observed::Connect,
            error_limit: 1,
            on_error: OnError::FastCheck,
        }),
    });
    let address = listener.local_addr().unwrap();
    let backend = test_backend_of(&backend, &[address], &Registry::new());
    let checks = Checks::start(std::slice::from_ref(&backend));
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&accepted);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            log.lock().unwrap().push(Instant::now());
        }
    });
    for _ in 0..1000 {
        backend.servers[0].connect_failed(&ConnectError::Unresolved);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(checks);
    let times = accepted.lock().unwrap().clone();
    // A hundred seconds: the fast interval lets ten checks be made, and the interval none after the first.
    assert!((5..=12).contains(&times.len()), "{}", times.len());
}

/// Checks every ten seconds, read again every three for five minutes.
async fn read_again(backend: &Arc<Backend>) {
    for _ in 0..100 {
        let checks = Checks::start(std::slice::from_ref(backend));
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(checks);
    }
}

fn every_ten_seconds(address: SocketAddr, initial: InitialState) -> Arc<Backend> {
    let mut backend = test_config(Balance::RoundRobin, &[(1, false), (1, false)]);
    let seconds = Duration::from_secs;
    let schedule = Schedule {
        interval: seconds(10),
        fast_interval: seconds(10),
        down_interval: seconds(10),
        timeout: seconds(1),
        initial,
        ..test_schedule(2, 3)
    };
    backend.check = Some(Check {
        kind: CheckKind::Tcp(Vec::new()),
        target: CheckTarget::default(),
        tls: None,
        schedule,
        observe: None,
    });
    test_backend_of(&backend, &[address, address], &Registry::new())
}

#[tokio::test(start_paused = true)]
async fn reloads_neither_keep_checks_from_being_made_nor_make_more_of_them() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let backend = every_ten_seconds(listener.local_addr().unwrap(), InitialState::FullyUp);
    let accepted = Arc::new(Mutex::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            *count.lock().unwrap() += 1;
        }
    });
    read_again(&backend).await;
    // Of two servers, in five minutes.
    let accepted = *accepted.lock().unwrap();
    assert!((50..=66).contains(&accepted), "{accepted}");
}

#[tokio::test(start_paused = true)]
async fn reloads_forget_no_failures() {
    let address = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let backend = every_ten_seconds(address, InitialState::FullyUp);
    read_again(&backend).await;
    assert!(backend.servers.iter().all(|server| !server.is_up()));
}

const MOST_SEEN: usize = 64 * 1024;
