//! One guest's failure is nobody else's.

use super::super::kept::with_connection;
use super::*;

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

#[test]
fn after_a_failure_the_next_call_works_and_others_notice_nothing() {
    let host = host_of(4);
    let mut instances = Instances::new(&host);
    let failing = attach_as(&host, "failing", &COUNTING).unwrap();
    let other = attach_as(&host, "other", &COUNTING).unwrap();
    let mut ask = |attachment, uri| instances.evaluate(attachment, &mut exchange(uri)).map_err(|f| f.kind);
    assert_eq!(ask(&failing, "/a"), Ok(1));
    assert_eq!(ask(&failing, "/a"), Ok(2));
    assert_eq!(ask(&other, "/a"), Ok(1));
    assert_eq!(ask(&failing, "/b"), Err(FailureKind::Trap));
    assert_eq!(ask(&other, "/a"), Ok(2));
    // Another instance: it counts from the start.
    assert_eq!(ask(&failing, "/a"), Ok(1));
    assert_eq!(failing.stats().failures(FailureKind::Trap), 1);
    assert_eq!((failing.stats().instantiations(), failing.stats().calls()), (2, 4));
    assert_eq!(other.stats().failures(FailureKind::Trap), 0);
}

#[test]
fn a_slot_that_changes_hands_does_not_mix_up_instances() {
    let host = host_of(4);
    let mut instances = Instances::new(&host);
    let old = attach(&host, &COUNTING);
    assert_eq!(instances.evaluate(&old, &mut exchange("/a")), Ok(1));
    let index = old.slot.index;
    drop(old);
    let new = attach(&host, &COUNTING);
    assert_eq!(new.slot.index, index);
    assert_eq!(instances.evaluate(&new, &mut exchange("/a")), Ok(1));
}

#[test]
fn an_instance_never_sees_what_another_left_behind() {
    let host = host_of(1);
    // Both have 8 pages. One writes over all of them and its globals and traps; the other answers whether it sees any of that.
    let leaves = Guest {
        items: "(global $mark (mut i64) (i64.const 0))",
        evaluate: Some(
            "(drop (memory.grow (i32.const 7)))
             (memory.fill (i32.const 4096) (i32.const 0xa5) (i32.const 520192))
             (global.set $mark (i64.const 0xa5))
             (unreachable)",
        ),
        ..GUEST
    };
    let looks = Guest {
        predicates: &["seen"],
        items: "(global $mark (mut i64) (i64.const 0))",
        evaluate: Some(
            "(local $at i32) (local $seen i64)
             (drop (memory.grow (i32.const 7)))
             (local.set $seen (global.get $mark))
             (local.set $at (i32.const 32768))
             (loop
               (local.set $seen (i64.or (local.get $seen) (i64.load (local.get $at))))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if 0 (i32.lt_u (local.get $at) (i32.const 524288))))
             (i64.extend_i32_u (i64.ne (local.get $seen) (i64.const 0)))",
        ),
        ..GUEST
    };
    let leaves = attach_as(&host, "leaves", &leaves).unwrap();
    let looks = attach_as(&host, "looks", &looks).unwrap();
    for _ in 0..5 {
        let mut instances = Instances::new(&host);
        let failure = instances.evaluate(&leaves, &mut exchange("/")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Trap);
        assert_eq!(instances.evaluate(&looks, &mut exchange("/")), Ok(0));
    }
}

#[test]
fn whose_instances_have_many_tables_takes_no_places_of_others() {
    let host = host_of(4);
    let guest = Guest {
        items: "(table 16 funcref) (table 16 funcref) (table 16 funcref) (table 16 funcref)",
        on_request: Some(ZEROES),
        on_response: Some(ZEROES),
        ..GUEST
    };
    let attach = || {
        attach_with(&host, &guest, |spec| {
            spec.isolation = Isolation::PerRequest { ready: 0 };
        })
    };
    let (greedy, other) = (attach(), attach());
    let mut instances = Instances::new(&host);
    // Half of the places each, as the process gives them; held until the response.
    let mut held: Vec<_> = (0..4).map(|_| exchange("/")).collect();
    for (number, exchange) in held.iter_mut().enumerate() {
        let attachment = if number < 2 { &greedy } else { &other };
        let outcome = instances.on_request(attachment, exchange);
        assert!(matches!(outcome, Ok(Outcome::Proceed)), "{number}: {outcome:?}");
    }
}

