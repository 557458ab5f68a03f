//! What the gateway holds for guests when their calls are over.

use std::collections::VecDeque;

use super::*;
use crate::config::BudgetLimits;
use crate::telemetry::metrics::PolicyCounts as _;

/// Answers requests with 64 KiB.
const REPLYING: Guest<'_> = Guest {
    on_request: Some(
        "(i32.store8 (i32.const 4096) (i32.const 1))
         (i32.store16 (i32.const 4100) (i32.const 200))
         (i32.store (i32.const 4116) (i32.const 65536))
         (i32.const 4096)",
    ),
    ..GUEST
};

const REPLY: u64 = 65536;

fn of(whose: &str, host_memory: u64, outer: Option<&Arc<Budget>>) -> Arc<Budget> {
    let limits = BudgetLimits {
        host_memory: Some(host_memory),
        ..BudgetLimits::default()
    };
    Budget::new(whose, limits, outer.cloned())
}

fn attach_within(host: &Arc<Host>, guest: &Guest<'_>, budget: &Arc<Budget>) -> Arc<Attachment> {
    attach_with(host, guest, |spec| spec.budget = Arc::clone(budget))
}

#[test]
fn replies_that_nobody_takes_are_counted_until_they_are_gone_and_refused_beyond_what_their_tenant_may_have() {
    let host = host_of(8);
    let process = of("the process", 4 * REPLY, None);
    let tenant = of("tenant \"acme\"", 3 * REPLY, Some(&process));
    let (one, two) = (
        attach_within(&host, &REPLYING, &of("plugin \"one\"", 2 * REPLY, Some(&tenant))),
        attach_within(&host, &REPLYING, &of("plugin \"two\"", 2 * REPLY, Some(&tenant))),
    );
    let neighbour = attach_within(&host, &REPLYING, &of("plugin \"other\"", 2 * REPLY, Some(&process)));
    let mut instances = Instances::new(&host);
    let mut ask = |attachment: &Arc<Attachment>| match instances.on_request(attachment, &mut exchange("/")) {
        Ok(Outcome::Reply(reply)) => Ok(reply.body),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => {
            assert_eq!(failure.kind, FailureKind::HostMemory, "{failure}");
            Err(failure.message)
        }
    };
    let held = [ask(&one).unwrap(), ask(&one).unwrap()];
    let full = ask(&one).unwrap_err();
    assert!(full.starts_with("plugin \"one\" has"), "{full}");
    let last = ask(&two).unwrap();
    let full = ask(&two).unwrap_err();
    assert!(full.starts_with("tenant \"acme\" has"), "{full}");
    assert_eq!(one.stats().host_memory(), 2 * REPLY);
    assert_eq!(two.stats().host_memory(), REPLY);
    assert_eq!(two.stats().failures(FailureKind::HostMemory), 1);

    // Others go on, up to what there is in all.
    let theirs = ask(&neighbour).unwrap();
    let full = ask(&neighbour).unwrap_err();
    assert!(full.starts_with("the process has"), "{full}");
    drop(theirs);
    ask(&neighbour).unwrap();

    // A part of it keeps all of it.
    let part = last.slice(..1);
    drop(last);
    ask(&two).unwrap_err();
    drop(part);
    ask(&two).unwrap();
    drop(held);
    assert_eq!(one.stats().host_memory() + two.stats().host_memory(), 0);
    ask(&one).unwrap();
    // Who has found no room is not set up again for that.
    assert_eq!((one.stats().instantiations(), two.stats().instantiations()), (1, 1));
}

#[test]
fn what_is_small_is_not_counted() {
    let host = host_of(2);
    let guest = Guest {
        request_needs: &["path"],
        on_request: Some(ECHO_FIRST_FACT),
        ..GUEST
    };
    let attachment = attach_within(&host, &guest, &of("plugin \"one\"", 0, None));
    let mut instances = Instances::new(&host);
    let reply = replied(instances.on_request(&attachment, &mut exchange("/a")));
    assert_eq!((&reply.body[..], attachment.stats().host_memory()), (&b"/a"[..], 0));
}

#[test]
fn pieces_of_bodies_and_what_is_kept_between_them_are_counted() {
    const STATE: u64 = 16384;
    let host = host_of(4);
    // 16 KiB of state, and 64 KiB in the piece's place.
    let piece = "(i32.store (i32.const 4100) (i32.const 16384))
        (i32.store8 (i32.const 4104) (i32.const 1))
        (i32.store (i32.const 4112) (i32.const 65536))
        (i32.const 4096)";
    let guest = Guest {
        request_body: Some((ZEROES, piece)),
        ..GUEST
    };
    let budget = of("plugin \"one\"", 2 * (STATE + REPLY) - 1, None);
    let attachment = attach_within(&host, &guest, &budget);
    let mut instances = Instances::new(&host);
    let mut hand = || {
        let piece = Piece {
            state: &[],
            bytes: b"x",
            last: true,
            may_reply: false,
        };
        instances.on_piece(&attachment, BodyOf::Request, &mut KeptByBody::default(), piece)
    };
    let (state, verdict) = hand().unwrap();
    assert_eq!(attachment.stats().host_memory(), STATE + REPLY);
    assert_eq!(hand().unwrap_err().kind, FailureKind::HostMemory);
    assert_eq!(
        attachment.stats().host_memory(),
        STATE + REPLY,
        "a refusal leaves nothing"
    );
    drop(verdict);
    assert_eq!(attachment.stats().host_memory(), STATE);
    drop(state);
    assert_eq!(attachment.stats().host_memory(), 0);
}

