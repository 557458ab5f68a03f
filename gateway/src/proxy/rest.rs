//! The rest of a request whose answer has gone to the client whole: a server may answer before it has read all that it is sent,
//! and reads on (RFC 9112, section 9.5; RFC 9113, section 8.1).
//!
//! It is relayed as long as the server takes it, and the exchange lasts as long: the server is busy with it, its connection is kept
//! for others only behind the end, and the log line tells how it ended. When the server takes no more, a client of HTTP/1.1 may go on
//! and is not listened to (see [`unread`](super::unread)); on a stream of HTTP/2 it is told to stop, with `RST_STREAM(NO_ERROR)`.

use std::task::{Context, Poll, ready};

use super::error::ProxyError;
use super::lease::{Lease, Relayed};
use super::record::Record;
use super::turns::Late;
use super::unread::{Ending, Unread};
use crate::telemetry::access::Cause;

/// What is left of an exchange.
pub struct Rest {
    record: Box<Record>,
    stage: Stage,
}

enum Stage {
    /// It goes to the server.
    Relayed(Box<Lease>),
    /// The server takes no more of it, and has been let go.
    Unread(Box<Unread>),
    Over,
}

impl Rest {
    /// Of an exchange whose response has been produced whole, while the client sends yet.
    pub fn new(lease: Lease, record: Box<Record>) -> Self {
        Self {
            record,
            stage: Stage::Relayed(Box::new(lease)),
        }
    }

    /// hyper has all of the answer.
    pub fn answer_is_made(&mut self) {
        self.record.answer_is_made();
    }

    /// Moves it along. Ready when the exchange is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Relayed(_) = &self.stage {
            ready!(self.poll_relayed(cx));
        }
        if let Stage::Unread(unread) = &mut self.stage
            && ready!(unread.poll(cx)) == Ending::TooMuch
        {
            self.record.end_early(Cause::Proxy, TOO_MUCH);
        }
        self.stage = Stage::Over;
        self.record.complete();
        Poll::Ready(())
    }

    /// The client's connection has ended. Who leaves while nobody takes what is left has missed nothing.
    pub fn give_up(mut self) {
        if matches!(self.stage, Stage::Unread(_)) && self.record.client().turns.late() != Some(Late::Client) {
            self.record.complete();
        }
    }

    /// Ready when the server has all of it, or takes no more.
    fn poll_relayed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Relayed(mut lease) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Poll::Ready(());
        };
        let turns = &self.record.client().turns;
        let ended = match lease.poll_ended(cx) {
            Poll::Ready(why) => Some(ProxyError::from(why)),
            Poll::Pending if turns.late() == Some(Late::Server) => Some(ProxyError::ServerTimeout),
            Poll::Pending => None,
        };
        if let Some(error) = ended {
            self.end_early(&error);
            lease.leave();
            self.let_go(*lease);
            return Poll::Ready(());
        }
        match lease.poll_rest(cx) {
            Poll::Pending => {
                // While the client has to send, it is the client's turn all the same.
                turns.await_server();
                self.stage = Stage::Relayed(lease);
                return Poll::Pending;
            }
            Poll::Ready(Relayed::Whole) => lease.give_back(),
            Poll::Ready(Relayed::Broken(error)) => {
                self.end_early(&error);
                let client = self.record.client();
                if !client.is_stream() {
                    // What comes behind it belongs to nothing.
                    client.turns.request_is_left();
                    client.connection.close_soon();
                    client.connection.linger();
                }
            }
            Poll::Ready(Relayed::Left) => {
                if let Some((cause, reason)) = lease.left_as() {
                    self.record.end_early(cause, reason);
                }
                self.let_go(*lease);
            }
        }
        Poll::Ready(())
    }

    /// The server takes no more.
    fn let_go(&mut self, lease: Lease) {
        self.stage = lease.into_unread().map_or(Stage::Over, Stage::Unread);
        self.record.server_is_done();
    }

    fn end_early(&mut self, error: &ProxyError) {
        self.record.end_early(error.cause(), error.reason());
    }
}

/// What log lines say of more than `request-limits unread=` and `timeout unread=` allow.
pub const TOO_MUCH: &str = "unread-content";

/// What log lines say of a server that has ended its connection, or reset its stream, behind its answer and in the middle of the
/// request, without having said that it would.
pub const CUT: &str = "upload-cut";
