//! Connections to servers that wait for their next request: one pool per worker and backend, so that no lock is crossed.
//!
//! A connection in the pool has no task of its own. It is polled by the exchange that uses it; between exchanges it is
//! looked at when it is taken (has the server closed it meanwhile?) and by the worker's sweep, which also ends what has been
//! idle too long. Those of HTTP/2 are shared by the exchanges of the worker, and are in the pool while they are used, too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::http1::Connection;
use super::multiplexed::{Moving, Multiplexed};
use crate::config;

/// An HTTP/1.1 connection to a server.
pub struct Upstream {
    /// The connection.
    pub connection: Connection,
    /// Requests served before the one under way.
    pub served: u64,
    /// Where it leads, of a server that may move.
    pub leads_to: Option<SocketAddr>,
    /// Whom the server was asked to be, where that is the client's wish.
    pub name: Option<ServerName<'static>>,
}

/// Idle connections to the servers of one backend, of one worker.
pub struct Pool {
    /// By server; the most recently used last.
    idle: Vec<VecDeque<(Instant, Box<Upstream>)>>,
    /// By server, in HTTP/2.
    shared: Vec<Shared>,
    max_idle: usize,
    idle_timeout: Duration,
}

/// The connections to one server that requests share.
#[derive(Default)]
struct Shared {
    connections: Vec<Rc<Multiplexed>>,
    /// Those that carry one request at a time.
    in_turn: Vec<Rc<Multiplexed>>,
    /// One is being opened; who needs one waits for it instead of opening another.
    opening: Option<Rc<Notify>>,
}

/// Beside what content that waits for its server a request may go on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Whatever waits there.
    Anything,
    /// What has not waited for long: some of it has moved meanwhile.
    Moving,
    /// None at all.
    Nothing,
}

impl Pool {
    /// An empty pool for so many servers.
    pub fn new(servers: usize, settings: config::Pool) -> Self {
        Self {
            idle: (0..servers).map(|_| VecDeque::new()).collect(),
            shared: (0..servers).map(|_| Shared::default()).collect(),
            max_idle: settings.max_idle,
            idle_timeout: settings.idle_timeout,
        }
    }

    /// The most recently used connection to a server under this name that is still open and has served so many requests.
    pub fn take(&mut self, server: usize, served: u64, name: Option<&ServerName<'static>>) -> Option<Box<Upstream>> {
        let idle = self.idle.get_mut(server)?;
        let fits = |upstream: &Upstream| upstream.served >= served && upstream.name.as_ref() == name;
        // With one request, which all of them have served, and without names, it is the last.
        while let Some(at) = idle.iter().rposition(|(_, upstream)| fits(upstream)) {
            let (_, mut upstream) = idle.remove(at)?;
            if upstream.connection.is_idle() {
                return Some(upstream);
            }
        }
        None
    }

    /// A connection to a server that takes one more request, the first that has room: so few are used, and the others go idle
    /// and end. Those that lead elsewhere than `to` take no more. Content that waits there may be no more than `beside` says.
    pub fn share(&mut self, server: usize, to: Option<SocketAddr>, beside: Beside) -> Option<Rc<Multiplexed>> {
        let connections = &mut self.shared.get_mut(server)?.connections;
        connections.retain(|connection| !connection.is_closing() && connection.leads_to == to);
        let takes_it = |connection: &&Rc<Multiplexed>| {
            connection.has_room()
                && match beside {
                    Beside::Anything => true,
                    Beside::Nothing => !connection.is_blocked(),
                    Beside::Moving => !connection.is_stuck(),
                }
        };
        connections.iter().find(takes_it).cloned()
    }

    /// What tells whether content moves on that waits on a connection to a server that would have room; none where there is no such.
    pub fn moving(&self, server: usize) -> Option<Moving> {
        let connections = &self.shared.get(server)?.connections;
        let mut with_room = connections.iter().filter(|connection| connection.has_room());
        with_room.find_map(|connection| connection.moving())
    }

    /// Lets others share a connection.
    pub fn add(&mut self, server: usize, connection: &Rc<Multiplexed>) {
        if let Some(shared) = self.shared.get_mut(server)
            && self.max_idle > 0
        {
            shared.connections.push(connection.clone());
        }
    }

    /// A connection to a server on which nothing is under way, of those that are used by one request after the other. Those that lead
    /// elsewhere than `to` take no more.
    pub fn take_turn(&mut self, server: usize, to: Option<SocketAddr>) -> Option<Rc<Multiplexed>> {
        let connections = &mut self.shared.get_mut(server)?.in_turn;
        connections.retain(|connection| !connection.is_closing() && connection.leads_to == to);
        let is_free = |connection: &&Rc<Multiplexed>| connection.active() == 0 && connection.has_room();
        connections.iter().find(is_free).cloned()
    }

