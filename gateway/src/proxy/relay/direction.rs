//! One direction of a relay: from whoever reads to whoever writes, copied or spliced.
//!
//! **The rule.** A direction begins by copying. When [`FULL_READS`] reads in a row have filled the buffer, the stream is
//! bulk, and the kernel moves what follows from socket to socket through a pipe; when [`SMALL_FILLS`] fills in a row were
//! small again, it is copied as before. docs/decisions/0003-relay.md has the measurements.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::{BUFFER_SIZE, Buffer};
use super::pipe::{MOST_HELD, Pipe};
use super::stream::Relayed;
use crate::socket;

/// One direction.
pub(super) struct Direction {
    state: State,
    pace: Pace,
    withheld: Withheld,
    /// Its reader ended, and the other direction's had not.
    pub(super) is_first: bool,
    /// Bytes read since they were last asked for.
    read: u32,
}

/// What a direction is at.
pub(super) enum State {
    /// Nothing is in hand.
    Reading,
    /// Bytes of the reader are at hand that came before the relay began. Boxed: hardly any relay has them.
    Early(Box<Bytes>),
    /// Bytes were read that have not been written.
    Holding {
        buffer: Buffer,
        /// Of the bytes below, those that have been written.
        written: u16,
        /// Bytes of the buffer that are to be written.
        read: u16,
        /// The reader's end seems to follow: they leave together with it.
        ends: bool,
    },
    /// Bytes are in a pipe.
    Piped(Pipe),
    /// The reader ended; the writer is being told.
    Closing,
    /// The writer was told.
    Done,
    /// It broke.
    Failed(Fault, io::Error),
}

/// What of that which was written has not left, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Withheld {
    Nothing,
    /// What TLS may hold back of what it was given; a socket does not.
    Unflushed,
    /// The last piece: the socket was told that more follows, which is the end.
    UntilEnd,
}

/// How bytes have been coming.
enum Pace {
    /// In pieces: they are copied. So many reads in a row filled the buffer.
    Chatty { full: u8 },
    /// In a stream: they are spliced. So many fills in a row were small.
    Bulk { small: u8 },
}

/// What broke.
pub(super) enum Fault {
    Read,
    Write,
}

/// What a poll of a direction saw.
#[derive(Default)]
pub(super) struct Seen {
    /// The reader's side gave bytes or ended, or it is its turn again.
    pub(super) from_stirred: bool,
    /// The writer's side took bytes, or it is its turn.
    pub(super) to_stirred: bool,
    /// The reader ended.
    pub(super) end: bool,
    /// Bytes that came and were spliced.
    pub(super) spliced: u32,
    /// There may be more to move.
    pub(super) is_busy: bool,
}

impl Direction {
    /// A direction in which these bytes have come already, and before them so many that have been passed on.
    pub(super) fn new(early: Bytes, told: usize) -> Self {
        let mut direction = Self {
            state: State::Reading,
            pace: Pace::Chatty { full: 0 },
            withheld: Withheld::Nothing,
            is_first: false,
            read: counted(told),
        };
        if !early.is_empty() {
            direction.reads(early.len());
            direction.state = State::Early(Box::new(early));
        }
        direction
    }

    /// Bytes have come.
    fn reads(&mut self, bytes: usize) {
        self.read = self.read.saturating_add(counted(bytes));
    }

    pub(super) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Bytes read since they were last taken.
    pub(super) fn moved(&self) -> u32 {
        self.read
    }

    /// The same, which are then counted from zero.
    pub(super) fn take_moved(&mut self) -> u64 {
        u64::from(std::mem::take(&mut self.read))
    }