#[test]
fn setting_up_again_and_again_does_not_take_a_workers_time() {
    // The first instance, at load, gets the only token; later ones are refused their configuration.
    let host = host_of(4);
    let guest = Guest {
        imports: r#"(import "gateway:policy/buckets@0.1.0" "take"
            (func $take (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))"#,
        configure: "
            (call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i64.const 1) (i64.const 3600000) (i64.const 1) (i32.const 1) (i32.const 4096))
            (if (i32.eqz (i32.load8_u (i32.const 4096))) (then (unreachable)))
            (i32.const 512)",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    let start = Instant::now();
    let mut tried = 0;
    loop {
        let failure = instances.evaluate(&attachment, &mut exchange("/")).unwrap_err();
        match failure.kind {
            FailureKind::Configure => tried += 1,
            FailureKind::Instantiate => break,
            _ => panic!("{failure}"),
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(tried >= 1);
    assert_eq!(attachment.stats().failures(FailureKind::Configure), tried);
}

#[test]
fn one_clients_traps_deny_nobody_else_however_long_setting_up_takes() {
    let host = host_of(4);
    // Setting up takes some milliseconds.
    let guest = Guest {
        configure: "(local $i i32) (local.set $i (i32.const 30000000))
            (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
            (i32.const 512)",
        ..COUNTING
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        let trap = instances.evaluate(&attachment, &mut exchange("/b")).unwrap_err();
        assert_eq!(trap.kind, FailureKind::Trap, "{trap}");
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
}

#[test]
fn a_guests_message_is_one_short_line() {
    // As above, but later instances refuse with a message: a forged line, and all that follows it in memory.
    let host = host_of(4);
    let guest = Guest {
        imports: r#"(import "gateway:policy/buckets@0.1.0" "take"
            (func $take (param i32 i32 i32 i32 i64 i64 i64 i32 i32)))"#,
        // An error, whose message begins at 4,300 and has 32,768 bytes, and no place.
        items: r#"(data (i32.const 4200) "\01\00\00\00\cc\10\00\00\00\80\00\00\00")
            (data (i32.const 4300) "no\0aWARN forged\1b[2J")"#,
        configure: "
            (call $take (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i64.const 1) (i64.const 3600000) (i64.const 1) (i32.const 1) (i32.const 4096))
            (select (i32.const 512) (i32.const 4200) (i32.load8_u (i32.const 4096)))",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let failure = Instances::new(&host)
        .evaluate(&attachment, &mut exchange("/"))
        .unwrap_err();
    let message = failure.message;
    assert_eq!(failure.kind, FailureKind::Configure, "{message}");
    assert!(message.contains(r"no\nWARN forged\u{1b}[2J"), "{message}");
    assert!(!message.contains(char::is_control) && message.len() < 1100, "{message}");
}

#[test]
fn what_a_guest_names_is_logged_short_and_not_too_often() {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let host = host_of(2);
    let attachment = attach(&host, &COUNTING);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        for _ in 0..1000 {
            attachment.warn_of(&format!("x\nWARN {}", "y".repeat(5000)), "is not there");
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!((100..300).contains(&text.lines().count()), "{}", text.lines().count());
    assert!(
        text.lines()
            .all(|line| line.contains(r"named=x\nWARN yyy") && line.len() < 300),
        "{text}"
    );
}

#[test]
fn a_guest_may_log_and_ask_the_time() {
    let host = host_of(2);
    let guest = Guest {
        imports: r#"(import "gateway:policy/log@0.1.0" "write" (func $write (param i32 i32 i32)))
            (import "gateway:policy/clock@0.1.0" "now-ms" (func $now (result i64)))
            (import "gateway:policy/clock@0.1.0" "monotonic-ns" (func $mono (result i64)))"#,
        items: r#"(data (i32.const 4096) "hello\0a")"#,
        predicates: &["time"],
        evaluate: Some(
            "(call $write (i32.const 2) (i32.const 4096) (i32.const 6))
             (i64.extend_i32_u (i32.and
               (i64.gt_u (call $now) (i64.const 1600000000000))
               (i64.le_u (call $mono) (call $mono))))",
        ),
        ..GUEST
    };
    let attachment = attach(&host, &guest);
    let mut instances = Instances::new(&host);
    for _ in 0..500 {
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/")), Ok(1));
    }
}

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

#[test]
fn the_phases_of_one_exchange_share_an_instance_and_nobody_else_does() {
    let host = host_of(8);
    let attachment = attach_with(&host, &PHASES, |spec| {
        spec.isolation = Isolation::PerRequest { ready: 2 };
    });
    let mut instances = Instances::new(&host);
    let mut one = answered("/1");
    let mut two = answered("/2");
    for exchange in [&mut one, &mut two] {
        let outcome = instances.on_request(&attachment, exchange);
        assert!(matches!(outcome, Ok(Outcome::Proceed)), "{outcome:?}");
    }
    while instances.tend() {}
    for exchange in [&mut one, &mut two] {
        instances.on_response(&attachment, exchange).unwrap();
        assert_eq!(exchange.response.as_ref().unwrap().status, 301);
    }
}

#[test]
fn instances_are_made_ahead_of_need_as_many_as_are_asked_for_at_once() {
    let host = host_of(32);
    let budget = Budget::new("plugin \"one\"", limits_of(32), None);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::PerRequest { ready: 4 };
        spec.place = AttachedAs::Predicates;
        spec.budget = budget.clone();
    });
    let mut instances = Instances::new(&host);
    instances.warm(&attachment).unwrap();
    let made = |attachment: &Attachment| attachment.stats().instantiations();
    assert_eq!(made(&attachment), 1);
    for _ in 0..10 {
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
    while instances.tend() {}
    // Ten in use once, and four that wait for the next rush.
    assert_eq!(made(&attachment), 14);
    for _ in 0..4 {
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
    assert_eq!(made(&attachment), 14, "no call waited for one");
    // The rush is over: after a while there is one again.
    for _ in 0..1000 {
        instances.upkeep();
        while instances.tend() {}
    }
    assert_eq!(budget.instances(), 1);
    drop(instances);
    assert_eq!(budget.instances(), 0);
}

#[test]
fn reuse_ends_after_so_many_requests_and_the_next_one_waits_for_no_instance() {
    let host = host_of(4);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::Reuse {
            max_requests: std::num::NonZeroU64::new(3),
            max_age: None,
        };
        spec.place = AttachedAs::Predicates;
    });
    let mut instances = Instances::new(&host);
    instances.warm(&attachment).unwrap();
    while instances.tend() {}
    for round in 0..5 {
        for count in 1..=3 {
            assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(count));
        }
        let before = attachment.stats().instantiations();
        while instances.tend() {}
        assert_eq!(attachment.stats().instantiations(), before + 1, "round {round}");
    }
}

#[test]
fn reuse_ends_after_so_long() {
    let host = host_of(4);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::Reuse {
            max_requests: None,
            max_age: Some(Duration::from_millis(1)),
        };
        spec.place = AttachedAs::Predicates;
    });
    let mut instances = Instances::new(&host);
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(2));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {}
    instances.upkeep();
    assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
}

