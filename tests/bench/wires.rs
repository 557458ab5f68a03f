//! Peers and loads that no program at hand is: servers that send streams or hold connections, and their clients. They run
//! on threads of the bench, on the same CPUs as other loads.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use gateway_tests::peer::pause;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::load::Outcome;

/// The CPUs for all but the proxies; none when nothing is pinned.
pub(crate) type Cpus = Option<std::ops::Range<usize>>;

/// A server that sends `bytes` to whoever connects, and ends.
pub(crate) fn source(bytes: u64, cpus: Cpus) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let cpus = cpus.clone();
            thread::spawn(move || {
                pin(cpus);
                // The client may be one that only looks whether somebody listens.
                let _ = stream.set_nonblocking(true).and_then(|()| send(&mut stream, bytes));
            });
        }
    });
    address
}

/// A server that sends back what it gets, on any number of connections.
pub(crate) fn echo(cpus: Cpus) -> SocketAddr {
    let (listener, address) = listen();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        pin(cpus);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..read]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    });
    address
}

/// Reads so many streams of `bytes` at once through the proxy. The outcome counts whole MiB.
pub(crate) fn drink(proxy: SocketAddr, streams: usize, bytes: u64, cpus: &Cpus) -> Outcome {
    let begun = Instant::now();
    let readers: Vec<_> = (0..streams)
        .map(|_| {
            let cpus = cpus.clone();
            thread::spawn(move || {
                pin(cpus);
                read_all(proxy).unwrap_or(0)
            })
        })
        .collect();
    let got: Vec<u64> = readers.into_iter().map(|reader| reader.join().unwrap_or(0)).collect();
    Outcome {
        requests: got.iter().sum::<u64>() >> 20,
        errors: got.iter().filter(|&&got| got != bytes).count() as u64,
        seconds: begun.elapsed().as_secs_f64(),
        ..Outcome::default()
    }
}

/// Connections through a proxy, each of which has carried a byte both ways and is silent since.
pub(crate) struct Held(Vec<TcpStream>);

/// Opens so many connections.
pub(crate) fn hold(proxy: SocketAddr, connections: usize) -> (Held, Outcome) {
    let begun = Instant::now();
    let held: Vec<_> = (0..connections).filter_map(|_| greet(proxy).ok()).collect();
    let outcome = Outcome {
        requests: held.len() as u64,
        errors: (connections - held.len()) as u64,
        seconds: begun.elapsed().as_secs_f64(),
        ..Outcome::default()
    };
    (Held(held), outcome)
}

impl Held {
    /// How many of them still answer.
    pub(crate) fn alive(&mut self) -> usize {
        self.0.iter_mut().filter_map(|stream| ping(stream).ok()).count()
    }
}

/// Raises the limit on open files of this process and those it starts, as far as it goes; answers with it.
pub(crate) fn raise_descriptor_limit(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(wanted);
    let mut raised = limit;
    raised.current = Some(wanted.max(hard));
    raised.maximum = raised.current;
    // Only root may raise the hard limit.
    if setrlimit(Resource::Nofile, raised).is_err() {
        raised.current = Some(hard);
        raised.maximum = Some(hard);
        let _ = setrlimit(Resource::Nofile, raised);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A socket that listens somewhere.
pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Sends so many bytes on a stream that does not block.
pub(crate) fn send(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let block = vec![b'x'; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(BLOCK as u64) as usize;
        match stream.write(&block[..now]) {
            Ok(written) => left -= written as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(LOOK),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "no worker here to block")]
fn read_all(address: SocketAddr) -> std::io::Result<u64> {
    let stream = TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    let mut buffer = vec![0; BLOCK];
    let mut got = 0;
    loop {
        // TRUNC: the kernel throws the bytes away instead of copying them. The reader shall not be what is measured.
        match recv(&stream, buffer.as_mut_slice(), RecvFlags::TRUNC) {
            Ok((_, 0)) => return Ok(got),
            Ok((_, more)) => got += more as u64,
            Err(Errno::AGAIN) => pause(LOOK),
            Err(error) => return Err(error.into()),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "no worker here to block")]
fn greet(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    ping(&mut stream)?;
    Ok(stream)
}

fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

/// Leaves the thread only these CPUs.
pub(crate) fn pin(cpus: Cpus) {
    if let Some(cpus) = cpus {
        let mut set = CpuSet::new();
        cpus.for_each(|cpu| set.set(cpu));
        let _ = sched_setaffinity(None, &set);
    }
}

/// How often the ends of a stream look after it. They do not wait in the kernel, since waking them would be the proxy's
/// CPU time: over loopback, whoever sends a packet does all that the other end's machine does with it up to there.
pub(crate) const LOOK: Duration = Duration::from_millis(1);

/// Written and read at once.
pub(crate) const BLOCK: usize = 256 * 1024;
