//! One instance of a component: made, configured, called, and dropped after its first failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

use super::bindings::exports::gateway::policy::{
    access_log, call_answered, connection_filter, lifecycle, limiter, predicates, request_body_filter, request_filter,
    response_body_filter, response_filter,
};
use super::bounds::Bounds;
use super::budget::{Budget, Lack};
use super::component::{Component, Exports};
use super::failure::{Failure, FailureKind, NO_SHARED_MEMORY, PolicyError, one_line};
use super::host::Host;
use super::resting::Place;
use super::state::{Identity, Phase, Refused, State};
use super::ticker::Activity;
use crate::config::PluginLimits;

/// An instance, alone in its store.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    pub(super) guests: Guests,
    /// Requests that have begun with it.
    pub(super) requests: u64,
    /// When the first did, where that matters.
    pub(super) first_used: Option<Instant>,
    /// Where it rests, once a connection keeps it.
    pub(super) place: Option<Arc<Place>>,
}

/// What an instance exports, type-checked.
pub(super) struct Guests {
    pub(super) lifecycle: lifecycle::Guest,
    pub(super) predicates: Option<predicates::Guest>,
    pub(super) limiter: Option<limiter::Guest>,
    pub(super) request_filter: Option<request_filter::Guest>,
    pub(super) call_answered: Option<call_answered::Guest>,
    pub(super) request_body_filter: Option<request_body_filter::Guest>,
    pub(super) response_filter: Option<response_filter::Guest>,
    pub(super) response_body_filter: Option<response_body_filter::Guest>,
    pub(super) access_log: Option<access_log::Guest>,
    pub(super) connection_filter: Option<connection_filter::Guest>,
}

/// Why an instance was not set up.
pub(super) enum SetUpError {
    /// It failed, perhaps for want of something that others hold.
    Failed(Failure, Option<Lack>),
    /// An export has another type than the contract says.
    Mistyped(String),
    /// It refuses the configuration.
    Refused(lifecycle::ConfigError),
}

impl SetUpError {
    /// The same, said of the component that has this label.
    pub(super) fn of(self, label: &str) -> PolicyError {
        let label = label.to_owned();
        match self {
            Self::Failed(failure, _) => PolicyError::Failed {
                label,
                failure: failure.in_one_line(),
            },
            Self::Mistyped(message) => PolicyError::Mistyped {
                label,
                message: one_line(&message),
            },
            Self::Refused(refused) => PolicyError::Config {
                label,
                message: one_line(&refused.message),
                at: refused.at.map(|at| one_line(&at)),
            },
        }
    }
}

impl Instance {
    /// Makes an instance and runs its start functions, under the limits.
    pub(super) fn new(
        host: &Host,
        component: &Component,
        identity: &Arc<Identity>,
        limits: PluginLimits,
        budget: &Arc<Budget>,
        activity: &mut Activity,
    ) -> Result<Box<Self>, SetUpError> {
        let lease = budget.lease().map_err(|(message, lack)| {
            let failure = Failure::new(FailureKind::StoreFull, "instantiate", message);
            SetUpError::Failed(failure, Some(lack))
        })?;
        let bounds = Bounds::new(limits.memory, lease);
        let state = State::new(
            Arc::clone(identity),
            Arc::clone(host.buckets()),
            host.no_connection(),
            bounds,
        );
        let mut store = Store::new(component.pre.engine(), state);
        store.limiter(|state| &mut state.bounds);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(0);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().cpu.at_deadline()));
        store.data_mut().begin(Phase::Setup, setup_cpu(limits));
        store.set_epoch_deadline(1);
        activity.begin();
        let made = component.pre.instantiate(&mut store);
        activity.end();
        let instance = made.map_err(|error| {
            let failure = failure(store.data(), &error, FailureKind::Instantiate, "instantiate");
            let lack = lack(store.data(), &error);
            SetUpError::Failed(failure, lack)
        })?;
        let guests = component
            .exports
            .load(&mut store, &instance)
            .map_err(SetUpError::Mistyped)?;
        Ok(Box::new(Self {
            store,
            guests,
            requests: 0,
            first_used: None,
            place: None,
        }))
    }

    /// Bytes of linear memory that it has.
    pub(super) fn memory(&self) -> u64 {
        self.store.data().bounds.memory()
    }

    /// Hands the configuration over; answers the needs that follow from it.
    pub(super) fn configure(
        &mut self,
        config: &str,
        limits: PluginLimits,
        activity: &mut Activity,
    ) -> Result<lifecycle::Needs, SetUpError> {
        let Self { store, guests, .. } = self;
        let answer = setup_call(store, limits, activity, |store| {
            guests.lifecycle.call_configure(store, config)
        });
        match answer {
            Ok(Ok(needs)) => Ok(needs),
            Ok(Err(refused)) => Err(SetUpError::Refused(refused)),
            Err(error) => {
                let failure = failure(store.data(), &error, FailureKind::Configure, "configure");
                Err(SetUpError::Failed(failure, lack(store.data(), &error)))
            }
        }
    }

    /// Asks who the component is.
    pub(super) fn describe(
        &mut self,
        limits: PluginLimits,
        activity: &mut Activity,
    ) -> Result<lifecycle::Description, Failure> {
        let Self { store, guests, .. } = self;
        setup_call(store, limits, activity, |store| guests.lifecycle.call_describe(store))
            .map_err(|error| failure(store.data(), &error, FailureKind::Trap, "describe"))
    }

    /// Asks for the names of its predicates; none when it has no such hook.
    pub(super) fn names(&mut self, limits: PluginLimits, activity: &mut Activity) -> Result<Vec<String>, Failure> {
        let Self { store, guests, .. } = self;
        let Some(predicates) = &guests.predicates else {
            return Ok(Vec::new());
        };
        setup_call(store, limits, activity, |store| predicates.call_names(store))
            .map_err(|error| failure(store.data(), &error, FailureKind::Trap, "names"))
    }
}

