#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Interest, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::buffer::{BUFFER_SIZE, Buffer};
use super::clock;
use super::motion::COUNT_INTERVAL;
use super::pipe::{MOST_IDLE, MOST_PIPES, Pipe};
use super::*;
use crate::socket::Packets;

const SETTINGS: RelaySettings = RelaySettings {
    client_timeout: Duration::from_secs(30),
    server_timeout: Duration::from_secs(60),
};

/// What passed, and how it ended.
#[derive(Debug)]
struct RelayOutcome {
    bytes_from_client: u64,
    bytes_from_server: u64,
    spliced: u64,
    ended: Ended,
}

async fn outcome(mut client: impl Relayed, mut server: impl Relayed, settings: RelaySettings) -> RelayOutcome {
    let mut sum = Moved::default();
    let ended = relay(&mut client, &mut server, settings, Early::default(), |moved| {
        sum.from_client += moved.from_client;
        sum.from_server += moved.from_server;
        sum.spliced += moved.spliced;
    })
    .await;
    RelayOutcome {
        bytes_from_client: sum.from_client,
        bytes_from_server: sum.from_server,
        spliced: sum.spliced,
        ended,
    }
}

/// A relay between two streams of so many bytes: the client's far end, the server's far end, the relay.
fn relayed(room: usize) -> (DuplexStream, DuplexStream, JoinHandle<RelayOutcome>) {
    let (client, near_client) = duplex(room);
    let (server, near_server) = duplex(room);
    let task = tokio::spawn(async move { outcome(near_client, near_server, SETTINGS).await });
    (client, server, task)
}

/// Two ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn relayed_tcp(settings: RelaySettings) -> (TcpStream, TcpStream, JoinHandle<RelayOutcome>) {
    let ((client, near_client), (server, near_server)) = (connection().await, connection().await);
    let task = tokio::spawn(async move { outcome(near_client, near_server, settings).await });
    (client, server, task)
}

fn data(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8 ^ seed).collect()
}

#[tokio::test]
async fn the_client_may_end_and_still_get_the_answer() {
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = String::new();
    server.read_to_string(&mut asked).await.unwrap();
    assert_eq!(asked, "question");
    server.write_all(b"a long answer").await.unwrap();
    drop(server);
    let mut answered = String::new();
    client.read_to_string(&mut answered).await.unwrap();
    assert_eq!(answered, "a long answer");
    let outcome = task.await.unwrap();
    assert!(
        matches!(outcome.ended, Ended::Finished { first: Side::Client }),
        "{outcome:?}"
    );
    assert_eq!((outcome.bytes_from_client, outcome.bytes_from_server), (8, 13));
}

#[tokio::test]
async fn ends_that_come_together_are_told_by_closing_alone() {
    let ((client, mut near_client), (server, mut near_server)) = (connection().await, connection().await);
    let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
    for far in [&client, &server] {
        far.shutdown(std::net::Shutdown::Write).unwrap();
    }
    for near in [&near_client, &near_server] {
        near.readable().await.unwrap();
    }
    let ended = relay(&mut near_client, &mut near_server, SETTINGS, Early::default(), |_| {}).await;
    assert!(matches!(ended, Ended::Finished { .. }), "{ended:?}");
    for mut far in [&client, &server] {
        let told = io::Read::read(&mut far, &mut [0]).unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::WouldBlock);
    }
    drop((near_client, near_server));
    for far in [client, server] {
        let mut far = TcpStream::from_std(far).unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_is_said_last_leaves_with_the_end() {
    let ((mut client, near_client), (mut server, near_server)) = (connection().await, connection().await);
    server.write_all(b"a last word").await.unwrap();
    server.shutdown().await.unwrap();
    while !near_server.ready(Interest::READABLE).await.unwrap().is_read_closed() {
        tokio::task::yield_now().await;
    }
    let before = Packets::of(&client).received;
    let task = tokio::spawn(async move { outcome(near_client, near_server, SETTINGS).await });
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "a last word");
    assert_eq!(Packets::of(&client).received - before, 1);
    // The other way goes on.
    client.write_all(b"and yet").await.unwrap();
    client.shutdown().await.unwrap();
    heard.clear();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "and yet");
    let outcome = task.await.unwrap();
    assert!(
        matches!(outcome.ended, Ended::Finished { first: Side::Server }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn what_is_said_before_a_reset_is_not_held_back_for_an_end() {
    let ((mut client, near_client), (server, near_server)) = (connection().await, connection().await);
    let mut server = server.into_std().unwrap();
    io::Write::write_all(&mut server, b"a last word").unwrap();
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    while !near_server.ready(Interest::READABLE).await.unwrap().is_read_closed() {
        tokio::task::yield_now().await;
    }
    let ended = tokio::spawn(async move { outcome(near_client, near_server, SETTINGS).await }).await;
    assert!(matches!(ended.unwrap().ended, Ended::Failed(Side::Server, _)));
    let mut heard = [0; 11];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"a last word");
    let error = client.read(&mut heard).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn small_pieces_to_the_server_are_hurried_from_the_second_on() {
    let ((mut client, mut near_client), (mut server, mut near_server)) = (connection().await, connection().await);
    let early = Early {
        is_unhurried: true,
        ..Early::default()
    };
    let mut relay = pin!(Relay::new(SETTINGS, early));
    for is_hurried in [false, true] {
        client.write_all(b"piece").await.unwrap();
        near_client.readable().await.unwrap();
        near_server.writable().await.unwrap();
        poll_fn(|cx| {
            let ended = relay.as_mut().poll(cx, &mut near_client, &mut near_server, |_| {});
            assert!(ended.is_pending());
            Poll::Ready(())
        })
        .await;
        server.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(near_server.nodelay().unwrap(), is_hurried);
    }
}

#[tokio::test]
async fn the_server_may_end_first_too() {
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    server.write_all(b"hello").await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "hello");
    client.write_all(b"bye").await.unwrap();
    client.shutdown().await.unwrap();
    got.clear();
    server.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "bye");
    assert!(matches!(
        task.await.unwrap().ended,
        Ended::Finished { first: Side::Server }
    ));
}