    /// Moves what can be moved now, up to the reader's end. `spare` is a buffer that both directions of a poll use in turn.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        spare: &mut Option<Buffer>,
    ) -> Seen
    where
        R: Relayed,
        W: Relayed,
    {
        let mut seen = Seen::default();
        let mut budget = BUDGET;
        let begun = self.read;
        while self.read - begun < budget {
            let step = match &mut self.state {
                State::Reading => match self.sockets(from, to) {
                    Some(from) => self.poll_fill(cx, from, &mut seen),
                    None => self.poll_read(cx, from, to, spare, &mut seen),
                },
                State::Early(_) => self.poll_early(cx, to, &mut seen),
                State::Holding { .. } => self.poll_write(cx, to, spare, &mut seen),
                State::Piped(_) => match to.bare() {
                    Some(to) => self.poll_drain(cx, to, &mut seen),
                    None => Poll::Ready(State::Failed(Fault::Write, io::ErrorKind::Unsupported.into())),
                },
                State::Closing | State::Done | State::Failed(..) => return seen,
            };
            match step {
                Poll::Ready(state) => self.state = state,
                Poll::Pending => return seen,
            }
            // Small pieces take time, too.
            budget = budget.saturating_sub(STEP_COST);
        }
        seen.is_busy = true;
        seen
    }

    /// Whether the reader ended, and all that it had said was written.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Closing | State::Done)
    }

    /// The writer is closed, which tells it.
    pub(super) fn close(&mut self) {
        self.state = State::Done;
    }

    /// Tells the writer of the reader's end, if there is one that it has not been told of. With `is_last`, the other direction
    /// is done, and both streams are about to be closed: that tells a bare socket, too.
    pub(super) fn pass_end<W: Relayed>(&mut self, cx: &mut Context<'_>, to: &mut W, is_last: bool) {
        if !matches!(self.state, State::Closing) {
            return;
        }
        if is_last && to.bare().is_some() {
            return self.close();
        }
        self.state = match Pin::new(to).poll_shutdown(cx) {
            Poll::Pending => return,
            Poll::Ready(Err(error)) if !is_gone(&error) => State::Failed(Fault::Write, error),
            Poll::Ready(_) => State::Done,
        };
    }

    /// The reader's socket, when bytes are to be spliced from it.
    fn sockets<'a>(&self, from: &'a impl Relayed, to: &impl Relayed) -> Option<&'a TcpStream> {
        match self.pace {
            Pace::Chatty { full } if full < FULL_READS => None,
            Pace::Chatty { .. } | Pace::Bulk { .. } => from.bare().filter(|_| to.bare().is_some()),
        }
    }

    fn poll_read<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        spare: &mut Option<Buffer>,
        seen: &mut Seen,
    ) -> Poll<State>
    where
        R: Relayed,
        W: Relayed,
    {
        let mut buffer = spare.take().unwrap_or_else(Buffer::take);
        let mut read = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *from).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                seen.from_stirred = true;
                let read = read.filled().len();
                if read == 0 {
                    *spare = Some(buffer);
                    seen.end = true;
                    return Poll::Ready(State::Closing);
                }
                self.reads(read);
                let ends = read < BUFFER_SIZE && to.bare().is_some() && from.bare().is_some_and(socket::is_ending);
                self.pace = match self.pace {
                    Pace::Chatty { full } if read == BUFFER_SIZE => Pace::Chatty {
                        full: full.saturating_add(1),
                    },
                    _ => Pace::Chatty { full: 0 },
                };
                Poll::Ready(State::Holding {
                    buffer,
                    written: 0,
                    // No more than the buffer has.
                    read: u16::try_from(read).unwrap_or(0),
                    ends,
                })
            }
            // TLS that ends without a goodbye, as many clients end it. The other side sees an end, as it would without TLS.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                seen.end = true;
                Poll::Ready(State::Closing)
            }
            Poll::Ready(Err(error)) => {
                self.release(to);
                Poll::Ready(State::Failed(Fault::Read, error))
            }
            Poll::Pending => {
                *spare = Some(buffer);
                self.release(to);
                if self.withheld == Withheld::Unflushed {
                    match Pin::new(to).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.withheld = Withheld::Nothing,
                        Poll::Ready(Err(error)) => return Poll::Ready(State::Failed(Fault::Write, error)),
                        Poll::Pending => {}
                    }
                }
                Poll::Pending
            }
        }
    }

    /// Has the last piece leave by itself, as no end has followed: the reader has been reset, or has said something urgent.
    fn release<W: Relayed>(&mut self, to: &W) {
        if self.withheld == Withheld::UntilEnd {
            self.withheld = Withheld::Nothing;
            to.bare().into_iter().for_each(socket::release);
        }
    }

    /// Writes what had come before the relay began, and lets go of the memory that it was a part of.
    fn poll_early<W: Relayed>(&mut self, cx: &mut Context<'_>, to: &mut W, seen: &mut Seen) -> Poll<State> {
        let State::Early(early) = &mut self.state else {
            return Poll::Pending;
        };
        while early.has_remaining() {
            match ready!(Pin::new(&mut *to).poll_write(cx, early)) {
                Ok(0) => return Poll::Ready(State::Failed(Fault::Write, io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    seen.to_stirred = true;
                    self.withheld = Withheld::Unflushed;
                    early.advance(written);
                }
                Err(error) => return Poll::Ready(State::Failed(Fault::Write, error)),
            }
        }
        // The reader's turn begins.
        seen.from_stirred = true;
        Poll::Ready(State::Reading)
    }

    fn poll_write<W: Relayed>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        spare: &mut Option<Buffer>,
        seen: &mut Seen,
    ) -> Poll<State> {
        let State::Holding {
            buffer,
            written,
            read,
            ends,
        } = &mut self.state
        else {
            return Poll::Pending;
        };
        while written < read {
            let rest = &buffer[*written as usize..*read as usize];
            let polled = match to.bare().filter(|_| *ends) {
                Some(to) => socket::poll_write_held(to, cx, &[io::IoSlice::new(rest)]),
                None => Pin::new(&mut *to).poll_write(cx, rest),
            };
            match polled {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(State::Failed(Fault::Write, io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(more)) => {
                    seen.to_stirred = true;
                    self.withheld = match *ends {
                        true => Withheld::UntilEnd,
                        false => Withheld::Unflushed,
                    };
                    *written = written.saturating_add(u16::try_from(more).unwrap_or(u16::MAX));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(State::Failed(Fault::Write, error)),
                Poll::Pending => {
                    // Its turn begins now, if it was not its turn before.
                    seen.to_stirred |= seen.from_stirred;
                    return Poll::Pending;
                }
            }
        }
        // The reader's turn begins again: it was not asked for anything while the bytes were held.
        seen.from_stirred = true;
        if let State::Holding { buffer, .. } = std::mem::replace(&mut self.state, State::Reading) {
            *spare = Some(buffer);
        }
        Poll::Ready(State::Reading)
    }

    /// Moves what the reader's socket has into a pipe.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &TcpStream, seen: &mut Seen) -> Poll<State> {
        loop {
            if let Err(error) = ready!(from.poll_read_ready(cx)) {
                return Poll::Ready(State::Failed(Fault::Read, error));
            }
            let Some(mut pipe) = Pipe::take() else {
                // No pipe is to be had: the next reads are copied.
                self.pace = Pace::Chatty { full: 0 };
                return Poll::Ready(State::Reading);
            };
            match from.try_io(Interest::READABLE, || pipe.fill(from, MOST_HELD)) {
                Ok(0) => {
                    (seen.from_stirred, seen.end) = (true, true);
                    return Poll::Ready(State::Closing);
                }
                Ok(filled) => {
                    seen.from_stirred = true;
                    self.reads(filled);
                    seen.spliced += counted(filled);
                    self.pace = match self.pace {
                        Pace::Bulk { small } if filled < SMALL_FILL => match small + 1 {
                            SMALL_FILLS => Pace::Chatty { full: 0 },
                            small => Pace::Bulk { small },
                        },
                        Pace::Chatty { .. } | Pace::Bulk { .. } => Pace::Bulk { small: 0 },
                    };
                    return Poll::Ready(State::Piped(pipe));
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(State::Failed(Fault::Read, error)),
            }
        }
    }

    /// Moves what is in the pipe to the writer's socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream, seen: &mut Seen) -> Poll<State> {
        let State::Piped(pipe) = &mut self.state else {
            return Poll::Pending;
        };
        while !pipe.is_empty() {
            match to.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(State::Failed(Fault::Write, error)),
                Poll::Pending => {
                    seen.to_stirred |= seen.from_stirred;
                    return Poll::Pending;
                }
            }
            let drained = to.try_io(Interest::WRITABLE, || {
                pipe.drain(to)?;
                seen.to_stirred = true;
                // What is left found no room. Saying so here saves asking once more.
                if pipe.is_empty() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            });
            match drained {
                Ok(()) => {}
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(State::Failed(Fault::Write, error)),
            }
        }
        seen.from_stirred = true;
        Poll::Ready(State::Reading)
    }
}

