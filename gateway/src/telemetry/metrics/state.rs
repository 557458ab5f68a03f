//! What is known and ordered of a server: whether it is up, what an operator and its agent made of it, its weight, and how
//! far it has warmed up. It is kept with the server's counts, so that a reload that keeps the server keeps it.
//!
//! Changes are rare and take a lock. What every pick reads is the one number that comes of them: the server's share.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What an operator, or the server's agent, made of it. The later is the stricter, and the stricter of the two counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admin {
    /// It is used as its health allows.
    Ready,
    /// It keeps what it has under way and gets no new work.
    Drain,
    /// It is out of service: no new work, and no checks.
    Maintenance,
}

/// What a server's agent made of it; an agent that has said nothing lets it be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// Whether it may have work.
    pub admin: Admin,
    /// Whether it is up, when its checks find so too.
    pub up: bool,
    /// Of its weight, in percent.
    pub percent: u16,
    /// Requests or connections that it may have under way at once, in place of what the configuration says; 0 is no limit,
    /// and none that the agent has not said.
    pub max_connections: Option<usize>,
}

/// A server's state. On a cache line of its own: every pick of every worker reads it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct ServerState {
    share: AtomicU32,
    up: AtomicBool,
    /// 0 for no limit.
    max_connections: AtomicUsize,
    /// The same for now.
    max_now: AtomicUsize,
    inputs: Mutex<Inputs>,
}

/// What the share is made of.
#[derive(Debug)]
struct Inputs {
    admin: Admin,
    agent: Agent,
    /// What the checks find.
    passes: bool,
    /// Whether its check passes and asks for no new work.
    drains: bool,
    /// Whether it is known where it is.
    placed: bool,
    /// Whether it gets nothing for a while, because of its answers.
    ejected: bool,
    /// Whether the configuration begins with it out of service.
    disabled: bool,
    configured: u16,
    weight: u16,
    max_connections: Option<NonZeroUsize>,
    slow_start: Option<Duration>,
    warming: Option<Warming>,
}

/// A server that came back a while ago.
#[derive(Debug, Clone, Copy)]
struct Warming {
    since: Instant,
    over: Duration,
}

impl ServerState {
    /// Up and ready, with no weight yet.
    pub(super) fn new() -> Self {
        Self {
            share: AtomicU32::new(0),
            up: AtomicBool::new(true),
            max_connections: AtomicUsize::new(0),
            max_now: AtomicUsize::new(0),
            inputs: Mutex::new(Inputs {
                admin: Admin::Ready,
                agent: Agent::default(),
                passes: true,
                drains: false,
                placed: true,
                ejected: false,
                disabled: false,
                configured: 0,
                weight: 0,
                max_connections: None,
                slow_start: None,
                warming: None,
            }),
        }
    }

