//! Pipes of the kernel, through which it moves bytes from socket to socket without copying them (`splice(2)`), and the
//! worker's pool of them.
//!
//! A pipe is filled only when it is empty. So a fill that finds nothing says that the socket has nothing; while bytes are
//! in the pipe, the same answer could mean that the pipe has no room.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::net::TcpStream;

/// A pipe of the worker's pool. Back there when dropped empty; closed when dropped with bytes in it.
#[derive(Debug)]
pub(in crate::proxy) struct Pipe {
    /// None only while it is being dropped.
    ends: Option<Ends>,
    /// Bytes in it: no more than [`MOST_HELD`].
    held: u32,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// The pipes of a worker.
#[derive(Default)]
struct Pool {
    idle: Vec<Ends>,
    /// Those that are idle and those that are in use.
    open: usize,
    /// So many times no pipe is asked for, since the system has refused one.
    refusals: u32,
}

impl Pipe {
    /// An empty pipe. None when the worker has as many as it may, or the system gives none.
    pub(in crate::proxy) fn take() -> Option<Self> {
        let ends = POOL.with_borrow_mut(Pool::take)?;
        Some(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Moves what a socket has into the pipe, which is empty; no more than so many bytes. Zero at the socket's end.
    pub(in crate::proxy) fn fill(&mut self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let filled = splice(from, None, &ends.write, None, most.min(MOST_HELD), flags())?;
        self.held = u32::try_from(filled).unwrap_or(u32::MAX);
        Ok(filled)
    }

    /// Moves what is in the pipe to a socket, as far as it goes. If bytes are left, the socket has no more room: the kernel
    /// has tried to the point where it does not go on, and has noted that somebody waits.
    pub(in crate::proxy) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = splice(&ends.read, None, to, None, self.held(), flags())?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held = self.held.saturating_sub(u32::try_from(moved).unwrap_or(u32::MAX));
        Ok(moved)
    }

    /// Bytes in it.
    pub(in crate::proxy) fn held(&self) -> usize {
        self.held as usize
    }

    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Pipes that this thread has open.
    #[cfg(test)]
    pub(super) fn open() -> usize {
        POOL.with_borrow(|pool| pool.open)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let is_empty = self.is_empty();
        // At the thread's end there may be no pool any more; then the pipe is closed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if is_empty && pool.idle.len() < MOST_IDLE {
                pool.idle.push(ends);
            } else {
                pool.open -= 1;
            }
        });
    }
}

impl Pool {
    fn take(&mut self) -> Option<Ends> {
        if let Some(ends) = self.idle.pop() {
            return Some(ends);
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return None;
        }
        if self.open >= ALLOWED.load(Ordering::Relaxed) {
            return None;
        }
        match open() {
            Some(ends) => {
                self.open += 1;
                Some(ends)
            }
            None => {
                self.refusals = REFUSAL_LASTS;
                None
            }
        }
    }
}

/// Lets each worker have so many pipes, [`MOST_PIPES`] at most: for where the limit on open files has no room for more.
pub(crate) fn allow_pipes(each: usize) {
    ALLOWED.store(each.min(MOST_PIPES), Ordering::Relaxed);
}

/// A new pipe, if the system gives one that is worth having: beyond `pipe-user-pages-soft` of a user, pipes have two
/// places only.
fn open() -> Option<Ends> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
    let size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)).or_else(|_| fcntl(&write, FcntlArg::F_GETPIPE_SZ));
    let is_worth_it = size.is_ok_and(|size| size >= LEAST_PIPE_SIZE);
    is_worth_it.then_some(Ends { read, write })
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}

/// Pipes that each worker may have.
static ALLOWED: AtomicUsize = AtomicUsize::new(MOST_PIPES);

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Bytes in a pipe at most, whatever its places could hold: what a connection may hold of the kernel's memory per direction
/// beside its sockets' buffers.
pub(in crate::proxy) const MOST_HELD: usize = 512 * 1024;

/// Asked of the system for each pipe, in bytes: it is places for pages, 256 of them, each of which may hold as little as one
/// packet. Measured, a fifth less CPU than with the default of 16; a user without privileges gets the default beyond
/// `pipe-user-pages-soft`, and nobody gets more than `pipe-max-size`, which is this.
const PIPE_SIZE: i32 = 1024 * 1024;

/// A pipe smaller than this has too few places to save anything.
const LEAST_PIPE_SIZE: i32 = 32 * 1024;

/// Pipes of a worker: a direction has one only from filling it to the last byte's leaving, which is a moment unless its
/// receiver is slow. Bounds what slow receivers cost to 128 MiB of the kernel's memory and 512 descriptors; connections
/// beyond it copy.
pub(crate) const MOST_PIPES: usize = 256;

/// Empty pipes kept for the next transfer.
pub(in crate::proxy) const MOST_IDLE: usize = 32;

/// Transfers that copy, after the system has refused a pipe, before it is asked again.
const REFUSAL_LASTS: u32 = 1000;
