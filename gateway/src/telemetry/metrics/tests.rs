//! The registry as a whole: what is registered, forgotten, counted and written out.

use super::*;

#[derive(Debug)]
struct Trapped;

impl PolicyCounts for Trapped {
    fn calls(&self) -> u64 {
        5
    }

    fn repeats(&self) -> u64 {
        3
    }

    fn instantiations(&self) -> u64 {
        2
    }

    fn cpu(&self) -> Duration {
        Duration::from_millis(1250)
    }

    fn quarantines(&self) -> u64 {
        0
    }

    fn shadow_differences(&self) -> u64 {
        0
    }

    fn untold(&self) -> u64 {
        7
    }

    fn host_memory(&self) -> u64 {
        1024
    }

    fn is_quarantined(&self) -> bool {
        false
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn waiting(&self) -> Option<usize> {
        None
    }

    fn failures(&self) -> Vec<(&'static str, u64)> {
        vec![("trap", 1), ("deadline", 0)]
    }
}

#[test]
fn a_name_registered_again_goes_on_counting() {
    let registry = Registry::new();
    registry.frontend("web").denied();
    registry.frontend("web").denied();
    registry.frontend("other").denied();
    let text = registry.render();
    assert!(
        text.contains("gateway_frontend_denied_requests_total{frontend=\"web\"} 2\n"),
        "{text}"
    );
    assert!(
        text.contains("gateway_frontend_denied_requests_total{frontend=\"other\"} 1\n"),
        "{text}"
    );
}

#[test]
fn what_nobody_has_is_forgotten_and_what_stays_goes_on_counting() {
    let registry = Registry::new();
    let stays = registry.frontend("stays");
    stays.denied();
    stays.response(Some(200), Duration::from_millis(1));
    let (backend, gone) = (registry.backend("app"), registry.frontend("gone"));
    let (a, b) = (registry.server(&backend, "a"), registry.server(&backend, "b"));
    let all = registry.render();
    assert_eq!(sample(&all, "gateway_backend_servers_up{backend=\"app\"}"), 2.0);
    registry.prune();
    assert!(registry.render().contains("frontend=\"gone\""));

    drop((gone, b));
    registry.prune();
    let text = registry.render();
    assert!(!text.contains("gone") && !text.contains("server=\"b\""), "{text}");
    assert_eq!(sample(&text, "gateway_backend_servers_up{backend=\"app\"}"), 1.0);
    let name = "gateway_frontend_denied_requests_total{frontend=\"stays\"}";
    assert_eq!(sample(&text, name), 1.0);
    let name = "gateway_frontend_request_duration_seconds_count{frontend=\"stays\"}";
    stays.response(Some(200), Duration::from_millis(1));
    assert_eq!(sample(&registry.render(), name), 1.0);
    drop(a);
}

#[test]
fn servers_of_two_backends_may_share_a_name() {
    let registry = Registry::new();
    let (a, b) = (registry.backend("a"), registry.backend("b"));
    let first = registry.server(&a, "s");
    let second = registry.server(&b, "s");
    let _busy = InFlight::begin(&first);
    assert_eq!((first.in_flight(), second.in_flight()), (1, 0));
    assert_eq!((a.in_flight(), b.in_flight()), (1, 0));
}

#[test]
fn what_a_tenants_plugin_does_is_not_counted_as_the_operators_of_that_label() {
    let registry = Registry::new();
    registry.policy("acl a/b", None, Arc::new(Trapped));
    registry.policy("acl a/b", Some("acl a"), Arc::new(Trapped));
    let text = registry.render();
    for line in [
        "gateway_policy_calls_total{policy=\"acl a/b\"} 5\n",
        "gateway_policy_calls_total{policy=\"acl a/b\",tenant=\"acl a\"} 5\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn each_family_is_announced_once_and_every_line_is_a_sample_of_it() {
    let registry = Registry::new();
    for name in ["one", "two \"quoted\"\n"] {
        let frontend = registry.frontend(name);
        frontend.response(Some(200), Duration::from_millis(3));
        frontend.error("bad-request");
        let backend = registry.backend(name);
        registry
            .server(&backend, "s")
            .response(Some(503), Duration::from_secs(2));
        registry.policy(name, None, Arc::new(Trapped));
        registry.policy(name, None, Arc::new(Trapped));
    }
    let text = registry.render();
    let mut announced = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let family = rest.split(' ').next().unwrap().to_owned();
            assert!(!announced.contains(&family), "{family} twice");
            announced.push(family);
        } else if !line.is_empty() && !line.starts_with("# HELP ") {
            let family = announced.last().unwrap();
            assert!(line.starts_with(family.as_str()), "{line} stands under {family}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(
        text.contains("gateway_policy_cpu_seconds_total{policy=\"one\"} 2.5\n"),
        "{text}"
    );
    assert!(
        text.contains("gateway_policy_failures_total{policy=\"one\",kind=\"trap\"} 2\n"),
        "{text}"
    );
    assert!(
        text.contains("gateway_policy_untold_total{policy=\"one\"} 14\n"),
        "{text}"
    );
    assert!(!text.contains("summary"), "{text}");
    assert!(text.contains("frontend=\"two \\\"quoted\\\"\\n\""), "{text}");
}

#[test]
fn counts_are_exact_over_threads() {
    let registry = Registry::new();
    let frontend = registry.frontend("web");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    frontend.response(Some(200), Duration::from_micros(700));
                    frontend.bytes(3, 5);
                }
            });
        }
    });
    let text = registry.render();
    for line in [
        "gateway_frontend_responses_total{frontend=\"web\",code=\"2xx\"} 80000",
        "gateway_frontend_received_bytes_total{frontend=\"web\"} 240000",
        "gateway_frontend_sent_bytes_total{frontend=\"web\"} 400000",
        "gateway_frontend_request_duration_seconds_bucket{frontend=\"web\",le=\"0.0005\"} 0",
        "gateway_frontend_request_duration_seconds_bucket{frontend=\"web\",le=\"0.001\"} 80000",
        "gateway_frontend_request_duration_seconds_bucket{frontend=\"web\",le=\"+Inf\"} 80000",
        "gateway_frontend_request_duration_seconds_count{frontend=\"web\"} 80000",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} not in {text}");
    }
    let sum = sample(&text, "gateway_frontend_request_duration_seconds_sum{frontend=\"web\"}");
    assert!((sum - 56.0).abs() < 56.0 * ROUNDING, "{sum}");
}