#[test]
fn what_is_used_again_is_given_back_some_time_after_another_configuration_serves() {
    for max_age in [None, Some(Duration::from_secs(3600))] {
        let host = host_of(4);
        let budget = Budget::new("plugin \"one\"", limits_of(4), None);
        let attachment = attach_with(&host, &COUNTING, |spec| {
            spec.isolation = Isolation::Reuse {
                max_requests: None,
                max_age,
            };
            spec.place = AttachedAs::Predicates;
            spec.budget = Arc::clone(&budget);
        });
        let mut instances = Instances::new(&host);
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
        attachment.retire();
        instances.upkeep();
        while instances.tend() {}
        assert_eq!(
            instances.evaluate(&attachment, &mut exchange("/a")),
            Ok(2),
            "what is under way has it"
        );
        // A connection that lasts has the attachment still.
        for _ in 0..1000 {
            instances.upkeep();
            while instances.tend() {}
        }
        assert_eq!(budget.instances(), 0, "{max_age:?}");
        assert_eq!(instances.evaluate(&attachment, &mut exchange("/a")), Ok(1));
    }
}

fn limits_of(instances: u32) -> crate::config::BudgetLimits {
    crate::config::BudgetLimits {
        instances: Some(instances),
        ..Default::default()
    }
}

#[test]
fn who_stays_connected_and_asks_for_nothing_keeps_no_place_from_others() {
    let host = host_of(8);
    let budget = Budget::new("plugin \"one\"", limits_of(2), None);
    let attachment = attach_with(&host, &COUNTING, |spec| {
        spec.isolation = Isolation::PerConnection { ready: 0 };
        spec.place = AttachedAs::Predicates;
        spec.budget = budget.clone();
    });
    let mut instances = Instances::new(&host);
    let [one, two, three, four] = [(); 4].map(|()| KeptByConnection::default());
    let mut ask = |connection: &KeptByConnection| {
        let mut exchange = exchange("/a");
        exchange.kept_by_connection = Some(connection.clone());
        let said = instances
            .evaluate(&attachment, &mut exchange)
            .map_err(|failure| failure.kind);
        (said, exchange)
    };
    assert_eq!(ask(&one).0, Ok(1));
    assert_eq!(ask(&two).0, Ok(1));
    assert_eq!(ask(&one).0, Ok(2));
    assert_eq!(
        ask(&three).0,
        Ok(1),
        "it has the place of the second, which was used before the first"
    );
    assert_eq!(ask(&one).0, Ok(3));
    let (said, under_way) = ask(&two);
    assert_eq!(said, Ok(1), "its memory is gone");
    let (said, also_under_way) = ask(&one);
    assert_eq!(said, Ok(4));
    // Who has an exchange under way is not idle.
    assert_eq!(ask(&four).0, Err(FailureKind::StoreFull));
    drop(under_way);
    assert_eq!(ask(&four).0, Ok(1));
    assert_eq!(ask(&one).0, Ok(5));
    assert_eq!(budget.instances(), 2);

    // Another configuration serves now; these connections still have this one, until something comes on them.
    attachment.retire();
    instances.upkeep();
    while instances.tend() {}
    assert_eq!(budget.instances(), 1, "the exchange that is under way");
    drop(also_under_way);
    instances.upkeep();
    while instances.tend() {}
    assert_eq!(budget.instances(), 0);
}