#[test]
fn large_edits_are_counted_for_as_long_as_their_exchange_lasts() {
    const VALUE: usize = 4096;
    let value = "v".repeat(VALUE);
    let items = format!(r#"(data (i32.const 8192) "{value}") (data (i32.const 4200) "a")"#);
    let host = host_of(2);
    let guest = Guest {
        imports: r#"(import "gateway:policy/request-edits@0.1.0" "set-header" (func $set (param i32 i32 i32 i32 i32)))"#,
        items: &items,
        on_request: Some(
            "(call $set (i32.const 4200) (i32.const 1) (i32.const 8192) (i32.const 4096) (i32.const 4300))
             (i32.const 512)",
        ),
        ..GUEST
    };
    let attachment = attach_within(&host, &guest, &of("plugin \"one\"", 2 * VALUE as u64, None));
    let mut instances = Instances::new(&host);
    let mut first = exchange("/");
    assert!(instances.on_request(&attachment, &mut first).is_ok());
    assert_eq!(first.request.headers["a"].len(), VALUE);
    let mut second = exchange("/");
    let failure = instances.on_request(&attachment, &mut second).unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostMemory, "{failure}");
    assert_eq!(second.request.headers["a"], "1", "a call that fails changes nothing");
    drop(first);
    assert!(instances.on_request(&attachment, &mut second).is_ok());
}

#[test]
fn edits_of_a_call_that_is_not_taken_are_not_counted() {
    let items = format!(
        r#"(data (i32.const 8192) "{}") (data (i32.const 4200) "a")"#,
        "v".repeat(4096)
    );
    let host = host_of(2);
    // A large edit, and a reply whose status there is not.
    let guest = Guest {
        imports: r#"(import "gateway:policy/request-edits@0.1.0" "set-header" (func $set (param i32 i32 i32 i32 i32)))"#,
        items: &items,
        on_request: Some(
            "(call $set (i32.const 4200) (i32.const 1) (i32.const 8192) (i32.const 4096) (i32.const 4300))
             (i32.store8 (i32.const 4096) (i32.const 1))
             (i32.store16 (i32.const 4100) (i32.const 99))
             (i32.const 4096)",
        ),
        ..GUEST
    };
    let attachment = attach_within(&host, &guest, &of("plugin \"one\"", REPLY, None));
    let mut instances = Instances::new(&host);
    let mut exchange = exchange("/");
    let failure = instances.on_request(&attachment, &mut exchange).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Trap, "{failure}");
    assert_eq!(attachment.stats().host_memory(), 0, "while the exchange goes on");
}

#[test]
fn all_pieces_of_a_body_go_before_what_is_counted_of_it_does() {
    let host = host_of(2);
    let attachment = attach_within(&host, &REPLYING, &of("plugin \"one\"", 10_000, None));
    let mut memory = attachment.host_memory();
    memory.grow(1000).unwrap();
    assert_eq!(attachment.stats().host_memory(), 0, "too little to be counted");
    memory.grow(4000).unwrap();
    memory.grow(5001).unwrap_err();
    assert_eq!(attachment.stats().host_memory(), 5000);
    memory.grow(5000).unwrap();
    let pieces: VecDeque<_> = [b"one", b"two"].map(|piece| bytes::Bytes::from_static(piece)).into();
    let mut pieces = memory.with_all(pieces);
    assert_eq!(pieces.pop_front().as_deref(), Some(&b"one"[..]));
    assert_eq!(attachment.stats().host_memory(), 10_000);
    drop(pieces);
    assert_eq!(attachment.stats().host_memory(), 0);
}

#[test]
fn heads_are_kept_beside_a_call_for_who_is_told_of_them_and_counted() {
    let host = host_of(2);
    let guest = Guest {
        on_log: Some(""),
        ..GUEST
    };
    let attachment = attach_within(&host, &guest, &of("plugin \"one\"", 10_000, None));
    let mut exchange = exchange("/");
    let large = "v".repeat(6000).parse().unwrap();
    exchange.request.headers.insert("x-large", large);
    assert!(
        exchange.stand_in(&attachment).request.headers.is_empty(),
        "nobody listens"
    );
    exchange.is_told_of = true;
    let first = exchange.stand_in(&attachment);
    assert_eq!(first.request.headers, exchange.request.headers);
    let held = attachment.stats().host_memory();
    assert!((6000..7000).contains(&held), "{held}");
    // There is no room for a second one, which nobody is told of.
    let second = exchange.stand_in(&attachment);
    assert!(second.request.headers.is_empty());
    drop(first);
    assert_eq!(attachment.stats().host_memory(), 0);
    let mut queue = LogQueue::default();
    assert!(!queue.push(ToTell::new(second, [attachment.clone()].into())));
    assert_eq!(attachment.stats().untold(), 1);
    assert!(queue.push(ToTell::new(exchange, [attachment.clone()].into())));
}
