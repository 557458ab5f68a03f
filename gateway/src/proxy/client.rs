//! A client in its exchanges. An HTTP/1.1 connection carries one exchange at a time and has one [`Client`] for all of them; an
//! HTTP/2 connection carries many at once and has one for each stream.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::Response;

use super::connection::Connection;
use super::held::Uploading;
use super::informational;
use super::turns::Turns;
use crate::config::ClientTimeouts;
use crate::policy::ConnectionFacts;

/// A client in the exchanges that come one after another: all of an HTTP/1.1 connection, or the one of a stream.
#[derive(Debug)]
pub struct Client {
    /// What carries them.
    pub connection: Rc<Connection>,
    /// What policy may know about the connection.
    pub facts: Arc<ConnectionFacts>,
    /// Whose turn it is.
    pub turns: Turns,
    /// Bytes of request bodies that went on to a server and are not counted yet.
    forwarded: Cell<u64>,
    /// Whether it has a stream, beside others.
    is_stream: bool,
    /// Informational responses that wait to be sent.
    informational: RefCell<Vec<Response<()>>>,
    /// Whether the client takes those of its server.
    takes_informational: Cell<bool>,
    /// What it sends yet while its response is on the way.
    pub(super) uploading: Uploading,
}

impl Client {
    /// A client whose first request is awaited from now on.
    pub fn new(connection: &Rc<Connection>, timeouts: &Arc<ClientTimeouts>) -> Rc<Self> {
        Self::with(connection, timeouts, false)
    }

    /// A client on a stream, whose one request has come.
    pub fn on_stream(connection: &Rc<Connection>, timeouts: &Arc<ClientTimeouts>) -> Rc<Self> {
        Self::with(connection, timeouts, true)
    }

    fn with(connection: &Rc<Connection>, timeouts: &Arc<ClientTimeouts>, is_stream: bool) -> Rc<Self> {
        Rc::new(Self {
            connection: connection.clone(),
            facts: connection.facts.clone(),
            turns: Turns::new(timeouts, &connection.clock),
            forwarded: Cell::new(0),
            is_stream,
            informational: RefCell::default(),
            takes_informational: Cell::new(false),
            uploading: Uploading::default(),
        })
    }

    /// Whether the exchange has a stream of HTTP/2: its end is not the connection's.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Whether informational responses of the server are passed on to the client in the exchange under way.
    pub fn takes_informational(&self) -> bool {
        self.takes_informational.get()
    }

    /// Says so.
    pub fn take_informational_responses(&self, takes: bool) {
        self.takes_informational.set(takes);
    }

    /// An informational response is on its way to the client. More than a few in a row are not taken.
    pub fn inform(&self, response: Response<()>) {
        if !self.is_stream {
            return self.connection.say_early(&informational::encode(&response));
        }
        let mut waiting = self.informational.borrow_mut();
        if waiting.len() < MOST_INFORMATIONAL {
            waiting.push(response);
        }
    }

    /// The next informational response, in their order.
    pub fn take_informational(&self) -> Option<Response<()>> {
        let mut waiting = self.informational.borrow_mut();
        if waiting.is_empty() {
            return None;
        }
        Some(waiting.remove(0))
    }

    /// Bytes of a request's body go on to a server.
    pub fn add_forwarded(&self, bytes: u64) {
        self.forwarded.set(self.forwarded.get() + bytes);
    }

    /// Bytes of request bodies that went on since this was last asked.
    pub fn take_forwarded(&self) -> u64 {
        self.forwarded.take()
    }
}

/// Nobody has need of more before the response itself.
const MOST_INFORMATIONAL: usize = 8;