/// Uses of plugins whose instances stay with connections.
struct Connected {
    host: Arc<Host>,
    instances: Instances,
}

impl Connected {
    fn on(host: Arc<Host>) -> Self {
        let instances = Instances::new(&host);
        Self { host, instances }
    }

    fn attach(&self, guest: &Guest<'_>, budget: &Arc<Budget>) -> Arc<Attachment> {
        attach_with(&self.host, guest, |spec| {
            spec.isolation = Isolation::PerConnection { ready: 0 };
            spec.place = AttachedAs::Predicates;
            spec.budget = Arc::clone(budget);
        })
    }

    /// Asks for a connection. Answers how often its instance has been asked.
    fn ask(&mut self, attachment: &Arc<Attachment>, connection: &KeptByConnection) -> Result<u64, FailureKind> {
        let mut exchange = exchange("/a");
        exchange.kept_by_connection = Some(connection.clone());
        let said = self.instances.evaluate(attachment, &mut exchange);
        said.map_err(|failure| failure.kind)
    }
}

/// Threads beside the workers make calls for several requests of one connection at a time.
#[test]
fn a_connection_keeps_one_instance_however_many_calls_were_made_for_it_at_once() {
    let mut all = Connected::on(host_of(8));
    let budget = Budget::new("plugin \"one\"", limits_of(8), None);
    let attachment = all.attach(&COUNTING, &budget);
    let [connection] = connections();
    assert_eq!(all.ask(&attachment, &connection), Ok(1));
    let in_use: Vec<_> = (0..4)
        .map(|_| {
            let taken = with_connection(&connection, |kept| kept.take(&attachment)).unwrap();
            assert_eq!(all.ask(&attachment, &connection), Ok(1), "it has none to wait for");
            taken
        })
        .collect();
    assert_eq!(budget.instances(), 5);
    for instance in in_use {
        let second = with_connection(&connection, |kept| kept.put(&attachment, instance));
        assert!(second.is_some());
    }
    assert_eq!(budget.instances(), 1);
    assert_eq!(all.ask(&attachment, &connection), Ok(2));
    drop(connection);
    assert_eq!(budget.instances(), 0);
}

