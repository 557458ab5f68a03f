//! Instances that connections keep: one each, which idle ones give up to whoever is kept out.

use super::super::kept::with_connection;
use super::*;
use crate::config::BudgetLimits;

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

/// So many instances, and pages of 64 KiB for all of them together.
fn limits_with_pages(instances: u32, pages: u64) -> BudgetLimits {
    BudgetLimits {
        memory_in_all: Some(pages << 16),
        ..limits_of(instances)
    }
}

/// Two owners of what all share, with these limits.
fn owners(host: &Arc<Host>, limits: BudgetLimits) -> [Arc<Budget>; 2] {
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
    let limits = limits_with_pages(16, 12);
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
    let limits = limits_with_pages(16, 8);
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
    let limits = limits_with_pages(8, 3);
    let tenant = Budget::new("tenant \"acme\"", limits, Some(all.host.budget().clone()));
    let (quiet, loops) = (all.attach(&COUNTING, &tenant), all.attach(&looping, &tenant));
    let [a, b, c] = connections();
    assert_eq!((all.ask(&quiet, &a), all.ask(&quiet, &b)), (Ok(1), Ok(1)));
    assert_eq!(all.ask(&loops, &c), Err(FailureKind::Deadline));
    assert_eq!((all.ask(&quiet, &a), all.ask(&quiet, &b)), (Ok(2), Ok(2)));
}
