//! What a plugin or a tenant has used up, and who is left alone as it only fails: its neighbours do not notice.

use super::*;

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
fn large_tables_count_as_memory() {
    let host = host_of(2);
    let guest = Guest {
        items: "(table 20000 funcref)",
        evaluate: Some("(i64.const 0)"),
        ..GUEST
    };
    let component = host.compile("guest", &guest.component(), &[]).unwrap();
    let attach = |bytes: u64| {
        let limits = crate::config::BudgetLimits {
            memory_in_all: Some(bytes),
            ..Default::default()
        };
        let mut spec = spec("guest");
        spec.budget = Budget::new("plugin \"one\"", limits, None);
        host.attach(&component, spec)
    };
    // A page of memory, and 148 KiB.
    attach(4 << 16).unwrap();
    match attach(3 << 16) {
        Err(PolicyError::Failed { failure, .. }) => assert_eq!(failure.kind, FailureKind::Memory),
        other => panic!("{other:?}"),
    }
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
