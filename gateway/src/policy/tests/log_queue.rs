//! Who is told of what is over, and who is not as too much waits.

use super::*;
use crate::telemetry::metrics::PolicyCounts as _;

const TOLD: Guest<'_> = Guest {
    on_log: Some(""),
    ..GUEST
};

fn of_tenant(host: &Arc<Host>, tenant: &str, owned: &str) -> Arc<Attachment> {
    let name: Arc<str> = tenant.into();
    let tenant = Arc::new(Tenant {
        hosts: vec![owned.to_owned()],
        kept: crate::config::KeptQuota::default(),
        quota: host.quota(&name, crate::config::KeptQuota::default()),
        name,
    });
    attach_with(host, &TOLD, |spec| {
        spec.label = format!("{}/told", tenant.name).into();
        spec.scope.tenant = Some(Arc::clone(&tenant));
    })
}

fn of_operator(host: &Arc<Host>, label: &str) -> Arc<Attachment> {
    attach_with(host, &TOLD, |spec| spec.label = label.into())
}

/// The labels of those who are told next.
fn told(over: &mut ToTell) -> Vec<String> {
    let (_, plugins) = over.parts();
    plugins.iter().map(|plugin| plugin.label().to_owned()).collect()
}

#[test]
fn owners_are_told_one_after_the_other_and_who_takes_no_part_is_not() {
    let host = host_of(8);
    let plugins: Arc<[_]> = [
        of_operator(&host, "one"),
        of_tenant(&host, "acme", "example.net"),
        of_tenant(&host, "rival", "rival.example"),
        of_operator(&host, "two"),
    ]
    .into();
    let mut queue = LogQueue::default();
    queue.keep_for(plugins.iter());
    let connection = KeptByConnection::default();
    let mut over = exchange("/");
    over.kept_by_connection = Some(connection.clone());
    assert!(queue.push(ToTell::new(over, plugins.clone())));
    assert_eq!(Arc::strong_count(&connection), 1, "nobody asks for what it keeps");
    for (expected, goes_on) in [("one", true), ("acme/told", true), ("two", false)] {
        let (turn, mut over) = queue.take().unwrap();
        assert_eq!(told(&mut over), [expected]);
        queue.end(&turn, Duration::from_micros(1));
        assert_eq!(queue.push(over), goes_on, "{expected}");
    }
    assert!(queue.take().is_none());
    assert!(plugins.iter().all(|plugin| plugin.stats().untold() == 0));
}

#[test]
fn a_tenant_of_whom_too_much_waits_is_left_out_alone() {
    let host = host_of(8);
    let acme = of_tenant(&host, "acme", "example.net");
    let operators = of_operator(&host, "one");
    let mut queue = LogQueue::default();
    queue.keep_for([&acme, &operators].into_iter());
    let only: Arc<[_]> = [acme.clone()].into();
    let waiting = (0..2000)
        .take_while(|_| queue.push(ToTell::new(exchange("/"), only.clone())))
        .count();
    // All but the operator's half of a half.
    assert_eq!(waiting, 768);
    assert_eq!(acme.stats().untold(), 1);
    // Of one that is for both, the operator's is told, whoever is first.
    for plugins in [[&operators, &acme], [&acme, &operators]] {
        let plugins: Arc<[_]> = plugins.map(Arc::clone).into();
        assert!(queue.push(ToTell::new(exchange("/"), plugins)));
    }
    assert_eq!((acme.stats().untold(), operators.stats().untold()), (2, 0));
    // The operator's turn comes before the tenant's are all told, however long those take.
    let mut turns = std::iter::from_fn(|| {
        let (turn, mut over) = queue.take()?;
        let label = told(&mut over).concat();
        let took = if label == "one" { 1 } else { 1000 };
        queue.end(&turn, Duration::from_micros(took));
        Some(label)
    });
    let operators_last = turns.by_ref().take(4).filter(|label| label == "one").count();
    assert_eq!(operators_last, 2);
}

#[test]
fn heads_that_wait_are_held_for_who_is_told_next() {
    let host = host_of(8);
    let with_room = |label: &str| {
        let limits = crate::config::BudgetLimits {
            host_memory: Some(8000),
            ..Default::default()
        };
        attach_with(&host, &TOLD, |spec| {
            spec.label = label.into();
            spec.budget = Budget::new(label, limits, None);
        })
    };
    let (one, two) = (with_room("one"), with_room("two"));
    let held = || [&one, &two].map(|plugin| plugin.stats().host_memory());
    let plugins: Arc<[_]> = [one.clone(), two.clone()].into();
    let with_head = || {
        let mut over = exchange("/");
        let value = http::HeaderValue::from_str(&"x".repeat(5000)).unwrap();
        over.request.headers.insert("x-much", value);
        ToTell::new(over, plugins.clone())
    };
    let mut queue = LogQueue::default();
    queue.keep_for(plugins.iter());
    assert!(queue.push(with_head()));
    let much = held()[0];
    assert!(much > 5000 && held()[1] == 0);
    // There is no room for a second one of the first's: the other is told of it.
    assert!(queue.push(with_head()));
    assert_eq!(held(), [much, much]);
    assert_eq!((one.stats().untold(), two.stats().untold()), (1, 0));
    let (turn, over) = queue.take().unwrap();
    queue.end(&turn, Duration::from_micros(1));
    // What the first has been told of waits for the other then, who has no room for it.
    assert!(!queue.push(over));
    assert_eq!(held(), [0, much]);
    assert_eq!(two.stats().untold(), 1);
    let (turn, over) = queue.take().unwrap();
    queue.end(&turn, Duration::from_micros(1));
    assert!(!queue.push(over));
    assert_eq!(held(), [0, 0]);
}