/// Two owners of what all share, with these limits.
fn owners(host: &Arc<Host>, limits: crate::config::BudgetLimits) -> [Arc<Budget>; 2] {
    ["tenant \"greedy\"", "tenant \"modest\""].map(|name| Budget::new(name, limits, Some(host.budget().clone())))
}

fn connections<const N: usize>() -> [KeptByConnection; N] {
    std::array::from_fn(|_| KeptByConnection::default())
}

#[test]
fn a_tenants_plugin_has_the_places_of_idle_connections_of_the_tenants_others() {
    let mut all = Connected::on(host_of(8));
    let tenant = Budget::new("tenant \"acme\"", limits_of(2), Some(all.host.budget().clone()));
    let plugin = |name| Budget::new(name, limits_of(2), Some(tenant.clone()));
    let budgets = [plugin("plugin \"one\""), plugin("plugin \"two\"")];
    let [one, two] = budgets.each_ref().map(|budget| all.attach(&COUNTING, budget));
    // A use that has a budget of its own within its plugin's.
    let of_use = Budget::new("the use", limits_of(1), Some(budgets[1].clone()));
    let third = all.attach(&COUNTING, &of_use);
    let rival = Budget::new("tenant \"rival\"", limits_of(2), Some(all.host.budget().clone()));
    let other = all.attach(&COUNTING, &rival);
    let [a, b, c, d, e] = connections();
    assert_eq!(all.ask(&other, &e), Ok(1));
    assert_eq!(all.ask(&one, &a), Ok(1));
    assert_eq!(all.ask(&two, &b), Ok(1));
    assert_eq!(all.ask(&one, &a), Ok(2));
    // It has the place of the longest quiet, of another plugin's use.
    assert_eq!(all.ask(&third, &c), Ok(1));
    assert_eq!(all.ask(&one, &a), Ok(3), "who was there first has asked since");
    assert_eq!(all.ask(&two, &d), Ok(1), "in the place of the use beside it");
    assert_eq!(all.ask(&third, &c), Ok(1), "in the place of another plugin");
    assert_eq!(all.ask(&two, &d), Ok(2));
    assert_eq!(tenant.instances(), 2);
    assert_eq!(all.ask(&other, &e), Ok(2), "nobody else gives up anything for that");
}

#[test]
fn idle_connections_give_up_places_of_a_full_pool_down_to_their_owners_share() {
    let mut all = Connected::on(host_of(6));
    let [greedy, modest] = owners(&all.host, limits_of(6));
    let others = all.attach(&COUNTING, &greedy);
    // Its instances are its plugins'.
    let plugin = Budget::new("plugin \"own\"", limits_of(6), Some(modest.clone()));
    let own = all.attach(&COUNTING, &plugin);
    let idle = connections::<6>();
    for connection in &idle {
        assert_eq!(all.ask(&others, connection), Ok(1));
    }
    assert_eq!(greedy.instances(), 6);
    let new = connections::<6>();
    for connection in &new {
        assert_eq!(all.ask(&own, connection), Ok(1));
    }
    // Half of six is what nobody takes from anybody: beyond it there is one's own to give up.
    assert_eq!((greedy.instances(), modest.instances()), (3, 3));
    for connection in &idle[3..] {
        assert_eq!(all.ask(&others, connection), Ok(2));
    }
    assert_eq!(all.ask(&others, &idle[0]), Ok(1));
    assert_eq!((greedy.instances(), modest.instances()), (3, 3));
    for connection in &new[3..] {
        assert_eq!(all.ask(&own, connection), Ok(2));
    }
}