impl State {
    pub(super) fn holds_bytes(&self) -> bool {
        matches!(self, Self::Early(_) | Self::Holding { .. } | Self::Piped(_))
    }

    pub(super) fn awaits_bytes(&self) -> bool {
        matches!(self, Self::Reading)
    }

    pub(super) fn awaits_room(&self) -> bool {
        self.holds_bytes() || matches!(self, Self::Closing)
    }
}

/// Whoever cannot be told of an end because it has gone needs not be told. If it went too early, reading from it says so.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), NotConnected | BrokenPipe | ConnectionReset)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads in a row that fill the buffer before a stream is taken for bulk: 64 KiB that were there at once.
const FULL_READS: u8 = 2;

/// Fills below this are cheaper copied: that is one receive and one send, without the pages' bookkeeping.
const SMALL_FILL: usize = 16 * 1024;

/// Small fills in a row before a stream is taken for chatty again.
const SMALL_FILLS: u8 = 4;

/// Bytes in the form that they are counted in between two looks: there are never so many that they do not fit.
fn counted(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

// What of a buffer is to be written is counted in two bytes.
const _: () = assert!(BUFFER_SIZE <= u16::MAX as usize);

/// Bytes that a direction moves before others of the worker run.
const BUDGET: u32 = 1024 * 1024;

/// What a step costs of the budget beside its bytes.
const STEP_COST: u32 = 8 * 1024;
