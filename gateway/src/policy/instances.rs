//! A worker's warm instances, and the calls of their hooks.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use wasmtime::Store;

use super::attachment::{Attachment, WorkerStats};
use super::bindings::exports::gateway::policy::connection_filter;
use super::bindings::gateway::policy::types::Fact;
use super::edits::{self, Edits};
use super::exchange::{ConnectionFacts, ConnectionVerdict, Exchange, LimitVerdict, Reply};
use super::failure::{Failure, FailureKind};
use super::host::Host;
use super::instance::{Guests, Instance, SetUpError, failure};
use super::needs::{Attribute, Facts, Needs};
use super::state::{Phase, State};
use super::ticker::Activity;

/// One worker's warm instances: one per attachment, in a slot of its own. Calls are synchronous and bounded by the
/// attachment's limits.
///
/// After any failure the instance is gone with its store, and the next call makes another; no other instance is touched.
/// Set-ups that fail may take a tenth of a worker's time: beyond that, calls fail at once until there is time again.
/// Set-ups that succeed are never waited for: whoever makes a component trap would make everybody else wait. (Quarantine
/// with a half-open probe would fit in here.)
pub struct Instances {
    host: Arc<Host>,
    slots: Vec<Option<Slot>>,
    facts: Facts,
    /// There with the first instance.
    activity: Option<Activity>,
}

/// What a worker has of one attachment.
struct Slot {
    serial: u64,
    attachment: Weak<Attachment>,
    stats: Arc<WorkerStats>,
    instance: Option<Instance>,
    /// When the time that failed set-ups took will have been paid back.
    paid_back: Option<Instant>,
}

impl Instances {
    /// No instances yet.
    #[must_use]
    pub fn new(host: &Arc<Host>) -> Self {
        Self {
            host: Arc::clone(host),
            slots: Vec::new(),
            facts: Facts::default(),
            activity: None,
        }
    }

    /// Makes an instance ahead of need. Does nothing when there is one.
    ///
    /// # Errors
    /// As a call would fail; the next call tries again.
    pub fn warm(&mut self, attachment: &Arc<Attachment>) -> Result<(), Failure> {
        self.ready(attachment).map(drop)
    }