#[test]
fn who_has_more_than_his_share_takes_of_who_has_more_yet_until_they_have_the_same() {
    let mut all = Connected::on(host_of(6));
    let [greedy, modest] = owners(&all.host, limits_of(6));
    // Who has nothing counts: the share of each is 2.
    let _quiet = Budget::new("tenant \"quiet\"", limits_of(6), Some(all.host.budget().clone()));
    let (others, own) = (all.attach(&COUNTING, &greedy), all.attach(&COUNTING, &modest));
    for connection in &connections::<6>() {
        assert_eq!(all.ask(&others, connection), Ok(1));
    }
    // These have gone, and what they had with them.
    assert_eq!(greedy.instances(), 0);
    let idle = connections::<12>();
    for connection in &idle[..6] {
        assert_eq!(all.ask(&others, connection), Ok(1));
    }
    for connection in &idle[6..] {
        assert_eq!(all.ask(&own, connection), Ok(1));
    }
    assert_eq!((greedy.instances(), modest.instances()), (3, 3));
}

#[test]
fn memory_that_idle_connections_have_of_all_there_is_makes_room_likewise() {
    // Each instance has two pages. All may have twelve.
    let grown = Guest {
        configure: "(drop (memory.grow (i32.const 1))) (i32.const 512)",
        ..COUNTING
    };
    let settings = HostSettings {
        total_memory: 12 << 16,
        ..host_of(16).settings()
    };
    let mut all = Connected::on(Host::new(settings));
    let limits = crate::config::BudgetLimits {
        memory_in_all: Some(12 << 16),
        ..limits_of(16)
    };
    let [greedy, modest] = owners(&all.host, limits);
    let (others, own) = (all.attach(&grown, &greedy), all.attach(&grown, &modest));
    let idle = connections::<12>();
    for connection in &idle[..6] {
        assert_eq!(all.ask(&others, connection), Ok(1));
    }
    for connection in &idle[6..] {
        assert_eq!(all.ask(&own, connection), Ok(1));
    }
    assert_eq!((greedy.instances(), modest.instances()), (3, 3));
    assert_eq!(greedy.memory(), 6 << 16);
}

#[test]
fn nobody_gives_up_memory_that_is_not_enough() {
    // Wants seven pages, where the others have one each and all together eight.
    let large = Guest {
        configure: "(if (i32.eq (memory.grow (i32.const 6)) (i32.const -1)) (then (unreachable))) (i32.const 512)",
        ..COUNTING
    };
    let mut all = Connected::on(host_of(16));
    let limits = crate::config::BudgetLimits {
        memory_in_all: Some(8 << 16),
        ..limits_of(16)
    };
    let tenant = Budget::new("tenant \"acme\"", limits, Some(all.host.budget().clone()));
    let (small, large) = (all.attach(&COUNTING, &tenant), all.attach(&large, &tenant));
    let [a, b, c, d] = connections();
    assert_eq!((all.ask(&small, &a), all.ask(&small, &b)), (Ok(1), Ok(1)));
    assert_eq!(all.ask(&small, &c), Ok(1));
    // Two of three are under way: the third has a page, and two are lacking.
    let under_way = [a.clone(), c.clone()];
    assert_eq!(all.ask(&large, &d), Err(FailureKind::Memory));
    assert_eq!(all.ask(&small, &b), Ok(2), "it was not taken in vain");
    let [_a, c_again] = under_way;
    drop(c_again);
    assert_eq!(all.ask(&large, &d), Ok(1));
    assert_eq!((all.ask(&small, &a), tenant.memory()), (Ok(2), 8 << 16));
}

