//! What a client still sends that nobody takes any more, because its request has been answered: it is read and thrown away, so
//! that the client gets to read its answer and its connection can go on. That has its bounds.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Sleep, sleep};

use super::body::RequestBody;

/// The rest of a request of HTTP/1.1 that is thrown away.
pub struct Unread {
    body: RequestBody,
    /// Bytes that are still read.
    left: u64,
    /// When it has taken too long. Boxed: so few requests come to this that nothing else has room for it.
    late: Pin<Box<Sleep>>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All of it has come, or the client has gone.
    Whole,
    /// There was too much of it, or it took too long: the connection ends behind the answer.
    TooMuch,
}

impl Unread {
    /// The rest of a body. What is known to be too long is not read at all.
    pub fn new(body: RequestBody) -> Result<Self, Ending> {
        let most = body.most_unread();
        match body.unread_length() {
            Some(0) => Err(Ending::Whole),
            Some(length) if length > most => Err(Self::too_much(&body)),
            _ => Ok(Self {
                late: Box::pin(sleep(body.client().turns.unread_timeout())),
                body,
                left: most,
            }),
        }
    }

    /// Reads what has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if self.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Self::too_much(&self.body));
        }
        loop {
            match self.body.poll_unread(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ending::Whole),
                Poll::Ready(Some(length)) => match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Self::too_much(&self.body)),
                },
            }
        }
    }

    /// The connection ends with the answer. Closing it at once might take that from the client, so what comes meanwhile is thrown away
    /// for as long as it may be idle.
    fn too_much(body: &RequestBody) -> Ending {
        let client = body.client();
        // It owes nothing of it any more.
        client.turns.client_moved();
        client.turns.request_is_left();
        client.connection.close_soon();
        client.connection.linger();
        Ending::TooMuch
    }
}
