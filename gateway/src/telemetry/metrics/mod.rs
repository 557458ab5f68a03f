//! Metrics: handles that are registered once and kept, and the registry that publishes them as Prometheus text.
//!
//! Counts live in shards, one a thread, so that counting is an uncontended atomic addition on a line that no other
//! worker writes. Publishing adds the shards up and hands the sums to a Prometheus recorder of the `metrics` crate,
//! which writes the text. Nothing is handed over per request: the recorder's counters are shared by all threads, and
//! its histograms keep every value until they are drained. Counts are exact either way.

mod averages;
mod backend;
mod certificate;
mod changes;
mod ejections;
mod exporter;
mod frontend;
mod histogram;
mod log;
mod plugin;
mod policy;
mod process;
mod rates;
mod rounds;
mod shard;
mod state;
mod stats;
mod tenant;
mod usage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use averages::Took;
pub use backend::{BackendMetrics, CheckEnd, InFlight, ServerMetrics, Side};
pub use certificate::CertificateMetrics;
pub use ejections::EjectedFor;
pub use frontend::{Connection, FrontendMetrics};
pub use log::LogCounts;
pub use plugin::{PluginSeries, Reading, Series};
pub use policy::PolicyCounts;
pub use process::ProcessMetrics;
pub use rounds::{Round, Rounds};
pub use state::{Admin, Agent};
pub use stats::{BackendStats, FrontendStats, ServerStats, Stats};
pub use tenant::{TenantFilesMetrics, TenantMetrics};

use exporter::Exporter;
use plugin::Plugins;
use policy::PolicyMetrics;
use usage::Usage;

/// All metrics of the process. A name that is registered again, as after a reload, gets the handle that it had, and so
/// goes on counting.
#[derive(Debug)]
pub struct Registry {
    process: Arc<ProcessMetrics>,
    usage: Usage,
    frontends: Mutex<Vec<Arc<FrontendMetrics>>>,
    backends: Mutex<Vec<Arc<BackendMetrics>>>,
    servers: Mutex<Vec<Arc<ServerMetrics>>>,
    policies: Mutex<Vec<Arc<PolicyMetrics>>>,
    certificates: Mutex<Vec<Arc<CertificateMetrics>>>,
    logs: Mutex<Vec<Arc<LogCounts>>>,
    tenants: Mutex<Vec<Arc<TenantMetrics>>>,
    tenant_files: Mutex<Vec<Arc<TenantFilesMetrics>>>,
    plugins: Mutex<Plugins>,
    /// One publishes at a time.
    exporter: Mutex<Exporter>,
}

impl Registry {
    /// A registry with nothing registered but the process.
    pub fn new() -> Arc<Self> {
        let process = Arc::default();
        let mut exporter = Exporter::default();
        process::register(&mut exporter, &process);
        Arc::new(Self {
            process,
            usage: Usage::of_process(),
            frontends: Mutex::default(),
            backends: Mutex::default(),
            servers: Mutex::default(),
            policies: Mutex::default(),
            certificates: Mutex::default(),
            logs: Mutex::default(),
            tenants: Mutex::default(),
            tenant_files: Mutex::default(),
            plugins: Mutex::default(),
            exporter: Mutex::new(exporter),
        })
    }

    /// Metrics of the process as a whole.
    pub fn process(&self) -> &Arc<ProcessMetrics> {
        &self.process
    }

    /// The handle of the frontend with this name.
    pub fn frontend(&self, name: &str) -> Arc<FrontendMetrics> {
        let new = || FrontendMetrics::new(name, &self.process);
        self.find_or_add(&self.frontends, |known| &*known.name == name, new, frontend::register)
    }

    /// The handle of the backend with this name.
    pub fn backend(&self, name: &str) -> Arc<BackendMetrics> {
        let new = || BackendMetrics::new(name);
        self.find_or_add(
            &self.backends,
            |known| &*known.name == name,
            new,
            backend::register_backend,
        )
    }

    /// The handle of the server with this name in a backend.
    pub fn server(&self, backend: &Arc<BackendMetrics>, name: &str) -> Arc<ServerMetrics> {
        let is_same = |known: &ServerMetrics| &*known.name == name && known.backend.name == backend.name;
        let new = || ServerMetrics::new(backend, name);
        self.find_or_add(&self.servers, is_same, new, backend::register_server)
    }

    /// Adds the counts of a component at one place, of which tenant, where it has one. Those of one label are added up, of each
    /// tenant and of the operator on their own: `acl a/b` may be the frontend `a/b`'s acls, or the plugin `b` of the tenant `acl a`.
    pub fn policy(&self, label: &str, tenant: Option<&str>, counts: Arc<dyn PolicyCounts>) {
        let is_same = |known: &PolicyMetrics| (&*known.label, known.tenant.as_deref()) == (label, tenant);
        let new = || PolicyMetrics::new(label, tenant);
        self.find_or_add(&self.policies, is_same, new, policy::register)
            .add(counts);
    }

    /// The handle of what comes for a tenant's hosts through a frontend.
    pub fn tenant(&self, tenant: &str, frontend: &str) -> Arc<TenantMetrics> {
        let is_same = |known: &TenantMetrics| (&*known.tenant, &*known.frontend) == (tenant, frontend);
        let new = || TenantMetrics::new(tenant, frontend);
        self.find_or_add(&self.tenants, is_same, new, tenant::register)
    }