    /// Its part of new work, beside the other servers' shares: [`SHARE_OF_ONE`] for each unit of its weight, less while it
    /// warms up, and 0 when it may get none.
    pub(super) fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Requests or connections that it may have under way at once: what its agent says or, while that says nothing of it, the
    /// configuration.
    pub(super) fn max_connections(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.max_connections.load(Ordering::Relaxed))
    }

    /// The same for now: while it warms up, as much of it as of its share.
    pub(super) fn max_connections_now(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.max_now.load(Ordering::Relaxed))
    }

    pub(super) fn admin(&self) -> Admin {
        self.inputs().admin
    }

    /// What its agent made of it.
    pub(super) fn agent(&self) -> Agent {
        self.inputs().agent
    }

    /// What checks find, whatever an agent says.
    pub(super) fn passes(&self) -> bool {
        self.inputs().passes
    }

    /// Whether an operator or its agent has taken it out of service.
    pub(super) fn is_in_maintenance(&self) -> bool {
        self.inputs().order() == Admin::Maintenance
    }

    /// The weight that it has now, and the one that the configuration gives it.
    pub(super) fn weights(&self) -> (u16, u16) {
        let inputs = self.inputs();
        (inputs.weight, inputs.configured)
    }

    /// Takes what a configuration says. A weight that an operator has set stays when the configuration's is as it was.
    pub(super) fn configure(&self, weight: u16, slow_start: Option<Duration>) {
        self.change(|inputs| {
            if inputs.configured != weight {
                inputs.configured = weight;
                inputs.weight = weight;
            }
            inputs.slow_start = slow_start;
            // A server that warms up goes on at the new pace, or has its whole share at once.
            inputs.warming = inputs.warming.and_then(|warming| {
                Some(Warming {
                    over: slow_start?,
                    ..warming
                })
            });
        });
    }

    /// Takes what a configuration says of it being in service. What an operator has ordered stays when that is as it was.
    pub(super) fn configure_disabled(&self, disabled: bool) {
        self.change(|inputs| {
            if inputs.disabled != disabled {
                inputs.disabled = disabled;
                inputs.admin = if disabled { Admin::Maintenance } else { Admin::Ready };
            }
        });
    }

    /// The configuration lets it have so much under way.
    pub(super) fn configure_max(&self, max: Option<NonZeroUsize>) {
        self.change(|inputs| inputs.max_connections = max);
    }

    /// Checks find this now. Answers whether that changes whether it is up.
    pub(super) fn set_up(&self, passes: bool) -> bool {
        self.change(|inputs| inputs.passes = passes)
    }

    /// Whether its check asks for no new work now. Answers whether that is new.
    pub(super) fn set_drains(&self, drains: bool) -> bool {
        let mut is_new = false;
        self.change(|inputs| is_new = std::mem::replace(&mut inputs.drains, drains) != drains);
        is_new
    }

    /// Whether its check asks for no new work.
    pub(super) fn drains(&self) -> bool {
        self.inputs().drains
    }

    /// Its agent says this now. Answers whether that changes whether it is up.
    pub(super) fn set_agent(&self, agent: Agent) -> bool {
        self.change(|inputs| inputs.agent = agent)
    }

    /// Whether it is known where it is. Answers whether that changes whether it is up.
    pub(super) fn set_placed(&self, placed: bool) -> bool {
        self.change(|inputs| inputs.placed = placed)
    }

    /// Its answers have it ejected, or no longer. Answers whether that changes whether it is up.
    pub(super) fn set_ejected(&self, ejected: bool) -> bool {
        self.change(|inputs| inputs.ejected = ejected)
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.inputs().ejected
    }

    pub(super) fn placed(&self) -> bool {
        self.inputs().placed
    }

    pub(super) fn set_weight(&self, weight: u16) {
        self.change(|inputs| inputs.weight = weight);
    }

    pub(super) fn set_admin(&self, admin: Admin) {
        self.change(|inputs| inputs.admin = admin);
    }

    /// Lets a server that warms up have what is its due by now. False when there is nothing to wait for.
    pub(super) fn warm(&self) -> bool {
        if self.inputs().warming.is_none() {
            return false;
        }
        self.change(|inputs| {
            if inputs
                .warming
                .is_some_and(|warming| warming.since.elapsed() >= warming.over)
            {
                inputs.warming = None;
            }
        });
        self.inputs().warming.is_some()
    }

    /// How much of its share it has while it warms up, in percent.
    pub(super) fn warmed(&self) -> Option<u8> {
        let warming = self.inputs().warming?;
        let percent = (warming.part() * 100.0).round();
        // At most 100.
        Some(percent as u8)
    }

    /// Answers whether it went up or down.
    fn change(&self, change: impl FnOnce(&mut Inputs)) -> bool {
        let mut inputs = self.inputs();
        let was_up = self.is_up();
        let was_in_service = was_up && inputs.order() != Admin::Maintenance;
        change(&mut inputs);
        let up = inputs.passes && inputs.agent.up && inputs.placed && !inputs.ejected;
        let in_service = up && inputs.order() != Admin::Maintenance;
        match (was_in_service, in_service) {
            (false, true) => {
                inputs.warming = inputs.slow_start.map(|over| Warming {
                    since: Instant::now(),
                    over,
                });
            }
            (_, false) => inputs.warming = None,
            (true, true) => {}
        }
        // Before it may have any.
        let configured = inputs.max_connections.map_or(0, NonZeroUsize::get);
        let max = inputs.agent.max_connections.unwrap_or(configured);
        self.max_connections.store(max, Ordering::Relaxed);
        self.max_now.store(inputs.max_now(max), Ordering::Relaxed);
        self.up.store(up, Ordering::Relaxed);
        let share = if up { inputs.share() } else { 0 };
        self.share.store(share, Ordering::Relaxed);
        was_up != up
    }

    fn inputs(&self) -> MutexGuard<'_, Inputs> {
        // Nothing panics between two changes.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inputs {
    /// The strictest of what the operator, the agent and the check want.
    fn order(&self) -> Admin {
        let of_check = if self.drains { Admin::Drain } else { Admin::Ready };
        self.admin.max(self.agent.admin).max(of_check)
    }

    /// The share of a server that is up.
    fn share(&self) -> u32 {
        if self.order() != Admin::Ready || self.weight == 0 || self.agent.percent == 0 {
            return 0;
        }
        // At most what the greatest weight gives: 100 × 65,535 × 256 is within the type.
        let full = (u32::from(self.weight) * SHARE_OF_ONE / 100 * u32::from(self.agent.percent)
            + u32::from(self.weight) * SHARE_OF_ONE % 100 * u32::from(self.agent.percent) / 100)
            .clamp(1, MOST_SHARE);
        let Some(warming) = self.warming else { return full };
        // Never nothing: a server that is up has to get its first request to be found well.
        ((f64::from(full) * warming.part()) as u32).clamp(1, full)
    }

    /// How much of this it may have under way for now; 0 is no limit. As with HAProxy, also of a server that is the only one, where a share says
    /// nothing: those who waited for it would all come at once.
    fn max_now(&self, max: usize) -> usize {
        match self.warming {
            Some(warming) if max > 0 => ((max as f64 * warming.part()) as usize).clamp(1, max),
            _ => max,
        }
    }
}