impl Instance {
    /// Asks for the limits that it sets; none when it has no such hook.
    pub(super) fn policies(
        &mut self,
        limits: PluginLimits,
        activity: &mut Activity,
    ) -> Result<Vec<limiter::Policy>, Failure> {
        let Self { store, guests, .. } = self;
        let Some(limiter) = &guests.limiter else {
            return Ok(Vec::new());
        };
        setup_call(store, limits, activity, |store| limiter.call_policies(store))
            .map_err(|error| failure(store.data(), &error, FailureKind::Trap, "policies"))
    }
}

impl Exports {
    /// Finds the exports in an instance, and checks their types.
    fn load(&self, store: &mut Store<State>, instance: &wasmtime::component::Instance) -> Result<Guests, String> {
        let mistyped = |export: &'static str| {
            move |e: wasmtime::Error| format!("the export `{export}` is not as the contract says: {e:#}")
        };
        macro_rules! hook {
            ($name:literal, $hook:expr) => {
                match $hook {
                    Some(hook) => Some(hook.load(&mut *store, instance).map_err(mistyped($name))?),
                    None => None,
                }
            };
        }
        Ok(Guests {
            lifecycle: self
                .lifecycle
                .load(&mut *store, instance)
                .map_err(mistyped("lifecycle"))?,
            predicates: hook!("predicates", &self.predicates),
            limiter: hook!("limiter", &self.limiter),
            request_filter: hook!("request-filter", &self.request_filter),
            call_answered: hook!("call-answered", &self.call_answered),
            request_body_filter: hook!("request-body-filter", &self.request_body_filter),
            response_filter: hook!("response-filter", &self.response_filter),
            response_body_filter: hook!("response-body-filter", &self.response_body_filter),
            access_log: hook!("access-log", &self.access_log),
            connection_filter: hook!("connection-filter", &self.connection_filter),
        })
    }
}

/// What a failed call was, by what is known of it; `otherwise` when it was the guest's own trap.
pub(super) fn failure(state: &State, error: &wasmtime::Error, otherwise: FailureKind, hook: &'static str) -> Failure {
    let trap = error.downcast_ref::<Trap>();
    // What a guest does in a call when it gets no more memory is its own affair.
    let is_set_up = matches!(otherwise, FailureKind::Instantiate | FailureKind::Configure);
    let kind = if trap == Some(&Trap::Interrupt) {
        FailureKind::Deadline
    } else if error.is::<PoolConcurrencyLimitError>() {
        FailureKind::StoreFull
    } else if state.misuse || is_hostcall_fuel(error) {
        FailureKind::HostCall
    } else if state.bounds.lacks_shared && is_set_up {
        FailureKind::StoreFull
    } else if state.bounds.refused {
        FailureKind::Memory
    } else {
        otherwise
    };
    let lacks_shared_memory = kind == FailureKind::StoreFull && state.bounds.lacks_shared;
    let message = match kind {
        FailureKind::Deadline => "ran past its CPU limit".to_owned(),
        _ if lacks_shared_memory => format!("{NO_SHARED_MEMORY}: {error:#}"),
        FailureKind::Trap => match &state.refused {
            Some(Refused { function, why }) => format!("{error:#}, after `{function}` was refused: {why}"),
            None => format!("{error:#}"),
        },
        _ => format!("{error:#}"),
    };
    Failure {
        lacks_shared_memory,
        ..Failure::new(kind, hook, message)
    }
}

/// What a set-up that failed has lacked that others may hold.
fn lack(state: &State, error: &wasmtime::Error) -> Option<Lack> {
    match error.is::<PoolConcurrencyLimitError>() {
        true => Some(Lack::Pool),
        false => state.bounds.lacks,
    }
}

fn setup_call<R>(
    store: &mut Store<State>,
    limits: PluginLimits,
    activity: &mut Activity,
    call: impl FnOnce(&mut Store<State>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    store.data_mut().begin(Phase::Setup, setup_cpu(limits));
    store.set_epoch_deadline(1);
    activity.begin();
    let answer = call(store);
    activity.end();
    answer
}

/// The CPU time of a step of setting an instance up.
fn setup_cpu(limits: PluginLimits) -> Duration {
    limits.cpu.max(SETUP_CPU)
}

/// wasmtime names no type for this one.
fn is_hostcall_fuel(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

/// CPU time of each step of setting an instance up, unless a call may have more: a configuration full of regular
/// expressions takes longer to compile than any request may take.
const SETUP_CPU: Duration = Duration::from_millis(250);

/// Bytes that one call from or to a guest may make the host copy out of it, or for it: a reply with the largest body, and room.
pub(super) const HOSTCALL_BYTES: usize = 2 * 1024 * 1024;
