//! Whether anything of one exchange, connection, tenant or configuration is ever seen by another: a canary looks for traces in
//! memory, in tables and in globals, and then leaves some everywhere.

use super::*;

/// Answers what it found: 1 for traces in memory, 2 in a global, 4 in a table, 8 in memory that it had to ask for, 16 for facts
/// that are not this call's. Then leaves traces in all of them, over everything but its own code's data.
const CANARY: Guest<'_> = Guest {
    items: "(global $mark (mut i64) (i64.const 0))
        (table $marks 64 funcref)
        (func $trace) (elem declare func $trace)
        ;; Whether anything but zeroes lies there: 64 bytes at a time, as far as there are so many, and then 8.
        (func $seen (param $at i32) (param $end i32) (result i32) (local $seen v128)
          (block $many (loop $next
            (br_if $many (i32.gt_u (i32.add (local.get $at) (i32.const 64)) (local.get $end)))
            (local.set $seen (v128.or (local.get $seen) (v128.or
              (v128.or (v128.load (local.get $at)) (v128.load offset=16 (local.get $at)))
              (v128.or (v128.load offset=32 (local.get $at)) (v128.load offset=48 (local.get $at))))))
            (local.set $at (i32.add (local.get $at) (i32.const 64)))
            (br $next)))
          (block $few (loop $next
            (br_if $few (i32.gt_u (i32.add (local.get $at) (i32.const 8)) (local.get $end)))
            (local.set $seen (v128.or (local.get $seen) (v128.load64_zero (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br $next)))
          (v128.any_true (local.get $seen)))",
    request_needs: &["path", "header:a"],
    predicates: &["memory", "global", "table", "grown", "facts"],
    evaluate: Some(
        "(local $at i32) (local $found i64)
         ;; Memory that it was born with: its own, and all behind what the host wrote of this call.
         (local.set $found (i64.extend_i32_u (i32.or (i32.or
           (call $seen (i32.const 0) (i32.const 256))
           (call $seen (i32.const 4096) (i32.const 16384)))
           (call $seen (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)) (i32.const 65536)))))
         ;; A global.
         (if (i64.ne (global.get $mark) (i64.const 0))
           (then (local.set $found (i64.or (local.get $found) (i64.const 2)))))
         ;; The facts: they end where the last one does, and only a path that is /s comes with a secret.
         (if (i32.ne (local.get 3)
               (i32.load (i32.add (local.get 0) (i32.shl (i32.sub (local.get 1) (i32.const 1)) (i32.const 2)))))
           (then (local.set $found (i64.or (local.get $found) (i64.const 16)))))
         (if (i32.ne (i32.load8_u offset=1 (local.get 2)) (i32.const 115))
           (then
             (local.set $at (i32.const 0))
             (loop
               (if (i32.eq (i32.load8_u (i32.add (local.get 2) (local.get $at))) (i32.const 33))
                 (then (local.set $found (i64.or (local.get $found) (i64.const 16)))))
               (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get 3))))))
         ;; A table, and what it grows by.
         (drop (table.grow $marks (ref.null func) (i32.const 64)))
         (local.set $at (i32.const 0))
         (loop
           (if (i32.eqz (ref.is_null (table.get $marks (local.get $at))))
             (then (local.set $found (i64.or (local.get $found) (i64.const 4)))))
           (local.set $at (i32.add (local.get $at) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $at) (i32.const 128))))
         ;; Memory that it has to ask for, where the path is /g: more than stays resident of it.
         (if (i32.eq (i32.load8_u offset=1 (local.get 2)) (i32.const 103))
           (then
             (if (i32.ne (memory.grow (i32.const 9)) (i32.const -1))
               (then
                 (if (call $seen (i32.const 65536) (i32.const 655360))
                   (then (local.set $found (i64.or (local.get $found) (i64.const 8)))))
                 (memory.fill (i32.const 65536) (i32.const 0xa5) (i32.const 589824))))))
         (memory.fill (i32.const 0) (i32.const 0xa5) (i32.const 256))
         (memory.fill (i32.const 4096) (i32.const 0xa5) (i32.const 61440))
         (global.set $mark (i64.const 0xa5))
         (table.fill $marks (i32.const 0) (ref.func $trace) (i32.const 128))
         (local.get $found)",
    ),
    ..GUEST
};

