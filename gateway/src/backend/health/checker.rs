//! The checks of one server: when it is asked, what its answers and the failures of traffic make of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::rhythm::{FAR, first_due, jittered};
use super::state::{Health, Pace, Transition};
use super::{CheckError, Way, by, grpc, http, outcome, tcp};
use crate::backend::random::Random;
use crate::backend::{Backend, ConnectError, Server};
use crate::config::{Check, CheckKind, OnError, Schedule};

/// Checks one server.
pub(super) struct Checker {
    backend: Arc<str>,
    pub(super) server: Arc<Server>,
    check: Check,
    way: Way,
    health: Health,
    /// Why the last check failed, as it was logged.
    said: Option<String>,
}

impl Checker {
    pub(super) fn new(backend: &Backend, server: &Arc<Server>, check: &Check) -> Self {
        let schedule = Schedule {
            interval: check.schedule.interval.min(FAR),
            fast_interval: check.schedule.fast_interval.min(FAR),
            down_interval: check.schedule.down_interval.min(FAR),
            timeout: check.schedule.timeout.min(FAR),
            ..check.schedule
        };
        let health = if server.metrics.is_checked() {
            // An earlier configuration's checks know more than `initial=` does.
            Health::known(&schedule, server.metrics.passes(), server.metrics.checks.get().against)
        } else {
            Health::new(&schedule)
        };
        match (server.metrics.passes(), health.is_up()) {
            (true, false) => server.metrics.begins_down(),
            // It began down under another configuration, and no check has said anything yet.
            (false, true) => server.metrics.went(true),
            (true, true) | (false, false) => {}
        }
        Self {
            backend: Arc::clone(&backend.name),
            server: Arc::clone(server),
            check: Check {
                schedule,
                ..check.clone()
            },
            way: Way {
                target: check.target,
                tls: backend.check_tls.clone(),
            },
            health,
            said: None,
        }
    }

    /// Checks until it is dropped. The first check is made when an earlier configuration's would have been, and after this
    /// delay when there was none: however often a configuration is read again, checks are made.
    pub(super) async fn run(mut self, delay: Duration) {
        let mut random = Random::new();
        let mut last = Instant::now();
        let planned = self.server.metrics.checks.get().due;
        // A check that was under way may have been so for longer than the fast interval.
        let longest = self.interval().max(self.check.schedule.interval);
        let mut next = first_due(planned, last, longest, delay);
        loop {
            self.server.metrics.checks.plan(next, self.health.against());
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.server.tripped() => {
                    self.tripped();
                    // However much fails, checks keep the distance of the fast interval, or of the one while down.
                    let soon = self.check.schedule.fast_interval.min(self.interval());
                    next = next.min(last + soon);
                    continue;
                }
            }
            last = Instant::now();
            // What is in maintenance is left alone, and what is nowhere cannot be asked.
            if self.server.address().is_some() && !self.server.metrics.is_in_maintenance() {
                let result = match self.once(last).await {
                    // Who is down comes up by answering as is expected.
                    Err(CheckError::Drains(status)) if !self.health.is_up() => Err(CheckError::Status(status)),
                    result => result,
                };
                // What the gateway lacked says nothing about the server: as if this check had not been due.
                if !matches!(result, Err(CheckError::Connect(ConnectError::Lack(_)))) {
                    let tls = self.way.tls.is_some() || self.server.tls.is_some();
                    let end = outcome::of(&self.check.kind, tls, &result, last.elapsed());
                    self.server.metrics.checked(end);
                    self.observe(result);
                }
            }
            // From the start of this check, not from when it was due: after a pause of the machine, checks that were
            // missed are not made up for.
            next = last + jittered(self.interval(), random.next());
        }
    }

    pub(super) fn interval(&self) -> Duration {
        match self.health.pace() {
            Pace::Steady => self.check.schedule.interval,
            Pace::Changing => self.check.schedule.fast_interval,
            Pace::Down => self.check.schedule.down_interval,
        }
    }

    pub(super) async fn once(&self, started: Instant) -> Result<(), CheckError> {
        let limit = self.check.schedule.timeout;
        let attempt = async {
            match &self.check.kind {
                CheckKind::Tcp(steps) => tcp::check(&self.server, &self.way, steps, limit).await,
                CheckKind::Http(check) => http::check(&self.server, &self.way, check, limit).await,
                CheckKind::Grpc(check) => grpc::check(&self.server, &self.way, check, limit).await,
            }
        };
        let result = by(started + limit, attempt).await;
        result.unwrap_or(Err(CheckError::Timeout(limit)))
    }

    /// Traffic could not connect for as often as is borne.
    pub(super) fn tripped(&mut self) {
        let Some(observe) = self.check.observe else { return };
        if !self.health.is_up() {
            return;
        }
        let reason = CheckError::Observed(observe.error_limit);
        match observe.on_error {
            OnError::FastCheck => {}
            OnError::FailCheck => self.observe(Err(reason)),
            OnError::SuddenDeath => self.health.doubt(),
            OnError::MarkDown => {
                if let Some(transition) = self.health.fail() {
                    self.server.metrics.ejected();
                    self.went(transition, Some(&reason));
                }
            }
        }
    }

    pub(super) fn observe(&mut self, result: Result<(), CheckError>) {
        let result = self.drain(result);
        let was_up = self.health.is_up();
        let transition = self.health.observe(result.is_ok());
        match (transition, &result) {
            (Some(transition), result) => self.went(transition, result.as_ref().err()),
            (None, Err(reason)) => self.say(reason, was_up),
            (None, Ok(())) => {}
        }
        match result {
            Ok(()) => self.said = None,
            Err(reason) => self.said = Some(reason.to_string()),
        }
    }

    /// Has the server get no new work where its check asks for none, which is no failure, and again where it passes.
    fn drain(&self, result: Result<(), CheckError>) -> Result<(), CheckError> {
        let (backend, server) = (&*self.backend, &*self.server.name);
        let status = match result {
            Ok(()) => None,
            Err(CheckError::Drains(status)) => Some(status),
            Err(error) => return Err(error),
        };
        if self.server.metrics.set_drains(status.is_some()) {
            match status {
                Some(status) => tracing::info!(
                    backend,
                    server,
                    status,
                    "server is drained: its check asks for no new work"
                ),
                None => tracing::info!(backend, server, "server is no longer drained: its check passes"),
            }
        }
        Ok(())
    }

    /// Tells of a check that failed, once for each reason.
    fn say(&self, reason: &CheckError, was_up: bool) {
        let reason = reason.to_string();
        if self.said.as_ref() == Some(&reason) {
            return;
        }
        let (backend, server) = (&*self.backend, &*self.server.name);
        let state = if was_up { "up" } else { "down" };
        tracing::info!(backend, server, %reason, state, "check failed");
    }

    fn went(&self, transition: Transition, reason: Option<&CheckError>) {
        let (backend, server) = (&*self.backend, &*self.server.name);
        let is_up = transition == Transition::Up;
        self.server.metrics.went(is_up);
        let left = self.server.metrics.backend_servers_up();
        match (transition, reason) {
            (Transition::Down, Some(reason)) => {
                tracing::warn!(backend, server, %reason, servers_up = left, "server is down");
            }
            (Transition::Down, None) => tracing::warn!(backend, server, servers_up = left, "server is down"),
            (Transition::Up, _) => tracing::info!(backend, server, servers_up = left, "server is up"),
        }
    }
}
