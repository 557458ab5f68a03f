//! Bulk over HTTP/1.1: a server whose answers are large bodies of known length, and a client that throws them away. As in
//! [`wires`](crate::wires), neither waits in the kernel.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use gateway_tests::peer::pause;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::load::Outcome;
use crate::wires::{BLOCK, Cpus, LOOK, listen, pin, send};

/// A server that answers every request with so many bytes.
pub(crate) fn server(bytes: u64, cpus: Cpus) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let cpus = cpus.clone();
            thread::spawn(move || {
                pin(cpus);
                // The client may be one that only looks whether somebody listens.
                let _ = answer(stream, bytes);
            });
        }
    });
    address
}

/// Asks on so many connections at once, so often on each, one after the other. The outcome counts whole MiB.
pub(crate) fn fetch(proxy: SocketAddr, streams: usize, requests: usize, bytes: u64, cpus: &Cpus) -> Outcome {
    let begun = Instant::now();
    let clients: Vec<_> = (0..streams)
        .map(|_| {
            let cpus = cpus.clone();
            thread::spawn(move || {
                pin(cpus);
                ask(proxy, requests, bytes)
            })
        })
        .collect();
    let mut outcome = Outcome::default();
    for client in clients {
        match client.join() {
            Ok(Ok(got)) if got == bytes * requests as u64 => outcome.requests += got >> 20,
            _ => outcome.errors += 1,
        }
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome
}

fn answer(mut stream: TcpStream, bytes: u64) -> std::io::Result<()> {
    stream.set_nonblocking(true)?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => request.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(LOOK),
            Err(error) => return Err(error),
        }
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            send(&mut stream, bytes)?;
        }
    }
}

/// Answers how many bytes of bodies came.
#[allow(clippy::disallowed_methods, reason = "no worker here to block")]
fn ask(proxy: SocketAddr, requests: usize, bytes: u64) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nonblocking(true)?;
    let mut buffer = vec![0; BLOCK];
    let mut got = 0;
    for _ in 0..requests {
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: bench.example.net\r\n\r\n")?;
        let mut left = bytes - head(&mut stream)?;
        while left > 0 {
            left -= skip(&stream, &mut buffer, left)?;
        }
        got += bytes;
    }
    Ok(got)
}

/// Reads a response's head, and what of the body came with it: so many bytes.
fn head(stream: &mut TcpStream) -> std::io::Result<u64> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(LOOK),
            Err(error) => return Err(error),
        }
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            if !answer.starts_with(b"HTTP/1.1 200") {
                return Err(ErrorKind::InvalidData.into());
            }
            return Ok((answer.len() - end - 4) as u64);
        }
    }
}

/// Throws away what is there, this much of it at most.
fn skip(stream: &TcpStream, buffer: &mut [u8], left: u64) -> std::io::Result<u64> {
    let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
    // TRUNC: the kernel throws the bytes away instead of copying them. The reader shall not be what is measured.
    match recv(stream, &mut buffer[..most], RecvFlags::TRUNC) {
        Ok((_, 0)) => Err(ErrorKind::UnexpectedEof.into()),
        Ok((_, skipped)) => Ok(skipped as u64),
        Err(Errno::AGAIN) => {
            pause(LOOK);
            Ok(0)
        }
        Err(error) => Err(error.into()),
    }
}