/// Many more with this in the environment: `GATEWAY_CANARY_CALLS=2000000`. `.ci/run` asks for as many as take some seconds.
fn calls() -> usize {
    let calls = std::env::var("GATEWAY_CANARY_CALLS").ok();
    calls.and_then(|calls| calls.parse().ok()).unwrap_or(3_000)
}

/// What the n-th call is about: now and then it grows, now and then it comes with a secret, which is longer than what others have.
fn nth(call: usize) -> Box<Exchange> {
    let path = match call % 8 {
        0 => "/g",
        3 | 5 => "/s",
        _ => "/p",
    };
    let mut exchange = exchange(path);
    if path == "/s" {
        let secret = http::HeaderValue::from_static(SECRET);
        exchange.request.headers.insert("a", secret);
    }
    exchange
}

const SECRET: &str = "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!";

fn canary(host: &Arc<Host>, namespace: &str, config: &str, isolation: Isolation, callers: Callers) -> Arc<Attachment> {
    attach_with(host, &CANARY, |spec| {
        spec.namespace = namespace.to_owned();
        spec.config = config.to_owned();
        spec.isolation = isolation;
        spec.place = AttachedAs::Predicates;
        spec.callers = callers;
    })
}

#[test]
fn the_canary_sees_what_it_left_where_instances_are_reused() {
    let host = host_of(4);
    let canary = canary(&host, "acme", "{}", Isolation::FOREVER, Callers::Workers);
    let mut instances = Instances::new(&host);
    assert_eq!(instances.evaluate(&canary, &mut nth(0)), Ok(0));
    // Memory, global, table; it grows no second time from where it began.
    assert_eq!(instances.evaluate(&canary, &mut nth(0)), Ok(7));
}

#[test]
fn no_exchange_sees_a_trace_of_another_whosever_it_was() {
    // Fewer places than there are users, so that each place changes hands all the time.
    let host = host_of(5);
    for ready in [0, 1, 3] {
        let isolation = Isolation::PerRequest { ready };
        let canaries = [
            canary(&host, "acme", "{}", isolation, Callers::Workers),
            canary(&host, "acme", "{\"other\":1}", isolation, Callers::Workers),
            canary(&host, "rival", "{}", isolation, Callers::Workers),
        ];
        let mut workers = [Instances::new(&host), Instances::new(&host)];
        for call in 0..calls() {
            let instances = &mut workers[call % 2];
            let canary = &canaries[call * 7 % 3];
            let seen = instances.evaluate(canary, &mut nth(call));
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
    let canary = canary(&host, "acme", "{}", isolation, Callers::Workers);
    let mut instances = Instances::new(&host);
    for call in 0..calls() / 10 {
        let connections = [KeptByConnection::default(), KeptByConnection::default()];
        for expected in [0, 7, 7] {
            for connection in &connections {
                let mut exchange = nth(call);
                exchange.kept_by_connection = Some(connection.clone());
                assert_eq!(instances.evaluate(&canary, &mut exchange), Ok(expected));
            }
        }
        while instances.tend() {}
    }
}

/// Threads beside the workers have instances of their own, and are asked by all workers about everybody's exchanges.
#[tokio::test]
async fn no_exchange_sees_a_trace_of_another_on_the_threads_beside_the_workers() {
    let host = host_of(8);
    let isolation = Isolation::PerRequest { ready: 1 };
    let heavy = Callers::Crew(crate::config::Heavy {
        queue: 4,
        wait: Duration::from_secs(60),
    });
    let canaries = [
        canary(&host, "acme", "{}", isolation, heavy),
        canary(&host, "rival", "{}", isolation, heavy),
    ];
    let crew = Crew::new(&host);
    crew.ensure(2).unwrap();
    for call in 0..calls() / 10 {
        let ask = |whose: usize| {
            let canary = Arc::clone(&canaries[whose]);
            crew.call(&canaries[whose], move |instances: Option<&mut Instances>| {
                instances.unwrap().evaluate(&canary, &mut nth(call))
            })
        };
        let seen = tokio::join!(ask(0), ask(1));
        assert_eq!(seen, (Some(Ok(0)), Some(Ok(0))), "call {call}");
    }
}