    /// Gives back the instances of attachments that are gone. To be called after a configuration was replaced and its
    /// last exchange has ended; until then they only take up room in the pool.
    pub fn sweep(&mut self) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|slot| slot.attachment.strong_count() == 0) {
                *slot = None;
            }
        }
    }

    /// Lets an attachment's instance go; the next call makes another. For isolation per exchange, and for benches.
    pub fn discard(&mut self, attachment: &Attachment) {
        if let Some(Some(slot)) = self.slots.get_mut(attachment.slot.index)
            && slot.serial == attachment.slot.serial
        {
            slot.instance = None;
            slot.paid_back = None;
        }
    }

    /// Asks all predicates: bit `i` answers the `i`-th of [`Attachment::predicates`].
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn evaluate(&mut self, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> Result<u64, Failure> {
        let answer = self.call(
            attachment,
            Subject::Exchange(exchange),
            EVALUATE,
            |guests, store, facts| {
                guests
                    .predicates
                    .as_ref()
                    .map(|guest| guest.call_evaluate(store, facts))
            },
        )?;
        let named = attachment.predicates().len();
        // Bits beyond the named ones mean nothing.
        Ok(if named < 64 {
            answer & ((1 << named) - 1)
        } else {
            answer
        })
    }

    /// Asks the limiter. None when no limit applies.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn check(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<LimitVerdict>, Failure> {
        let verdict = self.call(
            attachment,
            Subject::Exchange(exchange),
            CHECK,
            |guests, store, facts| guests.limiter.as_ref().map(|guest| guest.call_check(store, facts)),
        )?;
        Ok(verdict.map(|verdict| LimitVerdict {
            allowed: verdict.allowed,
            rule: verdict.rule,
            limit: verdict.limit,
            remaining: verdict.remaining,
            retry_after_ms: verdict.retry_after_ms,
        }))
    }

    /// Runs the request filter; its edits are in `exchange.request` when it succeeded. A reply ends the request here.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_request(
        &mut self,
        attachment: &Arc<Attachment>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Reply>, Failure> {
        let reply = self.call(
            attachment,
            Subject::Exchange(exchange),
            ON_REQUEST,
            |guests, store, facts| {
                guests
                    .request_filter
                    .as_ref()
                    .map(|guest| guest.call_on_request(store, facts))
            },
        )?;
        let edits = self.edits(attachment);
        let Some(reply) = reply else {
            if let Some(edits) = edits {
                edits.apply_to_request(&mut exchange.request);
            }
            return Ok(None);
        };
        // A reply ends the request: nobody would see the edits.
        if let Some(edits) = edits {
            edits.clear();
        }
        let fields = reply
            .headers
            .iter()
            .map(|field| (field.name.as_str(), field.value.as_slice()));
        edits::reply(reply.status, fields, reply.body)
            .map(Some)
            .map_err(|message| self.fail(attachment, ON_REQUEST, message))
    }

    /// Runs the response filter; its edits are in `exchange.response` when it succeeded.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then, and no edit was made.
    pub fn on_response(&mut self, attachment: &Arc<Attachment>, exchange: &mut Box<Exchange>) -> Result<(), Failure> {
        self.call(
            attachment,
            Subject::Exchange(exchange),
            ON_RESPONSE,
            |guests, store, facts| {
                guests
                    .response_filter
                    .as_ref()
                    .map(|guest| guest.call_on_response(store, facts))
            },
        )?;
        if let (Some(edits), Some(response)) = (self.edits(attachment), &mut exchange.response) {
            edits.apply_to_response(response);
        }
        Ok(())
    }

    /// Asks what becomes of a connection.
    ///
    /// # Errors
    /// When the call fails; the instance is gone then.
    pub fn on_connect(
        &mut self,
        attachment: &Arc<Attachment>,
        connection: &Arc<ConnectionFacts>,
    ) -> Result<ConnectionVerdict, Failure> {
        let mut connection = Arc::clone(connection);
        let verdict = self.call(
            attachment,
            Subject::Connection(&mut connection),
            ON_CONNECT,
            |guests, store, facts| {
                guests
                    .connection_filter
                    .as_ref()
                    .map(|guest| guest.call_on_connect(store, facts))
            },
        )?;
        Ok(match verdict {
            connection_filter::Verdict::Accept => ConnectionVerdict::Accept,
            connection_filter::Verdict::Refuse => ConnectionVerdict::Refuse,
            connection_filter::Verdict::Route(backend) => ConnectionVerdict::Route(backend),
        })
    }

    /// Calls a hook under the attachment's limits. What it is about is in the store while it runs; its edits are left
    /// there.
    #[inline]
    fn call<R>(
        &mut self,
        attachment: &Arc<Attachment>,
        mut subject: Subject<'_>,
        hook: Hook,
        call: impl FnOnce(&Guests, &mut Store<State>, &[Fact<'_>]) -> Option<wasmtime::Result<R>>,
    ) -> Result<R, Failure> {
        self.ready(attachment)?;
        let Self {
            slots, facts, activity, ..
        } = self;
        let Some(activity) = activity else {
            return Err(hook.failed("has no instance"));
        };
        let Some(Slot {
            stats,
            instance: place @ Some(_),
            ..
        }) = slots.get_mut(attachment.slot.index).and_then(Option::as_mut)
        else {
            return Err(hook.failed("has no instance"));
        };
        let Some(instance) = place.as_mut() else {
            return Err(hook.failed("has no instance"));
        };
        stats.count_call();
        subject.find((hook.needs)(&attachment.needs), facts);
        if facts.bytes() > MAX_FACT_BYTES {
            let failure = Failure {
                kind: FailureKind::HostCall,
                hook: hook.name,
                message: format!(
                    "wants {} bytes of attributes; at most {MAX_FACT_BYTES} are handed over",
                    facts.bytes()
                ),
            };
            return Err(report(attachment, stats, failure));
        }
        let Instance { store, guests } = instance;
        let state = store.data_mut();
        state.begin(hook.phase, attachment.limits.cpu);
        subject.swap(state);
        store.set_epoch_deadline(1);
        activity.begin();
        let answer = with_facts(facts, |facts| call(guests, store, facts));
        activity.end();
        let state = store.data_mut();
        subject.swap(state);
        state.phase = Phase::Setup;
        let failure = match answer {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => failure(state, &error, FailureKind::Trap, hook.name),
            None => hook.failed("is not exported by the component"),
        };
        *place = None;
        Err(report(attachment, stats, failure))
    }

    /// Makes sure that there is an instance.
    #[inline]
    fn ready(&mut self, attachment: &Arc<Attachment>) -> Result<(), Failure> {
        match self.slots.get(attachment.slot.index) {
            Some(Some(slot)) if slot.serial == attachment.slot.serial && slot.instance.is_some() => Ok(()),
            _ => self.set_up(attachment),
        }
    }

    #[cold]
    fn set_up(&mut self, attachment: &Arc<Attachment>) -> Result<(), Failure> {
        let index = attachment.slot.index;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        if self.slots[index]
            .as_ref()
            .is_none_or(|slot| slot.serial != attachment.slot.serial)
        {
            self.slots[index] = Some(Slot {
                serial: attachment.slot.serial,
                attachment: Arc::downgrade(attachment),
                stats: attachment.stats().worker(),
                instance: None,
                paid_back: None,
            });
        }
        let start = Instant::now();
        let debt = self.slots[index].as_ref().and_then(|slot| slot.paid_back);
        if debt.is_some_and(|paid_back| paid_back > start + SET_UP_CREDIT) {
            let failure = Failure {
                kind: FailureKind::Instantiate,
                hook: "instantiate",
                message: "failed too often; waits before it is set up again".to_owned(),
            };
            return Err(self.report(attachment, failure));
        }
        let mut made = self.make(attachment);
        if made
            .as_ref()
            .is_err_and(|failure| failure.kind == FailureKind::StoreFull)
        {
            self.sweep();
            made = self.make(attachment);
        }
        let took = start.elapsed();
        let Some(slot) = &mut self.slots[index] else {
            return Ok(());
        };
        match made {
            Ok(instance) => {
                slot.stats.count_instantiation();
                slot.instance = Some(instance);
                Ok(())
            }
            Err(failure) => {
                slot.paid_back = Some(debt.unwrap_or(start).max(start) + took * SET_UP_SHARE);
                Err(report(attachment, &slot.stats, failure))
            }
        }
    }

    fn make(&mut self, attachment: &Attachment) -> Result<Instance, Failure> {
        let Attachment {
            component,
            identity,
            limits,
            ..
        } = attachment;
        let not_set_up = |error| match error {
            SetUpError::Failed(failure) => failure,
            SetUpError::Mistyped(message) => unlike_the_first(message),
            SetUpError::Refused(refused) => unlike_the_first(format!("refuses its configuration: {}", refused.message)),
        };
        let activity = match &mut self.activity {
            Some(activity) => activity,
            none => {
                // Whoever has an attachment has a machine: it was compiled on it.
                let activity = self
                    .host
                    .activity()
                    .map_err(|error| unlike_the_first(error.to_string()))?;
                none.insert(activity)
            }
        };
        let made = Instance::new(&self.host, component, identity, *limits, activity);
        let mut instance = made.map_err(not_set_up)?;
        let needs = instance
            .configure(&attachment.config, *limits, activity)
            .map_err(not_set_up)?;
        if attachment.configured != needs {
            return Err(unlike_the_first("asks for other attributes than before".to_owned()));
        }
        Ok(instance)
    }

    /// A call that succeeded gave what the contract does not allow.
    #[cold]
    fn fail(&mut self, attachment: &Attachment, hook: Hook, message: String) -> Failure {
        if let Some(Some(slot)) = self.slots.get_mut(attachment.slot.index) {
            slot.instance = None;
        }
        let failure = Failure {
            kind: FailureKind::Trap,
            hook: hook.name,
            message,
        };
        self.report(attachment, failure)
    }

    fn report(&self, attachment: &Attachment, failure: Failure) -> Failure {
        match self.slots.get(attachment.slot.index) {
            Some(Some(slot)) => report(attachment, &slot.stats, failure),
            _ => failure,
        }
    }

    /// The edits that the last call of an attachment left.
    fn edits(&mut self, attachment: &Attachment) -> Option<&mut Edits> {
        let slot = self.slots.get_mut(attachment.slot.index)?.as_mut()?;
        Some(&mut slot.instance.as_mut()?.store.data_mut().edits)
    }
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances")
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// What a hook is asked about.
enum Subject<'a> {
    Exchange(&'a mut Box<Exchange>),
    Connection(&'a mut Arc<ConnectionFacts>),
}

impl Subject<'_> {
    /// Into the store, or back out of it.
    fn swap(&mut self, state: &mut State) {
        match self {
            Self::Exchange(exchange) => std::mem::swap(&mut state.exchange, exchange),
            Self::Connection(connection) => std::mem::swap(&mut state.exchange.connection, connection),
        }
    }

    fn find(&self, needs: &[Attribute], facts: &mut Facts) {
        match self {
            Self::Exchange(exchange) => facts.of_exchange(needs, exchange),
            Self::Connection(connection) => facts.of_connection(needs, connection),
        }
    }
}

/// A hook, as calls need it.
#[derive(Clone, Copy)]
struct Hook {
    name: &'static str,
    phase: Phase,
    needs: fn(&Needs) -> &[Attribute],
}

impl Hook {
    #[cold]
    fn failed(self, message: &str) -> Failure {
        Failure {
            kind: FailureKind::Instantiate,
            hook: self.name,
            message: message.to_owned(),
        }
    }
}

const EVALUATE: Hook = Hook {
    name: "evaluate",
    phase: Phase::Request,
    needs: |needs| &needs.request,
};

const CHECK: Hook = Hook {
    name: "check",
    phase: Phase::Request,
    needs: |needs| &needs.request,
};

const ON_REQUEST: Hook = Hook {
    name: "on-request",
    phase: Phase::RequestFilter,
    needs: |needs| &needs.request,
};

const ON_RESPONSE: Hook = Hook {
    name: "on-response",
    phase: Phase::ResponseFilter,
    needs: |needs| &needs.response,
};

const ON_CONNECT: Hook = Hook {
    name: "on-connect",
    phase: Phase::Connection,
    needs: |needs| &needs.connection,
};

/// Hands facts over as the bindings want them, without an allocation when they are few.
#[inline]
fn with_facts<R>(facts: &Facts, call: impl FnOnce(&[Fact<'_>]) -> R) -> R {
    const FEW: usize = 24;
    let fact = |(need, value)| Fact { need, value };
    if facts.len() > FEW {
        return call(&facts.iter().map(fact).collect::<Vec<_>>());
    }
    let mut few = [const { Fact { need: 0, value: &[] } }; FEW];
    for (place, found) in few.iter_mut().zip(facts.iter()) {
        *place = fact(found);
    }
    call(&few[..facts.len()])
}

/// Counts and logs a failure, whose message may be the guest's.
#[cold]
fn report(attachment: &Attachment, stats: &WorkerStats, failure: Failure) -> Failure {
    let failure = failure.in_one_line();
    stats.count_failure(failure.kind);
    if let Some(dropped) = attachment.identity.failures.take() {
        let plugin = attachment.label();
        let Failure { kind, hook, message } = &failure;
        match attachment.origin() {
            Some(origin) => {
                let at = format_args!("{}:{}", origin.file, origin.line);
                tracing::warn!(plugin, hook, %kind, %at, dropped, "{message}");
            }
            None => tracing::warn!(plugin, hook, %kind, dropped, "{message}"),
        }
    }
    failure
}

fn unlike_the_first(message: String) -> Failure {
    Failure {
        kind: FailureKind::Configure,
        hook: "configure",
        message,
    }
}

/// Bytes of all facts of one call. Copying them into the guest is work that no deadline bounds.
const MAX_FACT_BYTES: usize = 1024 * 1024;

/// How much longer than it took a failed set-up is waited for: such set-ups take at most a tenth of a worker's time.
const SET_UP_SHARE: u32 = 10;

/// How far a worker may be behind with that: some hundred quick set-ups at once, so that a component whose set-up fails
/// now and then is there again at once.
const SET_UP_CREDIT: Duration = Duration::from_millis(100);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::config::{OnFailure, PluginLimits};
    use crate::policy::first_party::{ACL, FirstParty, HEADER_REWRITE, RATE_LIMIT};
    use crate::policy::{AttachmentSpec, HostSettings};

    fn host() -> Arc<Host> {
        Host::new(HostSettings {
            instances: 16,
            memory: 16 << 20,
            max_buckets: 1000,
        })
    }

    fn attach(host: &Arc<Host>, what: FirstParty, config: &str) -> Arc<Attachment> {
        let component = host.compile(what.name, what.wasm, what.grants).unwrap();
        let spec = AttachmentSpec {
            label: what.name.into(),
            namespace: what.name.to_owned(),
            config: config.to_owned(),
            limits: PluginLimits {
                cpu: Duration::from_millis(50),
                memory: 16 << 20,
            },
            on_failure: OnFailure::Deny(503),
            origin: None,
        };
        host.attach(&component, spec).unwrap()
    }

    fn exchange(uri: &str) -> Box<Exchange> {
        let request = http::Request::builder()
            .uri(uri)
            .header("host", "example.net")
            .header("x-debug", "1");
        Exchange::new(
            request.body(()).unwrap().into_parts().0,
            Arc::new(ConnectionFacts {
                accepted: tokio::time::Instant::now(),
                client: "192.0.2.7:4711".parse().unwrap(),
                local: "192.0.2.1:80".parse().unwrap(),
                hello: None,
                tls: None,
                proxy: None,
            }),
        )
    }

    #[test]
    fn the_first_party_components_do_their_work() {
        let host = host();
        let mut instances = Instances::new(&host);
        let acl = r#"{"predicates":[{"name":"is-api","when":{"path":{"prefix":["/api/"]}}},{"name":"other","when":{"host":["example.com"]}}]}"#;
        let acl = attach(&host, ACL, acl);
        assert_eq!(acl.predicates(), ["is-api", "other"]);
        assert_eq!(instances.evaluate(&acl, &mut exchange("/api/x")), Ok(1));
        assert_eq!(instances.evaluate(&acl, &mut exchange("/x")), Ok(0));
        assert_eq!((acl.stats().calls(), acl.stats().instantiations()), (2, 1));

        let rewrite = r#"{"request":[{"set-header":{"name":"x-pool","value":"api"}},{"delete-header":{"name":"x-debug"}},{"rewrite-path":{"prefix":"/old/","to":"/new/"}}],"response":[{"set-header":{"name":"server","value":"gateway"}}]}"#;
        let rewrite = attach(&host, HEADER_REWRITE, rewrite);
        let mut exchange_ = exchange("/old/a?b");
        assert!(instances.on_request(&rewrite, &mut exchange_).unwrap().is_none());
        assert_eq!(exchange_.request.uri, "/new/a?b");
        assert_eq!(exchange_.request.headers["x-pool"], "api");
        assert!(!exchange_.request.headers.contains_key("x-debug"));
        exchange_.response = Some(http::Response::new(()).into_parts().0);
        instances.on_response(&rewrite, &mut exchange_).unwrap();
        assert_eq!(exchange_.response.unwrap().headers["server"], "gateway");

        let limit = r#"{"limits":[{"name":"per-ip","key":[{"client-ip":{"ipv4-prefix":32,"ipv6-prefix":64}}],"tokens":1,"period-ms":3600000,"burst":2}]}"#;
        let limit = attach(&host, RATE_LIMIT, limit);
        for allowed in [true, true, false] {
            let verdict = instances.check(&limit, &mut exchange("/")).unwrap().unwrap();
            assert_eq!(verdict.allowed, allowed, "{verdict:?}");
        }
    }
}