#[test]
fn buckets_and_sum_are_exact_after_several_scrapes() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 50;
    // Bounds and what lies beside them, and enough of one to be handed over in parts.
    let mut durations: Vec<u64> = vec![0, 1, 499_999, 500_000, 500_001, 999_999, 1_000_001, 60_000_000_000];
    durations.extend([60_000_000_001, 90_000_000_000, 123_456_789]);
    durations.resize(1_000, 2_500_000);
    let registry = Registry::new();
    let server = registry.server(&registry.backend("app"), "a");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for &nanos in &durations {
                        server.response(Some(200), Duration::from_nanos(nanos));
                    }
                }
            });
        }
        for _ in 0..20 {
            let text = registry.render();
            let name = "gateway_server_response_time_seconds";
            let sum = sample(&text, &format!("{name}_sum{{backend=\"app\",server=\"a\"}}"));
            assert!(sum.is_finite());
            registry.publish();
        }
    });
    // The second scrape finds nothing new and has to say the same.
    for text in [registry.render(), registry.render()] {
        let name = "gateway_server_response_time_seconds";
        let labels = "backend=\"app\",server=\"a\"";
        let times = f64::from(THREADS * ROUNDS);
        for (le, bound) in [
            ("0.0005", 500_000),
            ("0.001", 1_000_000),
            ("0.0025", 2_500_000),
            ("60", 60_000_000_000),
        ] {
            let below = durations.iter().filter(|&&nanos| nanos <= bound).count() as f64;
            let have = sample(&text, &format!("{name}_bucket{{{labels},le=\"{le}\"}}"));
            assert_eq!(have, below * times, "{le}");
        }
        let all = durations.len() as f64 * times;
        assert_eq!(sample(&text, &format!("{name}_bucket{{{labels},le=\"+Inf\"}}")), all);
        assert_eq!(sample(&text, &format!("{name}_count{{{labels}}}")), all);
        let sum = durations.iter().sum::<u64>() as f64 * times / 1e9;
        let have = sample(&text, &format!("{name}_sum{{{labels}}}"));
        assert!((have - sum).abs() < sum * ROUNDING, "{have} for {sum}");
    }
}

#[test]
fn servers_that_are_up_are_counted_once() {
    let registry = Registry::new();
    let backend = registry.backend("app");
    let (a, _b) = (registry.server(&backend, "a"), registry.server(&backend, "b"));
    for (up, expected) in [(true, 2.0), (false, 1.0), (false, 1.0), (true, 2.0)] {
        a.went(up);
        let text = registry.render();
        assert_eq!(sample(&text, "gateway_backend_servers_up{backend=\"app\"}"), expected);
    }
}

#[test]
fn label_values_stay_apart() {
    let registry = Registry::new();
    for name in [r"a\b", r"a\\b", "a\\\"b", "a\\\nb", r"a\nb", r"a\"] {
        registry.frontend(name).denied();
    }
    let text = registry.render();
    let name = "gateway_frontend_denied_requests_total";
    for written in [r"a\\b", r"a\\\\b", r#"a\\\"b"#, r"a\\\nb", r"a\\nb", r"a\\"] {
        assert_eq!(sample(&text, &format!("{name}{{frontend=\"{written}\"}}")), 1.0);
    }
}

/// The value of the one line that says so.
fn sample(text: &str, series: &str) -> f64 {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = values.next().unwrap_or_else(|| panic!("{series} is not in {text}"));
    assert_eq!(values.next(), None, "{series} twice");
    value.parse().unwrap()
}

/// What adding numbers up one by one may take from a sum, as a part of it.
const ROUNDING: f64 = 1e-11;
