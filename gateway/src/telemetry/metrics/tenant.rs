//! Metrics of a tenant: the requests for its hosts, in each frontend that serves them. There are as many as are configured,
//! whatever hosts clients ask for.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::exporter::Exporter;
use super::frontend::{CLASSES, class};
use super::shard::{Count, Sharded};
use crate::config::{InForce, TenantFault};
use crate::hidden::is_hidden;

/// What came for one tenant's hosts through one frontend.
#[derive(Debug)]
pub struct TenantMetrics {
    pub(super) tenant: Arc<str>,
    pub(super) frontend: Arc<str>,
    shards: Sharded<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    responses: [Count; CLASSES.len()],
    received: Count,
    sent: Count,
}

impl TenantMetrics {
    pub(super) fn new(tenant: &str, frontend: &str) -> Self {
        Self {
            tenant: tenant.into(),
            frontend: frontend.into(),
            shards: Sharded::default(),
        }
    }

    /// Whose hosts they are.
    pub const fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// So many bytes of a connection have passed.
    pub fn bytes(&self, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.received.add(received);
        shard.sent.add(sent);
    }

    /// An exchange has ended, with the status that the client got, if it got one, and so many bytes of bodies.
    pub fn ended(&self, status: Option<u16>, received: u64, sent: u64) {
        let shard = self.shards.here();
        shard.responses[class(status)].add(1);
        shard.received.add(received);
        shard.sent.add(sent);
    }
}

/// Which files of a tenant hold.
#[derive(Debug)]
pub struct TenantFilesMetrics {
    pub(super) tenant: Arc<str>,
    in_force: AtomicU8,
    /// What is wrong with those that lie there, the first of it.
    fault: Mutex<String>,
}

impl TenantFilesMetrics {
    pub(super) fn new(tenant: &str) -> Self {
        Self {
            tenant: tenant.into(),
            in_force: AtomicU8::new(0),
            fault: Mutex::default(),
        }
    }

    /// A configuration has come into force.
    pub fn set(&self, in_force: InForce, faults: &[TenantFault]) {
        let fault = faults
            .first()
            .map(|fault| format!("{}: {}", fault.place(), fault.message));
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault.unwrap_or_default();
        let position = STATES.iter().position(|state| *state == in_force);
        let position = position.and_then(|position| u8::try_from(position).ok());
        self.in_force.store(position.unwrap_or(0), Ordering::Relaxed);
    }

    /// Which hold.
    pub fn in_force(&self) -> InForce {
        let position = usize::from(self.in_force.load(Ordering::Relaxed));
        STATES.get(position).copied().unwrap_or_default()
    }

    /// Whose they are.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// What is wrong with those that lie there, in one line; nothing when they hold.
    pub fn fault(&self) -> String {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect()
    }
}

const STATES: [InForce; 3] = [InForce::Current, InForce::Before, InForce::Nothing];

pub(super) fn register_files(exporter: &mut Exporter, files: &Arc<TenantFilesMetrics>) {
    let mut of = exporter.of(files, &[("tenant", &*files.tenant)]);
    let help = "Whether a tenant's files are at fault, so that others hold, or none.";
    of.gauge("gateway_tenant_config_stale", help, |files| {
        f64::from(u8::from(files.in_force() != InForce::Current))
    });
    let help =
        "Whether a tenant's hosts are not served, since its files are at fault and there are none to go on with.";
    of.gauge("gateway_tenant_closed", help, |files| {
        f64::from(u8::from(files.in_force() == InForce::Nothing))
    });
}

pub(super) fn register(exporter: &mut Exporter, tenant: &Arc<TenantMetrics>) {
    let labels = [("tenant", &*tenant.tenant), ("frontend", &*tenant.frontend)];
    let mut of = exporter.of(tenant, &labels);
    let help = "Exchanges with a tenant's hosts that have ended, by the class of the status that the client got; none when it got none, as of a connection in TCP mode.";
    for (i, class) in CLASSES.into_iter().enumerate() {
        let sum = move |tenant: &TenantMetrics| tenant.shards.sum(|shard| shard.responses[i].get());
        of.counter("gateway_tenant_responses_total", help, Some(("code", class)), sum);
    }
    let help = "Bytes of requests' bodies for a tenant's hosts, and of connections for them in TCP mode.";
    of.counter("gateway_tenant_received_bytes_total", help, None, |tenant| {
        tenant.shards.sum(|shard| shard.received.get())
    });
    let help = "Bytes of responses' bodies from a tenant's hosts, and of connections for them in TCP mode.";
    of.counter("gateway_tenant_sent_bytes_total", help, None, |tenant| {
        tenant.shards.sum(|shard| shard.sent.get())
    });
}