#[test]
fn who_runs_past_its_deadline_for_want_of_memory_is_not_set_up_again_at_once_and_takes_nothing() {
    // Loops where it gets no second page.
    let looping = Guest {
        configure: "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (loop $again (br $again)))) (i32.const 512)",
        ..COUNTING
    };
    let mut all = Connected::on(host_of(8));
    let limits = crate::config::BudgetLimits {
        memory_in_all: Some(3 << 16),
        ..limits_of(8)
    };
    let tenant = Budget::new("tenant \"acme\"", limits, Some(all.host.budget().clone()));
    let (quiet, loops) = (all.attach(&COUNTING, &tenant), all.attach(&looping, &tenant));
    let [a, b, c] = connections();
    assert_eq!((all.ask(&quiet, &a), all.ask(&quiet, &b)), (Ok(1), Ok(1)));
    assert_eq!(all.ask(&loops, &c), Err(FailureKind::Deadline));
    assert_eq!((all.ask(&quiet, &a), all.ask(&quiet, &b)), (Ok(2), Ok(2)));
}

#[test]
fn a_plugin_has_no_more_instances_than_it_may_and_its_neighbour_does_not_notice() {
    let host = host_of(16);
    let attach = |instances| {
        attach_with(&host, &PHASES, |spec| {
            spec.isolation = Isolation::PerRequest { ready: 2 };
            spec.budget = Budget::new("plugin \"one\"", limits_of(instances), None);
        })
    };
    let (small, neighbour) = (attach(3), attach(8));
    let mut instances = Instances::new(&host);
    // Exchanges that wait for their servers hold theirs.
    let mut waiting: Vec<_> = (0..5).map(|_| answered("/")).collect();
    let mut refused = 0;
    for exchange in &mut waiting {
        match instances.on_request(&small, exchange) {
            Ok(_) => {}
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::StoreFull);
                assert!(failure.message.contains("has its 3 instances already"), "{failure}");
                refused += 1;
            }
        }
        while instances.tend() {}
    }
    assert_eq!(refused, 2);
    assert!(instances.on_request(&neighbour, &mut answered("/")).is_ok());
    // Those that get their answers make room.
    waiting.clear();
    assert!(instances.on_request(&small, &mut answered("/")).is_ok());
}

#[test]
fn memory_of_all_instances_of_a_tenant_is_bounded() {
    let host = host_of(16);
    let limits = crate::config::BudgetLimits {
        memory_in_all: Some(10 << 16),
        ..Default::default()
    };
    let tenant = Budget::new("tenant \"acme\"", limits, None);
    // Each wants eight pages more than the one that it has.
    let guest = Guest {
        evaluate: Some("(if (i32.eq (memory.grow (i32.const 8)) (i32.const -1)) (then (unreachable))) (i64.const 0)"),
        ..GUEST
    };
    let attach = |tenant: &Arc<Budget>| {
        attach_with(&host, &guest, |spec| {
            spec.budget = Budget::new("plugin \"one\"", Default::default(), Some(tenant.clone()));
            spec.place = AttachedAs::Predicates;
        })
    };
    let (one, two, other) = (attach(&tenant), attach(&tenant), attach(&Budget::unlimited()));
    let mut instances = Instances::new(&host);
    assert_eq!(instances.evaluate(&one, &mut exchange("/")), Ok(0));
    let failure = instances.evaluate(&two, &mut exchange("/")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Memory, "{failure}");
    assert_eq!(instances.evaluate(&other, &mut exchange("/")), Ok(0));
    instances.discard(&one);
    assert_eq!(instances.evaluate(&two, &mut exchange("/")), Ok(0));
}