    /// Lets others have a connection behind the request that it was opened for. Beyond as many as may be idle it ends with that.
    pub fn add_in_turn(&mut self, server: usize, connection: &Rc<Multiplexed>) {
        let max_idle = self.max_idle;
        if let Some(shared) = self.shared.get_mut(server) {
            shared.in_turn.retain(|connection| !connection.is_closing());
            if shared.in_turn.len() < max_idle {
                shared.in_turn.push(connection.clone());
            }
        }
    }

    /// What tells when the connection that is being opened can be shared; none when none is being opened.
    ///
    /// Being opened includes that the server says how many requests it takes. A connection whose server has not said it for
    /// longer than `limit` takes no more.
    pub fn opening(&self, server: usize, limit: Duration) -> Option<Rc<Notify>> {
        let shared = self.shared.get(server)?;
        if let Some(opening) = &shared.opening {
            return Some(opening.clone());
        }
        for connection in &shared.connections {
            match connection.settling() {
                Some(_) if connection.age() >= limit => connection.retire(),
                Some(settling) => return Some(settling),
                None => {}
            }
        }
        None
    }

    /// A connection is being opened, until what is answered is given to [`Pool::opened`].
    pub fn open(&mut self, server: usize) -> Rc<Notify> {
        let notify = Rc::new(Notify::new());
        if let Some(shared) = self.shared.get_mut(server) {
            shared.opening = Some(notify.clone());
        }
        notify
    }

    /// No connection is being opened any more, whatever came of it.
    pub fn opened(&mut self, server: usize, opening: &Rc<Notify>) {
        if let Some(shared) = self.shared.get_mut(server)
            && shared.opening.as_ref().is_some_and(|known| Rc::ptr_eq(known, opening))
        {
            shared.opening = None;
        }
        opening.notify_waiters();
    }

    /// Keeps a connection for later. When the pool is full, the one that has been idle longest is closed.
    pub fn put(&mut self, server: usize, mut upstream: Box<Upstream>, now: Instant) {
        let Some(idle) = self.idle.get_mut(server) else { return };
        if self.max_idle == 0 {
            return upstream.connection.leave();
        }
        if idle.len() >= self.max_idle
            && let Some((_, oldest)) = idle.pop_front()
        {
            oldest.connection.leave();
        }
        upstream.served += 1;
        idle.push_back((now, upstream));
    }

    /// Ends what has been closed by the server or idle for too long.
    pub fn sweep(&mut self, now: Instant) {
        for idle in &mut self.idle {
            while let Some((_, upstream)) = idle.pop_front_if(|(since, _)| now >= *since + self.idle_timeout) {
                upstream.connection.leave();
            }
            idle.retain_mut(|(_, upstream)| upstream.connection.is_idle());
        }
        let is_stale = |since| now >= since + self.idle_timeout;
        for shared in &mut self.shared {
            let keeps = |connection: &Rc<Multiplexed>| {
                !connection.is_closing() && !connection.idle_since().is_some_and(is_stale)
            };
            for connections in [&mut shared.connections, &mut shared.in_turn] {
                connections.retain(|connection| {
                    let keep = keeps(connection);
                    if !keep {
                        connection.retire();
                    }
                    keep
                });
            }
        }
    }

    /// Ends all idle connections to a server, and those that are shared after what is under way on them.
    pub fn clear(&mut self, server: usize) {
        if let Some(idle) = self.idle.get_mut(server) {
            end_all(idle);
        }
        if let Some(shared) = self.shared.get_mut(server) {
            shared.clear();
        }
    }

    /// Ends all idle connections, and keeps none from now on.
    pub fn close(&mut self) {
        self.max_idle = 0;
        self.idle.iter_mut().for_each(end_all);
        self.shared.iter_mut().for_each(Shared::clear);
    }

    /// Idle connections, over all servers.
    pub fn len(&self) -> usize {
        let idle: usize = self.idle.iter().map(VecDeque::len).sum();
        let shared = self
            .shared
            .iter()
            .flat_map(|shared| shared.connections.iter().chain(&shared.in_turn));
        idle + shared.filter(|connection| connection.active() == 0).count()
    }

    /// Whether nothing is idle here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn end_all(idle: &mut VecDeque<(Instant, Box<Upstream>)>) {
    idle.drain(..).for_each(|(_, upstream)| upstream.connection.leave());
}

impl Shared {
    fn clear(&mut self) {
        for connection in self.connections.drain(..).chain(self.in_turn.drain(..)) {
            connection.retire();
        }
    }
}
