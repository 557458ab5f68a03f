//! What guests may do to the host: hostile ones, broken ones and ordinary ones, as core WebAssembly text.

mod answers;
mod bombs;
mod budgets;
mod canary;
mod corpus;
mod heavy;
mod host_memory;
mod idle;
mod imports;
mod isolation;
mod kept;
mod lifetimes;
mod limits;
mod load;
mod log_lines;
mod log_queue;
mod own;
mod slow;
mod worst;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guests::{CONTRACT, GUEST, Guest, ZEROES};
use super::*;
use crate::config::{Grant, Isolation, OnFailure, PluginLimits, StateLimits};

const ALL_GRANTS: [Grant; 7] = [
    Grant::Buckets,
    Grant::Counters,
    Grant::Kv,
    Grant::Metrics,
    Grant::Log,
    Grant::Clock,
    Grant::Random,
];

/// Answers how often this instance was asked; traps when the path begins with `/b`.
const COUNTING: Guest<'_> = Guest {
    request_needs: &["path"],
    items: "(global $count (mut i64) (i64.const 0))",
    evaluate: Some(
        "(if (i32.eq (i32.load8_u (i32.add (local.get 2) (i32.const 1))) (i32.const 98))
           (then (unreachable)))
         (global.set $count (i64.add (global.get $count) (i64.const 1)))
         (global.get $count)",
    ),
    predicates: &["a", "b", "c", "d"],
    ..GUEST
};

/// Counts its calls, in whatever phase: `evaluate` answers the count, a request gets it as a reply's status above 200, a
/// response as its status.
const PHASES: Guest<'_> = Guest {
    imports: r#"(import "gateway:policy/response-edits@0.1.0" "set-status" (func $set_status (param i32 i32)))"#,
    items: "(global $count (mut i32) (i32.const 0))",
    on_request: Some("(global.set $count (i32.add (global.get $count) (i32.const 1))) (i32.const 512)"),
    on_response: Some(
        "(call $set_status (i32.add (i32.const 300) (global.get $count)) (i32.const 5000)) (i32.const 512)",
    ),
    ..GUEST
};

const LOOP: &str = "(loop (br 0)) (unreachable)";

/// Reads the first fact's value as the answer's body: a reply at 4,096 with status 200.
const ECHO_FIRST_FACT: &str = "
    (i32.store8 (i32.const 4096) (i32.const 1))
    (i32.store16 (i32.const 4100) (i32.const 200))
    (i32.store (i32.const 4112) (i32.add (local.get 2) (i32.load offset=4 (local.get 0))))
    (i32.store (i32.const 4116) (i32.sub (i32.load offset=8 (local.get 0)) (i32.load offset=4 (local.get 0))))
    (i32.const 4096)";

fn host_of(instances: u32) -> Arc<Host> {
    Host::new(HostSettings {
        instances,
        memory: 16 << 20,
        total_memory: u64::MAX,
        host_memory: u64::MAX,
        max_buckets: 1000,
        answers: 0,
    })
}

fn spec(label: &str) -> AttachmentSpec {
    AttachmentSpec {
        maps: None,
        counted: Arc::default(),
        label: label.into(),
        namespace: label.to_owned(),
        config: "{}".to_owned(),
        limits: PluginLimits {
            cpu: Duration::from_millis(20),
            memory: 1 << 20,
        },
        on_failure: OnFailure::Skip,
        vouched: Arc::default(),
        isolation: Isolation::FOREVER,
        is_forgetful: false,
        budget: Budget::unlimited(),
        quarantine: None,
        callers: Callers::Workers,
        place: AttachedAs::Filter,
        scope: Scope::default(),
        state: StateLimits::DEFAULT,
        granted: Arc::default(),
        origin: None,
    }
}

fn attach_as(host: &Arc<Host>, label: &str, guest: &Guest<'_>) -> Result<Arc<Attachment>, PolicyError> {
    let component = host.compile(label, &guest.component(), &ALL_GRANTS)?;
    host.attach(&component, spec(label))
}

/// Attaches a guest as something other than [`spec`] says.
fn attach_with(host: &Arc<Host>, guest: &Guest<'_>, change: impl FnOnce(&mut AttachmentSpec)) -> Arc<Attachment> {
    let component = host
        .compile("guest", &guest.component(), &[Grant::Buckets, Grant::Log, Grant::Clock])
        .unwrap();
    let mut spec = spec("guest");
    change(&mut spec);
    host.attach(&component, spec).unwrap()
}

fn attach(host: &Arc<Host>, guest: &Guest<'_>) -> Arc<Attachment> {
    attach_as(host, "guest", guest).unwrap()
}

fn load_failure(guest: &Guest<'_>) -> Failure {
    match attach_as(&host_of(2), "guest", guest) {
        Err(PolicyError::Failed { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

fn load_error(guest: &Guest<'_>) -> String {
    attach_as(&host_of(2), "guest", guest).unwrap_err().to_string()
}

fn compile_error(guest: &Guest<'_>, contract: &str, grants: &[Grant]) -> PolicyError {
    host_of(1)
        .compile("guest", &guest.component_of(contract), grants)
        .unwrap_err()
}

fn limits_of(instances: u32) -> crate::config::BudgetLimits {
    crate::config::BudgetLimits {
        instances: Some(instances),
        ..Default::default()
    }
}

pub(super) fn exchange(uri: &str) -> Box<Exchange> {
    let request = http::Request::builder()
        .uri(uri)
        .header("host", "example.net")
        .header("a", "1")
        .header("a", "2");
    Exchange::new(request.body(()).unwrap().into_parts().0, connection())
}

fn answered(uri: &str) -> Box<Exchange> {
    let mut exchange = exchange(uri);
    let response = http::Response::builder().status(404).header("server", "nginx");
    exchange.response = Some(response.body(()).unwrap().into_parts().0);
    exchange
}

/// The reply that a request filter gave.
fn replied(outcome: Result<Outcome, Failure>) -> Reply {
    match outcome {
        Ok(Outcome::Reply(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

fn connection() -> Arc<ConnectionFacts> {
    Arc::new(ConnectionFacts {
        accepted: tokio::time::Instant::now(),
        ends: Ends::new("192.0.2.7:4711".parse().unwrap(), "192.0.2.1:80".parse().unwrap()),
        tls: None,
        preamble: None,
    })
}

/// The failure of one evaluation by a guest with these items and this body.
fn evaluate_failure(items: &str, body: &str) -> Failure {
    let host = host_of(2);
    let guest = Guest {
        items,
        evaluate: Some(body),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut exchange = exchange("/kept");
    let failure = Instances::new(&host).evaluate(&attachment, &mut exchange).unwrap_err();
    assert_eq!(exchange.request.uri, "/kept");
    assert_eq!(attachment.stats().failures(failure.kind), 1);
    failure
}
