//! Whether anything of one exchange, connection, tenant or configuration is ever seen by another: a canary looks for traces in
//! memory, in tables and in globals, and then leaves some everywhere.

use super::*;

/// Answers what it found: 1 for traces in memory, 2 in a global, 4 in a table, 8 in memory that it had to ask for. Then leaves
/// traces in all of them, over everything but its own code's data.
const CANARY: Guest<'_> = Guest {
    items: "(global $mark (mut i64) (i64.const 0))
        (table $marks 64 funcref)
        (func $trace) (elem declare func $trace)",
    predicates: &["memory", "global", "table", "grown"],
    evaluate: Some(
        "(local $at i32) (local $seen i64) (local $found i64)
         ;; Memory that it was born with: what the host wrote of this call lies below 32 KiB.
         (local.set $at (i32.const 32768))
         (loop
           (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
           (local.set $at (i32.add (local.get $at) (i32.const 8)))
           (br_if 0 (i32.lt_u (local.get $at) (i32.const 65536))))
         (local.set $found (i64.extend_i32_u (i64.ne (local.get $seen) (i64.const 0))))
         ;; A global.
         (if (i64.ne (global.get $mark) (i64.const 0))
           (then (local.set $found (i64.or (local.get $found) (i64.const 2)))))
         ;; A table, and what it grows by.
         (drop (table.grow $marks (ref.null func) (i32.const 64)))
         (local.set $at (i32.const 0))
         (loop
           (if (i32.eqz (ref.is_null (table.get $marks (local.get $at))))
             (then (local.set $found (i64.or (local.get $found) (i64.const 4)))))
           (local.set $at (i32.add (local.get $at) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $at) (i32.const 128))))
         ;; Memory that it has to ask for: another page each time, more than stays resident of it.
         (if (i32.ne (memory.grow (i32.const 9)) (i32.const -1))
           (then
             (local.set $seen (i64.const 0))
             (local.set $at (i32.const 65536))
             (loop
               (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if 0 (i32.lt_u (local.get $at) (i32.const 655360))))
             (if (i64.ne (local.get $seen) (i64.const 0))
               (then (local.set $found (i64.or (local.get $found) (i64.const 8)))))
             (memory.fill (i32.const 65536) (i32.const 0xa5) (i32.const 589824))))
         (memory.fill (i32.const 32768) (i32.const 0xa5) (i32.const 32768))
         (global.set $mark (i64.const 0xa5))
         (table.fill $marks (i32.const 0) (ref.func $trace) (i32.const 128))
         (local.get $found)",
    ),
    ..GUEST
};

/// Many more with this in the environment: `GATEWAY_CANARY_CALLS=2000000`.
fn calls() -> usize {
    let calls = std::env::var("GATEWAY_CANARY_CALLS").ok();
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(3_000)
}

fn canary(host: &Arc<Host>, namespace: &str, config: &str, isolation: Isolation) -> Arc<Attachment> {
    attach_with(host, &CANARY, |spec| {
        spec.namespace = namespace.to_owned();
        spec.config = config.to_owned();
        spec.isolation = isolation;
        spec.place = AttachedAs::Predicates;
    })
}

#[test]
fn the_canary_sees_what_it_left_where_instances_are_reused() {
    let host = host_of(4);
    let canary = canary(&host, "acme", "{}", Isolation::FOREVER);
    let mut instances = Instances::new(&host);
    assert_eq!(instances.evaluate(&canary, &mut exchange("/")), Ok(0));
    // Memory, global, table; it grows no second time from where it began.
    assert_eq!(instances.evaluate(&canary, &mut exchange("/")), Ok(7));
}

#[test]
fn no_exchange_sees_a_trace_of_another_whosever_it_was() {
    // Fewer places than there are users, so that each place changes hands all the time.
    let host = host_of(5);
    for ready in [0, 1, 3] {
        let isolation = Isolation::PerRequest { ready };
        let canaries = [
            canary(&host, "acme", "{}", isolation),
            canary(&host, "acme", "{\"other\":1}", isolation),
            canary(&host, "rival", "{}", isolation),
        ];
        let mut workers = [Instances::new(&host), Instances::new(&host)];
        for call in 0..calls() {
            let instances = &mut workers[call % 2];
            let canary = &canaries[call * 7 % 3];
            let seen = instances.evaluate(canary, &mut exchange("/"));
            match &seen {
                Ok(found) => assert_eq!(*found, 0, "call {call} with {ready} ready"),
                // Others' instances lie ready in all places: that costs a verdict, and no secret.
                Err(failure) => assert_eq!(failure.kind, FailureKind::StoreFull),
            }
            if call % 3 != 0 {
                while instances.tend() {}
            }
            if seen.is_err() {
                workers = [Instances::new(&host), Instances::new(&host)];
            }
        }
    }
}

#[test]
fn no_connection_sees_a_trace_of_another_and_each_sees_its_own() {
    let host = host_of(8);
    let isolation = Isolation::PerConnection { ready: 1 };
    let canary = canary(&host, "acme", "{}", isolation);
    let mut instances = Instances::new(&host);
    for _ in 0..calls() / 10 {
        let connections = [KeptByConnection::default(), KeptByConnection::default()];
        for expected in [0, 7, 7] {
            for connection in &connections {
                let mut exchange = exchange("/");
                exchange.kept_by_connection = Some(connection.clone());
                assert_eq!(instances.evaluate(&canary, &mut exchange), Ok(expected));
            }
        }
        while instances.tend() {}
    }
}