impl Warming {
    /// How much of its share it may have by now.
    fn part(self) -> f64 {
        let part = self.since.elapsed().as_secs_f64() / self.over.as_secs_f64().max(f64::MIN_POSITIVE);
        part.clamp(FIRST_PART, 1.0)
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            admin: Admin::Ready,
            up: true,
            percent: 100,
            max_connections: None,
        }
    }
}

impl Admin {
    /// Its word, as it is written and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maint",
        }
    }
}

/// The share of a server of weight 1: a slow start has as many steps.
pub(super) const SHARE_OF_ONE: u32 = 256;

/// The share of the greatest weight, 256, which an agent's percents do not go beyond.
const MOST_SHARE: u32 = 256 * SHARE_OF_ONE;

/// What a server gets at once when it comes back, with a slow start: HAProxy's first step, a twentieth.
const FIRST_PART: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_back_warms_up() {
        let state = ServerState::new();
        state.configure(2, Some(Duration::from_secs(10)));
        state.configure_max(NonZeroUsize::new(30));
        let max_now = || state.max_connections_now().map(NonZeroUsize::get);
        assert_eq!(state.share(), 512, "there from the start, it is warm");
        assert_eq!(max_now(), Some(30));
        assert!(!state.warm());
        state.set_up(false);
        assert_eq!(state.share(), 0);
        state.set_up(true);
        assert_eq!((state.share(), state.warmed()), (25, Some(5)));
        assert_eq!(max_now(), Some(1));
        assert!(state.warm());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(state.warm());
        assert_eq!((state.share(), max_now()), (256, Some(15)));
        assert_eq!(state.max_connections().map(NonZeroUsize::get), Some(30));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!state.warm());
        assert_eq!((state.share(), state.warmed()), (512, None));
        assert_eq!(max_now(), Some(30));
        state.configure_max(None);
        state.set_up(false);
        state.set_up(true);
        assert_eq!(max_now(), None, "no limit is none at any time");
    }

    #[test]
    fn an_operators_weight_outlives_a_reload_that_keeps_the_configured_one() {
        let state = ServerState::new();
        state.configure(2, None);
        state.set_weight(7);
        state.configure(2, None);
        assert_eq!(state.weights(), (7, 2));
        state.configure(3, None);
        assert_eq!(state.weights(), (3, 3));
    }

    #[test]
    fn a_server_that_begins_out_of_service_comes_in_by_an_order_or_another_configuration() {
        let state = ServerState::new();
        state.configure_disabled(true);
        state.configure(1, None);
        assert_eq!((state.admin(), state.share()), (Admin::Maintenance, 0));
        state.set_admin(Admin::Ready);
        state.configure_disabled(true);
        assert_eq!(
            state.admin(),
            Admin::Ready,
            "the order outlives a reload that says the same"
        );
        state.set_admin(Admin::Drain);
        state.configure_disabled(false);
        assert_eq!(state.admin(), Admin::Ready);
        assert_ne!(state.share(), 0);
    }

    #[test]
    fn an_agent_and_an_operator_are_heard_both_and_the_stricter_counts() {
        let state = ServerState::new();
        state.configure(3, None);
        let says = |admin, up, percent| {
            let max_connections = None;
            state.set_agent(Agent {
                admin,
                up,
                percent,
                max_connections,
            })
        };
        assert!(!says(Admin::Ready, true, 50));
        assert_eq!(state.share(), 384);
        says(Admin::Ready, true, 0);
        assert_eq!(state.share(), 0);
        says(Admin::Ready, true, u16::MAX);
        assert_eq!(state.share(), MOST_SHARE);
        state.configure(1, None);
        says(Admin::Ready, true, 1);
        assert_eq!(state.share(), 2);
        // Down is down, whoever says so.
        assert!(says(Admin::Ready, false, 100));
        assert!(!state.is_up() && state.passes());
        assert!(!state.set_up(false));
        assert!(!says(Admin::Ready, true, 100));
        assert!(!state.is_up());
        assert!(state.set_up(true));
        state.set_admin(Admin::Drain);
        says(Admin::Ready, true, 100);
        assert_eq!(state.share(), 0);
        state.set_admin(Admin::Ready);
        says(Admin::Maintenance, true, 100);
        assert_eq!((state.share(), state.is_in_maintenance()), (0, true));
        says(Admin::Ready, true, 100);
        assert_eq!(state.share(), SHARE_OF_ONE);
    }

    #[test]
    fn what_its_check_drains_is_up_and_gets_nothing_new() {
        let state = ServerState::new();
        state.configure(1, None);
        assert!(state.set_drains(true));
        assert!(!state.set_drains(true), "that is no news");
        assert_eq!((state.is_up(), state.share()), (true, 0));
        assert_eq!((state.admin(), state.is_in_maintenance()), (Admin::Ready, false));
        state.set_admin(Admin::Drain);
        assert!(state.set_drains(false));
        assert_eq!(state.share(), 0);
        state.set_admin(Admin::Ready);
        assert_eq!(state.share(), SHARE_OF_ONE);
    }

    #[test]
    fn an_agents_limit_stands_in_for_the_configured_one() {
        let state = ServerState::new();
        let max = |max_connections| {
            state.set_agent(Agent {
                max_connections,
                ..Agent::default()
            });
            state.max_connections().map(NonZeroUsize::get)
        };
        assert_eq!(max(None), None);
        assert_eq!(max(Some(30)), Some(30));
        state.configure_max(NonZeroUsize::new(10));
        assert_eq!(max(Some(30)), Some(30), "whether it is more");
        assert_eq!(max(Some(5)), Some(5), "or less");
        assert_eq!(max(Some(0)), None, "0 is no limit");
        assert_eq!(max(None), Some(10));
    }

    #[test]
    fn what_is_drained_or_in_maintenance_gets_nothing_new() {
        let state = ServerState::new();
        state.configure(1, None);
        for admin in [Admin::Drain, Admin::Maintenance] {
            state.set_admin(admin);
            assert_eq!(state.share(), 0);
            state.set_up(false);
            state.set_up(true);
            assert_eq!(state.share(), 0);
        }
        state.set_admin(Admin::Ready);
        assert_eq!(state.share(), SHARE_OF_ONE);
    }
}