    /// The handle of which files of a tenant hold.
    pub fn tenant_files(&self, tenant: &str) -> Arc<TenantFilesMetrics> {
        let is_same = |known: &TenantFilesMetrics| &*known.tenant == tenant;
        let new = || TenantFilesMetrics::new(tenant);
        self.find_or_add(&self.tenant_files, is_same, new, tenant::register_files)
    }

    /// Those of all tenants that include files, in no order.
    pub fn all_tenant_files(&self) -> Vec<Arc<TenantFilesMetrics>> {
        lock(&self.tenant_files).clone()
    }

    /// What is missing of the log of this name.
    pub fn log(&self, name: &str) -> Arc<LogCounts> {
        let is_same = |known: &LogCounts| known.name.as_deref() == Some(name);
        self.find_or_add(&self.logs, is_same, || LogCounts::named(name), log::register)
    }

    /// The handle of the certificate with this name and kind of key on a bind of a frontend.
    pub fn certificate(&self, frontend: &str, bind: &str, name: &str, key: &'static str) -> Arc<CertificateMetrics> {
        let is_same = |known: &CertificateMetrics| {
            (&*known.frontend, &*known.bind, &*known.name, known.key) == (frontend, bind, name, key)
        };
        let new = || CertificateMetrics::new(frontend, bind, name, key);
        self.find_or_add(&self.certificates, is_same, new, certificate::register)
    }

    /// Adds what a plugin counts, measures and keeps, for as long as somebody holds it. Of which tenant, where it has one.
    pub fn plugin(&self, name: &str, tenant: Option<&Arc<str>>, series: &Arc<dyn PluginSeries>) {
        lock(&self.plugins).add(name, tenant, series);
    }

    /// Hands what was counted since the last time to the exporter. To be called every [`PUBLISH_INTERVAL`], lest a
    /// scrape that comes late have much to do at once.
    pub fn publish(&self) {
        lock(&self.exporter).publish();
    }

    /// Looks at how much has come in the last second. To be called as often.
    pub fn sample(&self) {
        lock(&self.frontends).iter().for_each(|frontend| frontend.sample());
        lock(&self.backends).iter().for_each(|backend| backend.sample());
        lock(&self.servers).iter().for_each(|server| server.sample());
    }

    /// Everything, in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut text = lock(&self.exporter).render();
        policy::render_cpu(&lock(&self.policies), &mut text);
        lock(&self.plugins).render(&mut text);
        self.usage.render(self.process.started(), &mut text);
        text
    }

    /// Forgets what no configuration has any more and nothing under way still counts on. To be called now and then, while no
    /// configuration is being built. Histograms begin anew when there was something to forget: the recorder cannot forget,
    /// and another takes its place.
    pub fn prune(&self) {
        let mut forgotten = forget(&self.frontends) + forget(&self.servers) + forget(&self.certificates);
        forgotten += forget(&self.tenants) + forget(&self.tenant_files);
        // After their servers, which hold them.
        forgotten += forget(&self.backends);
        lock(&self.policies).retain(|policy| {
            policy.prune();
            forgotten += usize::from(!policy.is_live());
            policy.is_live()
        });
        if forgotten == 0 {
            return;
        }
        let mut exporter = Exporter::anew();
        process::register(&mut exporter, &self.process);
        for frontend in lock(&self.frontends).iter() {
            frontend::register(&mut exporter, frontend);
        }
        for backend in lock(&self.backends).iter() {
            backend::register_backend(&mut exporter, backend);
        }
        for server in lock(&self.servers).iter() {
            backend::register_server(&mut exporter, server);
        }
        for policy in lock(&self.policies).iter() {
            policy::register(&mut exporter, policy);
        }
        for tenant in lock(&self.tenants).iter() {
            tenant::register(&mut exporter, tenant);
        }
        for files in lock(&self.tenant_files).iter() {
            tenant::register_files(&mut exporter, files);
        }
        for log in lock(&self.logs).iter() {
            log::register(&mut exporter, log);
        }
        for certificate in lock(&self.certificates).iter() {
            certificate::register(&mut exporter, certificate);
        }
        *lock(&self.exporter) = exporter;
    }

    fn find_or_add<T>(
        &self,
        list: &Mutex<Vec<Arc<T>>>,
        is_same: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
        register: fn(&mut Exporter, &Arc<T>),
    ) -> Arc<T> {
        let mut list = lock(list);
        if let Some(known) = list.iter().find(|known| is_same(known)) {
            return Arc::clone(known);
        }
        let added = Arc::new(new());
        register(&mut lock(&self.exporter), &added);
        list.push(Arc::clone(&added));
        added
    }
}

/// Drops from a list what nobody else holds, and says how many that were. The exporter holds nothing.
fn forget<T>(list: &Mutex<Vec<Arc<T>>>) -> usize {
    let mut list = lock(list);
    let before = list.len();
    list.retain(|metrics| Arc::strong_count(metrics) > 1);
    before - list.len()
}

/// A lock that a panic elsewhere does not spoil: every list is valid between two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often what was counted is handed to the exporter, scraped or not. It takes every duration on its own, some tens
/// of nanoseconds each: a second's are done in milliseconds, an hour's would hold up health checks.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