#[tokio::test]
async fn much_both_ways_at_once_arrives_as_it_was() {
    for room in [1, 1000, 100_000] {
        let length = 100 * room.max(3000);
        let (client, server, task) = relayed(room);
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
        let (up, down) = (data(length, 7), data(length + 1, 99));
        let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
        let (a, b, c, d) = tokio::join!(
            async { to_client.write_all(&up).await.and(to_client.shutdown().await) },
            async { to_server.write_all(&down).await.and(to_server.shutdown().await) },
            from_client.read_to_end(&mut got_down),
            from_server.read_to_end(&mut got_up),
        );
        a.and(b).unwrap();
        c.and(d).unwrap();
        assert!(got_up == up && got_down == down);
        let outcome = task.await.unwrap();
        assert_eq!(outcome.bytes_from_client, length as u64);
        assert_eq!(outcome.bytes_from_server, length as u64 + 1);
    }
}

#[tokio::test]
async fn much_over_sockets_arrives_as_it_was() {
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    let up = data(20_000_000, 3);
    let mut got = Vec::new();
    let (sent, received) = tokio::join!(
        async { client.write_all(&up).await.and(client.shutdown().await) },
        server.read_to_end(&mut got),
    );
    sent.and(received).unwrap();
    assert!(got == up);
    drop((client, server));
    assert_eq!(task.await.unwrap().bytes_from_client, 20_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_times_out_first_when_its_timeout_is_shorter() {
    let (_client, _server, task) = relayed(10);
    let before = Instant::now();
    assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Client)));
    assert_eq!(before.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn what_a_side_takes_or_gives_shows_that_it_is_there() {
    let (mut client, mut server, task) = relayed(10);
    let before = Instant::now();
    let mut got = [0; 4];
    for _ in 0..5 {
        sleep(Duration::from_secs(25)).await;
        // The server talks; the client only listens.
        server.write_all(b"tick").await.unwrap();
        client.read_exact(&mut got).await.unwrap();
    }
    assert!(!task.is_finished());
    assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Client)));
    assert_eq!(before.elapsed().as_secs(), 5 * 25 + 30);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_is_not_waited_for_but_the_server_is() {
    let (mut client, _server, task) = relayed(10);
    let before = Instant::now();
    sleep(Duration::from_secs(10)).await;
    client.shutdown().await.unwrap();
    assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Server)));
    assert_eq!(before.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn short_timeouts_are_as_short_when_one_side_has_ended() {
    let (mut client, near_client) = duplex(10);
    let (_server, near_server) = duplex(10);
    let settings = RelaySettings {
        client_timeout: Duration::from_millis(500),
        server_timeout: Duration::from_millis(500),
    };
    let before = Instant::now();
    client.shutdown().await.unwrap();
    let outcome = outcome(near_client, near_server, settings).await;
    assert!(matches!(outcome.ended, Ended::TimedOut(Side::Server)), "{outcome:?}");
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_is_not_blamed_for_a_server_that_takes_nothing() {
    let (mut client, mut server, task) = relayed(10);
    // Fills the server's stream and the relay's hands; 10 more bytes wait in the client's.
    client.write_all(&[1; 20]).await.unwrap();
    sleep(Duration::from_secs(50)).await;
    assert!(!task.is_finished());
    // The server takes them; only now it is the client's turn again.
    server.read_exact(&mut [0; 20]).await.unwrap();
    let before = Instant::now();
    assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Client)));
    assert_eq!(before.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_times_out() {
    let (mut client, _server, task) = relayed(10);
    client.write_all(&[1; 20]).await.unwrap();
    let before = Instant::now();
    assert!(matches!(task.await.unwrap().ended, Ended::TimedOut(Side::Server)));
    assert_eq!(before.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn timeouts_longer_than_the_clock_are_no_timeouts() {
    let settings = RelaySettings {
        client_timeout: Duration::MAX,
        server_timeout: Duration::MAX,
    };
    let ((mut client, near_client), (_server, near_server)) = (duplex(10), duplex(10));
    let task = tokio::spawn(async move { outcome(near_client, near_server, settings).await });
    advance(Duration::from_secs(86400)).await;
    client.write_all(b"x").await.unwrap();
    assert!(!task.is_finished());
}

#[tokio::test]
async fn a_reset_is_told_by_side() {
    for side in [Side::Client, Side::Server] {
        let (client, server, task) = relayed_tcp(SETTINGS).await;
        let (breaking, other) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        #[allow(deprecated)]
        breaking.set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaking);
        let outcome = task.await.unwrap();
        assert!(
            matches!(&outcome.ended, Ended::Failed(who, _) if *who == side),
            "{side:?} {outcome:?}"
        );
        drop(other);
    }
}

#[tokio::test]
async fn an_answer_that_came_before_the_server_broke_off_is_delivered() {
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    server.write_all(b"too large").await.unwrap();
    // The client has sent what the server never reads, so that its close is a reset.
    client.write_all(&[0; 1000]).await.unwrap();
    server.readable().await.unwrap();
    drop(server);
    let mut got = Vec::new();
    let mut byte = [0; 16];
    while let Ok(read @ 1..) = client.read(&mut byte).await {
        got.extend_from_slice(&byte[..read]);
    }
    assert_eq!(got, b"too large");
    task.await.unwrap();
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_the_writer_back() {
    let (_client, mut server, _task) = relayed(1000);
    let mut sent = 0;
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(50), server.write(&[0; 500])).await {
        sent += more.unwrap();
        assert!(sent <= 2000 + BUFFER_SIZE, "{sent}");
    }
    assert!(sent >= 2000);
}

#[tokio::test]
async fn a_silent_connection_holds_no_buffer() {
    let (mut client, mut server, task) = relayed(100);
    for _ in 0..3 {
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
    }
    // The runtime has one thread: the relay's store is this thread's.
    assert_eq!(Buffer::stored(), 1);
    assert!(!task.is_finished());
}

/// A stream of `length` bytes from `from` to `to`, which is read to its end in pieces, with a pause before the first.
async fn stream(from: &mut TcpStream, to: &mut TcpStream, length: usize) {
    let sent = data(length, 5);
    let mut got = Vec::new();
    let (written, read) = tokio::join!(
        async { from.write_all(&sent).await.and(from.shutdown().await) },
        async {
            sleep(Duration::from_millis(20)).await;
            to.read_to_end(&mut got).await
        }
    );
    written.and(read.map(drop)).unwrap();
    assert!(got == sent, "{} bytes came of {length}", got.len());
}

#[tokio::test]
async fn a_bulk_stream_is_spliced_and_pipes_are_given_back() {
    const LENGTH: usize = 30_000_000;
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    stream(&mut client, &mut server, LENGTH).await;
    assert!((1..=MOST_IDLE).contains(&Pipe::open()), "{}", Pipe::open());
    stream(&mut server, &mut client, LENGTH + 1).await;
    let outcome = task.await.unwrap();
    assert_eq!(outcome.bytes_from_client, LENGTH as u64);
    assert_eq!(outcome.bytes_from_server, LENGTH as u64 + 1);
    // What came before it was known to be bulk was copied.
    assert!(outcome.spliced > LENGTH as u64, "{outcome:?}");
    assert!(outcome.spliced < 2 * LENGTH as u64, "{outcome:?}");
}

#[tokio::test]
async fn messages_are_copied() {
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    let mut got = [0; 2000];
    for _ in 0..300 {
        client.write_all(&[1; 500]).await.unwrap();
        server.read_exact(&mut got[..500]).await.unwrap();
        server.write_all(&[2; 2000]).await.unwrap();
        client.read_exact(&mut got).await.unwrap();
    }
    drop((client, server));
    let outcome = task.await.unwrap();
    assert_eq!((outcome.bytes_from_server, outcome.spliced), (600_000, 0));
    assert_eq!(Pipe::open(), 0);
}

#[tokio::test]
async fn a_stream_that_becomes_a_conversation_is_copied_again() {
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    let sent = data(4_000_000, 1);
    let mut got = vec![0; sent.len()];
    let (written, read) = tokio::join!(server.write_all(&sent), client.read_exact(&mut got));
    written.and(read.map(drop)).unwrap();
    assert!(got == sent);
    for _ in 0..20 {
        server.write_all(&[2; 100]).await.unwrap();
        client.read_exact(&mut got[..100]).await.unwrap();
    }
    drop((client, server));
    let outcome = task.await.unwrap();
    assert_eq!(outcome.bytes_from_server, 4_002_000);
    assert!(outcome.spliced < 4_001_000, "{outcome:?}");
}

#[tokio::test]
async fn without_pipes_a_bulk_stream_is_copied() {
    let all: Vec<_> = std::iter::from_fn(Pipe::take).take(MOST_PIPES + 1).collect();
    assert_eq!(all.len(), MOST_PIPES);
    let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
    stream(&mut client, &mut server, 10_000_000).await;
    drop((client, server));
    let outcome = task.await.unwrap();
    assert_eq!((outcome.bytes_from_client, outcome.spliced), (10_000_000, 0));
    drop(all);
    assert_eq!(Pipe::open(), MOST_IDLE);
}

#[tokio::test]
async fn the_end_of_a_bulk_stream_leaves_the_other_way_open() {
    for side in [Side::Client, Side::Server] {
        let (mut client, mut server, task) = relayed_tcp(SETTINGS).await;
        let (ending, other) = match side {
            Side::Client => (&mut client, &mut server),
            Side::Server => (&mut server, &mut client),
        };
        // The other way is in the middle of a stream of its own.
        let half = data(5_000_000, 8);
        let mut got = vec![0; half.len()];
        let (written, read) = tokio::join!(other.write_all(&half), ending.read_exact(&mut got));
        written.and(read.map(drop)).unwrap();
        stream(ending, other, 5_000_000).await;
        assert!(got == half);
        stream(other, ending, 5_000_000).await;
        let outcome = task.await.unwrap();
        assert!(
            matches!(outcome.ended, Ended::Finished { first } if first == side),
            "{outcome:?}"
        );
        assert_eq!(outcome.bytes_from_client + outcome.bytes_from_server, 15_000_000);
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for (side, bulk) in [
        (Side::Client, 0),
        (Side::Server, 0),
        (Side::Client, 3_000_000),
        (Side::Server, 3_000_000),
    ] {
        let (client, server, task) = relayed_tcp(SETTINGS).await;
        let (mut breaking, mut other) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        let sent = data(bulk, 1);
        let mut got = vec![0; bulk];
        let (written, read) = tokio::join!(breaking.write_all(&sent), other.read_exact(&mut got));
        written.and(read.map(drop)).unwrap();
        #[allow(deprecated)]
        breaking.set_linger(Some(Duration::ZERO)).unwrap();
        drop(breaking);
        task.await.unwrap();
        let error = other.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{side:?} {bulk}");
    }
}

#[tokio::test]
async fn a_pipe_that_holds_bytes_is_not_used_again() {
    let (client, mut server, task) = relayed_tcp(SETTINGS).await;
    // The client reads nothing: bytes pile up to the pipe, and beyond it.
    let full = async { while server.write(&[9; 100_000]).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_millis(300), full).await.is_err());
    assert_eq!(Pipe::open(), 1);
    #[allow(deprecated)]
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let outcome = task.await.unwrap();
    assert!(matches!(outcome.ended, Ended::Failed(Side::Client, _)), "{outcome:?}");
    assert_eq!(Pipe::open(), 0);
}

#[tokio::test]
async fn bytes_are_counted_while_a_relay_lives_and_when_it_is_cut_off() {
    let counted = std::rc::Rc::new(std::cell::Cell::new(Moved::default()));
    let ((mut client, mut near_client), (mut server, mut near_server)) = (connection().await, connection().await);
    let count = {
        let counted = counted.clone();
        move |moved: Moved| {
            let mut sum = counted.get();
            sum.from_client += moved.from_client;
            sum.from_server += moved.from_server;
            counted.set(sum);
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let relaying = tasks.spawn_local(async move {
        drop(relay(&mut near_client, &mut near_server, SETTINGS, Early::default(), count).await)
    });
    let talk = async {
        let begun = Instant::now();
        while counted.get().from_client == 0 {
            client.write_all(b"hello").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            assert!(begun.elapsed() < clock::duration(COUNT_INTERVAL * 3));
        }
        server.write_all(b"and this").await.unwrap();
        client.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!(counted.get().from_server, 0);
        relaying.abort();
    };
    tasks.run_until(talk).await;
    drop(tasks);
    assert_eq!(counted.get().from_server, 8);
}
