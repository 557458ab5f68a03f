//! Ending sessions from outside: when their server goes down and `on-marked-down` says so, when it is a backup that is relieved
//! by `on-marked-up`, or by an operator's order.
//! Only servers for which that may happen have this, and only their sessions pay for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;

/// Why a session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its server went down.
    Down,
    /// Its server is a backup, and one that it stood in for is back.
    Relieved,
    /// An operator said so.
    Ordered,
}

/// Where the sessions of a server hear that they are to end.
#[derive(Debug)]
pub(super) struct Ends {
    sender: watch::Sender<Ended>,
}

/// What a session hears; nothing when nobody could say it. Boxed twice: then it is one word to the many that hear nothing.
#[derive(Default)]
pub(super) struct Listener(Option<Box<Pin<Box<dyn Future<Output = Ended> + Send>>>>);

impl Ends {
    pub(super) fn new() -> Self {
        Self {
            sender: watch::Sender::new(Ended::Down),
        }
    }

    /// All sessions that there are now end. Answers how many there were.
    pub(super) fn end(&self, why: Ended) -> usize {
        let listening = self.sender.receiver_count();
        self.sender.send_replace(why);
        listening
    }

    pub(super) fn listen(&self) -> Listener {
        let mut receiver = self.sender.subscribe();
        Listener(Some(Box::new(Box::pin(async move {
            match receiver.changed().await {
                Ok(()) => *receiver.borrow(),
                // The server is configured no more: nobody will say anything.
                Err(_) => std::future::pending().await,
            }
        }))))
    }
}

impl Listener {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        match &mut self.0 {
            Some(ended) => Pin::new(&mut **ended).poll(cx),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.0.is_some()).finish()
    }
}
