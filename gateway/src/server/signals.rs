//! The signals that the gateway listens to, and what they ask for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the gateway listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// SIGUSR1, with which HAProxy is told to drain.
    soft: Signal,
    /// SIGUSR2, with which HAProxy's master is told to reload.
    anew: Signal,
    /// A reload was asked for while one was under way.
    pub(super) again: bool,
}

/// What a signal asks for.
pub(super) enum Asked {
    Reload,
    End,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            soft: signal(SignalKind::user_defined1())?,
            anew: signal(SignalKind::user_defined2())?,
            again: false,
        })
    }

    /// Waits for the next order.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.soft.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.anew.recv() => Asked::Reload,
        }
    }

    /// As [`end`](Self::end), and leaves what else is asked for to be asked for later.
    pub(super) async fn end_at_once(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.soft.recv() => {}
        }
    }

    /// Waits for somebody who will not wait until what is under way has ended. SIGUSR1 is no such order, however often it comes.
    pub(super) async fn insist(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {}
                _ = self.anew.recv() => {}
                _ = self.soft.recv() => {}
            }
        }
    }

    /// Waits for an order to end. That a reload is asked for meanwhile is noted.
    pub(super) async fn end(&mut self) {
        while let Asked::Reload = self.next().await {
            self.again = true;
        }
    }
}
