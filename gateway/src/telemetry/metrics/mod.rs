//! Metrics: handles that are registered once and kept, and the registry that renders them as Prometheus text.
//!
//! Counts live in shards, one a thread, so that counting is an uncontended atomic addition on a line that no other
//! worker writes; rendering adds the shards up. Counts are exact. Histograms have fixed buckets and take no memory as
//! they fill, which is why the `metrics` crate's recorder, which keeps every sample until it is drained, is not used.

mod backend;
mod frontend;
mod histogram;
mod policy;
mod process;
mod shard;
mod text;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use backend::{BackendMetrics, InFlight, ServerMetrics};
pub use frontend::{Connection, FrontendMetrics};
pub use policy::PolicyCounts;
pub use process::ProcessMetrics;

use policy::Labelled;
use text::Text;

/// All metrics of the process. A name that is registered again, as after a reload, gets the handle that it had, and so
/// goes on counting.
#[derive(Debug, Default)]
pub struct Registry {
    process: Arc<ProcessMetrics>,
    frontends: Mutex<Vec<Arc<FrontendMetrics>>>,
    backends: Mutex<Vec<Arc<BackendMetrics>>>,
    servers: Mutex<Vec<Arc<ServerMetrics>>>,
    policies: Mutex<Vec<Labelled>>,
}

impl Registry {
    /// A registry with nothing registered but the process.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Metrics of the process as a whole.
    pub fn process(&self) -> &Arc<ProcessMetrics> {
        &self.process
    }

    /// The handle of the frontend with this name.
    pub fn frontend(&self, name: &str) -> Arc<FrontendMetrics> {
        let new = || FrontendMetrics::new(name, &self.process);
        find_or_add(&self.frontends, |known| &*known.name == name, new)
    }

    /// The handle of the backend with this name.
    pub fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        find_or_add(
            &self.backends,
            |known| &*known.name == name,
            || BackendMetrics::new(name),
        )
    }

    /// The handle of the server with this name in a backend.
    pub fn server(&self, backend: &Arc<BackendMetrics>, name: &str) -> Arc<ServerMetrics> {
        let is_same = |known: &ServerMetrics| &*known.name == name && known.backend.name == backend.name;
        find_or_add(&self.servers, is_same, || ServerMetrics::new(backend, name))
    }

    /// Adds the counts of a component at one place. Those of one label are added up.
    pub fn policy(&self, label: &str, counts: Arc<dyn PolicyCounts>) {
        let label = label.into();
        lock(&self.policies).push(Labelled { label, counts });
    }

    /// Everything, in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        process::render(&mut text, &self.process);
        frontend::render(&mut text, &lock(&self.frontends));
        let servers = lock(&self.servers).clone();
        backend::render(&mut text, &lock(&self.backends), &servers);
        policy::render(&mut text, &lock(&self.policies));
        text.finish()
    }
}

fn find_or_add<T>(list: &Mutex<Vec<Arc<T>>>, is_same: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> Arc<T> {
    let mut list = lock(list);
    if let Some(known) = list.iter().find(|known| is_same(known)) {
        return Arc::clone(known);
    }
    let added = Arc::new(new());
    list.push(Arc::clone(&added));
    added
}

/// A lock that a panic elsewhere does not spoil: every list is valid between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug)]
    struct Trapped;

    impl PolicyCounts for Trapped {
        fn calls(&self) -> u64 {
            5
        }

        fn instantiations(&self) -> u64 {
            2
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
            registry.policy(name, Arc::new(Trapped));
            registry.policy(name, Arc::new(Trapped));
        }
        let text = registry.render();
        let mut announced = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let family = rest.split(' ').next().unwrap().to_owned();
                assert!(!announced.contains(&family), "{family} twice");
                announced.push(family);
            } else if !line.starts_with("# HELP ") {
                let family = announced.last().unwrap();
                assert!(line.starts_with(family.as_str()), "{line} stands under {family}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(
            text.contains("gateway_policy_failures_total{policy=\"one\",kind=\"trap\"} 2\n"),
            "{text}"
        );
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
            "gateway_frontend_request_duration_seconds_sum{frontend=\"web\"} 56",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} not in {text}");
        }
    }
}