#[test]
fn a_plugin_that_has_used_up_its_cpu_time_is_not_called_and_its_neighbour_is() {
    let host = host_of(4);
    // Some milliseconds a call.
    let guest = Guest {
        evaluate: Some(
            "(local $i i32) (local.set $i (i32.const 5000000))
             (loop (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
             (i64.const 0)",
        ),
        ..GUEST
    };
    let limits = crate::config::BudgetLimits {
        cpu: Some(crate::config::Millicores(10)),
        ..Default::default()
    };
    let attach = |limits| {
        attach_with(&host, &guest, |spec| {
            spec.limits.cpu = Duration::from_secs(1);
            spec.budget = Budget::new("plugin \"one\"", limits, None);
            spec.place = AttachedAs::Predicates;
        })
    };
    let (greedy, neighbour) = (attach(limits), attach(Default::default()));
    let mut instances = Instances::new(&host);
    let start = Instant::now();
    let failure = loop {
        match instances.evaluate(&greedy, &mut exchange("/")) {
            Ok(_) => assert!(start.elapsed() < Duration::from_secs(20), "it is never refused"),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.kind, FailureKind::Quota);
    assert!(
        failure
            .message
            .contains("plugin \"one\" has used up its CPU time (0.01 cores)"),
        "{failure}"
    );
    assert!(greedy.stats().cpu() > Duration::from_millis(5));
    assert_eq!(instances.evaluate(&neighbour, &mut exchange("/")), Ok(0));
    // It comes back.
    while instances.evaluate(&greedy, &mut exchange("/")).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
}

#[test]
fn a_plugin_that_only_fails_is_left_alone_and_comes_back_with_the_first_success() {
    let host = host_of(4);
    let attach = || {
        attach_with(&host, &COUNTING, |spec| {
            spec.place = AttachedAs::Predicates;
            spec.quarantine = Some(crate::config::QuarantineSettings {
                failures: 3,
                from: Duration::from_millis(50),
                to: Duration::from_millis(50),
            });
        })
    };
    let (failing, neighbour) = (attach(), attach());
    let mut instances = Instances::new(&host);
    let mut ask = |attachment, uri| instances.evaluate(attachment, &mut exchange(uri)).map_err(|f| f.kind);
    for _ in 0..3 {
        assert_eq!(ask(&failing, "/b"), Err(FailureKind::Trap));
    }
    assert_eq!(ask(&failing, "/a"), Err(FailureKind::Quarantined));
    assert!(failing.stats().calls() == 3, "it is not called");
    assert!(failing.is_quarantined() && !neighbour.is_quarantined());
    assert_eq!(ask(&neighbour, "/a"), Ok(1));
    // A probe that fails, then one that does not.
    for (uri, becomes) in [("/b", Err(FailureKind::Trap)), ("/a", Ok(1))] {
        let start = Instant::now();
        let probed = loop {
            match ask(&failing, uri) {
                Err(FailureKind::Quarantined) => assert!(start.elapsed() < Duration::from_secs(20)),
                answer => break answer,
            }
        };
        assert_eq!(probed, becomes);
    }
    assert_eq!(ask(&failing, "/a"), Ok(2));
    assert!(!failing.is_quarantined());
    assert_eq!(failing.stats().failures(FailureKind::Trap), 4);
}

#[test]
fn a_tenants_plugin_that_is_left_alone_stays_so_until_it_is_another() {
    let host = host_of(4);
    let name: Arc<str> = "acme".into();
    let tenant = Arc::new(Tenant {
        hosts: vec!["example.net".to_owned()],
        kept: crate::config::KeptQuota::default(),
        quota: host.quota(&name, crate::config::KeptQuota::default()),
        name,
    });
    let use_of = |place: &str, config: &str| {
        let attachment = attach_with(&host, &COUNTING, |spec| {
            spec.place = AttachedAs::Predicates;
            spec.config = config.to_owned();
            spec.quarantine = Some(crate::config::QuarantineSettings {
                failures: 2,
                from: Duration::from_secs(3600),
                to: Duration::from_secs(3600),
            });
            spec.scope = Scope {
                tenant: Some(Arc::clone(&tenant)),
                place: place.into(),
                ..Scope::default()
            };
        });
        attachment.adopt();
        attachment
    };
    let mut instances = Instances::new(&host);
    let first = use_of("web", "{}");
    for _ in 0..2 {
        let failure = instances.evaluate(&first, &mut exchange("/b")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Trap);
    }
    assert!(first.is_quarantined());
    // The configuration that is in force next uses nothing.
    drop(first);
    instances.sweep();
    let again = use_of("web", "{}");
    assert!(again.is_quarantined());
    let failure = instances.evaluate(&again, &mut exchange("/a")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Quarantined);
    for (place, config) in [("other", "{}"), ("web", "{ }")] {
        let other = use_of(place, config);
        assert!(!other.is_quarantined(), "{place} {config}");
        assert_eq!(instances.evaluate(&other, &mut exchange("/a")), Ok(1));
    }
}
